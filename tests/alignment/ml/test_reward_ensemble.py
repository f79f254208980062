"""Several reward models as one, by the program that rounds and queues ask."""

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
pytest.importorskip("transformers", reason="the ml extra is not installed")

from alignment.ml import reward_ensemble
from alignment.ml.reward import training
from alignment.records import TaskRecord
from modelhub.ml.checkpoint import model_load
from modelhub.ml.configs import ConfigError, RefusedError
from modelhub.ml.records import records_write
from modelhub.ml.rundir import RunDir
from tests.alignment.ml.programs import lines_of, result_of
from tests.alignment.ml.programs import run_make as program_make
from tests.alignment.ml.reward.test_training import rows, run_make
from tests.tiny_model import CHAT_TEMPLATE, tiny_model_write

pytestmark = [pytest.mark.ml, pytest.mark.usefixtures("one_thread")]

RANKINGS = [*rows(24), *rows(6, first=200, split="held_out")]


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Two reward models of one base and different seeds, and the rankings they learnt."""
    folder = tmp_path_factory.mktemp("seeds")
    base = tiny_model_write(folder / "base")
    for seed in (0, 1):
        run = run_make(folder / str(seed), base, RANKINGS, epochs=4, seed=seed)
        training.main(RunDir(run))
    return folder


def members(seeds):
    return {f"reward_{n + 1}": seeds / str(n) / "outputs" / "model" for n in (0, 1)}


def tasks_write(folder):
    folder.mkdir()
    messages = [{"role": "user", "content": "question"}]
    texts = {"one": ("aaab", "bbbb"), "long": ("a" * 600, "b"), "two": ("ab", "ba", "")}
    records_write(
        folder / "tasks.jsonl",
        (
            TaskRecord(
                prompt_id=name,
                messages=messages,
                candidates=[
                    {"id": f"{name}-{k}", "text": text, "finish_reason": "stop"}
                    for k, text in enumerate(own)
                ],
            )
            for name, own in texts.items()
        ),
    )
    return folder


def ran(folder, inputs, **config):
    run = program_make(folder, "reward_ensemble", inputs, {"bootstrap_samples": 50, **config})
    reward_ensemble.main(RunDir(run))
    return run


def test_tasks_get_every_members_score_and_the_combined_one(seeds, tmp_path):
    inputs = {**members(seeds), "tasks": tasks_write(tmp_path / "tasks")}
    run = ran(tmp_path / "run", inputs, combine="worst")
    lines = lines_of(run / "outputs" / "scores" / "scores.jsonl")
    assert [line["candidate"] for line in lines] == ["one-0", "one-1", "two-0", "two-1", "two-2"]
    assert all(line["score"] == min(line["members"]) for line in lines)
    for member in (0, 1):  # on a common zero, and each with its own opinion
        assert sum(line["members"][member] for line in lines) == pytest.approx(0, abs=1e-4)
    assert lines[0]["members"][0] != lines[0]["members"][1]
    told = result_of(run)["tasks"]
    assert (told["scored"], told["too_long"], told["members"]) == (2, 1, 2)


def test_averaged_weights_are_a_model_and_judge_as_well(seeds, tmp_path):
    inputs = {**members(seeds), "rankings": seeds / "0" / "inputs" / "rankings"}
    run = ran(tmp_path / "run", inputs, combine="weight_average")
    result = result_of(run)
    assert result["held_out"]["pairs"] == 36
    assert result["held_out"]["accuracy"] > 0.85
    assert len(result["ensemble"]["member_accuracies"]) == 2
    states = [
        model_load(folder, dtype="float32", role="reward").state_dict()
        for folder in (*members(seeds).values(), run / "outputs" / "model")
    ]
    for name, found in states[2].items():
        mean = (states[0][name] + states[1][name]) / 2
        assert (found - mean).abs().max() <= mean.abs().max() * 2**-7  # a step of bfloat16


def test_rankings_alone_are_judged_without_an_output(seeds, tmp_path):
    inputs = {**members(seeds), "rankings": seeds / "0" / "inputs" / "rankings"}
    result = result_of(ran(tmp_path / "run", inputs, combine="uncertain"))
    told = result["ensemble"]
    assert told["accuracy_uncertain"] == pytest.approx(result["held_out"]["accuracy"])


def test_what_is_no_ensemble_is_refused(seeds, tmp_path):
    tasks = tasks_write(tmp_path / "tasks")
    one = {"reward_1": members(seeds)["reward_1"]}
    with pytest.raises(RefusedError, match="no input reward_1"):
        ran(tmp_path / "none", {"tasks": tasks})
    with pytest.raises(RefusedError, match="neither rankings nor tasks"):
        ran(tmp_path / "nothing", one)
    with pytest.raises(RefusedError, match="averaging weights needs two members"):
        ran(tmp_path / "one", {**one, "tasks": tasks}, combine="weight_average")
    with pytest.raises(ConfigError, match=r"reward_ensemble.combine: wanted mean, worst"):
        ran(tmp_path / "how", {**one, "tasks": tasks}, combine="median")
    other = tmp_path / "other"
    other.mkdir()
    for file in members(seeds)["reward_2"].iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    (other / "chat_template.jinja").write_text(CHAT_TEMPLATE.replace("assistant\n", "model\n"))
    with pytest.raises(RefusedError, match="another chat template or vocabulary"):
        ran(tmp_path / "template", {**one, "reward_2": other, "tasks": tasks})
