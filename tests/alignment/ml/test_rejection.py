"""Rejection sampling: what is scored, what is kept, and that a kill changes nothing."""

import random

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml import rejection, scoring
from alignment.ml.checkers import ReferenceRecord
from alignment.ml.configs import RejectionConfig
from alignment.ml.contests import Answer, Contest
from alignment.ml.data import DemonstrationRecord
from modelhub.ml.chat import answer_encode, prompt_render
from modelhub.ml.checkpoint import model_load, tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.records import records_write
from modelhub.ml.rundir import RunDir
from tests.alignment.ml.programs import (
    candidate,
    candidates_write,
    checkpoints_of,
    lines_of,
    messages,
    program_kill,
    prompts_write,
    result_of,
    run_make,
    tiny_reward_write,
)
from tests.tiny_model import tiny_model_write

pytestmark = [pytest.mark.ml, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def reward(tmp_path_factory):
    base = tiny_model_write(tmp_path_factory.mktemp("base"))
    return tiny_reward_write(tmp_path_factory.mktemp("reward"), base)


def pooled(prompt_id, text, *, batch="earlier"):
    return DemonstrationRecord(
        prompt_id=prompt_id,
        messages=messages(f"Say {prompt_id}"),
        text=text,
        finish_reason="stop",
        score=99.0,  # another reward model's: says nothing here
        batch=batch,
    )


def rejection_run(folder, reward, prompts, candidates, pools=(), references=None, **config):
    inputs = {
        "prompts": prompts_write(folder / "prompts", prompts),
        "candidates": candidates_write(folder / "candidates", candidates),
    }
    if reward is not None:
        inputs["reward"] = reward
    if references is not None:
        inputs["references"] = folder / "references"
        inputs["references"].mkdir()
        records = [
            ReferenceRecord(prompt_id=one, answer=right) for one, right in references.items()
        ]
        records_write(folder / "references" / "references.jsonl", records)
    for number, records in enumerate(pools, start=1):
        inputs[f"pool_{number}"] = folder / f"pool_{number}"
        inputs[f"pool_{number}"].mkdir()
        records_write(folder / f"pool_{number}" / "demonstrations.jsonl", records)
    return run_make(folder / "run", "rejection", inputs, config)


def contest(*answers):
    """answers: (text, finish_reason) in order."""
    return Contest(
        prompt_id="p",
        messages=messages("Say"),
        answers=[
            Answer(source="candidates", index=i, text=text, finish_reason=reason, batch="b")
            for i, (text, reason) in enumerate(answers)
        ],
    )


def kept_of(answers, scores, rights=None, **config):
    return rejection.answers_keep(answers, scores, RejectionConfig(**config), rights).kept


# ── what is kept ─────────────────────────────────────────────────────────────────────────────────


def test_the_highest_score_is_kept_and_of_equal_ones_the_first():
    answers = contest(("a", "stop"), ("b", "stop"), ("c", "stop"))
    assert kept_of(answers, [1, 3, 2]) == [1]
    assert kept_of(answers, [2, 1, 2], keep=2) == [0, 2]


def test_an_answer_that_was_cut_off_is_kept_only_on_request():
    answers = contest(("a", "stop"), ("b", "length"))
    assert kept_of(answers, [1, 2]) == [0]
    assert kept_of(answers, [1, 2], finished_only=False) == [1]


def test_a_prompt_of_which_every_answer_was_cut_off_keeps_none():
    answers = contest(("a", "length"), ("b", "length"))
    assert kept_of(answers, [1, 2]) == []


def test_the_same_text_is_not_kept_twice_and_an_empty_one_never():
    answers = contest(("a", "stop"), ("a", "stop"), ("", "stop"), (" \n", "stop"), ("b", "stop"))
    assert kept_of(answers, [5, 5, 9, 8, 1], keep=3) == [0, 4]


def test_an_answer_without_a_score_is_not_kept():
    answers = contest(("a", "stop"), ("b", "stop"))
    assert kept_of(answers, [None, -4.0], keep=2) == [1]


def test_the_same_answer_in_other_case_and_spacing_is_kept_once():
    answers = contest(("Yes, it is.", "stop"), ("yes,  it is. ", "stop"), ("No.", "stop"))
    assert kept_of(answers, [1, 2, 0], keep=3) == [1, 2]


def test_of_answers_more_alike_than_allowed_the_better_one_is_kept():
    # Pieces of five: {abcde, bcdef} and {bcdef, cdefg}: one of three in common.
    answers = contest(("abcdef", "stop"), ("bcdefg", "stop"))
    assert kept_of(answers, [1, 2], keep=2, alike=0.3) == [1]
    assert kept_of(answers, [1, 2], keep=2, alike=0.4) == [1, 0]


def test_an_answer_hardly_better_than_its_prompts_mean_is_left_out():
    answers = contest(("a", "stop"), ("b", "stop"), ("c", "stop"))  # a mean of 2
    assert kept_of(answers, [1, 2, 3], gain_floor=1.0) == [2]
    assert kept_of(answers, [1, 2, 3], gain_floor=1.1) == []


def test_every_answer_that_is_not_kept_has_one_reason():
    answers = contest(
        ("x", "stop"), (" ", "length"), ("b", "length"), ("c", "stop"), ("d", "stop"), ("D", "stop")
    )
    choice = rejection.answers_keep(answers, [None, 9, 9, 1, 8, 7], RejectionConfig())
    assert choice.kept == [4]
    assert choice.dropped == {
        0: "too_long",
        1: "empty",
        2: "unfinished",
        3: "outranked",
        5: "alike",
    }


def test_a_wrong_answer_is_not_kept_however_high_its_score():
    answers = contest(("a", "stop"), ("b", "stop"), ("c", "stop"), ("d", "length"))
    rights = [True, False, True, False]
    assert kept_of(answers, [1, 9, 2, 8], rights, keep=3) == [2, 0]
    choice = rejection.answers_keep(answers, [1, 9, 2, 8], RejectionConfig(), rights)
    assert choice.dropped == {0: "outranked", 1: "wrong", 3: "unfinished"}


# ── what is refused ──────────────────────────────────────────────────────────────────────────────


def test_a_set_without_a_finished_answer_is_refused_before_a_model_is_loaded(
    tmp_path, reward, monkeypatch
):
    monkeypatch.setattr(rejection, "Scorer", None)
    run = rejection_run(tmp_path, reward, ["a"], [candidate("a", 0, "x", "length")])
    with pytest.raises(RefusedError, match="every answer was cut off"):
        rejection.main(RunDir(run))


def test_a_reward_model_that_cannot_tell_answers_apart_is_refused(tmp_path, reward):
    indifferent = tiny_reward_write(tmp_path / "indifferent", reward, head=0.0)
    candidates = [candidate(one, i, f"{one}{i}") for one in ("a", "b") for i in range(3)]
    run = rejection_run(tmp_path, indifferent, ["a", "b"], candidates)
    with pytest.raises(RefusedError, match="it cannot choose"):
        rejection.main(RunDir(run))
    assert not (run / "result.json").exists()


@pytest.mark.parametrize(
    ("judges", "reason"),
    [
        ({}, "nothing judges the answers: give the input reward, or a checker"),
        ({"checker": "gsm8k"}, "checker gsm8k needs the input references"),
        ({"checker": "vibes", "references": {"a": "1"}}, "wanted exact or gsm8k, got 'vibes'"),
        ({"references": {"a": "1"}}, "references are for a checker"),
        ({"checker": "gsm8k", "references": {"b": "1"}}, "no reference for 1 prompts, such as a"),
        ({"checker": "gsm8k", "references": {"a": "4"}}, "none of 2 answers is right by gsm8k"),
    ],
)
def test_answers_that_nothing_can_judge_are_refused(tmp_path, judges, reason):
    candidates = [candidate("a", 0, "It is 2"), candidate("a", 1, "Is it 3?")]
    run = rejection_run(tmp_path, None, ["a"], candidates, **judges)
    with pytest.raises(RefusedError, match=reason):
        rejection.main(RunDir(run))


# ── the run ──────────────────────────────────────────────────────────────────────────────────────


def many(prompts=9, samples=5, seed=0):
    draw = random.Random(seed)
    ids = [f"p{number:03}" for number in range(prompts)]
    candidates = [
        candidate(
            one,
            i,
            "".join(draw.choices("abcdef ", k=draw.randint(1, 30))) + "!",
            "length" if draw.random() < 0.3 else "stop",
        )
        for one in ids
        for i in range(samples)
    ]
    return ids, candidates


def test_scores_are_the_reward_models_own_and_the_best_finished_answer_wins(tmp_path, reward):
    ids, candidates = many()
    run = rejection_run(tmp_path, reward, ids, candidates, budget_tokens=300)
    rejection.main(RunDir(run))
    scores = lines_of(run / "outputs/demonstrations/scores.jsonl")
    assert [(row["prompt_id"], row["index"]) for row in scores] == [
        (one, i) for one in ids for i in range(5)
    ]
    # Each answer alone behind its prompt, through transformers' own forward pass.
    model, tokenizer = model_load(reward, dtype="float32", role="reward"), tokenizer_load(reward)
    for row, one in zip(scores, candidates, strict=True):
        tokens = prompt_render(tokenizer, messages(f"Say {one.prompt_id}"))
        tokens += answer_encode(tokenizer, one.text, one.finish_reason)
        hidden = model.model(torch.tensor([tokens])).last_hidden_state[0, -1]
        assert row["score"] == pytest.approx(model.score(hidden).item(), rel=1e-4, abs=1e-4)
    demonstrations = lines_of(run / "outputs/demonstrations/demonstrations.jsonl")
    by_id = {row["prompt_id"]: row for row in demonstrations}
    assert list(by_id) == sorted(by_id) and len(by_id) == len(demonstrations)
    for one in ids:
        finished = [
            (row["score"], answer.text)
            for row, answer in zip(scores, candidates, strict=True)
            if row["prompt_id"] == one and answer.finish_reason == "stop"
        ]
        assert (by_id[one]["score"], by_id[one]["text"]) == max(finished)
        assert by_id[one]["messages"] == messages(f"Say {one}")
    result = result_of(run)
    assert result["kept"] == result["prompts"] == 9
    assert result["candidates"] == 45
    assert result["dropped"]["unfinished"] == sum(c.finish_reason == "length" for c in candidates)
    assert result["kept"] + sum(result["dropped"].values()) == result["candidates"]
    assert result["mean_score_kept"] > result["mean_score_all"]
    curve = [point["mean_score"] for point in result["best_of_n"]]
    assert curve[0] == pytest.approx(result["mean_score_all"]) and curve == sorted(curve)


SUMS = {"a": "4 and 3.\n#### 7", "b": "#### 1,000"}
SUMMED = [
    candidate("a", 0, "It is 6."),
    candidate("a", 1, "4 + 3 = 7"),
    candidate("a", 2, "three and four: 7"),
    candidate("a", 3, "#### 7", "length"),
    candidate("b", 0, "999"),
    candidate("b", 1, "It is $1000.00"),
    candidate("b", 2, "I know not"),
    candidate("b", 3, "ten"),
]


def test_a_floor_of_scores_is_refused_where_there_are_none(tmp_path):
    run = rejection_run(
        tmp_path, None, ["a"], SUMMED, references=SUMS, checker="gsm8k", gain_floor=0.1
    )
    with pytest.raises(RefusedError, match="gain_floor is in a reward model's unit"):
        rejection.main(RunDir(run))


def test_a_checker_keeps_right_answers_without_a_reward_model(tmp_path, monkeypatch):
    monkeypatch.setattr(rejection, "Scorer", None)
    pool = [pooled("a", "7 it is", batch="first"), pooled("a", "8 it is")]
    run = rejection_run(
        tmp_path, None, ["a", "b"], SUMMED, [pool], references=SUMS, checker="gsm8k", keep=3
    )
    rejection.main(RunDir(run))
    rows = lines_of(run / "outputs/demonstrations/demonstrations.jsonl")
    assert [row["text"] for row in rows] == [
        "4 + 3 = 7",
        "three and four: 7",
        "7 it is",
        "It is $1000.00",
    ]
    assert {row["score"] for row in rows} == {1.0}
    scores = lines_of(run / "outputs/demonstrations/scores.jsonl")
    assert [row["right"] for row in scores[:6]] == [False, True, True, True, True, False]
    assert {row["tokens"] for row in scores} == {None}
    result = result_of(run)
    assert result["dropped"]["wrong"] == 5 and result["dropped"]["unfinished"] == 1
    assert (result["right"], result["prompts_all_right"], result["prompts_none_right"]) == (4, 0, 0)
    # Three of a's four are right, one of b's: all draws of two but b's three without it have one.
    assert [one["pass_at_n"] for one in result["best_of_n"]] == pytest.approx([1 / 2, 3 / 4, 1])
    assert all(one["pass_at_n"] == one["mean_score"] for one in result["best_of_n"])


def test_a_reward_model_chooses_among_the_right_answers(tmp_path, reward):
    run = rejection_run(tmp_path, reward, ["a", "b"], SUMMED, references=SUMS, checker="gsm8k")
    rejection.main(RunDir(run))
    rows = lines_of(run / "outputs/demonstrations/demonstrations.jsonl")
    scores = {
        (row["prompt_id"], row["index"]): row["score"]
        for row in lines_of(run / "outputs/demonstrations/scores.jsonl")
    }
    better = max((1, 2), key=lambda index: scores["a", index])
    assert [row["text"] for row in rows] == [SUMMED[better].text, "It is $1000.00"]
    assert rows[0]["score"] == scores["a", better] != 1.0
    last = result_of(run)["best_of_n"][-1]
    assert last["pass_at_n"] == 1.0
    favourites = [max(range(4), key=lambda index: scores[one, index]) for one in ("a", "b")]
    assert last["best_right"] == ((favourites[0] > 0) + (favourites[1] == 1)) / 2


def test_prompts_without_a_finished_answer_are_counted(tmp_path, reward):
    candidates = [
        candidate("a", 0, "yes"),
        candidate("a", 1, "no"),
        candidate("b", 0, "x", "length"),
    ]
    run = rejection_run(tmp_path, reward, ["a", "b"], candidates)
    rejection.main(RunDir(run))
    result = result_of(run)
    assert (result["prompts"], result["kept"], result["prompts_without_kept"]) == (2, 1, 1)


def test_an_answer_too_long_to_be_scored_is_counted_and_listed(tmp_path, reward):
    candidates = [candidate("a", 0, "yes"), candidate("a", 1, "x" * 90), candidate("a", 2, "no")]
    run = rejection_run(tmp_path, reward, ["a"], candidates, max_tokens=80)
    rejection.main(RunDir(run))
    assert result_of(run)["dropped"]["too_long"] == 1
    rows = lines_of(run / "outputs/demonstrations/scores.jsonl")
    assert [row["score"] is None for row in rows] == [False, True, False]
    assert [row["tokens"] for row in rows] == [4, 91, 3]


def test_the_best_of_all_rounds_wins_by_the_newest_score(tmp_path, reward):
    """Scores of single answers first, then a run in which the pool holds the best and the worst."""
    ids, candidates = many(prompts=4, samples=6, seed=3)
    candidates = [c for c in candidates if c.finish_reason == "stop"]
    whole = rejection_run(tmp_path / "whole", reward, ids, candidates)
    rejection.main(RunDir(whole))
    best = lines_of(whole / "outputs/demonstrations/demonstrations.jsonl")
    texts = {row["prompt_id"]: row["text"] for row in best}

    left = [c for c in candidates if c.text != texts[c.prompt_id]]
    pools = [
        [pooled(ids[0], texts[ids[0]], batch="first"), pooled("old", "Ahoy.")],
        [pooled(ids[1], texts[ids[1]], batch="second")],
    ]
    run = rejection_run(tmp_path / "pooled", reward, ids, left, pools)
    rejection.main(RunDir(run))
    kept = {
        row["prompt_id"]: row
        for row in lines_of(run / "outputs/demonstrations/demonstrations.jsonl")
    }
    # Two prompts have their best from a pool, with where it was drawn; the others make do; and a
    # prompt that only an earlier round asked is not forgotten.
    assert [kept[one]["text"] == texts[one] for one in ids] == [True, True, False, False]
    assert [kept[one]["batch"] for one in ids[:2]] == ["first", "second"]
    assert kept["old"]["text"] == "Ahoy." and kept["old"]["score"] != 99.0
    assert kept[ids[0]]["score"] == pytest.approx(best[0]["score"], rel=1e-4)
    assert result_of(run)["kept_from_pools"] == 3
    assert {row["source"] for row in lines_of(run / "outputs/demonstrations/scores.jsonl")} == {
        "candidates",
        "pool_1",
        "pool_2",
    }


def test_the_order_of_the_files_changes_no_byte(tmp_path, reward):
    ids, candidates = many()
    found = []
    for seed in (None, 1):
        if seed is not None:
            random.Random(seed).shuffle(candidates)
            random.Random(seed).shuffle(ids)
        run = rejection_run(tmp_path / str(seed), reward, ids, candidates)
        rejection.main(RunDir(run))
        scores = (run / "outputs/demonstrations/scores.jsonl").read_bytes()
        demonstrations = lines_of(run / "outputs/demonstrations/demonstrations.jsonl")
        # `batch` is the name of the candidates' artifact, which does know the order.
        found.append((scores, [{**row, "batch": ""} for row in demonstrations]))
    assert found[0] == found[1]


def checkpointing_often(run):
    scoring._CHECKPOINT_EVERY_S = 0.05
    rejection.main(run)


@pytest.mark.slow
def test_killed_and_started_again_it_writes_the_same_bytes(tmp_path, reward, capsys):
    ids, candidates = many(prompts=250, samples=3, seed=5)
    config = {"budget_tokens": 64, "keep": 2}  # a row to each prompt
    whole = rejection_run(tmp_path / "whole", reward, ids, candidates, **config)
    rejection.main(RunDir(whole))
    killed = rejection_run(tmp_path / "killed", reward, ids, candidates, **config)
    program_kill(checkpointing_often, killed, lambda: bool(checkpoints_of(killed)))
    done = int(checkpoints_of(killed)[-1].name.removeprefix("step-"))
    capsys.readouterr()
    rejection.main(RunDir(killed))
    assert f"going on after {done} of 250 rows" in capsys.readouterr().out
    for name in ("scores.jsonl", "demonstrations.jsonl"):
        path = f"outputs/demonstrations/{name}"
        assert (killed / path).read_bytes() == (whole / path).read_bytes()
