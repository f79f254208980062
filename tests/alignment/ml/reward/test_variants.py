"""The program under each of its settings: what is learnt, saved, refused, stopped and resumed."""

import dataclasses
import json

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
pytest.importorskip("transformers", reason="the ml extra is not installed")

from alignment.ml.configs import RewardConfig, SftConfig
from alignment.ml.conversations import conversations_read
from alignment.ml.data import Ranking, rankings_load
from alignment.ml.losses import safety_loss
from alignment.ml.reader import reader_check
from alignment.ml.reward import training
from alignment.ml.reward.model import bootstrap_weights, demonstrations_lay, reward_model_make
from alignment.ml.scoring import Scorer
from alignment.ml.shared_prefix import Group, answer_scores, attach, member_scores, pack
from alignment.ml.vocabulary import session_end_add
from modelhub.ml.chat import (
    REWARD_TOKEN,
    answer_encode,
    prompt_render,
    reward_token_id,
    scored_encode,
)
from modelhub.ml.checkpoint import CheckpointError, model_load, tokenizer_load
from modelhub.ml.configs import ConfigError, RefusedError
from modelhub.ml.divergence import Diverged
from modelhub.ml.manifest import manifest_write
from modelhub.ml.records import records_write
from modelhub.ml.rundir import RunDir
from tests.alignment.ml.programs import demonstration_written
from tests.alignment.ml.reward.test_training import ranked, result_of, rows, run_make
from tests.tiny_model import CHAT_TEMPLATE, tiny_model_write

pytestmark = [pytest.mark.ml, pytest.mark.usefixtures("one_thread")]

PROMPT = [{"role": "user", "content": "question"}]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model_write(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def tokenizer(base):
    return tokenizer_load(base)


LEARNT = [*rows(32), *rows(8, first=200, split="held_out")]


def trained(folder, base, records=LEARNT, **config):
    run_make(folder, base, records, **{"epochs": 6, **config})
    training.main(RunDir(folder))
    return result_of(folder)


def input_add(folder, role, source):
    """Give a run directory one more input."""
    described = json.loads((folder / "config.json").read_text())
    described["inputs"][role] = {"path": str(source), "sha256": manifest_write(source)}
    (folder / "config.json").write_text(json.dumps(described))


def scores_in(folder, answers):
    """Scores of a saved model for answers given as (text, finish reason), as programs read them."""
    tokenizer = tokenizer_load(folder)
    laid = [scored_encode(tokenizer, text, reason) for text, reason in answers]
    (row,) = pack([Group(prompt_render(tokenizer, PROMPT), laid)], 10_000)
    with torch.no_grad():
        (scores,) = Scorer(folder, role="reward", dtype="float32").scores(row)
    return scores


# ── where a score is read ────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def at_reward_token(tmp_path_factory, base):
    folder = tmp_path_factory.mktemp("reward-token")
    return folder, trained(folder, base, reward_token=True)


def test_a_reward_token_is_added_to_the_vocabulary_and_learnt_at(at_reward_token, base, tokenizer):
    folder, result = at_reward_token
    assert result["held_out"]["accuracy"] > 0.9
    saved = tokenizer_load(folder / "outputs" / "model")
    assert len(saved) == len(tokenizer) + 1
    assert saved.convert_ids_to_tokens(reward_token_id(saved)) == REWARD_TOKEN
    model = model_load(folder / "outputs" / "model", dtype="float32", role="reward")
    assert model.get_input_embeddings().weight.shape[0] == len(saved)
    laid = scored_encode(saved, "a", "length")
    assert laid == [*answer_encode(tokenizer, "a", "length"), reward_token_id(saved)]


def test_a_new_tokens_embedding_starts_as_the_mean_of_the_others(base):
    config = RewardConfig(reward_token=True)
    made = training.reward_tokenizer_make(base, config)
    model = reward_model_make(base, config, made)
    weight = model.get_input_embeddings().weight
    assert torch.allclose(weight[-1], weight[:-1].mean(0))


def test_a_reward_model_reads_what_a_policy_with_a_new_token_writes(base, tmp_path):
    """The token that fine-tuning adds has one number in both, whatever else the reader adds."""
    token = "<|end_of_session|>"
    policy = tokenizer_load(base)
    session_end_add(policy, SftConfig(end_of_session=token))
    settings = {"epochs": 1, "reward_token": True}
    for name, config in (("without", {}), ("with", {"end_of_session": token})):
        trained(tmp_path / name, base, rows(4), **settings, **config)
    reader_check(policy, tmp_path / "with" / "outputs" / "model", "reward")
    with pytest.raises(RefusedError, match="end_of_session"):
        reader_check(policy, tmp_path / "without" / "outputs" / "model", "reward")
    model = model_load(tmp_path / "with" / "outputs" / "model", dtype="float32", role="reward")
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer_load(base)) + 2
    adapter = RewardConfig(adapter="lora", publish="adapter", end_of_session=token)
    with pytest.raises(RefusedError, match="has no row for it"):
        training.reward_tokenizer_make(base, adapter)


def test_going_on_from_a_model_with_the_token_adds_no_other(at_reward_token, tmp_path):
    folder, _ = at_reward_token
    trained(tmp_path, folder / "outputs" / "model", rows(4), epochs=1, reward_token=True)
    before, after = (tokenizer_load(one / "outputs" / "model") for one in (folder, tmp_path))
    assert len(before) == len(after)


def test_padding_that_is_the_end_of_turn_cannot_hide_whether_an_answer_ended(
    at_reward_token, base, tmp_path
):
    """The tiny tokenizer pads with the end of turn, as SmolLM2's does: pooling by it is blind."""
    assert tokenizer_load(base).pad_token_id == tokenizer_load(base).eos_token_id
    trained(tmp_path, base, rows(8), epochs=2)
    for folder in (at_reward_token[0], tmp_path):
        model = folder / "outputs" / "model"
        finished, unfinished = scores_in(model, [("aab", "stop"), ("aab", "length")])
        assert abs(finished - unfinished) > 1e-3
        saved = tokenizer_load(model)
        assert saved.pad_token_id not in (saved.eos_token_id, reward_token_id(saved))


# ── several heads ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory, base):
    folder = tmp_path_factory.mktemp("ensemble")
    return folder, trained(folder, base, heads=3, combine="worst")


def test_heads_learn_and_their_disagreement_is_told(ensemble):
    _, result = ensemble
    assert result["held_out"]["accuracy"] > 0.85
    told = result["ensemble"]
    assert told["members"] == 3 and len(told["member_accuracies"]) == 3
    assert told["spread"] > 0 and told["disagreement_bits"] > 0
    assert told["accuracy_worst"] == pytest.approx(result["held_out"]["accuracy"])


def test_a_saved_ensemble_is_scored_as_it_was_tested(ensemble):
    folder, _ = ensemble
    config = json.loads((folder / "outputs" / "model" / "config.json").read_text())
    assert (config["reward_heads"], config["reward_combine"]) == (3, "worst")
    model = model_load(folder / "outputs" / "model", dtype="float32", role="reward")
    attach(model)
    (row,) = pack([Group([1, 2], [[3, 4], [5]])], 100)
    with torch.no_grad():
        (members_KM,), (scores_K,) = member_scores(model, row), answer_scores(model, row)
    assert members_KM.shape == (2, 3)
    assert torch.equal(scores_K, members_KM.amin(1))


def test_members_have_mean_nought_on_the_training_answers(ensemble):
    folder, result = ensemble
    assert (result["zero"]["on"], result["zero"]["answers"]) == ("training answers", 128)
    saved = folder / "outputs" / "model"
    tokenizer = tokenizer_load(saved)
    data = rankings_load(
        folder / "inputs" / "rankings" / "rankings.jsonl", tokenizer, max_tokens=1000
    )
    model = model_load(saved, dtype="float32", role="reward")
    attach(model)
    groups = [group.group for group in data.of_split("train")]
    found = torch.cat(training.member_scores_of(model, groups, RewardConfig()))
    assert torch.allclose(found.mean(0), torch.zeros(3), atol=1e-5)


def test_each_head_sees_its_own_half_of_the_prompts_twice():
    config = RewardConfig(heads=4)
    drawn = torch.tensor([bootstrap_weights(f"p{n}", config) for n in range(400)])
    assert set(drawn.flatten().tolist()) == {0.0, 2.0}
    assert ((drawn.mean(0) - 1).abs() < 0.2).all()
    assert bootstrap_weights("p1", config) == bootstrap_weights("p1", config)
    assert bootstrap_weights("p1", RewardConfig()) == [1.0]


def test_a_base_of_another_number_of_heads_is_refused(ensemble, base, tmp_path):
    folder, _ = ensemble
    with pytest.raises(RefusedError, match=r"reward.heads: the base has 3, got 1"):
        reward_model_make(folder / "outputs" / "model", RewardConfig())


def test_a_classifier_of_several_labels_is_no_ensemble(ensemble, tmp_path):
    source = ensemble[0] / "outputs" / "model"
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    del config["reward_heads"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"score.weight has another shape"):
        model_load(tmp_path, dtype="float32", role="reward")
    config["reward_heads"] = "3"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="reward_heads: wanted 1 to 64, got '3'"):
        model_load(tmp_path, dtype="float32", role="reward")


# ── an adapter ───────────────────────────────────────────────────────────────────────────────────


def test_an_adapter_and_its_head_learn_and_are_merged(tmp_path, base):
    result = trained(tmp_path, base, adapter="lora", lora_rank=8, lr=5e-3)
    assert result["held_out"]["accuracy"] > 0.9
    before = model_load(base, dtype="float32").state_dict()
    model = model_load(tmp_path / "outputs" / "model", dtype="float32", role="reward")
    changed = {
        name
        for name, weight in model.state_dict().items()
        if name not in before or not torch.equal(weight, before[name].bfloat16().float())
    }
    assert "score.weight" in changed
    assert all(name.endswith("proj.weight") or name == "score.weight" for name in changed)
    assert len(changed) == 1 + 2 * 7


# ── the zero ─────────────────────────────────────────────────────────────────────────────────────


def test_demonstrations_have_mean_score_nought(tmp_path, base):
    folder = run_make(tmp_path / "run", base, rows(16), epochs=4)
    (tmp_path / "demonstrations").mkdir()
    records = [
        demonstration_written(1, "aaab", messages=PROMPT),
        demonstration_written(2, "bbbbbb", messages=PROMPT),
    ]
    records_write(tmp_path / "demonstrations" / "demonstrations.jsonl", records)
    input_add(folder, "demonstrations", tmp_path / "demonstrations")
    training.main(RunDir(folder))
    told = result_of(folder)["zero"]
    assert (told["on"], told["answers"]) == ("demonstrations", 2)
    scores = scores_in(folder / "outputs" / "model", [("aaab", "stop"), ("bbbbbb", "stop")])
    assert sum(scores) == pytest.approx(0, abs=1e-5)
    assert scores[0] > scores[1]


def test_of_demonstrations_only_single_answers_of_the_training_split_count(tmp_path, tokenizer):
    records = [
        demonstration_written(1, "yes"),
        demonstration_written(2, "held out", split="held_out"),
        demonstration_written(3, "a talk", turns=[{"user": "and?", "text": "so"}]),
        demonstration_written(4, "x" * 500),
    ]
    records_write(tmp_path / "demonstrations.jsonl", records)
    given = list(conversations_read(tmp_path))
    found = demonstrations_lay(given, tokenizer, max_tokens=100)
    assert [one.answers for one in found] == [[answer_encode(tokenizer, "yes", "stop")]]
    with pytest.raises(RefusedError, match="none of 3 demonstrations is a single answer"):
        demonstrations_lay(given[1:], tokenizer, max_tokens=100)


def test_demonstrations_without_one_to_score_are_refused_before_training(
    tmp_path, base, monkeypatch
):
    """Chats without a side of their own are on the side that the site's shares say."""
    monkeypatch.setattr(training, "reward_model_make", None)
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"Say {n}"},
                {"role": "assistant", "content": "a"},
            ]
        }
        for n in range(3)
    ]
    (tmp_path / "demonstrations").mkdir()
    text = "".join(json.dumps(row) + "\n" for row in chats)
    (tmp_path / "demonstrations" / "demonstrations.jsonl").write_text(text)
    folder = run_make(tmp_path / "run", base, rows(4), split_shares=[0.0, 0.0, 1.0])
    input_add(folder, "demonstrations", tmp_path / "demonstrations")
    with pytest.raises(RefusedError, match="none of 3 demonstrations is a single answer of the tr"):
        training.main(RunDir(folder))


def test_a_zero_that_means_safety_is_not_moved(tmp_path, base):
    folder = run_make(tmp_path / "run", base, rows(4), safety_weight=1.0)
    (tmp_path / "demonstrations").mkdir()
    records_write(
        tmp_path / "demonstrations" / "demonstrations.jsonl", [demonstration_written(1, "a")]
    )
    input_add(folder, "demonstrations", tmp_path / "demonstrations")
    with pytest.raises(RefusedError, match="demonstrations would move the scores' zero"):
        training.main(RunDir(folder))


def test_another_template_than_the_policys_is_refused_before_training(tmp_path, base):
    folder = run_make(tmp_path / "run", base, rows(4))
    policy = tiny_model_write(tmp_path / "policy")
    (policy / "chat_template.jinja").write_text(CHAT_TEMPLATE.replace("assistant\n", "model\n"))
    input_add(folder, "policy", policy)
    with pytest.raises(RefusedError, match="another chat template or vocabulary"):
        training.main(RunDir(folder))
    assert not (folder / "metrics.jsonl").read_text()


# ── labels ───────────────────────────────────────────────────────────────────────────────────────


def safety_rows(count, *, first=0, split="train"):
    """Pairs in which answers with "x" are unsafe: in turn both, none and the worse are."""
    made = []
    for number, record in enumerate(rows(count, first=first, split=split, candidates=2), first):
        unsafe = [["a", "b"], [], [record.tiers[1][0]]][number % 3]
        candidates = [
            {**one, "text": one["text"] + ("x" if one["id"] in unsafe else "")}
            for one in record.candidates
        ]
        made.append(dataclasses.replace(record, candidates=candidates, unsafe=unsafe))
    return made


def test_the_safety_loss_makes_the_score_tell_unsafe_answers(tmp_path, base):
    records = [*safety_rows(48), *safety_rows(24, first=201, split="held_out")]
    result = trained(tmp_path, base, records, safety_weight=1.0, epochs=8)
    told = result["safety"]
    assert (told["labels"], told["unsafe"]) == (48, 24)
    assert told["recall_at_0_5"] > 0.9 and told["precision_at_0_5"] > 0.7  # by chance 0.5
    assert "48 of 96 safety labels say unsafe" in result["notes"]


def test_weights_soft_labels_and_safety_enter_the_loss_by_hand():
    one = Ranking(tiers=((0,), (1,)), weight=0.5, unsafe=(1,))
    other = Ranking(tiers=((1,), (0,)), weight=0.25)
    tie = Ranking(tiers=((0, 1),), weight=0.25)
    group = ranked([[2], [3]], one, other, tied=[tie])
    scores_KM = torch.tensor([[1.0], [0.0]])
    won, lost = 0.3132617, 1.3132617  # log(1 + e^-1), log(1 + e^1)

    weighed = RewardConfig(annotator_weights=True)
    assert training.group_weight(group, weighed) == 0.75
    found = training.group_losses(scores_KM, group, weighed)
    assert float(found) == pytest.approx(0.5 * won + 0.25 * lost)

    # A tie is one half: (0.5 + 0.125) of 1 put the first above the second.
    soft = RewardConfig(annotator_weights=True, soft_labels=True)
    assert training.group_weight(group, soft) == pytest.approx(1 / 3)
    found = training.group_losses(scores_KM, group, soft)
    assert float(found) == pytest.approx((0.625 * won + 0.375 * lost) / 3)

    safe = RewardConfig(safety_weight=2.0)
    found = training.group_losses(scores_KM, group, safe)
    expected = safety_loss(scores_KM[:, 0], torch.tensor([False, True]))
    assert float(found) == pytest.approx(won + lost + 2 * float(expected))


def test_a_degree_asks_for_its_margin(base):
    group = ranked([[2], [3]], Ranking(tiers=((0,), (1,)), degree=4))
    scores_KM = torch.tensor([[2.0], [0.0]])
    found = training.group_losses(scores_KM, group, RewardConfig(degree_margin="small"))
    assert float(found) == pytest.approx(0.3132617)  # 2 less 1


def test_pairs_as_examples_learn_the_same_rule(tmp_path, base):
    result = trained(tmp_path, base, pairwise=True, epochs=2, rankings_per_step=16)
    assert result["train"]["rankings"] == result["train"]["pairs"] == 192
    assert result["held_out"]["accuracy"] > 0.9


# ── stopping and going on ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "config, reason",
    [
        ({"head_lr": 30.0}, "loss was .* and for 3 steps more than 10 times its level of 0.69"),
        (
            {"head_lr": 30.0, "loss_rise_limit": 0.0},
            "grad_norm was .* more than 50 times its level",
        ),
    ],
)
def test_a_run_that_diverges_stops_within_twenty_steps(tmp_path, base, config, reason):
    # Half of the labels say the opposite: large scores are then wrong half of the time.
    records = [
        dataclasses.replace(one, tiers=one.tiers[:: 1 if number % 2 else -1])
        for number, one in enumerate(rows(16))
    ]
    folder = run_make(
        tmp_path / "run", base, records, epochs=20, checkpoint_every_steps=1, **config
    )
    with pytest.raises(Diverged, match=reason):
        training.main(RunDir(folder))
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) <= 20
    assert list((folder / "outputs").iterdir()) == []
    assert not (folder / "result.json").exists()


@pytest.mark.parametrize(
    "config",
    [
        {"heads": 3},
        {"adapter": "lora", "lora_rank": 4},
        {"reward_token": True, "soft_labels": False},
    ],
    ids=["heads", "adapter", "reward token"],
)
def test_stopped_and_started_again_it_ends_the_same(tmp_path, base, monkeypatch, config):
    records = [*rows(12), *rows(2, first=200, split="held_out")]
    settings = {"epochs": 3, "checkpoint_every_steps": 4, **config}
    whole = run_make(tmp_path / "whole", base, records, **settings)
    training.main(RunDir(whole))

    stopped = run_make(tmp_path / "stopped", base, records, **settings)
    progress = RunDir.progress

    def stop(run, done, total, unit):
        if done == 6:
            raise KeyboardInterrupt
        progress(run, done, total, unit)

    monkeypatch.setattr(RunDir, "progress", stop)
    with pytest.raises(KeyboardInterrupt):
        training.main(RunDir(stopped))
    monkeypatch.setattr(RunDir, "progress", progress)
    training.main(RunDir(stopped))
    assert result_of(stopped)["losses"] == result_of(whole)["losses"]
    weights = "outputs/model/model.safetensors"
    assert (stopped / weights).read_bytes() == (whole / weights).read_bytes()


@pytest.mark.parametrize(
    "config, message",
    [
        ({"label_smoothing": 0.5}, "reward.label_smoothing: wanted 0 or more, less than 0.5"),
        ({"combine": "worst"}, "reward.combine: wanted mean for a single head"),
        ({"combine": "median"}, "reward.combine: wanted mean, worst or uncertain"),
        ({"heads": 0}, "reward.heads: wanted 1 to 16"),
        ({"degree_margin": "huge"}, "reward.degree_margin: wanted none, small or large"),
        ({"pairwise": True, "soft_labels": True}, "reward.soft_labels: wanted false with pairwise"),
        ({"adapter": "lora", "frozen_layers": 1}, "reward.frozen_layers: wanted 0 with an adapter"),
        ({"optimizer": "sgd"}, "reward.optimizer: wanted adamw, adamw_8bit, paged_adamw or"),
        ({"loss_rise_limit": 0.5}, "reward.loss_rise_limit: wanted more than 1, or 0"),
    ],
)
def test_settings_that_contradict_each_other_are_named(config, message):
    with pytest.raises(ConfigError, match=message):
        RewardConfig(**config)
