"""The figures of a step some of whose prompts made room for others, by hand."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml.configs import GrpoConfig
from alignment.ml.online.redraw import answers_replace, step_draw
from alignment.ml.ppo.rewards import Answers
from alignment.ml.ppo.sampling import LaidPrompt
from alignment.ml.shared_prefix import Group

pytestmark = pytest.mark.ml

# Two answers to each prompt: what they score, and how many tokens each has.
SCORES = {
    "telling": (3.0, 1.0),
    "dull 5": (5.0, 5.0),
    "dull 0": (0.0, 0.0),
    "dull 2": (2.0, 2.0),
    "late": (4.0, 0.0),
}
TOKENS = {"telling": 1, "dull 5": 2, "dull 0": 3, "dull 2": 4, "late": 5}


def laid(name):
    return LaidPrompt(name, ({"role": "user", "content": name},), (7,))


class GivenAnswers:
    """Answers as they were written down above, and what was asked for."""

    def __init__(self):
        self.asked = []

    def draw(self, prompts, *, samples, salt):
        names = [one.prompt_id for one in prompts]
        self.asked.append((salt, names))
        groups = [Group([7], [[8] * TOKENS[name]] * samples) for name in names]
        return Answers(
            names,
            groups,
            groups,
            [[name] * samples for name in names],
            [[True] * samples] * len(names),
        )


class GivenScores:
    """Scores as they were written down above; its own figure is the share of dull prompts."""

    def __init__(self):
        self.figures = {}

    def scores(self, answers):
        dull = sum(name.startswith("dull") for name in answers.prompt_ids)
        self.figures = {"objective/own": dull / len(answers.prompt_ids)}
        return torch.tensor([one for name in answers.prompt_ids for one in SCORES[name]])


def drawn(others, *, redraws, **settings):
    """A step of a telling prompt and two dull ones, with `others` to draw from."""
    names = ["dull 5", "telling", "dull 0", *others]
    drawing = GivenAnswers()
    config = GrpoConfig(samples=2, prompts_per_step=3, redraws=redraws, **settings)
    step = step_draw(
        drawing,
        GivenScores(),
        [laid(one) for one in names],
        range(3),
        step=4,
        config=config,
    )
    return step, drawing


def test_figures_are_of_every_prompt_that_was_drawn_once():
    """One drawing of three prompts, one of two more: five prompts, four of them dull."""
    step, drawing = drawn(["late", "dull 2"], redraws=1)
    salts, names = zip(*drawing.asked, strict=True)
    assert salts == ("step:4", "step:4:redraw:0")
    assert sorted(names[1]) == ["dull 2", "late"]
    # What could be replaced was, in its own place; of two dull ones one is left.
    assert step.answers.prompt_ids == ["late", "telling", "dull 0"]
    assert step.scores_BK.tolist() == [[4.0, 0.0], [3.0, 1.0], [0.0, 0.0]]
    scores = [5.0, 5.0, 3.0, 1.0, 0.0, 0.0, 4.0, 0.0, 2.0, 2.0]
    mean = 22 / 10
    assert step.figures == pytest.approx(
        {
            "objective/scores": mean,
            "objective/scores_std": (sum((one - mean) ** 2 for one in scores) / 10) ** 0.5,
            "objective/equal_prompts": 3 / 5,
            "objective/redrawn_prompts": 2.0,
            # 2 of 3 in the first drawing and 1 of 2 in the second: by prompts, not by drawings.
            "objective/own": (3 * (2 / 3) + 2 * (1 / 2)) / 5,
        }
    )
    assert (step.prompts, step.tokens) == (5, 2 * (2 + 1 + 3 + 5 + 4))


def test_what_was_drawn_twice_over_counts_by_its_prompts():
    """The first redraw asks for two and the second for one: drawings of 3, 2 and 1 prompts."""
    step, drawing = drawn(["dull 2", "late", "late"], redraws=5)
    sizes = [len(names) for _, names in drawing.asked]
    assert sum(sizes) == step.prompts == 6 and sizes[:2] == [3, 2]
    assert step.answers.prompt_ids.count("late") == 2
    assert step.figures["objective/equal_prompts"] == pytest.approx(3 / 6)
    assert step.figures["objective/own"] == pytest.approx(3 / 6)
    assert step.figures["objective/scores"] == pytest.approx((14 + 4 + 4 + 4) / 12)


def test_without_redraws_the_figures_are_the_steps_own():
    step, drawing = drawn(["late"], redraws=0)
    assert len(drawing.asked) == 1
    assert step.answers.prompt_ids == ["dull 5", "telling", "dull 0"]
    assert step.figures == pytest.approx(
        {
            "objective/scores": 14 / 6,
            "objective/scores_std": (
                (2 * (5 - 14 / 6) ** 2 + (3 - 14 / 6) ** 2 + (1 - 14 / 6) ** 2 + 2 * (14 / 6) ** 2)
                / 6
            )
            ** 0.5,
            "objective/equal_prompts": 2 / 3,
            "objective/own": 2 / 3,
        }
    )


def test_scores_are_shaped_over_the_step_that_is_learnt_from():
    """A clip makes prompts dull that the raw scores tell apart, and the figures stay raw."""
    step, _ = drawn([], redraws=1, reward_clip=1.0)
    assert step.figures["objective/equal_prompts"] == 1.0
    assert step.figures["objective/scores"] == pytest.approx(14 / 6)
    assert step.scores_BK.tolist() == [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]


def test_answers_exchanged_take_everything_that_belongs_to_them():
    drawing = GivenAnswers()
    own, other = (
        drawing.draw([laid(one) for one in names], samples=2, salt="")
        for names in (["dull 5", "telling"], ["dull 2", "late"])
    )
    other = replace(other, ended=[[True, False], [False, False]])
    found = answers_replace(own, [0], other, [1])
    assert found.prompt_ids == ["late", "telling"]
    assert [one.answers[0] for one in found.groups] == [[8] * 5, [8]]
    assert found.judged == found.groups
    assert found.texts == [["late"] * 2, ["telling"] * 2]
    assert found.ended == [[False, False], [True, True]]
    assert own.prompt_ids == ["dull 5", "telling"]
