"""Which prompts, candidates and earlier bests fit together, and which are refused."""

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml.contests import contests_make
from alignment.ml.data import DemonstrationRecord
from modelhub.ml.configs import RefusedError
from modelhub.ml.records import PromptRecord
from tests.alignment.ml.programs import candidate, messages

pytestmark = pytest.mark.ml


def pooled(prompt_id, question):
    return DemonstrationRecord(
        prompt_id=prompt_id,
        messages=messages(question),
        text="y",
        finish_reason="stop",
        score=99.0,
        batch="earlier",
    )


def prompt(prompt_id):
    return PromptRecord(prompt_id=prompt_id, messages=messages(f"Say {prompt_id}"))


@pytest.mark.parametrize(
    ("prompts", "candidates", "pool", "reason"),
    [
        ([], [], [], "there are no prompts"),
        ([prompt("a"), prompt("a")], [], [], "prompt a is there twice"),
        ([prompt("a")], [], [], "1 of 1 prompts have no candidate: a"),
        ([prompt("a")], [candidate("b", 0, "x")], [], "candidate 0 of b: no such prompt"),
        (
            [prompt("a")],
            [candidate("a", 0, "x"), candidate("a", 0, "y")],
            [],
            "candidate 0 of a is there twice",
        ),
        (
            [prompt("a")],
            [candidate("a", 0, "x")],
            [pooled("a", "Another")],
            "pool_1: prompt a is another conversation",
        ),
    ],
)
def test_prompts_and_answers_that_do_not_fit_are_refused(prompts, candidates, pool, reason):
    with pytest.raises(RefusedError, match=reason):
        contests_make(prompts, candidates, {"pool_1": pool}, batch="b")
