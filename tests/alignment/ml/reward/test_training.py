"""The reward program: what it learns, refuses and reports, and how it goes on when killed."""

import dataclasses
import json
import os
import signal
import time

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
transformers = pytest.importorskip("transformers", reason="the ml extra is not installed")

from alignment.ml.configs import RewardConfig
from alignment.ml.data import RankedGroup, Ranking, rankings_load
from alignment.ml.losses import better_mask, ranking_loss
from alignment.ml.reward import training
from alignment.ml.reward.baselines import BagOfWords
from alignment.ml.reward.examples import steps_plan
from alignment.ml.reward.model import reward_model_make
from alignment.ml.reward.report import ranking_report
from alignment.ml.shared_prefix import Group, attach
from modelhub.ml.chat import answer_encode, prompt_render
from modelhub.ml.checkpoint import model_load, tokenizer_load
from modelhub.ml.configs import ConfigError, RefusedError
from modelhub.ml.model_directory import model_directory_check
from modelhub.ml.parallel import processes_start
from modelhub.ml.records import records_write
from modelhub.ml.rundir import NotFinite, RunDir
from tests.alignment.ml.test_data import ranking
from tests.modelhub.ml.ranks import program_finish, program_start
from tests.tiny_model import tiny_model_write

pytestmark = [pytest.mark.ml, pytest.mark.usefixtures("one_thread")]

FAST = {"lr": 1e-3, "head_lr": 1e-2, "rankings_per_step": 4, "bootstrap_samples": 100}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model_write(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def tokenizer(base):
    return tokenizer_load(base)


def rows(count, *, first=0, split="train", candidates=4):
    """Rankings with a rule a small model can learn: the answer with more of "a" is the better."""
    made = []
    for number in range(first, first + count):
        texts = [("a" * i + "b" * (6 - i)) + str(number % 7) for i in range(candidates)]
        order = [(number + 5 * i) % candidates for i in range(candidates)]  # not the sampled order
        letters = sorted(range(candidates), key=lambda place: -order[place])
        made.append(
            ranking(
                number,
                prompt=f"p{number}",
                split=split,
                texts=[texts[i] for i in order],
                tiers=">".join("abcdefghi"[place] for place in letters),
            )
        )
    return made


def run_make(folder, base, records, **config):
    """A run directory, as the runner or a person by hand makes it."""
    (folder / "inputs" / "rankings").mkdir(parents=True)
    records_write(folder / "inputs" / "rankings" / "rankings.jsonl", records)
    (folder / "inputs" / "base").symlink_to(base)
    from modelhub.ml.manifest import manifest_write

    described = {
        "program": "reward",
        "config": {**FAST, **config},
        "inputs": {
            "base": {"path": "inputs/base", "sha256": manifest_write(base)},
            "rankings": {
                "path": "inputs/rankings",
                "sha256": manifest_write(folder / "inputs" / "rankings"),
            },
        },
    }
    (folder / "config.json").write_text(json.dumps(described))
    return folder


def ranked(answers, *rankings, prompt="p", split="train", texts=None, tied=()):
    """A group of answers, given as tokens; rankings as tiers of places or whole."""
    made = [one if isinstance(one, Ranking) else Ranking(tiers=one) for one in rankings]
    return RankedGroup(
        prompt_id=prompt,
        split=split,
        group=Group([1], answers),
        texts_K=tuple(texts or ("x" * len(answer) for answer in answers)),
        rankings=tuple(made),
        tied=tuple(tied),
    )


def result_of(folder):
    return json.loads((folder / "result.json").read_text())["result"]


def metrics_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, base):
    """One run to its end, which several tests look at."""
    records = [
        *rows(32),
        *rows(4, first=100, split="validation"),
        *rows(8, first=200, split="held_out"),
        ranking(900, prompt="tied", tiers="a=b=c"),
        ranking(901, prompt="long", texts=("x" * 300, "y"), tiers="a>b"),
    ]
    folder = tmp_path_factory.mktemp("finished")
    run_make(folder, base, records, epochs=6, max_tokens=120, evaluate_every_steps=12)
    training.main(RunDir(folder))
    return folder


def test_it_learns_the_rule_and_holds_it_on_prompts_it_never_saw(finished):
    result = result_of(finished)
    assert result["losses"][0] == pytest.approx(0.693147, abs=1e-5)  # equal scores: log 2
    assert sum(result["losses"][-8:]) / 8 < 0.2
    assert result["held_out"]["accuracy"] > 0.9
    assert (result["held_out"]["pairs"], result["held_out"]["rankings"]) == (48, 8)
    assert result["held_out"]["chance"] == 0.5
    assert result["validation"]["prompts"] == 4


def test_it_says_what_it_left_out(finished):
    train = result_of(finished)["train"]
    assert (train["rankings"], train["prompts"], train["pairs"]) == (32, 32, 192)
    assert (train["rankings_too_long"], train["rankings_without_pairs"]) == (1, 1)
    assert train["longest_tokens"] > 300


def test_every_step_leaves_the_metrics_that_curves_are_drawn_from(finished):
    lines = metrics_of(finished)
    steps = [line for line in lines if "loss" in line["values"]]
    assert [line["step"] for line in steps] == list(range(1, 49))
    assert set(steps[0]["values"]) == {
        "loss",
        "accuracy",
        "reward_mean",
        "margin",
        "lr",
        "grad_norm",
        "tokens_per_s",
    }
    validations = [line for line in lines if "validation_accuracy" in line["values"]]
    assert [line["step"] for line in validations] == [12, 24, 36, 48]
    progress = json.loads((finished / "progress.json").read_text())
    assert progress == {"done": 48, "total": 48, "unit": "steps"}


def test_the_saved_model_scores_the_same_in_transformers_itself(finished):
    """Padded batches, pooled by transformers: the padding token is not the end of a turn."""
    folder = finished / "outputs" / "model"
    tokenizer = tokenizer_load(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32
    )
    prompt = prompt_render(tokenizer, [{"role": "user", "content": "question"}])
    answers = [
        answer_encode(tokenizer, "aaab", "stop"),
        answer_encode(tokenizer, "aaab", "length"),
        answer_encode(tokenizer, "b", "stop"),
    ]
    longest = max(map(len, answers))
    padded = [prompt + one + [tokenizer.pad_token_id] * (longest - len(one)) for one in answers]
    mask = [[1] * len(prompt + one) + [0] * (longest - len(one)) for one in answers]
    with torch.no_grad():
        theirs = model(input_ids=torch.tensor(padded), attention_mask=torch.tensor(mask)).logits[
            :, 0
        ]

    ours = model_load(folder, dtype="float32", role="reward")
    attach(ours)
    group = dataclasses.replace(ranked(answers, ((0,), (2,))), group=Group(prompt, answers))
    (scores,) = training.scores_of(ours, [group], RewardConfig())
    assert torch.allclose(scores, theirs, atol=1e-4)
    assert scores[0] != scores[1]


def test_what_was_tested_is_what_was_saved(finished):
    folder = finished / "outputs" / "model"
    model = model_load(folder, dtype="float32", role="reward")
    attach(model)
    data = rankings_load(
        finished / "inputs" / "rankings" / "rankings.jsonl",
        tokenizer_load(folder),
        max_tokens=120,
    )
    groups = data.of_split("held_out")
    config = RewardConfig(bootstrap_samples=100)
    words = {"bag_of_words": BagOfWords(data.of_split("train")).scores(groups)}
    again = ranking_report(training.scores_of(model, groups, config), groups, config, words)
    assert again == result_of(finished)["held_out"]


@pytest.mark.slow
def test_stopped_twice_it_ends_with_the_same_losses_and_weights(tmp_path, base):
    """A SIGTERM, then a SIGKILL, each at whatever step it hits."""
    records = [*rows(24), *rows(4, first=200, split="held_out")]
    config = {"epochs": 10, "checkpoint_every_steps": 7, "weight_decay": 0.1}
    whole = run_make(tmp_path / "whole", base, records, **config)
    training.main(RunDir(whole))

    stopped = run_make(tmp_path / "stopped", base, records, **config)
    checkpoints: set[str] = set()
    for stop, status in ((signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        program = program_start(training.main, stopped)
        deadline = time.monotonic() + 120
        while not {path.name for path in stopped.glob("checkpoints/step-*")} - checkpoints:
            assert time.monotonic() < deadline and program.is_alive()
            time.sleep(0.01)
        os.kill(program.pid, stop)
        program.join(30)
        assert program.exitcode == status
        assert not (stopped / "result.json").exists()
        checkpoints |= {path.name for path in stopped.glob("checkpoints/step-*")}

    program_finish(training.main, stopped)
    assert "resuming behind step" in (stopped / "log.txt").read_text()
    assert result_of(stopped)["losses"] == result_of(whole)["losses"]
    assert result_of(stopped)["held_out"] == result_of(whole)["held_out"]
    weights = "outputs/model/model.safetensors"
    assert (stopped / weights).read_bytes() == (whole / weights).read_bytes()


def test_without_held_out_rankings_the_result_says_null(tmp_path, base):
    folder = run_make(tmp_path / "run", base, rows(4))
    training.main(RunDir(folder))
    assert result_of(folder)["held_out"] is None
    assert result_of(folder)["validation"] is None


@pytest.mark.parametrize(
    "records, message",
    [
        ([], "0 rankings were read"),
        ([ranking(1, tiers="a=b=c"), ranking(2, tiers="a")], "2 put no answer above another"),
        ([ranking(1, texts=("only",), tiers="a")], "1 put no answer above another"),
        ([ranking(1, texts=("x" * 600, "y"), tiers="a>b")], "1 have a prompt and answer of more"),
        (rows(2, split="held_out"), "the other 2 are not of the training split"),
    ],
)
def test_rankings_that_teach_nothing_are_refused_before_training(tmp_path, base, records, message):
    folder = run_make(tmp_path / "run", base, records, max_tokens=500)
    with pytest.raises(RefusedError, match=message):
        training.main(RunDir(folder))
    assert not (folder / "result.json").exists()


def test_nan_stops_the_run_at_once_and_nothing_is_published(tmp_path, base):
    folder = run_make(tmp_path / "run", base, rows(8), head_lr=1e38, checkpoint_every_steps=1)
    with pytest.raises(NotFinite, match="loss is nan at step 2"):
        training.main(RunDir(folder))
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-00000001"]
    assert list((folder / "outputs").iterdir()) == []
    assert not (folder / "result.json").exists()


def loaded(tmp_path, tokenizer, records):
    path = tmp_path / "rankings.jsonl"
    records_write(path, records)
    return rankings_load(path, tokenizer, max_tokens=1000).groups


def gradient_of(base, groups, config):
    model = reward_model_make(base, config)
    torch.nn.init.normal_(model.score.weight, generator=torch.manual_seed(1))
    figures, tokens = training.step_gradients(model, groups, config, processes_start())
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return figures, tokens, found


def test_the_gradient_of_a_step_does_not_depend_on_how_it_is_packed(tmp_path, base, tokenizer):
    groups = loaded(tmp_path, tokenizer, [*rows(3), *rows(2, first=50, candidates=3)])
    one_by_one = gradient_of(base, groups, RewardConfig(budget_tokens=1))
    together = gradient_of(base, groups, RewardConfig(budget_tokens=10_000))
    assert one_by_one[0] == pytest.approx(together[0], rel=1e-4)
    assert one_by_one[1] == together[1]
    assert (one_by_one[2] - together[2]).norm() < 1e-5 * together[2].norm()


def test_gradient_checkpointing_changes_nothing(tmp_path, base, tokenizer):
    groups = loaded(tmp_path, tokenizer, rows(3))
    _, _, plain = gradient_of(base, groups, RewardConfig())

    config = RewardConfig(gradient_checkpointing=True)
    model = reward_model_make(base, config)
    torch.nn.init.normal_(model.score.weight, generator=torch.manual_seed(1))
    model.train()  # transformers checkpoints in training only
    training.step_gradients(model, groups, config, processes_start())
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert (found - plain).norm() < 1e-5 * plain.norm()


def test_two_annotators_of_one_task_are_two_rankings_on_one_forward(tmp_path, base, tokenizer):
    first, second = ranking(1, tiers="a>b>c"), ranking(2, tiers="c>a=b")
    (group,) = loaded(tmp_path, tokenizer, [first, second])
    config = RewardConfig()
    figures, tokens, _ = gradient_of(base, [group], config)
    assert tokens == group.group.tokens

    model = reward_model_make(base, config)
    torch.nn.init.normal_(model.score.weight, generator=torch.manual_seed(1))
    (scores,) = training.scores_of(model, [group], config)
    expected = [
        ranking_loss(scores, better_mask([[0], [1], [2]], 3)),
        ranking_loss(scores, better_mask([[2], [0, 1]], 3)),
    ]
    assert figures["loss"] == pytest.approx(float(sum(expected)) / 2, rel=1e-5)
    right = sum(
        bool(scores[win] > scores[lose]) for win, lose in [(0, 1), (0, 2), (1, 2), (2, 0), (2, 1)]
    )
    assert figures["accuracy"] == right / 5


def test_a_margin_and_centring_enter_the_loss(base):
    group = ranked([[2], [3]], ((0,), (1,)), ((0,), (1,)))
    scores_KM = torch.tensor([[3.0], [1.0]])
    # Twice log(1 + e^-(2 - 1)) and twice 0.01 · (9 + 1) / 2.
    config = RewardConfig(margin=1.0, center_weight=0.01)
    assert float(training.group_losses(scores_KM, group, config)) == pytest.approx(
        2 * 0.3132617 + 2 * 0.05
    )


def test_frozen_layers_keep_the_policys_weights(tmp_path, base):
    folder = run_make(tmp_path / "run", base, rows(4), frozen_layers=1, epochs=3)
    training.main(RunDir(folder))
    before = model_load(base, dtype="float32").state_dict()
    after = model_load(folder / "outputs" / "model", dtype="float32", role="reward").state_dict()
    changed = {
        name
        for name in after
        if name != "score.weight"
        if not torch.equal(after[name], before[name].bfloat16().float())
    }
    assert changed
    assert all(name.startswith(("model.layers.1.", "model.norm")) for name in changed)


def test_more_frozen_layers_than_there_are_is_refused(base):
    with pytest.raises(RefusedError, match="the base has 2, got 3"):
        reward_model_make(base, RewardConfig(frozen_layers=3))


def test_products_in_bfloat16_learn_too(tmp_path, base):
    records = [*rows(32), *rows(8, first=200, split="held_out")]
    folder = run_make(tmp_path / "run", base, records, dtype="bfloat16", epochs=6)
    training.main(RunDir(folder))
    assert result_of(folder)["held_out"]["accuracy"] > 0.85


def test_a_reward_model_can_be_trained_further_with_its_own_head(tmp_path, finished):
    folder = finished / "outputs" / "model"
    further = reward_model_make(folder, RewardConfig())
    assert further.score.weight.abs().sum() > 0


def test_the_report_against_values_worked_by_hand():
    groups = [  # p1: three pairs, the shorter always better; p2: two annotators who disagree
        ranked([[1] * 10, [1] * 20, [1] * 30], ((0,), (1,), (2,)), prompt="p1"),
        ranked([[1] * 5, [1] * 9], ((1,), (0,)), ((0,), (1,)), prompt="p2"),
    ]
    scores = [torch.tensor([2.0, 0.0, 1.0]), torch.tensor([0.0, 0.0])]
    report = ranking_report(scores, groups, RewardConfig())
    assert (report["rankings"], report["prompts"], report["pairs"]) == (3, 2, 5)
    # p1: two of three right; p2: equal scores, one half each time.
    assert report["accuracy"] == pytest.approx((2 + 0.5 + 0.5) / 5)
    assert report["length_accuracy"] == pytest.approx((0 + 1 + 0) / 5)
    assert report["over_length"] == pytest.approx((2 - 0 + 1 - 1) / 5)
    # Won by the shorter: all of p1, and p2's second ranking.
    assert report["accuracy_when_shorter_won"] == pytest.approx((2 + 0.5) / 4)
    # log(1 + e^-2), log(1 + e^-1), log(1 + e^1), and log 2 twice.
    first = (0.126928 + 0.313262 + 1.313262) / 3
    assert report["loss"] == pytest.approx((first + 2 * 0.693147) / 3, abs=1e-5)
    assert report["score_mean"] == pytest.approx(0.6)
    # Prompts are drawn, so the ends are all of p1 and all of p2.
    assert (report["accuracy_low"], report["accuracy_high"]) == (0.5, pytest.approx(2 / 3))


def test_one_prompt_alone_gives_no_interval():
    group = ranked([[1], [2]], ((0,), (1,)))
    report = ranking_report([torch.tensor([1.0, 0.0])], [group], RewardConfig())
    assert (report["accuracy"], report["accuracy_low"], report["accuracy_high"]) == (1, None, None)


def test_steps_take_every_group_once_an_epoch_in_another_order(tmp_path, tokenizer):
    groups = loaded(tmp_path, tokenizer, [*rows(5), *[rows(1)[0]] * 1])
    groups[0] = dataclasses.replace(groups[0], rankings=groups[0].rankings * 3)
    plan = steps_plan(groups, RewardConfig(rankings_per_step=3, epochs=2))
    seen = [place for step in plan for place in step]
    assert sorted(seen) == sorted([*range(5), *range(5)])
    assert seen[:5] != seen[5:]


def test_no_short_last_step_counts_as_a_full_one(tmp_path, tokenizer):
    groups = loaded(tmp_path, tokenizer, rows(10))
    plan = steps_plan(groups, RewardConfig(rankings_per_step=8))
    assert [len(step) for step in plan] == [5, 5]


def test_it_is_tested_on_the_rounds_own_answers_beside_all(tmp_path, base):
    records = [
        *rows(4),
        *(dataclasses.replace(one, batch="old") for one in rows(3, first=10, split="held_out")),
        *(dataclasses.replace(one, batch="new") for one in rows(2, first=20, split="held_out")),
    ]
    folder = run_make(tmp_path / "run", base, records, held_out_batches=["new"])
    training.main(RunDir(folder))
    result = result_of(folder)
    assert (result["held_out"]["rankings"], result["held_out_all"]["rankings"]) == (2, 5)


def test_one_prompt_ranked_in_two_rounds_is_tested_on_the_ones_asked_for(tmp_path, tokenizer):
    first = dataclasses.replace(rows(1, split="held_out")[0], batch="old")
    second = dataclasses.replace(first, id="r2", batch="new", tiers=first.tiers[::-1])
    path = tmp_path / "rankings.jsonl"
    records_write(path, [first, second])
    data = rankings_load(path, tokenizer, max_tokens=1024)
    (group,) = data.of_split("held_out", ["new"])
    assert group.rankings == (data.groups[0].rankings[1],)
    assert [one.batch for one in group.rankings] == ["new"]
    assert data.of_split("held_out", ["another"]) == []


def test_what_does_not_fit_the_bases_context_is_left_out(tmp_path, base):
    context = model_directory_check(base).context_tokens
    records = [*rows(2), ranking(900, prompt="long", texts=("x" * context, "y"), tiers="a>b")]
    folder = run_make(tmp_path / "run", base, records, max_tokens=100_000)
    training.main(RunDir(folder))
    assert result_of(folder)["train"]["rankings_too_long"] == 1


def test_the_rate_warms_up_and_falls_along_a_cosine():
    config = RewardConfig(warmup_share=0.2, lr_final_share=0.1)
    shares = [training.learning_rate_share(step, steps=10, config=config) for step in range(10)]
    assert shares[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert shares[-1] == pytest.approx(0.1)
    # Halfway between step 2 and step 9 the cosine is at half its fall.
    middle = (shares[5] + shares[6]) / 2
    assert middle == pytest.approx(0.55, abs=1e-6)
    assert shares[1:] == sorted(shares[1:], reverse=True)


@pytest.mark.parametrize(
    "field, value", [("lr", 0.0), ("margin", -1.0), ("warmup_share", 2.0), ("dtype", "int8")]
)
def test_a_setting_that_makes_no_sense_is_named(field, value):
    with pytest.raises(ConfigError, match=f"reward.{field}: wanted .* got"):
        RewardConfig(**{field: value})
