"""Evaluation: its arithmetic by hand, its KL against the definition, and what it refuses."""

import math
from dataclasses import astuple

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml import evaluate
from alignment.ml.configs import SftConfig
from alignment.ml.scoring import Scorer, divergences
from alignment.ml.shared_prefix import Group, pack
from alignment.ml.vocabulary import session_end_add, token_rows_start
from modelhub.ml.chat import answer_encode, prompt_render
from modelhub.ml.checkpoint import model_load, model_save, tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.records import PromptRecord
from modelhub.ml.rundir import RunDir
from tests.alignment.ml.programs import (
    candidate,
    candidates_write,
    lines_of,
    messages,
    prompts_write,
    result_of,
    run_make,
    tiny_reward_write,
)
from tests.tiny_model import tiny_model_write, tiny_tokenizer

pytestmark = pytest.mark.ml


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    return tiny_model_write(tmp_path_factory.mktemp("before"), seed=0)


@pytest.fixture(scope="module")
def after(tmp_path_factory):
    return tiny_model_write(tmp_path_factory.mktemp("after"), seed=1)


@pytest.fixture(scope="module")
def reward(tmp_path_factory, before):
    return tiny_reward_write(tmp_path_factory.mktemp("reward"), before)


IDS = ["p0", "p1", "p2"]


def evaluate_run(folder, models, prompts, first, second, **config):
    inputs = {
        **models,
        "prompts": prompts_write(folder / "prompts", prompts),
        "candidates_before": candidates_write(folder / "candidates_before", first),
        "candidates_after": candidates_write(folder / "candidates_after", second),
    }
    return run_make(folder / "run", "evaluate", inputs, {"bootstrap_samples": 200, **config})


def answers(word, **fields):
    return [candidate(one, i, f"{word} {one} {i}", **fields) for one in IDS for i in range(2)]


# ── arithmetic ───────────────────────────────────────────────────────────────────────────────────


def test_win_share_counts_every_pair_and_ties_by_half():
    # (1, 2), (1, 3), (3, 2), (3, 3): win, win, loss, tie.
    assert evaluate.win_share([1, 3], [2, 3]) == (1 + 1 + 0 + 0.5) / 4


def test_repetition_is_the_share_of_4_grams_written_before():
    # 1234 2341 3412 4123 1234: one of five is there again.
    assert evaluate.repetition([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(1 / 5)
    assert evaluate.repetition([7] * 10) == pytest.approx(6 / 7)
    assert evaluate.repetition([1, 2, 3, 4]) == 0
    assert evaluate.repetition([]) == 0


def test_distinct_2_is_over_all_answers():
    # 12 23 | 12: two different ones of three.
    assert evaluate.distinct_2([[1, 2, 3], [1, 2], [5]]) == pytest.approx(2 / 3)
    assert evaluate.distinct_2([[5], []]) is None


def test_correlation_looks_inside_groups_only():
    # Inside each group y falls as x grows; across the groups it rises.
    groups = [[(1, 2), (2, 1)], [(11, 12), (12, 11)]]
    assert evaluate.correlation_within(groups) == pytest.approx(-1)
    assert evaluate.correlation_within([[(1, 2), (1, 3)]]) is None


def test_correlation_against_a_value_worked_by_hand():
    # Deviations x: -1 0 1, y: -1 1 0. Sums: xy = 1, xx = 2, yy = 2.
    assert evaluate.correlation_within([[(1, 1), (2, 3), (3, 2)]]) == pytest.approx(1 / 2)


# ── KL ───────────────────────────────────────────────────────────────────────────────────────────


def test_kl_is_the_definitions_over_the_whole_vocabulary(before, after):
    """Against transformers' own forward pass, one answer at a time, in float64."""
    tokenizer = tokenizer_load(after)
    prompts = [prompt_render(tokenizer, messages(text)) for text in ("Say it", "And again?")]
    texts = [["a b c", "", "zz"], ["quite another answer"]]
    groups = [
        Group(prompt, [answer_encode(tokenizer, text, "stop") for text in own])
        for prompt, own in zip(prompts, texts, strict=True)
    ]
    (row,) = pack(groups, 1000)
    new = Scorer(after, role="causal", dtype="float32")
    old = Scorer(before, role="causal", dtype="float32")
    with torch.inference_mode():
        found = divergences(new, old, row)
    models = [model_load(folder, dtype="float32").double() for folder in (after, before)]
    for group, own in zip(groups, found, strict=True):
        for answer, divergence in zip(group.answers, own, strict=True):
            ids = torch.tensor([group.prompt_T + answer])
            logs = [
                model(ids).logits[0, len(group.prompt_T) - 1 : -1].log_softmax(-1)
                for model in models
            ]
            chosen = [log[range(len(answer)), answer].sum().item() for log in logs]
            kl = (logs[0].exp() * (logs[0] - logs[1])).sum().item()
            assert divergence.logprob_after == pytest.approx(chosen[0], rel=1e-5)
            assert divergence.logprob_before == pytest.approx(chosen[1], rel=1e-5)
            assert divergence.kl == pytest.approx(kl, rel=1e-4)


def test_a_token_that_fine_tuning_added_is_left_out_of_both(tmp_path, before, after):
    """As if the new policy had never heard of it, however likely it is."""
    tokenizer, model = tokenizer_load(after), model_load(after, dtype="float32")
    known = len(tokenizer)
    session_end_add(tokenizer, SftConfig(end_of_session="<|end_of_session|>"))
    token_rows_start(model, tokenizer, known=known)
    with torch.no_grad():
        model.get_output_embeddings().weight[known] = model.get_output_embeddings().weight[5]
    model_save(model, tokenizer, tmp_path, dtype="float32")
    prompt_T = prompt_render(tokenizer, messages("Say it"))
    group = Group(prompt_T, [answer_encode(tokenizer, text, "stop") for text in ("a b", "c")])
    (row,) = pack([group], 1000)
    old, plain, wider = (
        Scorer(one, role="causal", dtype="float32") for one in (before, after, tmp_path)
    )
    assert wider.model.get_output_embeddings().weight.shape[0] == known + 1
    with torch.inference_mode():
        (expected,), (found,) = divergences(plain, old, row), divergences(wider, old, row)
        ((same, _),) = divergences(wider, plain, row)
    for one, other in zip(found, expected, strict=True):
        assert astuple(one) == pytest.approx(astuple(other), rel=1e-5)
    assert same.kl == pytest.approx(0, abs=1e-6)


def test_both_estimates_of_kl_meet_on_answers_of_the_policy_itself(before, after):
    """1,500 answers of three tokens drawn from `after`: the means agree within their noise."""
    tokenizer = tokenizer_load(after)
    prompt_T = prompt_render(tokenizer, messages("x"))
    model = model_load(after, dtype="float32")
    torch.manual_seed(0)
    ids = torch.tensor([prompt_T] * 1500)
    with torch.inference_mode():
        for _ in range(3):
            odds = model(ids, logits_to_keep=1).logits[:, -1].softmax(-1)
            ids = torch.cat([ids, torch.multinomial(odds, 1)], dim=1)
        group = Group(prompt_T, ids[:, len(prompt_T) :].tolist())
        new = Scorer(after, role="causal", dtype="float32")
        old = Scorer(before, role="causal", dtype="float32")
        ((found),) = divergences(new, old, pack([group], 10_000)[0])
    ratios = torch.tensor([d.logprob_after - d.logprob_before for d in found])
    sums = torch.tensor([d.kl for d in found])
    noise = ratios.std() / math.sqrt(len(ratios))
    assert abs(ratios.mean() - sums.mean()) < 4 * noise
    assert sums.std() < 0.7 * ratios.std()  # why the sum over the vocabulary is the one reported


# ── what is refused ──────────────────────────────────────────────────────────────────────────────


def prompt(prompt_id):
    return PromptRecord(prompt_id=prompt_id, messages=messages(prompt_id))


@pytest.mark.parametrize(
    ("prompts", "first", "second", "reason"),
    [
        ([], [], [], "two held-out prompts or more, got 0"),
        (["a"], [("a", 0)], [("a", 0)], "two held-out prompts or more, got 1"),
        (["a", "a"], [], [], "prompt a is there twice"),
        (["a", "b"], [], [], "candidates_before: 2 of 2 held-out prompts have no answer, a for"),
        (
            ["a", "b"],
            [("a", 0), ("b", 0)],
            [("a", 0)],
            "candidates_after: 1 of 2 held-out prompts have no answer, b for one",
        ),
        (["a", "b"], [("c", 0)], [], "candidates_before: an answer to c, no held-out prompt"),
        (["a", "b"], [("a", 0), ("a", 0)], [], "candidates_before: answer 0 to a is there twice"),
    ],
)
def test_answers_to_other_prompts_are_refused(prompts, first, second, reason):
    with pytest.raises(RefusedError, match=reason):
        evaluate.held_out_make(
            [prompt(one) for one in prompts],
            [candidate(one, index, "x") for one, index in first],
            [candidate(one, index, "x") for one, index in second],
        )


def test_policies_of_different_tokenizers_are_refused_before_a_model_is_loaded(
    tmp_path, before, reward, monkeypatch
):
    monkeypatch.setattr(evaluate, "Scorer", None)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("\n", " ")
    model_save(model_load(before, dtype="float32"), tokenizer, tmp_path / "other", "float32")
    run = evaluate_run(
        tmp_path,
        {"before": before, "after": tmp_path / "other", "reward": reward},
        IDS,
        answers("old"),
        answers("new"),
    )
    with pytest.raises(RefusedError, match="no KL is defined"):
        evaluate.main(RunDir(run))


def test_a_set_of_which_nothing_can_be_read_is_refused(tmp_path, before, reward):
    run = evaluate_run(
        tmp_path,
        {"before": before, "after": before, "reward": reward},
        IDS,
        answers("old"),
        answers("new" * 30),
        max_tokens=60,
    )
    with pytest.raises(RefusedError, match="3 of 3 held-out prompts have an answer that"):
        evaluate.main(RunDir(run))


# ── the run ──────────────────────────────────────────────────────────────────────────────────────


def test_the_same_answer_has_one_score_wherever_it_lay():
    answers = [[1, 2], [3], [1, 2], []]
    assert evaluate.scores_unify(answers, [0.5, 0.1, 0.5000001, 0.0]) == [0.5, 0.1, 0.5, 0.0]


def test_a_policy_against_itself_shows_no_difference(tmp_path, before, reward):
    run = evaluate_run(
        tmp_path,
        {"before": before, "after": before, "reward": reward},
        IDS,
        answers("same"),
        answers("same"),
    )
    evaluate.main(RunDir(run))
    result = result_of(run)
    assert result["reward_difference"] == pytest.approx({"mean": 0, "low": 0, "high": 0}, abs=1e-5)
    assert result["win_rate"]["mean"] == pytest.approx(0.5)
    assert result["kl_per_answer_nats"] == pytest.approx(0, abs=1e-6)
    assert result["kl_per_answer_sampled_nats"] == pytest.approx(0, abs=1e-6)
    assert result["length_before"] == result["length_after"]


def test_two_policies_are_compared_answer_by_answer(tmp_path, before, after, reward):
    second = [*answers("different")[:-1], candidate("p2", 1, "cut o", "length")]
    run = evaluate_run(
        tmp_path,
        {"before": before, "after": after, "reward": reward},
        IDS,
        answers("old"),
        second,
        budget_tokens=150,
    )
    evaluate.main(RunDir(run))
    result = result_of(run)
    rows = lines_of(run / "outputs/evaluation/samples.jsonl")
    keys = [(row["prompt_id"], row["side"], row["index"]) for row in rows]
    assert keys == sorted(keys) and len(rows) == 12
    by_side = {
        side: {one: [r for r in rows if (r["side"], r["prompt_id"]) == (side, one)] for one in IDS}
        for side in ("before", "after")
    }

    def mean(numbers):
        numbers = list(numbers)
        return sum(numbers) / len(numbers)

    differences = [
        mean(r["reward"] for r in by_side["after"][one])
        - mean(r["reward"] for r in by_side["before"][one])
        for one in IDS
    ]
    found = result["reward_difference"]
    assert found["mean"] == pytest.approx(mean(differences))
    assert min(differences) - 1e-9 <= found["low"] <= found["high"] <= max(differences) + 1e-9
    kl = [mean(r["kl"] for r in by_side["after"][one]) for one in IDS]
    assert result["kl_per_answer_nats"] == pytest.approx(mean(kl))
    assert result["kl_per_answer_low"] <= mean(kl) <= result["kl_per_answer_high"]
    own = [r for r in rows if r["side"] == "after"]
    per_token = sum(r["kl"] for r in own) / sum(r["tokens"] for r in own)
    assert result["kl_per_token_nats"] == pytest.approx(per_token)
    assert all(r["kl"] is None for r in rows if r["side"] == "before")
    assert (result["finished_before"], result["finished_after"]) == (1, 5 / 6)
    assert result["length_before"] == len("old p0 0") + 1
    assert result["mean_logprob_after"] == -1.5
    assert result["kl_is_the_policies"] is True


def test_a_tempered_sampler_is_told_from_the_policy(tmp_path, before, after, reward):
    run = evaluate_run(
        tmp_path,
        {"before": before, "after": after, "reward": reward},
        IDS,
        answers("old"),
        answers("new", temperature=0.7),
    )
    evaluate.main(RunDir(run))
    assert result_of(run)["kl_is_the_policies"] is False


def test_a_prompt_with_an_answer_too_long_to_read_is_left_out_on_both_sides(
    tmp_path, before, after, reward
):
    first = [*answers("old"), candidate("p1", 9, "x" * 100)]
    run = evaluate_run(
        tmp_path,
        {"before": before, "after": after, "reward": reward},
        IDS,
        first,
        answers("new"),
        max_tokens=80,
    )
    evaluate.main(RunDir(run))
    result = result_of(run)
    assert (result["prompts"], result["prompts_too_long"]) == (2, 1)
    rows = lines_of(run / "outputs/evaluation/samples.jsonl")
    assert {row["prompt_id"] for row in rows} == {"p0", "p2"}


def test_stopped_between_any_two_rows_it_ends_with_the_same_result(
    tmp_path, before, after, reward, monkeypatch
):
    """Every row is a checkpoint here, and the program dies behind each in turn."""
    monkeypatch.setattr("alignment.ml.scoring._CHECKPOINT_EVERY_S", -1.0)
    models = {"before": before, "after": after, "reward": reward}
    arguments = (models, IDS, answers("old"), answers("new"))
    whole = evaluate_run(tmp_path / "whole", *arguments, budget_tokens=10)
    evaluate.main(RunDir(whole))
    stopped = evaluate_run(tmp_path / "stopped", *arguments, budget_tokens=10)
    publish, deaths = RunDir.checkpoint_publish, []

    def publish_and_die(self, step, write):
        publish(self, step, write)
        deaths.append(step)
        raise KeyboardInterrupt

    monkeypatch.setattr(RunDir, "checkpoint_publish", publish_and_die)
    while True:
        try:
            evaluate.main(RunDir(stopped))
            break
        except KeyboardInterrupt:
            continue
    assert deaths == [1, 2, 3, 4, 5]  # of 3 rows for the reward model and 3 for the policies
    assert result_of(stopped) == result_of(whole)
    path = "outputs/evaluation/samples.jsonl"
    assert (stopped / path).read_bytes() == (whole / path).read_bytes()
