"""Documents sent to annotators, and what they say of them in the hub."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rensa", reason="the pretrain extra is not installed")

from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils.translation import override

from annotation.models import Membership, Project, Prompt, SampledDocument, Submission, Task
from annotation.selectors.documents import documents_sent_counts
from annotation.selectors.payloads import assignment_payload
from annotation.selectors.shown import task_shown
from annotation.services.assignments import assignment_next
from annotation.services.datasets import preference_dataset_freeze
from annotation.services.documents import SHOWN_CHARACTERS, DocumentsSent, documents_send
from annotation.services.ratings import rating_submit
from annotation.services.reviews import review_submit
from annotation.services.submissions import submission_undo
from annotation.task_forms import RatingForm, form_of
from modelhub.errors import ApplicationError
from modelhub.ml.corpora.rules import RULES
from modelhub.models import RunOutput
from modelhub.selectors.document_judgements import (
    judgements_standing,
    judgements_tally,
    rule_calibration,
)
from modelhub.selectors.document_samples import ANYWHERE
from modelhub.services.corpora import document_judge
from tests.builders import make_member, make_project, make_task
from tests.modelhub.corpora import make_corpus

pytestmark = pytest.mark.django_db
WORDS = "gopher.words_min"


@pytest.fixture
def corpus(tmp_path: Path) -> RunOutput:
    return make_corpus(tmp_path, [f"{'word ' * count}." for count in (10, 30, 60, 90)])


@pytest.fixture
def project() -> Project:
    return make_project("Texts", overlap=2)


def send(project: Project, corpus: RunOutput, **given: Any) -> DocumentsSent:
    asked = {"thresholds": {WORDS: 50.0}, "near": WORDS, "count": 10, **given}
    return documents_send(project=project, corpus=corpus, **asked)


def rate(member: Membership, place: int, overall: int) -> Submission:
    """Rate the document at a place, which must be among the member's next."""
    while given := assignment_next(membership=member):
        (shown,) = given.task.task_candidates.all()
        if shown.candidate.document.place == place:
            said = {shown.candidate.uid: {"overall": overall, "flags": []}}
            return rating_submit(assignment=given, ratings=said)
        said = {shown.candidate.uid: {"overall": 4, "flags": []}}
        rating_submit(assignment=given, ratings=said)
    raise AssertionError(f"{member} was not given place {place}")


def said_of(corpus: RunOutput) -> list[tuple[int, bool, str]]:
    rows = corpus.artifact.judgements.order_by("place", "author")
    return list(rows.values_list("place", "is_good", "author__username"))


def test_documents_become_rating_tasks_once(project: Project, corpus: RunOutput) -> None:
    assert send(project, corpus, count=2).made == 2
    assert sorted(SampledDocument.objects.values_list("place", flat=True)) == [1, 2]
    task = Task.objects.filter(project=project).first()
    assert task is not None and (task.kind, task.overlap) == ("rating", 2)
    (shown,) = task.task_candidates.all()
    assert shown.candidate.text.startswith("word word")
    assert task.prompt.source == Prompt.OF_CORPUS
    form = form_of(project, "rating")
    assert isinstance(form, RatingForm)
    assert "boilerplate" in [flag.name for flag in form.flags]
    # Again: those that are left; then none.
    assert send(make_project("other"), corpus).made == 2
    with pytest.raises(ApplicationError, match="No document is left"):
        send(project, corpus)


def test_an_annotator_is_asked_in_their_language_and_is_not_told_where_a_document_is_from(
    project: Project, corpus: RunOutput
) -> None:
    send(project, corpus, count=1)
    alice = make_member(project, "alice")
    given = assignment_next(membership=alice)
    assert given is not None
    asked = {}
    for language in ("en", "zh-hans"):
        with override(language):
            ((message,), reviewed) = (
                assignment_payload(assignment=given)["prompt"]["messages"],
                task_shown(task=given.task).messages,
            )
        asked[language] = message["text"]
        assert reviewed == [{"role": "user", "html": message["html"]}]
    assert asked["en"].startswith("Is this text good for a language model to learn from?")
    assert "语言模型" in asked["zh-hans"]
    kept = given.task.prompt.messages[0]["content"]  # for managers: which document it is
    assert kept.startswith("Document ") and f"corpus {corpus.artifact.sha256[:12]}" in kept
    assert not any("corpus" in words or "place" in words for words in asked.values())


def test_a_prompt_is_the_same_whichever_language_it_was_sent_in(
    project: Project, corpus: RunOutput
) -> None:
    with override("zh-hans"):
        send(project, corpus, count=1)
    assert "Is this text good" in Prompt.objects.get(project=project).messages[0]["content"]


def test_a_form_of_the_projects_own_is_left_as_it_is(project: Project, corpus: RunOutput) -> None:
    project.task_forms.create(kind="rating", settings={"flags": []})
    send(project, corpus)
    form = form_of(project, "rating")
    assert isinstance(form, RatingForm) and form.flags == ()


def test_of_a_long_document_the_beginning_is_shown(project: Project, tmp_path: Path) -> None:
    send(project, make_corpus(tmp_path, ["word " * 9000]))
    candidate = SampledDocument.objects.get().candidate
    assert len(candidate.text) == SHOWN_CHARACTERS + 2 and candidate.text.endswith(" …")


@pytest.mark.parametrize(
    ("given", "field"),
    [({"near": "gopher.nothing"}, "near"), ({"count": 0}, "count"), ({"count": 501}, "count")],
)
def test_what_is_refused_changes_nothing(
    project: Project, corpus: RunOutput, given: dict[str, Any], field: str
) -> None:
    with pytest.raises(ApplicationError) as refused:
        send(project, corpus, **given)
    assert refused.value.extra["field"] == field
    assert not Prompt.objects.exists() and not project.task_forms.exists()


def test_ratings_become_judgements_that_rules_are_held_against(
    project: Project, corpus: RunOutput
) -> None:
    send(project, corpus)
    alice, bert = make_member(project, "alice"), make_member(project, "bert")
    for place, overall in ((0, 1), (1, 3), (2, 5), (3, 7)):
        rate(alice, place, overall)
    rate(bert, 3, 6)
    assert said_of(corpus) == [
        (0, False, "alice"),
        (1, False, "alice"),
        (2, True, "alice"),
        (3, True, "alice"),
        (3, True, "bert"),
    ]
    tally = judgements_tally(corpus=corpus.artifact)
    assert (tally.judgements, tally.of_tasks, tally.people) == (5, 5, 2)
    assert (tally.documents, tally.shared, tally.agreed) == (4, 1, 1)
    found = rule_calibration(
        corpus=corpus.artifact, rule=RULES[WORDS], threshold=25.0, is_chinese=False
    )
    assert [
        (row.threshold, row.people.precision, row.people.recall, row.is_now, row.is_best)
        for row in found.rows
    ] == [
        # Words: 10, 30, 60, 90; what is half-way between them, and 25 as it is.
        (20.0, 1.0, 0.5, False, False),
        (25.0, 1.0, 0.5, True, False),
        (45.0, 1.0, 1.0, False, True),
        (75.0, pytest.approx(2 / 3), 1.0, False, False),
    ]
    (sent,) = documents_sent_counts(corpus=corpus.artifact)
    assert (sent.name, sent.documents) == ("Texts", 4)


def test_four_says_neither_and_a_program_nothing(project: Project, corpus: RunOutput) -> None:
    send(project, corpus)
    rate(make_member(project, "alice"), 2, 4)
    rate(make_member(project, "machine", simulated=True), 2, 7)
    assert said_of(corpus) == []


def test_what_is_taken_back_or_rejected_is_taken_back_in_the_hub(
    project: Project, corpus: RunOutput
) -> None:
    send(project, corpus)
    alice = make_member(project, "alice")
    first = rate(alice, 0, 1)
    assert len(said_of(corpus)) == 1
    again = submission_undo(assignment=first.assignment)
    assert said_of(corpus) == []
    (uid,) = first.rating.ratings
    second = rating_submit(assignment=again, ratings={uid: {"overall": 6, "flags": []}})
    assert said_of(corpus) == [(0, True, "alice")]
    rev = make_member(project, "rev", Membership.Role.REVIEWER)
    review_submit(submission=second, reviewer=rev, verdict="reject", reason="Look again.")
    assert said_of(corpus) == []
    review_submit(submission=second, reviewer=rev, verdict="accept")
    assert said_of(corpus) == [(0, True, "alice")]


def test_what_was_said_of_documents_is_in_no_dataset(project: Project, corpus: RunOutput) -> None:
    """A policy would learn to answer the question about a document with the document."""
    send(project, corpus)
    alice = make_member(project, "alice")
    rate(alice, 0, 7)
    with pytest.raises(ApplicationError, match="no accepted rating to freeze"):
        preference_dataset_freeze(project=project, kind="rating")
    answered = make_task(project, Task.Kind.RATING)
    while given := assignment_next(membership=alice):
        uids = [one.candidate.uid for one in given.task.task_candidates.all()]
        rating_submit(assignment=given, ratings={uid: {"overall": 7, "flags": []} for uid in uids})
    counts = preference_dataset_freeze(project=project, kind="rating").counts
    assert answered.submissions.count() == counts["total"] == counts["used"] == 1


def test_a_document_with_a_nul_is_shown_without(project: Project, tmp_path: Path) -> None:
    """Which PostgreSQL would refuse, and all documents with it."""
    send(project, make_corpus(tmp_path, ["one\x00two words."]), near=ANYWHERE)
    candidate = SampledDocument.objects.get().candidate
    assert candidate.text == "one\ufffdtwo words."


def test_what_a_person_said_later_on_the_corpus_page_stands(
    project: Project, corpus: RunOutput
) -> None:
    send(project, corpus)
    alice = make_member(project, "alice")
    rated = rate(alice, 0, 1)
    document_judge(corpus=corpus.artifact, place=0, is_good=True, author=alice.user)
    submission_undo(assignment=rated.assignment)
    assert said_of(corpus) == [(0, True, "alice")]


def test_what_a_person_said_before_stands_again_when_a_rating_is_taken_back(
    project: Project, corpus: RunOutput
) -> None:
    send(project, corpus)
    alice = make_member(project, "alice")
    document_judge(corpus=corpus.artifact, place=0, is_good=True, author=alice.user)
    rated = rate(alice, 0, 1)
    ((_, (is_good, origin)),) = judgements_standing(corpus.artifact).items()
    assert (is_good, origin) == (False, f"submission {rated.uid}")
    tally = judgements_tally(corpus=corpus.artifact)
    assert (tally.judgements, tally.of_tasks, tally.shared) == (1, 1, 0)
    submission_undo(assignment=rated.assignment)
    assert said_of(corpus) == [(0, True, "alice")]


# ── the page and the API ─────────────────────────────────────────────────────────────────────────


@pytest.fixture
def eve(project: Project) -> User:
    member = make_member(project, "eve-manages", Membership.Role.MANAGER)
    User.objects.filter(pk=member.user_id).update(is_staff=True)
    return User.objects.get(pk=member.user_id)


def test_a_page_sends_documents_to_a_new_project(corpus: RunOutput, eve: User) -> None:
    client = Client()
    client.force_login(eve)
    where = f"{reverse('corpus_ask', args=[corpus.run.uid])}?threshold-{WORDS}=20"
    page = client.get(where).content.decode()
    (here,) = [part for part in page.split("<a ") if 'aria-current="page"' in part]
    assert "Model hub" in here
    assert "Texts of test" in page and "Words, at least" in page
    asked = {"near": WORDS, "count": 1, "overlap": 3, "project": "", "name": "Rate these"}
    response = client.post(where, asked)
    project = Project.objects.get(name="Rate these")
    assert response["Location"] == reverse("project_tasks", args=[project.uid])
    people = reverse("project_members", args=[project.uid])
    told = client.get(response["Location"]).content.decode()
    assert f'1 document was sent to <a href="{people}">this project’s people</a>.' in told
    # Nearest to 20 and below it: 10 words.
    assert SampledDocument.objects.get().place == 0
    assert Task.objects.get(project=project).overlap == 3
    assert "Rate these" in client.get(where).content.decode()


def test_a_page_that_is_refused_makes_no_project(corpus: RunOutput, eve: User) -> None:
    client = Client()
    client.force_login(eve)
    where = reverse("corpus_ask", args=[corpus.run.uid])
    asked = {"near": "nothing", "count": 1, "overlap": 3, "project": "", "name": "Rate these"}
    assert client.post(where, asked).status_code == 400
    nameless = client.post(where, {**asked, "near": WORDS, "name": ""})
    assert "Choose a project, or name a new one." in nameless.content.decode()
    assert Project.objects.count() == 1


def test_the_api_sends_documents(project: Project, corpus: RunOutput, eve: User) -> None:
    client = Client()
    client.force_login(eve)
    where = reverse("api_documents", args=[project.uid])
    asked = {"corpus": corpus.run.uid, "near": WORDS, "count": 2, "thresholds": {WORDS: 20}}
    response = client.post(where, asked, content_type="application/json")
    assert (response.status_code, response.json()) == (201, {"made": 2})
    assert sorted(SampledDocument.objects.values_list("place", flat=True)) == [0, 1]
    refused = client.post(where, asked | {"corpus": "0" * 32}, content_type="application/json")
    assert (refused.status_code, refused.json()["extra"]) == (400, {"field": "corpus"})


def test_a_manager_who_is_no_engineer_and_an_engineer_who_is_no_manager_send_nothing(
    project: Project, corpus: RunOutput, eve: User
) -> None:
    manager = make_member(project, "manager", Membership.Role.MANAGER).user
    stranger = User.objects.create_user("stranger", is_staff=True)
    asked = {"corpus": corpus.run.uid}
    for user in (manager, stranger):
        client = Client()
        client.force_login(user)
        where = reverse("api_documents", args=[project.uid])
        assert client.post(where, asked, content_type="application/json").status_code == 404
        page = reverse("corpus_ask", args=[corpus.run.uid])
        form = {"near": WORDS, "count": 1, "overlap": 1, "project": project.uid}
        assert client.post(page, form).status_code == (404 if user == manager else 400)
    assert not SampledDocument.objects.exists()
