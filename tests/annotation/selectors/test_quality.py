"""Agreement, people and disagreements as they are read of the rows."""

from datetime import UTC, date, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.translation import override

from annotation.models import Membership, Project, Submission
from annotation.selectors.dashboards import progress_dashboard
from annotation.selectors.quality import (
    disagreements,
    quality_report,
)
from annotation.selectors.weights import annotator_weights
from annotation.services.adjudications import adjudication_submit
from annotation.services.gold import gold_task_create
from annotation.services.reviews import review_submit
from tests.annotation.judging import choose, make_submission, make_task, rank, rate, talk, uids_of
from tests.builders import make_member

pytestmark = pytest.mark.django_db


@pytest.fixture
def people(project: Project) -> list[Membership]:
    return [make_member(project, name) for name in ("ann", "ben", "cat")]


@pytest.fixture
def rev(project: Project) -> Membership:
    return make_member(project, "rev", Membership.Role.REVIEWER)


def figures_of(project: Project, kind: str) -> dict[tuple[str, str], float]:
    report = quality_report(project=project)
    (found,) = [one for one in report.kinds if one.kind == kind]
    return {(one.measure_words, one.of_words): one.interval.value for one in found.figures}


def test_rankings_agree_by_tau_b_alpha_and_pairs(
    project: Project, people: list[Membership]
) -> None:
    ann, ben, _ = people
    for order in ("0>1>2", "0>2>1"):
        task = make_task(project, "ranking", answers=3)
        rank(task, ann, "0>1>2")
        rank(task, ben, order)
    figures = figures_of(project, "ranking")
    # The first task agrees (1), the second has 2 of 3 pairs the same: tau-b 1/3, same 2/3.
    assert figures["Kendall’s τ-b", "order of answers"] == pytest.approx((1 + 1 / 3) / 2)
    assert figures["Same judgement", "pairs and marks"] == pytest.approx((1 + 2 / 3) / 2)
    # Six answers ranked (1,1) (2,2) (3,3) (1,1) (2,3) (3,2): four of each rank, so the metric's
    # distances are 4² between neighbours and 8² between the ends.
    observed = 2 * 2 * 16
    expected = 2 * (4 * 4 * 16 + 4 * 4 * 16 + 4 * 4 * 64) / 11
    alpha = figures["Krippendorff’s α, ordinal", "order of answers"]
    assert alpha == pytest.approx(1 - observed / expected)


def test_pairs_agree_by_choice_degree_and_safety(
    project: Project, people: list[Membership]
) -> None:
    for number in range(4):
        task = make_task(project)
        # A choice is between uids in their order, whatever stands where: each is chosen twice.
        uids = uids_of(task)
        place = uids.index(sorted(uids)[number % 2])
        for member in people:
            choose(task, member, place, degree=2)
    figures = figures_of(project, "pair")
    assert set(figures) == {
        ("Krippendorff’s α, ordinal", "choice with degree"),
        ("Krippendorff’s α, nominal", "choice"),
        ("Fleiss’ κ, 3 people", "choice"),
    }
    assert all(value == pytest.approx(1) for value in figures.values())


def test_each_flag_of_a_rating_has_its_own_figures(
    project: Project, people: list[Membership]
) -> None:
    for flags in ([["wrong"], []], [[], ["wrong"]]):
        task = make_task(project, "rating")
        for member in people:
            rate(task, member, [7, 2], flags)
    figures = figures_of(project, "rating")
    assert figures["Krippendorff’s α, ordinal", "overall, 1 to 7"] == 1
    assert figures["Fleiss’ κ, 3 people", "flag “Says what is wrong”"] == 1


def test_tasks_of_one_judgement_and_known_answers_say_nothing_of_agreement(
    project: Project, people: list[Membership], rev: Membership
) -> None:
    submission = choose(make_task(project), people[0], 0)
    gold = gold_task_create(submission=submission, reviewer=rev)
    for member in people:
        choose(gold, member, 0)
    report = quality_report(project=project)
    assert report.kinds == []
    assert report.judgements == 1
    assert {one.gold_tasks for one in report.people} == {1}


def judge_twenty(project: Project, people: list[Membership]) -> None:
    """Two agree everywhere; the third takes whatever is shown first, in a blink."""
    for number in range(20):
        task = make_task(project)
        right = number % 2
        for member in people[:2]:
            choose(task, member, right)
        first = uids_of(task)
        shown = first if number % 3 else first[::-1]
        place = first.index(shown[0])
        choose(task, people[2], place, active_s=0.3, shown=shown)


def test_whoever_clicks_the_first_answer_in_a_blink_needs_help(
    project: Project, people: list[Membership]
) -> None:
    judge_twenty(project, people)
    report = quality_report(project=project)
    (person,) = report.who_needs_help
    assert person.membership == people[2]
    assert set(person.reasons) == {
        "differs from the others (pair)",
        "takes an answer for its place",
        "faster than one can read",
    }
    assert person.position.share == 1.0
    agreeing = next(one for one in report.people if one.membership == people[0])
    assert agreeing.agreement[0].weight > 0.85
    assert agreeing.agreement[0].interval.value > person.agreement[0].interval.value


def test_weights_are_by_the_pseudonym_that_exports_carry(
    project: Project, people: list[Membership]
) -> None:
    judge_twenty(project, people)
    weights = annotator_weights(project=project, kind="pair")
    assert set(weights) == {one.uid for one in people}
    assert weights[people[0].uid] > 0.85 > 0.4 > weights[people[2].uid]
    assert annotator_weights(project=project, kind="demonstration") == {}


def test_rankings_weigh_by_crowd_bradley_terry(project: Project, people: list[Membership]) -> None:
    for _ in range(12):
        task = make_task(project, "ranking", answers=4, overlap=4)
        rank(task, people[0], "0>1>2>3")
        rank(task, people[1], "0>1>2>3")
        rank(task, people[2], "3>2>1>0")
    weights = annotator_weights(project=project, kind="ranking")
    assert weights[people[0].uid] > 0.9
    assert weights[people[2].uid] == 0.0


def test_rejections_are_counted_by_the_newest_review(
    project: Project, people: list[Membership], rev: Membership
) -> None:
    for number in range(5):
        submission = choose(make_task(project), people[0], 0)
        review_submit(submission=submission, reviewer=rev, verdict="reject", reason="No.")
        if number < 3:
            review_submit(submission=submission, reviewer=rev, verdict="accept")
    (person,) = [
        one for one in quality_report(project=project).people if one.membership == people[0]
    ]
    assert (person.reviewed, person.rejected) == (5, 2)
    assert person.reasons == ["often rejected"]


def test_rejected_judgements_are_left_out(project: Project, people: list[Membership]) -> None:
    task = make_task(project)
    choose(task, people[0], 0)
    rejected = choose(task, people[1], 1)
    Submission.objects.filter(pk=rejected.pk).update(status=Submission.Status.REJECTED)
    assert quality_report(project=project).judgements == 1
    assert disagreements(project=project) == []


def test_disagreements_come_worst_first_until_they_are_decided(
    project: Project, people: list[Membership], rev: Membership
) -> None:
    def judged(*places: int | None) -> Submission:
        task = make_task(project)
        first, *_ = [choose(task, who, place) for who, place in zip(people, places, strict=True)]
        return first

    agreed, split, worst = judged(0, 0, 0), judged(0, 0, None), judged(0, 1, None)
    found = disagreements(project=project)
    assert [one.task for one in found] == [worst.task, split.task]
    assert agreed.task not in [one.task for one in found]
    # Of three people's pairs: opposite (0) and twice half; the other twice half and once whole.
    assert [one.agreement for one in found] == pytest.approx([1 / 3, 2 / 3])
    adjudication_submit(task=worst.task, reviewer=rev, submission=worst)
    assert [one.task for one in disagreements(project=project)] == [split.task]


def test_an_edit_agrees_by_the_place_of_the_answer_taken_up(
    project: Project, people: list[Membership]
) -> None:
    ann, ben, _ = people
    for places in ((0, 0), (1, 1), (0, 1), (1, 0)):
        task = make_task(project, "edit")
        uids = sorted(uids_of(task))
        for member, place in zip((ann, ben), places, strict=True):
            make_submission(task, member, {"original": uids[place], "text": "Better so."})
    figures = figures_of(project, "edit")
    # Half agree, as two people would who toss a coin: nothing beyond chance. A class for each
    # answer of each task would have called it 0.46.
    # Coincidences 2 + 2 on the diagonal and 4 off it: observed 4, expected 2 * 4 * 4 / 7.
    alpha = figures["Krippendorff’s α, nominal", "answer taken up"]
    assert alpha == pytest.approx(1 - 7 * 4 / (2 * 4 * 4))
    assert figures["Fleiss’ κ, 2 people", "answer taken up"] == pytest.approx(0)
    assert figures["Words in common", "texts"] == 1


def test_written_answers_agree_by_their_draft_and_their_words(
    project: Project, people: list[Membership]
) -> None:
    ann, ben, _ = people
    for place in (0, 1):
        task = make_task(project, "demonstration")
        draft = sorted(uids_of(task))[place]
        make_submission(task, ann, {"text": "It is very big.", "started_from": draft})
        make_submission(task, ben, {"text": "it is big.", "started_from": draft})
    figures = figures_of(project, "demonstration")
    assert figures["Krippendorff’s α, nominal", "draft begun with"] == 1
    # Three words are in both, of four and three.
    assert figures["Words in common", "texts"] == pytest.approx(2 * 3 / 7)
    (told,) = [one for one in quality_report(project=project).people if one.membership == ann]
    assert (told.agreement[0].kind, told.agreement[0].weight) == ("demonstration", None)


def test_dialogues_agree_by_the_model_that_was_better(
    project: Project, people: list[Membership]
) -> None:
    ann, ben, _ = people
    for better, other in (("small", "small"), ("large", "large"), ("small", "large")):
        task = make_task(project, "dialogue", answers=0)
        talk(task, ann, better, [4, 2])
        talk(task, ben, other, [3])
    figures = figures_of(project, "dialogue")
    # Units (-3, -3), (3, 3), (-3, 3): off the diagonal 2 of 6, expected 2 * 3 * 3 / 5.
    alpha = 1 - 5 * 2 / (2 * 3 * 3)
    for measure, of in (
        ("Krippendorff’s α, ordinal", "better model, with degree"),
        ("Krippendorff’s α, nominal", "better model"),
    ):
        assert figures[measure, of] == pytest.approx(alpha)


def test_each_kind_has_its_coefficient_week_by_week(
    project: Project, people: list[Membership]
) -> None:
    monday = datetime(2026, 11, 2, tzinfo=UTC)
    for week, orders in enumerate((("0>1>2", "0>1>2"), ("0>1>2", "2>1>0"))):
        for _ in range(5):
            task = make_task(project, "ranking", answers=3)
            for member, order in zip(people, orders, strict=False):
                made = rank(task, member, order)
                Submission.objects.filter(pk=made.pk).update(
                    created_at=monday + timedelta(days=7 * week + 3)
                )
    choose(make_task(project), people[0], 0)  # judged by one alone: nothing to compare
    (kind,) = progress_dashboard(project=project).kind_weeks
    assert kind.title == "Ranking: Krippendorff’s α, ordinal"
    assert [one.start for one in kind.weeks] == [date(2026, 11, 2), date(2026, 11, 9)]
    same, opposite = (one.agreement.value for one in kind.weeks)
    assert same == 1
    # Ranks (1, 3), (2, 2), (3, 1), five of each: ten of each rank, 10² between neighbours and 20²
    # between the ends; 20 values lie at the ends.
    assert opposite == pytest.approx(1 - 29 * 20 * 400 / (2 * 100 * (100 + 100 + 400) * 2 / 2))


def test_a_week_of_few_tasks_is_left_out(project: Project, people: list[Membership]) -> None:
    for order in ("0>1", "1>0", "0>1", "0>1"):
        task = make_task(project, "ranking")
        rank(task, people[0], order)
        rank(task, people[1], "0>1")
    assert progress_dashboard(project=project).kind_weeks == []


def test_a_report_is_told_in_the_language_of_who_reads_it(
    project: Project, people: list[Membership]
) -> None:
    judge_twenty(project, people)
    report = quality_report(project=project)  # as it comes out of the cache
    with override("zh-hans"):
        (kind,) = report.kinds
        assert (kind.label, kind.figures[0].of_words) == ("配对", "带程度的选择")
    assert (kind.label, kind.figures[0].of_words) == ("pair", "choice with degree")


def test_the_report_costs_the_same_queries_for_more_judgements(
    project: Project, people: list[Membership]
) -> None:
    judge_twenty(project, people)
    with CaptureQueriesContext(connection) as few:
        quality_report(project=project)
    judge_twenty(project, people)
    with CaptureQueriesContext(connection) as many:
        quality_report(project=project)
    assert len(many) == len(few) <= 7
