"""Programs that train on several processes have the losses of one. Real processes, gloo."""

import json
import threading
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from safetensors.torch import load_file

from alignment.ml import sft
from alignment.ml.data import DemonstrationRecord
from alignment.ml.reward import training
from alignment.services.launches import Launch, run_launch
from modelhub import storage
from modelhub.ml.records import records_write
from modelhub.models import Run
from modelhub.runner import run_execute
from modelhub.services.artifacts import artifact_store
from modelhub.services.runs import run_cancel
from modelhub.services.versions import model_get_or_create, model_version_register
from tests.alignment.ml.programs import (
    lines_of,
    messages,
    result_of,
    run_make,
    tiny_reward_write,
)
from tests.alignment.ml.test_data import ranking
from tests.modelhub.ml.ranks import ranks_run
from tests.tiny_model import tiny_model_write

pytestmark = [pytest.mark.ml, pytest.mark.slow]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model_write(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demonstrations")
    records_write(
        folder / "demonstrations.jsonl",
        [
            DemonstrationRecord(
                prompt_id=f"p{number}",
                messages=messages(f"Say {number}"),
                text="word " * (1 + number % 5),
                finish_reason="stop",
                score=1.0,
                batch="first",
            )
            for number in range(9)
        ],
    )
    return folder


@pytest.fixture(scope="module")
def rankings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rankings")
    texts = ("one", "two two", "three three three")
    splits = ["train"] * 7 + ["validation", "held_out"]
    records_write(
        folder / "rankings.jsonl",
        [
            ranking(number, prompt=f"p{number}", split=split, texts=texts, tiers="c>a=b")
            for number, split in enumerate(splits)
        ],
    )
    return folder


def metrics_of(run):
    """What was written for each step, without what depends on the clock."""
    found = {}
    for line in lines_of(run / "metrics.jsonl"):
        line["values"].pop("tokens_per_s", None)
        found.setdefault(line["step"], {}).update(line["values"])
    return found


@pytest.mark.parametrize("program", ["sft", "reward"])
def test_two_processes_have_the_losses_of_one(tmp_path, base, demonstrations, rankings, program):
    main, inputs, config = {
        "sft": (sft.main, {"demonstrations": demonstrations}, {"examples_per_step": 5}),
        "reward": (
            training.main,
            {"rankings": rankings},
            {"rankings_per_step": 3, "bootstrap_samples": 50, "evaluate_every_steps": 2},
        ),
    }[program]
    settings = {**config, "epochs": 2, "lr": 1e-3, "budget_tokens": 200}
    found = {}
    for name, world, strategy in (("one", 1, "ddp"), ("ddp", 2, "ddp"), ("fsdp2", 2, "fsdp2")):
        run = run_make(tmp_path / name, program, {"base": base, **inputs}, settings)
        statuses = ranks_run(main, run, world=world, strategy=strategy)
        assert statuses == [0] * world, (run / "log.txt").read_text()[-3000:]
        found[name] = run
    expected = metrics_of(found["one"])
    assert len(expected) == len(metrics_of(found["ddp"])) >= 4
    for name in ("ddp", "fsdp2"):
        for step, values in metrics_of(found[name]).items():
            # Adam divides by a moment's root: a gradient near 0 carries its rounding into weights.
            assert values == pytest.approx(expected[step], rel=1e-4, abs=1e-6), (name, step)
            loss = expected[step]["loss"]
            assert values["loss"] == pytest.approx(loss, rel=1e-6, abs=1e-6), (name, step)
        assert result_of(found[name])["architecture"] == result_of(found["one"])["architecture"]
        one, two = (
            load_file(found[either] / "outputs/model/model.safetensors") for either in ("one", name)
        )
        assert one.keys() == two.keys()
        for weight in one:  # rounded to bfloat16 at random: neighbours on its grid
            assert torch.allclose(one[weight].float(), two[weight].float(), rtol=2**-7, atol=1e-4)


def test_two_processes_choose_the_step_that_one_chooses(tmp_path, base):
    """By a reward model's mean over their greedy answers; the weights of the step that was best
    were shared out, and come back to where they belong."""
    (tmp_path / "rows").mkdir()
    rows = [
        {
            "prompt_id": f"q{number:02}",
            "split": ("train", "train", "validation")[number % 3],
            "messages": [*messages(f"Say {number}"), {"role": "assistant", "content": "a word"}],
        }
        for number in range(12)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "rows" / "demonstrations.jsonl").write_text(text)
    inputs = {
        "base": base,
        "demonstrations": tmp_path / "rows",
        "reward": tiny_reward_write(tmp_path / "reward", base, seed=2),
    }
    settings = {"epochs": 4, "lr": 1e-2, "examples_per_step": 4, "budget_tokens": 60}
    settings |= {"evaluate_every_steps": 2, "choice_tokens": 12, "bootstrap_samples": 50}
    found = {}
    for name, world, strategy in (("one", 1, "ddp"), ("ddp", 2, "ddp"), ("fsdp2", 2, "fsdp2")):
        run = run_make(tmp_path / name, "sft", inputs, settings)
        statuses = ranks_run(sft.main, run, world=world, strategy=strategy)
        assert statuses == [0] * world, (run / "log.txt").read_text()[-3000:]
        found[name] = result_of(run), load_file(run / "outputs/model/model.safetensors")
    expected, weights = found["one"]
    scores = [one["score"] for one in expected["scores_by_step"]]
    assert [one["step"] for one in expected["scores_by_step"]] == [2, 4, 6, 8]
    assert expected["published_step"] < 8 and min(scores) < max(scores) - 0.01
    for name in ("ddp", "fsdp2"):
        result, own = found[name]
        assert result["published_step"] == expected["published_step"]
        theirs = [one["score"] for one in result["scores_by_step"]]
        assert theirs == pytest.approx(scores, rel=1e-4, abs=1e-5)
        assert result["validation"]["loss_after"] == pytest.approx(
            expected["validation"]["loss_after"], rel=1e-4
        )
        assert own.keys() == weights.keys()
        for weight in own:  # rounded to bfloat16 at random: neighbours on its grid
            assert torch.allclose(
                own[weight].float(), weights[weight].float(), rtol=2**-7, atol=1e-4
            ), (name, weight)


@pytest.fixture
def launch(db, settings, tmp_path, base, demonstrations, eve):
    """A launch of SFT on two processes, its files in a store of the test's own."""
    settings.ARTIFACTS_DIR, settings.RUNS_DIR = tmp_path / "artifacts", tmp_path / "runs"
    model_version_register(
        model=model_get_or_create(name="tiny"),
        role="base",
        artifact=artifact_store(folder=base, kind="model"),
        parent=None,
        run=None,
        facts={
            "architecture": "LlamaForCausalLM",
            "parameters": 90_000,
            "dtype": "float32",
            "context_tokens": 512,
        },
    )
    earlier = Run.objects.create(program="rejection", config={}, status="succeeded", result={})
    rows = artifact_store(folder=demonstrations, kind="demonstrations")
    earlier.outputs.create(role="demonstrations", artifact=rows)

    def make(**config):
        return run_launch(
            launch=Launch(
                method="sft",
                settings={"epochs": 1, "examples_per_step": 3, **config},
                inputs={"base": "tiny@1", "demonstrations": f"run/{earlier.uid}/demonstrations"},
                model_name="tuned",
                launcher="torchrun",
                processes=2,
                strategy="fsdp2",
            ),
            requested_by=eve,
        )

    return make


def test_a_launch_on_two_processes_ends_as_a_version(launch):
    run = launch()
    run_execute(run_id=run.pk, owner="here")
    run.refresh_from_db()
    assert run.status == Run.Status.SUCCEEDED, run.error
    assert "rank 1 of 2 on cpu, fsdp2" in storage.run_log_tail(run, max_bytes=8192)
    version = run.versions.get()
    assert (str(version), version.role, str(version.parent)) == ("tuned v1", "policy", "tiny v1")
    assert run.metrics.filter(name="loss").count() == 3


@pytest.mark.django_db(transaction=True)
def test_cancelled_it_leaves_no_process(launch):
    run = launch(epochs=10_000)
    folder = storage.run_folder(run)
    thread = threading.Thread(target=run_execute, kwargs={"run_id": run.pk, "owner": "here"})
    thread.start()
    deadline = time.monotonic() + 120
    while not (folder / "metrics.jsonl").exists():
        assert time.monotonic() < deadline, "it did not begin"
        time.sleep(0.2)
    assert run_cancel(run=run, actor=None).status == Run.Status.RUNNING
    thread.join(60)
    run.refresh_from_db()
    assert run.status == Run.Status.CANCELLED
    living = [
        entry.name for entry in Path("/proc").glob("[0-9]*") if str(folder) in _command(entry)
    ]
    assert living == []


def _command(process):
    try:
        return (process / "cmdline").read_bytes().decode()
    except OSError:
        return ""
