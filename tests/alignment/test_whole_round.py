"""A whole round with the real programs on a model of random weights, its workers killed on the way.

Sampling, the reward model and fine-tuning each lose their worker to SIGKILL in the middle. What
they made is then compared, byte for byte, with what the same runs make when nobody disturbs them.
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from alignment.models import Campaign, Evaluation, Round
from alignment.recipe import Recipe
from alignment.selectors.lineage import (
    candidate_lineage,
    dataset_submissions,
    datasets_labelling,
    submission_descent,
)
from alignment.selectors.overview import evaluation_samples, round_overview
from alignment.services.campaigns import campaign_create
from alignment.services.rounds import round_advance, round_decide, round_start
from annotation.models import Candidate, Split, Task
from modelhub.models import Alias, Artifact, ModelVersion, Run
from modelhub.runner import run_execute
from modelhub.selectors.lineage import lineage_verify
from modelhub.services.artifacts import artifact_store
from modelhub.services.runs import runs_reap
from modelhub.services.versions import model_get_or_create, model_version_register
from modelhub.storage import run_folder
from tests import builders
from tests.alignment import hands
from tests.alignment.ml.programs import lines_of
from tests.modelhub.worker import worker_start

pytestmark = [pytest.mark.ml, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

RECIPE = Recipe(
    engine="transformers",
    samples=3,
    max_tokens=96,
    improving_samples=2,
    evaluation_samples=2,
    minimum_rankings=6,
    reward_accuracy_floor=0,
    human_gates=("deciding",),
    generate={"dtype": "float32", "chunk_samples": 3, "max_context_tokens": 256},
    reward={"epochs": 30, "lr": 1e-3, "rankings_per_step": 1, "checkpoint_every_steps": 4},
    rejection={"finished_only": False},
    sft={"epochs": 30, "lr": 1e-3, "examples_per_step": 1, "checkpoint_every_steps": 4},
    evaluate={"bootstrap_samples": 200},
)
# (stage, role) of the runs whose worker is killed, and how their progress shows in the directory.
KILLED = {
    ("sampling", "candidates"): "checkpoints/parts/part-*.jsonl",
    ("reward", "reward"): "checkpoints/step-*",
    ("improving", "sft"): "checkpoints/step-*",
}


@pytest.fixture(autouse=True)
def quick_leases(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.RUN_LEASE_S = 1.5
    settings.RUN_HEARTBEAT_S = 0.3
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def tiny_campaign(tmp_path: Path) -> Campaign:
    """A campaign on a model of random weights and nine prompts."""
    from modelhub.ml.model_directory import model_directory_check
    from tests.tiny_model import tiny_model_write

    folder = tmp_path / "tiny"
    folder.mkdir()
    facts = model_directory_check(tiny_model_write(folder))
    base = model_version_register(
        model=model_get_or_create(name="tiny"),
        role=ModelVersion.Role.BASE,
        artifact=artifact_store(folder=folder, kind=Artifact.Kind.MODEL),
        parent=None,
        run=None,
        facts={
            "architecture": facts.architecture,
            "parameters": facts.parameters,
            "dtype": facts.dtype,
            "context_tokens": facts.context_tokens,
            "chat_template": facts.chat_template,
        },
    )
    project = builders.make_project("Tiny")
    builders.make_member(project, "ranker")
    for number in range(6):
        builders.make_prompt(project, f"Name {number}?", split=Split.TRAIN)
    for number in range(3):
        builders.make_prompt(project, f"Place {number}?", split=Split.HELD_OUT)
    return campaign_create(project=project, name="Tiny", base_version=base, created_by=None)


def files(run: Run) -> dict[str, Any]:
    """What the run's outputs hold: file → sha256. Their names also say which code made them."""
    outputs = run.outputs.select_related("artifact")
    return {one.role: one.artifact.manifest["files"] for one in outputs}


def files_in(folder: Path) -> dict[str, Any]:
    """The same of a run directory that no worker has brought in."""
    outputs = json.loads((folder / "result.json").read_text())["outputs"]
    return {
        role: json.loads((folder / one["path"] / "manifest.json").read_text())["files"]
        for role, one in outputs.items()
    }


def losses(run: Run) -> list[tuple[int, float]]:
    return list(run.metrics.filter(name="loss").values_list("step", "value"))


def losses_in(folder: Path) -> list[tuple[int, float]]:
    lines = lines_of(folder / "metrics.jsonl")
    return [(one["step"], one["values"]["loss"]) for one in lines if "loss" in one["values"]]


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 300) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


def worker_kill_midway(run: Run, progress: str) -> bool:
    """Give the run to a worker and kill the worker once it has something to lose.

    Returns whether the run was unfinished then: on a busy machine the hand may come too late.
    """
    folder = run_folder(run)
    worker = worker_start(run.pk)
    try:
        wait_until(lambda: list(folder.glob(progress)), f"{progress} of {run.program}")
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    unfinished = not (folder / "result.json").exists()
    wait_until(runs_reap, "the lease to run out")
    run.refresh_from_db()
    assert run.status == Run.Status.QUEUED
    return unfinished


def round_work(round: Round, *, until: str) -> Iterator[bool]:
    """Do what workers and people would, one thing after the other.

    Yields, for each run, whether it lost its worker on the way.
    """
    while True:
        round_advance(round=round)
        if round.state == until:
            return
        assert round.state not in Round.ENDED, f"{round.state} in {round.failed_in}: {round.error}"
        if round.state == "annotating" and round.batch is not None:
            hands.tasks_rank(round, round.campaign.project.memberships.all())
        for link in round.round_runs.filter(run__status=Run.Status.QUEUED).select_related("run"):
            key = (link.stage, link.role)
            killed = False
            if round.number == 1 and key in KILLED and link.run.fence == 0:
                killed = worker_kill_midway(link.run, KILLED[key])
            run_execute(run_id=link.run.pk, owner="a test")
            yield killed


def undisturbed(killed: Iterable[Run]) -> dict[str, Path]:
    """Their directories as they were at first, side by side, each from beginning to end."""
    from alignment.ml import sft
    from alignment.ml.reward import training as reward
    from modelhub.ml import generate
    from tests.modelhub.ml.ranks import program_start, ranks_end

    programs = {"generate": generate.main, "reward": reward.main, "sft": sft.main}
    again, processes = {}, []
    for run in killed:
        folder = run_folder(run)
        again[run.program] = folder.with_name(f"{folder.name}-again")
        again[run.program].mkdir()
        shutil.copy(folder / "config.json", again[run.program])
        (again[run.program] / "inputs").symlink_to(folder / "inputs")
        processes.append(program_start(programs[run.program], again[run.program]))
    assert ranks_end(processes, timeout_s=400) == [0] * len(processes)
    return again


@pytest.mark.timeout(1200)
def test_a_round_whose_workers_are_killed_ends_as_if_nothing_had_happened(
    tiny_campaign: Campaign,
) -> None:
    round = round_start(campaign=tiny_campaign, recipe=RECIPE, launch_key="first", actor=None)
    assert sum(round_work(round, until="deciding")) >= 2

    # What was killed was resumed, and made what it would have made.
    killed = [round.round_runs.get(stage=stage, role=role).run for stage, role in KILLED]
    again = undisturbed(killed)
    for run in killed:
        assert run.fence == 2, "killed once, finished the second time"
        assert files(run) == files_in(again[run.program]), run.program
        assert losses(run) == losses_in(again[run.program])
    assert Candidate.objects.filter(batch=round.batch).count() == 9 * 3
    assert Task.objects.count() == 9
    assert round.dataset is not None and round.dataset.counts["used"] == 9

    # What people see of it.
    overview = round_overview(round=round)
    assert overview.held_out["pairs"] == 9 and 0 <= overview.held_out["accuracy"] <= 1
    assert overview.waits_for_person
    curves = {view.role: view.curve for stage in overview.stages for view in stage.runs}
    assert len(curves["reward"]) == len(curves["sft"]) == 180
    evaluation = Evaluation.objects.select_related("round__campaign", "artifact").get(round=round)
    assert evaluation.metrics["prompts"] == 3 and evaluation.metrics["kl_per_answer_nats"] > 0
    pairs = evaluation_samples(evaluation=evaluation)
    assert [(len(pair.before), len(pair.after)) for pair in pairs] == [(2, 2)] * 3
    assert all(sample.candidate for pair in pairs for sample in pair.before + pair.after)

    # A person promotes it, and the next round's candidates are the new version's.
    round_decide(round=round, promote=True, actor=None, reason="for the test")
    round.refresh_from_db()
    assert Alias.objects.get(name="champion").version == round.policy_out
    second = round_start(campaign=tiny_campaign, recipe=RECIPE, launch_key="second", actor=None)
    list(round_work(second, until="annotating"))
    candidates = Candidate.objects.filter(batch=second.batch)
    assert candidates.count() == 9 * 3
    assert {one.version for one in candidates.select_related("version")} == {round.policy_out}

    # Both ways along the lineage, every byte of it as it was.
    candidate = candidates.select_related("batch__run", "version").first()
    assert candidate is not None
    lineage = candidate_lineage(candidate=candidate)
    assert round.policy_out is not None
    assert lineage_verify(version=round.policy_out) == []
    assert lineage.datasets() == [round.dataset]
    labelling = datasets_labelling(datasets=lineage.datasets())
    assert (labelling.rankings, len(labelling.annotators)) == (9, 1)
    submission = next(dataset_submissions(dataset=round.dataset))
    descent = submission_descent(submission=submission)
    assert second.batch in descent.batches
    assert {round.policy_out, round.reward_version} <= set(descent.versions)
    assert not list(Path(settings.ARTIFACTS_DIR).glob(".tmp-*"))

    # One change of a row far upstream is found and named.
    sft = round.round_runs.get(role="sft").run
    Run.objects.filter(pk=sft.pk).update(config={**sft.config, "seed": 7})
    ModelVersion.objects.filter(pk=round.policy_out.pk).update(chat_template="another")
    round.policy_out.refresh_from_db()
    found = lineage_verify(version=round.policy_out)
    assert sorted("template" in one.message for one in found) == [False, True]
    assert any("config" in one.message and "sft" in one.subject for one in found), found
