"""Launching a method: what is checked, what is queued, what its success registers."""

import tempfile
from pathlib import Path

import pytest

from alignment.services.launches import Launch, run_launch
from modelhub.errors import ApplicationError
from modelhub.ml.records import PromptRecord, records_write
from modelhub.models import Artifact, ModelVersion, Run
from modelhub.services import runs
from modelhub.services.artifacts import artifact_store
from tests import builders

FACTS = {
    "architecture": "LlamaForCausalLM",
    "parameters": 90_000,
    "dtype": "bfloat16",
    "context_tokens": 512,
    "held_out": {"accuracy": 0.7},
}


@pytest.fixture
def base(db):
    return builders.make_version("smol", role=ModelVersion.Role.BASE)


@pytest.fixture
def demonstrations(db):
    """A finished run that wrote demonstrations, to be named as run/UID/demonstrations."""
    return finished_run("demonstrations", Artifact.Kind.DEMONSTRATIONS)


def finished_run(role, kind):
    run = Run.objects.create(
        program="rejection", config={}, status=Run.Status.SUCCEEDED, result={"kept": 1}
    )
    run.outputs.create(role=role, artifact=artifact_of(kind))
    return run


def artifact_of(kind):
    """Prompts are looked into at launch: those have a folder."""
    if kind != Artifact.Kind.PROMPTS:
        return builders.make_artifact(kind)
    with tempfile.TemporaryDirectory() as folder:
        row = PromptRecord(prompt_id="one", messages=[{"role": "user", "content": "Why?"}])
        records_write(Path(folder, "prompts.jsonl"), [row])
        return artifact_store(folder=Path(folder), kind=kind)


def sft(base, demonstrations, **fields):
    inputs = {
        "base": f"version/{base.uid}",
        "demonstrations": f"run/{demonstrations.uid}/demonstrations",
    }
    return Launch(
        **{
            "method": "sft",
            "settings": {"epochs": 3},
            "inputs": inputs,
            "model_name": "helper",
            **fields,
        }
    )


def finish(run, **outputs):
    claimed = runs.run_claim(run_id=run.pk, owner="here")
    assert claimed is not None
    assert runs.run_finish(run_id=run.pk, fence=claimed.fence, outputs=outputs, result=FACTS)


def test_a_launched_run_is_queued_with_what_was_asked(base, demonstrations, eve):
    run = run_launch(launch=sft(base, demonstrations, label="first"), requested_by=eve)
    assert (run.program, run.status, run.label) == ("sft", Run.Status.QUEUED, "first")
    assert run.config["epochs"] == 3 and run.config["examples_per_step"] == 8
    assert run.requested_by == eve
    read = {one.role: one.artifact for one in run.inputs.select_related("artifact")}
    assert read == {
        "base": base.artifact,
        "demonstrations_1": demonstrations.outputs.get().artifact,
    }


def test_its_success_registers_the_next_version_with_parent_run_and_facts(
    base, demonstrations, eve
):
    for number in (1, 2):
        run = run_launch(launch=sft(base, demonstrations), requested_by=eve)
        finish(run, model=builders.make_artifact())
        version = run.versions.get()
        assert (str(version), version.role, version.parent) == (
            f"helper v{number}",
            "policy",
            base,
        )
        assert version.facts == {"held_out": {"accuracy": 0.7}}


def test_a_success_that_cannot_be_registered_is_none(base, demonstrations, eve):
    run = run_launch(launch=sft(base, demonstrations), requested_by=eve)
    with pytest.raises(ApplicationError, match="no output model"):
        finish(run, demonstrations=builders.make_artifact(Artifact.Kind.DEMONSTRATIONS))
    run.refresh_from_db()
    assert run.status == Run.Status.RUNNING
    assert not run.outputs.exists()


def test_an_adapter_is_a_version_of_its_own_that_is_read_with_its_base(base, demonstrations, eve):
    settings = {"adapter": "lora", "publish": "adapter"}
    run = run_launch(launch=sft(base, demonstrations, settings=settings), requested_by=eve)
    finish(run, adapter=builders.make_artifact(Artifact.Kind.ADAPTER))
    version = run.versions.get()
    assert (version.role, version.parent) == (ModelVersion.Role.ADAPTER, base)
    merging = Launch(
        method="merge_adapter",
        settings={},
        inputs={"adapter": f"version/{version.uid}"},
        model_name="merged",
    )
    merge = run_launch(launch=merging, requested_by=eve)
    read = {one.role: one.artifact for one in merge.inputs.select_related("artifact")}
    assert read == {"adapter": version.artifact, "adapter_base": base.artifact}


def test_a_reward_model_s_adapter_is_a_reward_model_that_is_read_with_its_base(base, eve):
    rankings = finished_run("rankings", Artifact.Kind.RANKINGS)
    asked = Launch(
        method="reward",
        settings={"adapter": "lora", "publish": "adapter"},
        inputs={"base": f"version/{base.uid}", "rankings": f"run/{rankings.uid}/rankings"},
        model_name="judge",
    )
    run = run_launch(launch=asked, requested_by=eve)
    finish(run, adapter=builders.make_artifact(Artifact.Kind.ADAPTER))
    version = run.versions.get()
    assert (version.role, version.parent) == (ModelVersion.Role.REWARD, base)
    prompts = finished_run("prompts", Artifact.Kind.PROMPTS)
    asked = Launch(
        method="grpo",
        settings={"adapter": "prefix", "publish": "adapter"},
        inputs={
            "base": f"version/{base.uid}",
            "reward": f"version/{version.uid}",
            "prompts": f"run/{prompts.uid}/prompts",
        },
        model_name="helper",
    )
    run = run_launch(launch=asked, requested_by=eve)
    read = {one.role: one.artifact for one in run.inputs.select_related("artifact")}
    assert (read["reward"], read["reward_base"]) == (version.artifact, base.artifact)
    finish(run, adapter=builders.make_artifact(Artifact.Kind.ADAPTER))
    policy = run.versions.get()
    assert (policy.role, policy.parent) == (ModelVersion.Role.ADAPTER, base)
    merging = {"method": "merge_adapter", "settings": {}, "model_name": "merged"}
    inputs = {"adapter": f"version/{version.uid}"}
    run = run_launch(launch=Launch(inputs=inputs, **merging), requested_by=eve)
    finish(run, model=builders.make_artifact())
    assert run.versions.get().role == ModelVersion.Role.REWARD
    whole = builders.make_version("whole", role=ModelVersion.Role.REWARD)
    with pytest.raises(ApplicationError, match="whole v1 is a model of its own; wanted an adapter"):
        inputs = {"adapter": f"version/{whole.uid}"}
        run_launch(launch=Launch(inputs=inputs, **merging), requested_by=eve)


def test_a_run_that_a_round_started_registers_nothing_here(base, demonstrations, eve):
    run = run_launch(launch=sft(base, demonstrations), requested_by=eve)
    Run.objects.filter(pk=run.pk).update(intent={})
    finish(run, model=builders.make_artifact())
    assert not run.versions.exists()


def test_a_version_may_be_named_as_people_do(base, demonstrations, eve):
    launch = sft(base, demonstrations)
    launch = sft(base, demonstrations, inputs={**launch.inputs, "base": "smol@1"})
    assert run_launch(launch=launch, requested_by=eve).inputs.get(role="base").artifact


def test_many_inputs_are_numbered_in_their_order(base, demonstrations, eve):
    reward = builders.make_version("judge", role=ModelVersion.Role.REWARD)
    prompts = finished_run("prompts", Artifact.Kind.PROMPTS)
    candidates = finished_run("candidates", Artifact.Kind.CANDIDATES)
    pools = [demonstrations, finished_run("demonstrations", Artifact.Kind.DEMONSTRATIONS)]
    run = run_launch(
        launch=Launch(
            method="rejection",
            settings={},
            inputs={
                "reward": f"version/{reward.uid}",
                "prompts": f"run/{prompts.uid}/prompts",
                "candidates": f"run/{candidates.uid}/candidates",
                "pool": [f"run/{one.uid}/demonstrations" for one in pools],
            },
        ),
        requested_by=eve,
    )
    read = {one.role: one.artifact for one in run.inputs.select_related("artifact")}
    assert read["pool_1"] == pools[0].outputs.get().artifact
    assert read["pool_2"] == pools[1].outputs.get().artifact


@pytest.mark.parametrize(
    ("changed", "field", "words"),
    [
        ({"method": "alchemy"}, "method", "no method 'alchemy'"),
        ({"settings": {"lr": -1.0}}, "settings.lr", "wanted more than 0, got -1.0"),
        ({"settings": {"epochs": "two"}}, "settings.epochs", "expected int, got 'two'"),
        ({"settings": {"lrr": 1}}, "settings", "unknown setting lrr"),
        ({"inputs": {}}, "inputs.base", "Start from: choose one"),
        ({"inputs": {"bases": "smol@1"}}, "inputs.bases", "no input 'bases'"),
        ({"model_name": ""}, "model_name", "cannot name a model"),
        ({"model_name": "no spaces"}, "model_name", "cannot name a model"),
        ({"launcher": "bash"}, "launcher", "no launcher 'bash'"),
        ({"processes": 2}, "processes", "the launcher python starts one"),
        ({"launcher": "torchrun", "strategy": "zero"}, "strategy", "no strategy 'zero'"),
    ],
)
def test_what_is_refused_is_named(base, demonstrations, eve, changed, field, words):
    with pytest.raises(ApplicationError, match=words) as refused:
        run_launch(launch=sft(base, demonstrations, **changed), requested_by=eve)
    assert refused.value.extra["field"] == field
    assert Run.objects.count() == 1  # the one that wrote the demonstrations


def test_an_input_must_fit_its_role(base, demonstrations, eve):
    reward = builders.make_version("judge", role=ModelVersion.Role.REWARD)
    launch = sft(base, demonstrations)
    for given, words in (
        ({"base": f"version/{reward.uid}"}, "judge v1 is a reward; wanted base or policy"),
        ({"demonstrations": f"version/{base.uid}"}, "is a base; wanted demonstrations"),
        ({"base": launch.inputs["demonstrations"]}, "holds demonstrations; wanted base or policy"),
        ({"base": "version/" + "0" * 32}, "there is no 'version/"),
        ({"base": "../../etc/passwd"}, "there is no"),
        ({"base": ["smol@1", "smol@1"]}, "choose one alone"),
    ):
        changed = sft(base, demonstrations, inputs={**launch.inputs, **given})
        with pytest.raises(ApplicationError, match=words) as refused:
            run_launch(launch=changed, requested_by=eve)
        assert refused.value.extra["field"] == f"inputs.{next(iter(given))}"


def test_a_method_that_trains_in_one_process_is_not_started_on_two(base, eve):
    launch = Launch(
        method="generate",
        settings={},
        inputs={"prompts": f"run/{finished_run('prompts', 'prompts').uid}/prompts"},
        launcher="torchrun",
        processes=2,
    )
    with pytest.raises(ApplicationError, match="Sampling runs on one process"):
        run_launch(launch=launch, requested_by=eve)


def test_a_new_model_comes_from_none_and_a_continued_one_from_its_base(base, eve):
    tokens = finished_run("tokens", Artifact.Kind.TOKENS)
    tokenizer = finished_run("tokenizer", Artifact.Kind.TOKENIZER)
    given = {"tokens": [f"run/{tokens.uid}/tokens"]}
    of_new = {**given, "tokenizer": f"run/{tokenizer.uid}/tokenizer"}
    parents = {}
    for name, inputs in (("new", of_new), ("more", {**given, "base": f"version/{base.uid}"})):
        launch = Launch(
            method="pretrain", settings={"preset": "novel"}, inputs=inputs, model_name=name
        )
        run = run_launch(launch=launch, requested_by=eve)
        assert run.config["architecture"] == "gpt2" and run.config["steps"] == 400
        finish(run, model=builders.make_artifact())
        version = run.versions.get()
        assert version.role == ModelVersion.Role.BASE
        parents[name] = version.parent
    assert parents == {"new": None, "more": base}


def test_rejection_sampling_is_launched_with_right_answers_and_no_reward_model(db, eve):
    questions = finished_run("references", Artifact.Kind.REFERENCES)
    questions.outputs.create(role="prompts", artifact=artifact_of(Artifact.Kind.PROMPTS))
    answers = finished_run("candidates", Artifact.Kind.CANDIDATES)
    launch = Launch(
        method="rejection",
        settings={"checker": "gsm8k", "keep": 4},
        inputs={
            "references": f"run/{questions.uid}/references",
            "prompts": f"run/{questions.uid}/prompts",
            "candidates": f"run/{answers.uid}/candidates",
        },
    )
    run = run_launch(launch=launch, requested_by=eve)
    assert set(run.inputs.values_list("role", flat=True)) == set(launch.inputs)
    assert (run.config["checker"], run.config["keep"]) == ("gsm8k", 4)
