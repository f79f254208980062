"""What a product's users thought, in the tables where everybody's judgements are."""

import pytest

from annotation.models import Candidate, Membership, Project, ProjectToken, Prompt, Submission, Task
from annotation.selectors import tasks_open
from annotation.services.feedback import ShownAnswer, feedback_record
from annotation.services.prompts import prompts_import
from annotation.services.tokens import (
    project_token_create,
    project_token_revoke,
    project_token_use,
)
from modelhub.errors import ApplicationError
from tests.builders import make_member, make_version

pytestmark = pytest.mark.django_db
ASKED = [{"role": "user", "content": "How do I boil an egg?"}]


@pytest.fixture
def token(project: Project) -> ProjectToken:
    return project_token_create(project=project, name="Kitchen")[0]


def shown(*texts: str) -> list[ShownAnswer]:
    return [ShownAnswer(text=text) for text in texts]


def test_a_choice_of_two_is_a_pair_of_the_smallest_degree(token: ProjectToken) -> None:
    submission = feedback_record(
        token=token, messages=ASKED, answers=shown("Fry it.", "Ten minutes."), chosen=1
    )
    assert submission.task.kind == Task.Kind.PAIR
    comparison = submission.comparison
    assert (comparison.better.text, comparison.worse.text) == ("Ten minutes.", "Fry it.")
    assert comparison.get_degree_display() == "negligibly better or unsure"
    assert submission.shown_order == [comparison.worse.uid, comparison.better.uid]


def test_a_choice_among_more_is_a_ranking_with_the_others_tied(token: ProjectToken) -> None:
    answers = shown("a", "b", "c")
    submission = feedback_record(token=token, messages=ASKED, answers=answers, chosen=2)
    assert submission.task.kind == Task.Kind.RANKING
    text_of = dict(Candidate.objects.values_list("uid", "text"))
    tiers = [sorted(text_of[uid] for uid in tier) for tier in submission.ranking.tiers]
    assert tiers == [["c"], ["a", "b"]]


def test_votes_are_ratings_of_the_answers_that_had_one(token: ProjectToken) -> None:
    answers = [
        ShownAnswer(text="a", vote="up"),
        ShownAnswer(text="b"),
        ShownAnswer(text="c", vote="down"),
    ]
    submission = feedback_record(token=token, messages=ASKED, answers=answers, comment="c burns")
    assert (submission.task.kind, submission.rationale) == (Task.Kind.RATING, "c burns")
    text_of = dict(Candidate.objects.values_list("uid", "text"))
    marks = {text_of[uid]: mark["overall"] for uid, mark in submission.rating.ratings.items()}
    assert marks == {"a": 7, "c": 1}
    assert [text_of[uid] for uid in submission.shown_order] == ["a", "c"]
    assert submission.task.task_candidates.count() == 2
    assert Candidate.objects.count() == 3


def test_it_is_marked_as_the_products_and_is_asked_of_nobody(
    project: Project, token: ProjectToken
) -> None:
    submission = feedback_record(token=token, messages=ASKED, answers=shown("a", "b"), chosen=0)
    assert submission.source == Membership.Source.PRODUCT
    assert submission.status == Submission.Status.ACCEPTED
    assert submission.annotator.source == Membership.Source.PRODUCT
    assert not submission.annotator.user.is_active
    assert submission.task.slots_free == 0
    assert not tasks_open(membership=make_member(project, "ann")).exists()


def test_the_same_conversation_is_the_same_prompt_on_its_side(
    project: Project, token: ProjectToken
) -> None:
    prompts_import(project=project, lines=[b'{"prompt": "How do I boil an egg?"}'], name="x")
    (known,) = Prompt.objects.all()
    for _ in range(2):
        feedback_record(token=token, messages=ASKED, answers=shown("a", "b"), chosen=0)
    assert Prompt.objects.get() == known
    other = [{"role": "user", "content": "HOW do I  boil an egg?"}]
    feedback_record(token=token, messages=other, answers=shown("a", "b"), chosen=0)
    added = Prompt.objects.exclude(pk=known.pk).get()
    assert (added.split, added.source) == (known.split, "feedback: Kitchen")


def test_the_version_that_wrote_an_answer_is_kept(token: ProjectToken) -> None:
    version = make_version()
    answers = [
        ShownAnswer(text="a", version_uid=version.uid),
        ShownAnswer(text="b", model="their-model-2"),
    ]
    feedback_record(token=token, messages=ASKED, answers=answers, chosen=0)
    assert Candidate.objects.get(text="a").version == version
    assert Candidate.objects.get(text="b").decoding == {
        "engine": "product",
        "model": "their-model-2",
    }


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"answers": shown("a", "b")}, "chosen"),
        ({"answers": [ShownAnswer(text="a", vote="up")] * 2, "chosen": 0}, "chosen"),
        ({"answers": shown("a"), "chosen": 0}, "chosen"),
        ({"answers": shown("a", "b"), "chosen": 2}, "chosen"),
        ({"answers": shown(*"abcdefghij"), "chosen": 0}, "answers"),
        ({"answers": [], "chosen": 0}, "answers"),
        ({"answers": shown("a", " a\n"), "chosen": 0}, "answers[1].text"),
        ({"answers": shown("b", "a", "b"), "chosen": 1}, "answers[2].text"),
        (
            {"answers": [ShownAnswer(text="a", vote="up"), ShownAnswer(text="a", vote="down")]},
            "answers[1].text",
        ),
        ({"answers": [ShownAnswer(text="a", vote="meh")]}, "answers[0].vote"),
        (
            {"answers": [*shown("a"), ShownAnswer(text="b", version_uid="f" * 32)], "chosen": 0},
            "answers[1].version",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_field(
    token: ProjectToken, wanted: dict, field: str
) -> None:
    with pytest.raises(ApplicationError) as refused:
        feedback_record(token=token, messages=ASKED, **wanted)
    assert refused.value.extra == {"field": field}
    assert not Candidate.objects.exists()


def test_a_conversation_that_waits_for_no_answer_is_refused(token: ProjectToken) -> None:
    messages = [*ASKED, {"role": "assistant", "content": "Ten minutes."}]
    with pytest.raises(ApplicationError):
        feedback_record(token=token, messages=messages, answers=shown("a", "b"), chosen=0)


def test_a_token_is_stored_as_a_digest_and_ends_when_it_is_revoked(project: Project) -> None:
    token, secret = project_token_create(project=project, name=" Kitchen ")
    assert token.name == "Kitchen"
    assert secret not in str(vars(ProjectToken.objects.get()))
    used = project_token_use(secret=secret)
    assert used == token
    token.refresh_from_db()
    assert token.used_at is not None
    assert project_token_use(secret=secret + "x") is None
    assert project_token_use(secret="") is None
    project_token_revoke(token=token)
    token.refresh_from_db()
    revoked_at = token.revoked_at
    project_token_revoke(token=token)
    token.refresh_from_db()
    assert token.revoked_at == revoked_at is not None
    assert project_token_use(secret=secret) is None


@pytest.mark.parametrize("name", ["", "  ", "x" * 121])
def test_a_token_needs_a_name(project: Project, name: str) -> None:
    with pytest.raises(ApplicationError):
        project_token_create(project=project, name=name)
