"""A round on SmolLM2-135M under `manage.py up`, which is killed with SIGKILL again and again.

    python -m benchmarks.kill_round --folder var/kill-round [--prompts 16]

Starts the site on a data folder of its own, imports the model, starts a round on the sample
project, and kills in the middle of sampling (the program), of reward training (its worker) and of
fine-tuning (the whole site, which is then started again). Simulated annotators rank in between.
When the round waits for its decision, the three runs are done once more with nobody disturbing
them, and their outputs and losses are compared. One JSON line for each killed run:

    program, victim, killed_at_s, fence, answers, last_loss, same_files, same_losses

Exit status 0 if all of them are the same. The site listens on 127.0.0.1 and is stopped at the end.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 1800
# (stage, role) → (who is killed, what shows in the run's folder that there is something to lose)
KILLS = {
    ("sampling", "candidates"): ("program", "checkpoints/parts/part-*.jsonl"),
    ("reward", "reward"): ("worker", "checkpoints/step-*"),
    ("improving", "sft"): ("site", "checkpoints/step-*"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="the site's data; kept")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--port", type=int, default=8765)
    arguments = parser.parse_args()
    os.environ["RONDO_DATA_DIR"] = str(arguments.folder.resolve())
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    import django

    django.setup()
    site = Site(arguments.port)
    try:
        site.start()
        killed = round_walk(site, arguments.prompts)
    finally:
        site.stop()
    same = [compare(*one) for one in killed]
    sys.exit(0 if all(same) and len(same) == len(KILLS) else 1)


class Site:
    """`manage.py up`, in a process group of its own."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "manage.py", "up", "--port", str(self.port)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True
        )
        tell("the site has been started")

    def stop(self) -> None:
        """As Ctrl-C does."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(timeout=120)

    def kill(self) -> None:
        """SIGKILL to all of it at once: the machine loses its power."""
        assert self.process is not None
        for pid in descendants(self.process.pid):
            kill(pid)
        kill(self.process.pid)
        self.process.wait()


def round_walk(site: Site, prompts: int) -> list[tuple[Any, str, float]]:
    """Walk a round to its decision, killing on the way. Returns (run, victim, seconds in)."""
    from alignment.management.commands.demo_round import NOISE, RECIPE
    from alignment.models import Round
    from alignment.services.campaigns import campaign_create
    from alignment.services.rounds import round_start
    from annotation.models import Project
    from annotation.services.simulated import simulated_rankings_submit
    from modelhub.models import ModelVersion
    from modelhub.storage import run_folder

    wait_until(tables_exist, "the tables")
    wait_until(Project.objects.exists, "the sample project")
    model_import()
    wait_until(ModelVersion.objects.exists, "the import of the model")
    tell("the model is there")
    project = Project.objects.get()
    campaign = campaign_create(
        project=project,
        name="Under fire",
        base_version=ModelVersion.objects.get(),
        created_by=project.created_by,
    )
    small: dict[str, Any] = {
        "prompt_limit": prompts,
        "max_tokens": 48,
        "minimum_rankings": 4,
        "improving_samples": 4,
        "evaluation_samples": 2,
        "reward_accuracy_floor": 0.0,
        "generate": {"chunk_samples": 8},
        "reward": {**RECIPE.reward, "rankings_per_step": 2, "checkpoint_every_steps": 2},
        "sft": {**RECIPE.sft, "examples_per_step": 2, "checkpoint_every_steps": 2},
    }
    round = round_start(
        campaign=campaign,
        recipe=dataclasses.replace(RECIPE, **small),
        launch_key="under-fire",
        actor=project.created_by,
    )
    killed: list[tuple[Any, str, float]] = []
    seen = ""
    deadline = time.monotonic() + PATIENCE_S
    while round.state != Round.State.DECIDING:
        if time.monotonic() > deadline or round.state in Round.ENDED:
            raise SystemExit(f"the round is {round.state} ({round.failed_in}): {round.error}")
        if round.state != seen:
            seen = round.state
            tell(f"the round is {seen}")
        if round.state == Round.State.ANNOTATING and round.batch is not None:
            simulated_rankings_submit(
                project=project, batch=round.batch, annotators=3, noise=NOISE, seed=1
            )
        for link in round.round_runs.select_related("run"):
            victim, progress = KILLS.get((link.stage, link.role), ("", ""))
            run, done = link.run, [run.pk for run, *_ in killed]
            if not victim or run.pk in done or not list(run_folder(run).glob(progress)):
                continue
            if (run_folder(run) / "result.json").exists():
                raise SystemExit(f"{run.program} was over before it could be killed: more prompts")
            killed.append((run, victim, time.time() - run.created_at.timestamp()))
            strike(site, run, victim)
        time.sleep(0.05)
        round.refresh_from_db()
    return killed


def model_import() -> None:
    from modelhub.ml.configs import ImportModelConfig
    from modelhub.models import Run
    from modelhub.packaged import packaged_gguf
    from modelhub.services.imports import model_import_request

    if not Run.objects.exists():
        config = ImportModelConfig(source="gguf", location=str(packaged_gguf()), model="smollm2")
        model_import_request(config=config, requested_by=None)


def strike(site: Site, run: Any, victim: str) -> None:
    """SIGKILL to the program, to the worker that started it, or to everything."""
    from modelhub.storage import run_folder

    own = [pid for pid in processes() if writes_to(pid, run_folder(run) / "log.txt")]
    program = next(pid for pid in own if parent_of(pid) not in own)
    tell(f"kill -9: {victim} of {run.program}")
    if victim == "program":
        kill(program)
    elif victim == "worker":
        kill(parent_of(program))
    else:
        site.kill()
        time.sleep(1)
        site.start()


def compare(run: Any, victim: str, killed_at_s: float) -> bool:
    """Do the run once more in peace, and tell whether it made the same."""
    from alignment.ml.configs import RewardConfig, SftConfig
    from modelhub.ml.configs import GenerateConfig, config_load
    from modelhub.runner import run_execute
    from modelhub.services.runs import run_create

    classes: dict[str, Any] = {"generate": GenerateConfig, "reward": RewardConfig, "sft": SftConfig}
    inputs = {given.role: given.artifact for given in run.inputs.select_related("artifact")}
    config = config_load(classes[run.program], run.config)
    again = run_create(program=run.program, config=config, inputs=inputs)
    tell(f"{run.program} once more, in peace")
    run_execute(run_id=again.pk, owner="kill_round")
    run.refresh_from_db()
    again.refresh_from_db()

    def files(one: Any) -> list[Any]:
        return [output.artifact.manifest["files"] for output in one.outputs.all()]

    def losses(one: Any) -> list[tuple[int, float]]:
        return list(one.metrics.filter(name="loss").values_list("step", "value"))

    line = {
        "program": run.program,
        "victim": victim,
        "killed_at_s": round(killed_at_s, 1),
        "fence": run.fence,
        "answers": run.result.get("answers"),
        "last_loss": losses(run)[-1][1] if losses(run) else None,
        "same_files": files(run) == files(again) and bool(files(run)),
        "same_losses": losses(run) == losses(again),
    }
    print(json.dumps(line), flush=True)
    return bool(line["same_files"] and line["same_losses"] and run.fence > 1)


def tables_exist() -> bool:
    from django.db import OperationalError, connection

    try:
        return "alignment_round" in connection.introspection.table_names()
    except OperationalError:
        return False


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited in vain for {what}")
        time.sleep(0.2)


def processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def writes_to(pid: int, log: Path) -> bool:
    try:
        return Path(f"/proc/{pid}/fd/1").readlink() == log.resolve()
    except OSError:
        return False


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for one in processes():
        try:
            children.setdefault(parent_of(one), []).append(one)
        except OSError:
            continue
    found = list(children.get(pid, []))
    for child in list(found):
        found += descendants(child)
    return found


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def tell(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
