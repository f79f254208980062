"""Context distillation: only answers that the reward model prefers to the original are learnt."""

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml import context_distillation
from alignment.ml.contests import Answer, Contest
from alignment.ml.context_distillation import UNDER, answer_keep, contests_join
from modelhub.ml.configs import RefusedError
from modelhub.ml.generate import prompt_prefix
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
from tests.tiny_model import tiny_model_write

pytestmark = pytest.mark.ml


def contest(*answers):
    """Answers written "o:text" (original) or "u:text" (under); "~" in front: cut off."""
    return Contest(
        prompt_id="p",
        messages=messages("Hi"),
        answers=[
            Answer(
                source=UNDER if one.lstrip("~")[0] == "u" else "candidates",
                index=0,
                text=one.lstrip("~")[2:],
                finish_reason="length" if one[0] == "~" else "stop",
                batch="b",
            )
            for one in answers
        ],
    )


@pytest.mark.parametrize(
    ("answers", "scores", "margin", "kept"),
    [
        (["o:a", "u:b"], [1.0, 2.0], 0.0, 1),
        (["o:a", "u:b"], [2.0, 1.0], 0.0, None),
        (["o:a", "u:b"], [1.0, 1.0], 0.0, None),  # no better
        (["o:a", "u:b"], [1.0, 1.4], 0.5, None),
        (["o:a", "u:b"], [1.0, 1.6], 0.5, 1),
        (["o:a", "o:b", "u:c"], [-1.0, 3.0, 2.0], 0.0, None),  # not better than the best
        (["o:a", "u:b", "u:c"], [-3.0, -2.0, -1.0], 0.0, 2),
        (["o:a", "u:a"], [1.0, 1.1], 0.0, None),  # the same words; rounding apart
        (["o:a", "~u:b", "u:c"], [1.0, 3.0, 2.0], 0.0, 2),  # cut off
        (["o:a", "u: "], [1.0, 3.0], 0.0, None),  # empty
        (["o:a", "u:b"], [None, 3.0], 0.0, None),  # nothing to be better than
        (["o:a", "u:b"], [1.0, None], 0.0, None),
    ],
)
def test_an_answer_is_kept_where_it_beats_every_original(answers, scores, margin, kept):
    assert answer_keep(contest(*answers), scores, margin=margin, finished_only=True) == kept


def test_both_kinds_of_answers_are_one_contest():
    (joined,) = contests_join([contest("o:a")], [contest("o:b", "o:c")])
    assert [(one.source, one.text) for one in joined.answers] == [
        ("candidates", "a"),
        (UNDER, "b"),
        (UNDER, "c"),
    ]


def test_a_pre_prompt_stands_in_front_of_the_first_question_and_in_no_record():
    talk = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "A"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "B"},
    ]
    prompt = PromptRecord(prompt_id="p", messages=talk)
    said = [one["content"] for one in prompt_prefix(prompt, "Be safe.").messages]
    assert said == ["S", "Be safe.\n\nA", "a", "B"]
    assert prompt_prefix(prompt, "") is prompt
    assert prompt.messages[1]["content"] == "A"


def distil(tmp_path, *, same=False):
    base = tiny_model_write(tmp_path / "base")
    ids = [f"p{i}" for i in range(12)]
    under = "before" if same else "under"
    inputs = {
        "reward": tiny_reward_write(tmp_path / "reward", base),
        "prompts": prompts_write(tmp_path / "prompts", ids),
        "candidates": candidates_write(
            tmp_path / "before", [candidate(one, 0, f"{one} before") for one in ids]
        ),
        "candidates_under": candidates_write(
            tmp_path / "under", [candidate(one, 0, f"{one} {under}") for one in ids]
        ),
    }
    return run_make(tmp_path / "run", "context_distillation", inputs, {})


def test_what_is_kept_scores_higher_than_the_original_and_is_learnt_without_the_pre_prompt(
    tmp_path,
):
    run = distil(tmp_path)
    context_distillation.main(RunDir(run))
    folder = run / "outputs" / "demonstrations"
    kept, scores = lines_of(folder / "demonstrations.jsonl"), lines_of(folder / "scores.jsonl")
    by_source = {(one["prompt_id"], one["source"]): one["score"] for one in scores}
    better = [
        name
        for name in sorted({one["prompt_id"] for one in scores})
        if by_source[name, UNDER] > by_source[name, "candidates"]
    ]
    assert 0 < len(better) < 12
    assert [one["prompt_id"] for one in kept] == better
    for one in kept:
        assert one["messages"] == messages(f"Say {one['prompt_id']}")
        assert one["text"] == f"{one['prompt_id']} under"
        assert one["score"] == by_source[one["prompt_id"], UNDER]
    result = result_of(run)
    assert (result["prompts"], result["kept"]) == (12, len(better))
    assert result["mean_score_under"] == pytest.approx(
        sum(by_source[name, UNDER] for name in {n for n, _ in by_source}) / 12
    )


def test_a_pre_prompt_that_changes_nothing_is_refused(tmp_path):
    with pytest.raises(RefusedError, match="no answer under the pre-prompt is better"):
        context_distillation.main(RunDir(distil(tmp_path, same=True)))
