"""What is watched as a policy is fine-tuned, and which of its steps is published."""

import json

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
transformers = pytest.importorskip("transformers", reason="the ml extra is not installed")

from alignment.ml import sft
from alignment.ml.best_step import BestStep
from alignment.ml.conversations import Conversation, lessons_make
from modelhub.ml.checkpoint import model_load, tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.manifest import manifest_write
from modelhub.ml.rundir import RunDir
from tests.alignment.ml.programs import (
    metrics_of,
    result_of,
    run_make,
    tiny_gpt2_write,
    tiny_reward_write,
)
from tests.tiny_model import tiny_model_write

pytestmark = [pytest.mark.ml, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model_write(tmp_path_factory.mktemp("base"))


def chat_rows(count):
    """ShareGPT rows whose question says on which side they are."""
    sides = ["train"] * 3 + ["validation", "held_out"]
    return [
        {
            "prompt_id": f"q{number:02}",
            "split": sides[number % 5],
            "messages": [
                {"role": "user", "content": f"Say {number}"},
                {"role": "assistant", "content": "the same word"},
            ],
        }
        for number in range(count)
    ]


def chats_run(folder, base, count=15, **config):
    (folder / "inputs").mkdir(parents=True)
    text = "".join(json.dumps(row) + "\n" for row in chat_rows(count))
    (folder / "inputs" / "demonstrations.jsonl").write_text(text)
    inputs = {"base": base, "demonstrations": folder / "inputs"}
    settings = {"epochs": 6, "lr": 5e-3, "examples_per_step": 3, "bootstrap_samples": 200}
    return run_make(folder / "run", "sft", inputs, {**settings, **config})


def test_validation_loss_falls_as_it_trains_and_the_held_out_split_is_heard_twice(tmp_path, base):
    run = chats_run(tmp_path, base, evaluate_every_steps=6)
    sft.main(RunDir(run))
    curve = {
        step: values["validation_loss"]
        for step, values in metrics_of(run).items()
        if "validation_loss" in values
    }
    assert sorted(curve) == [0, 6, 12, 18]
    assert curve[18] < 0.5 * curve[0]
    result = result_of(run)
    assert (result["examples"], result["steps"]) == (9, 18)
    for split in ("validation", "held_out"):
        assert result[split]["conversations"] == 3
        assert result[split]["difference"]["high"] < 0
        assert result[split]["difference"]["mean"] == pytest.approx(
            result[split]["loss_after"] - result[split]["loss_before"]
        )
    assert result["validation"]["loss_before"] == pytest.approx(curve[0])


def rewarded_run(folder, base, reward, **config):
    """`chats_run` with a reward model that chooses the step."""
    run = chats_run(folder, base, **config)
    described = json.loads((run / "config.json").read_text())
    described["inputs"]["reward"] = {"path": str(reward), "sha256": manifest_write(reward)}
    (run / "config.json").write_text(json.dumps(described))
    return run


def test_the_step_whose_answers_a_reward_model_likes_best_is_published(tmp_path, base, monkeypatch):
    """The scores are said to be others than they are: the weights are those of the one said."""
    reward = tiny_reward_write(tmp_path / "reward", base)
    true, weights, see = {}, {}, BestStep.see

    def seen(self, step, score):
        true[step], weights[step] = score, [one.detach().clone() for one in self._weights]
        see(self, step, {2: 3.0}.get(step, 1.0))

    monkeypatch.setattr(BestStep, "see", seen)
    run = rewarded_run(tmp_path / "run", base, reward, epochs=4, evaluate_every_steps=2, lr=1e-2)
    sft.main(RunDir(run))
    result = result_of(run)
    assert (result["published_step"], result["published_step_score"]) == (2, 3.0)
    assert len(true) == len(result["scores_by_step"]) > 2 and len(set(true.values())) > 1
    metrics = metrics_of(run)
    assert metrics[2]["validation_reward"] == pytest.approx(true[2])
    assert 0 <= metrics[2]["validation_unfinished_share"] <= 1
    # The curve ends with the last step's loss, the report is on the published weights.
    assert metrics[max(true)]["validation_loss"] != result["validation"]["loss_after"]
    assert metrics[2]["validation_loss"] == pytest.approx(result["validation"]["loss_after"], 1e-2)
    model = model_load(run / "outputs/model", dtype="float32")
    published = [one.detach() for one in model.parameters()]
    apart = {
        step: max(float((a - b).abs().max()) for a, b in zip(own, published, strict=True))
        for step, own in weights.items()
    }
    assert min(apart, key=apart.get) == 2 and apart[2] < 0.01  # rounded to bfloat16


def test_a_reward_model_that_cannot_choose_is_refused(tmp_path, base):
    reward = tiny_reward_write(tmp_path / "reward", base)
    with pytest.raises(RefusedError, match="set evaluate_every_steps"):
        sft.main(RunDir(rewarded_run(tmp_path / "every", base, reward)))
    run = rewarded_run(tmp_path / "none", base, reward, count=3, evaluate_every_steps=1)
    with pytest.raises(RefusedError, match="none of the demonstrations is on the validation side"):
        sft.main(RunDir(run))


def test_prompts_that_no_context_holds_choose_no_step(tmp_path, base):
    reward = tiny_reward_write(tmp_path / "reward", base)
    config = {"evaluate_every_steps": 1, "choice_tokens": 500}
    with pytest.raises(RefusedError, match=r"no validation prompt has at most 10 tokens"):
        sft.main(RunDir(rewarded_run(tmp_path / "run", base, reward, **config)))


def test_loss_before_training_is_transformers_own(tmp_path, base):
    run = chats_run(tmp_path, base, epochs=1)
    sft.main(RunDir(run))
    model, tokenizer = model_load(base, dtype="float32"), tokenizer_load(base)
    talks = [
        Conversation(id=row["prompt_id"], messages=row["messages"], written_from=1)
        for row in chat_rows(15)
        if row["split"] == "held_out"
    ]
    total = tokens = 0.0
    for lesson in lessons_make(talks, tokenizer, max_tokens=500).lessons:
        prompt_T, answer_T = lesson.group.prompt_T, lesson.group.answers[0]
        labels = torch.tensor([[-100] * len(prompt_T) + answer_T])
        total += model(torch.tensor([prompt_T + answer_T]), labels=labels).loss.item() * len(
            answer_T
        )
        tokens += len(answer_T)
    assert result_of(run)["held_out"]["loss_before"] == pytest.approx(total / tokens, rel=1e-5)


def test_watching_leaves_no_trace_in_the_weights(tmp_path, base):
    found = []
    for number, watched in enumerate(
        ({}, {"evaluate_every_steps": 1, "sample_every_steps": 1, "sample_tokens": 4})
    ):
        base_here = tiny_gpt2_write(tmp_path / f"gpt2-{number}", dropout=0.1)
        run = chats_run(tmp_path / str(number), base_here, epochs=2, **watched)
        sft.main(RunDir(run))
        found.append((run / "outputs/model/model.safetensors").read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("config", [{}, {"adapter": "prefix", "publish": "adapter", "lr": 0.1}])
def test_greedy_answers_to_fixed_prompts_are_logged(tmp_path, base, config, capsys):
    run = chats_run(
        tmp_path, base, sample_every_steps=9, sample_prompts=2, sample_tokens=20, **config
    )
    sft.main(RunDir(run))
    samples = result_of(run)["samples"]
    assert [one["step"] for one in samples] == [0, 0, 9, 9, 18, 18]
    # Of the validation split, which is never learnt.
    assert {one["prompt"].strip().split("\n")[1] for one in samples} == {"Say 3", "Say 8"}
    assert samples[-1]["answer"] != samples[1]["answer"]
    if not config:
        assert samples[-1]["answer"] == "the same word"
    assert f"step 18, behind …{samples[-1]['prompt'][-60:]!r}: " in capsys.readouterr().out


@pytest.mark.parametrize("chosen", [False, True], ids=["last", "chosen"])
def test_a_resumed_run_has_seen_the_same(tmp_path, base, monkeypatch, chosen):
    settings = {"evaluate_every_steps": 4, "sample_every_steps": 6, "checkpoint_every_steps": 5}

    def run_of(name):
        if not chosen:
            return chats_run(tmp_path / name, base, **settings)
        reward = tmp_path / "reward"
        if not reward.exists():
            tiny_reward_write(reward, base)
        return rewarded_run(tmp_path / name, base, reward, choice_tokens=24, **settings)

    whole = run_of("whole")
    sft.main(RunDir(whole))
    killed = run_of("killed")
    real = sft.row_loss
    calls = iter(range(1000))

    def dies(*args):
        if next(calls) == 8:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(sft, "row_loss", dies)
    run = RunDir(killed)
    with pytest.raises(KeyboardInterrupt):
        sft.main(run)
    run._lock.close()
    monkeypatch.setattr(sft, "row_loss", real)
    sft.main(RunDir(killed))
    assert metrics_of(killed) == metrics_of(whole)
    names = ["published_step", "scores_by_step"] if chosen else []
    for name in ("validation", "held_out", "samples", "epochs", *names):
        assert result_of(killed)[name] == result_of(whole)[name]
