"""The pages of quality: who sees them, what they show, what their forms do, what one takes away."""

import csv
import io
import re

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from annotation.models import Adjudication, Membership, Project, Report, Review, Submission, Task
from annotation.services.assignments import assignment_next
from annotation.services.gold import gold_task_create
from annotation.services.questions import question_answer, question_ask
from annotation.services.reports import report_decide, report_submit
from annotation.tables import cell_csv
from tests.annotation.judging import choose, make_submission, make_task, rank, rate, uids_of
from tests.builders import make_member, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def nothing_cached() -> None:
    cache.clear()


@pytest.fixture
def rev(project: Project, bob: User) -> Membership:
    return bob.memberships.get(project=project)


@pytest.fixture
def bobs(bob: User, signed_in) -> Client:
    return signed_in(bob)


@pytest.fixture
def people(project: Project) -> list[Membership]:
    return [make_member(project, name) for name in ("ann", "ben", "cat")]


def judge(project: Project, people: list[Membership]) -> None:
    """Some of every kind that can be compared."""
    for number in range(6):
        pair = make_task(project)
        for member in people:
            choose(pair, member, number % 2, degree=2 + number % 3)
        ranking = make_task(project, "ranking", answers=3)
        for member, order in zip(people, ("0>1>2", "0>2=1", "1>0>2"), strict=True):
            rank(ranking, member, order)
        rating = make_task(project, "rating")
        for member in people:
            rate(rating, member, [6, 2 + number % 2], [[], ["harmful"]])


def test_every_page_shows_a_project_without_any_work(
    project: Project, dana: User, signed_in
) -> None:
    client = signed_in(dana)
    for name in ("dashboard", "progress", "quality", "reviews", "disagreements", "known"):
        assert client.get(reverse(f"project_{name}", args=[project.uid])).status_code == 200, name


def test_quality_shows_agreement_and_people(
    project: Project, people: list[Membership], bobs: Client
) -> None:
    judge(project, people)
    text = bobs.get(reverse("project_quality", args=[project.uid])).content.decode()
    for words in ("Kendall’s τ-b", "Krippendorff’s α, ordinal", "Fleiss’ κ, 3 people", "Harmful"):
        assert words in text
    assert "<svg" in text
    assert "ann" in text


def test_one_sees_ones_own_work_and_nobody_elses(
    project: Project, people: list[Membership], signed_in
) -> None:
    judge(project, people)
    text = signed_in(people[0].user).get(reverse("project_dashboard", args=[project.uid]))
    shown = text.content.decode()
    assert "Kendall’s τ-b" in shown
    assert "18</span>" in shown  # today
    assert "ben" not in shown
    assert "weight" not in shown.lower()


def test_feedback_reaches_the_annotators_dashboard(
    project: Project, people: list[Membership], bobs: Client, signed_in
) -> None:
    submission = choose(make_task(project), people[0], 0)
    bobs.post(
        reverse("review_detail", args=[project.uid, submission.uid]),
        {"verdict": "reject", "reason": "The first one is <b>wrong</b>."},
    )
    text = signed_in(people[0].user).get(reverse("project_dashboard", args=[project.uid]))
    assert "The first one is &lt;b&gt;wrong&lt;/b&gt;." in text.content.decode()


def test_known_answers_are_told_to_nobody_before_there_are_enough(
    project: Project, people: list[Membership], rev: Membership, signed_in
) -> None:
    url = reverse("project_dashboard", args=[project.uid])
    client = signed_in(people[1].user)
    for number in range(5):
        assert "agreement with known answers" not in client.get(url).content.decode(), number
        gold = gold_task_create(submission=choose(make_task(project), people[0], 0), reviewer=rev)
        choose(gold, people[1], 0)
        cache.clear()
    assert "agreement with known answers" in client.get(url).content.decode()


def test_progress_draws_throughput_coverage_and_labels(
    project: Project, people: list[Membership], dana: User, signed_in
) -> None:
    judge(project, people)
    text = signed_in(dana).get(reverse("project_progress", args=[project.uid])).content.decode()
    assert "54" in text  # judgements in 30 days
    assert "Pair: 6 of 6 judged by all wanted" in text
    for words in ("Judgements by day", "Pair: degree", "Rating: flags", "Same judgement, by week"):
        assert words in text


@pytest.mark.parametrize(
    ("page", "table", "columns"),
    [
        ("quality", "people", "annotator,name,source,judgements,kind,shared_tasks"),
        ("quality", "agreement", "kind,tasks,judgements,measure,of,value,low,high"),
        ("progress", "days", "day,judgements"),
        ("progress", "times", "kind,judgements,quartile_1_s"),
        ("progress", "coverage", "kind,tasks,judged_by_nobody"),
        ("progress", "weeks", "week_from,tasks,value"),
        ("progress", "kind_weeks", "kind,measure,of,week_from,tasks,value"),
        ("progress", "labels", "kind,what,label,count"),
    ],
)
def test_every_table_is_taken_away_as_csv_and_json(
    project: Project,
    people: list[Membership],
    dana: User,
    signed_in,
    page: str,
    table: str,
    columns: str,
) -> None:
    judge(project, people)
    client, url = signed_in(dana), reverse(f"project_{page}", args=[project.uid])
    answer = client.get(url, {"table": table, "format": "csv"})
    assert answer["Content-Type"].startswith("text/csv")
    assert "attachment" in answer["Content-Disposition"]
    assert answer.content.decode().startswith(columns)
    rows = list(csv.DictReader(io.StringIO(answer.content.decode())))
    told = client.get(url, {"table": table, "format": "json"}).json()["rows"]
    assert len(told) == len(rows) > 0
    assert set(told[0]) == set(rows[0])
    assert client.get(url, {"table": "users", "format": "csv"}).status_code == 404
    assert client.get(url, {"format": "exe"}).status_code == 404


def test_managers_pages_are_in_the_language_of_who_reads_and_files_are_not(
    project: Project, people: list[Membership], dana: User, signed_in
) -> None:
    judge(project, people)
    client = signed_in(dana)
    told = {}
    for name in ("quality", "progress", "reviews", "tasks", "members", "datasets", "tokens"):
        url = reverse(f"project_{name}", args=[project.uid])
        told[name] = client.get(url, headers={"accept-language": "zh-CN"}).content.decode()
        assert '<html lang="zh-hans">' in told[name]
    assert "Fleiss κ，3 人" in told["quality"] and "标记“有害”" in told["quality"]
    assert "每日判断数" in told["progress"] and "配对：程度" in told["progress"]
    assert "审核员" in told["members"] and "Reviewer" not in told["members"]
    url = reverse("project_quality", args=[project.uid])
    query = {"table": "agreement", "format": "csv"}
    file = client.get(url, query, headers={"accept-language": "zh-CN"}).content.decode()
    assert "Fleiss’ κ, 3 people" in file and "Krippendorff’s α, ordinal" in file


def test_a_refusal_is_told_in_the_language_of_who_asked(
    project: Project, people: list[Membership], bobs: Client
) -> None:
    submission = choose(make_task(project), people[0], 0)
    url = reverse("api_reviews", args=[project.uid, submission.uid])
    answer = bobs.post(
        url,
        {"verdict": "reject", "reason": ""},
        content_type="application/json",
        headers={"accept-language": "zh-CN"},
    )
    assert answer.status_code == 400
    assert answer.json()["message"] == "请说明原因：标注员会看到并从中学习。"


def test_ones_own_agreement_and_feedback_are_taken_away(
    project: Project, people: list[Membership], bobs: Client, signed_in
) -> None:
    judge(project, people)
    mine = Submission.objects.filter(annotator=people[0]).first()
    bobs.post(
        reverse("review_detail", args=[project.uid, mine.uid]),
        {"verdict": "reject", "reason": "=HYPERLINK(1)"},
    )
    url = reverse("project_dashboard", args=[project.uid])
    client = signed_in(people[0].user)
    (told,) = client.get(url, {"table": "feedback", "format": "json"}).json()["rows"]
    assert (told["what"], told["text"]) == ("reject", "=HYPERLINK(1)")
    assert (
        "'=HYPERLINK(1)" in client.get(url, {"table": "feedback", "format": "csv"}).content.decode()
    )
    rows = client.get(url, {"table": "agreement", "format": "json"}).json()["rows"]
    assert {row["kind"] for row in rows} == {"pair", "ranking", "rating"}
    assert "weight" not in rows[0]


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\u200b=1", '"=1', "＝1", "\r=1"]
)
def test_text_in_a_csv_is_never_a_formula(text: str) -> None:
    """S34: what spreadsheets would evaluate begins with a quote mark; numbers stay numbers."""
    assert cell_csv(text) == f"'{text}"


def test_numbers_and_plain_text_stay_as_they_are_in_a_csv() -> None:
    assert [cell_csv(value) for value in (-1.5, 0, None, "a=b", "ann")] == [
        *(-1.5, 0, "", "a=b", "ann")
    ]


def test_a_reviewer_reads_a_submission_and_goes_on_to_the_next(
    project: Project, people: list[Membership], bobs: Client
) -> None:
    older = choose(make_task(project), people[0], 0)
    newer = rank(make_task(project, "ranking", answers=3), people[1], "2>0=1")
    url = reverse("review_detail", args=[project.uid, newer.uid])
    text = bobs.get(url).content.decode()
    assert "C &gt; A = B" in text
    answer = bobs.post(url, {"verdict": "accept", "reason": ""})
    assert answer["Location"] == reverse("review_detail", args=[project.uid, older.uid])
    assert Review.objects.get().verdict == "accept"


def test_a_refused_review_keeps_what_was_written(
    project: Project, people: list[Membership], bobs: Client
) -> None:
    submission = choose(make_task(project), people[0], 0)
    url = reverse("review_detail", args=[project.uid, submission.uid])
    answer = bobs.post(url, {"verdict": "reject", "reason": ""})
    assert answer.status_code == 400
    assert "the annotator reads it" in answer.content.decode()
    assert not Review.objects.exists()


def test_an_edit_is_shown_with_what_was_changed(
    project: Project, people: list[Membership], bobs: Client
) -> None:
    task = make_task(project, "edit")
    submission = make_submission(
        task, people[0], {"original": uids_of(task)[1], "text": "It is *very* big."}
    )
    submission.edit.diff = [["=", "It is "], ["+", "<very> "], ["-", "so "], ["=", "big."]]
    submission.edit.save()
    url = reverse("review_detail", args=[project.uid, submission.uid])
    text = bobs.get(url).content.decode()
    assert "<ins>&lt;very&gt; </ins><del>so </del>" in text
    assert "B made better" in text


class TestNobodyReviewsTheirOwnWork:
    """S09: by the page, the API, accepting many, or deciding."""

    @pytest.fixture
    def own(self, project: Project, rev: Membership) -> Submission:
        return choose(make_task(project), rev, 0)

    def test_the_page_offers_no_form_and_takes_none(
        self, project: Project, own: Submission, bobs: Client
    ) -> None:
        url = reverse("review_detail", args=[project.uid, own.uid])
        assert 'name="verdict"' not in bobs.get(url).content.decode()
        for verdict in Review.Verdict.values:
            answer = bobs.post(url, {"verdict": verdict, "reason": "Fine."})
            assert answer.status_code == 403
        assert not Review.objects.exists()

    def test_the_api_refuses(self, project: Project, own: Submission, bobs: Client) -> None:
        url = reverse("api_reviews", args=[project.uid, own.uid])
        answer = bobs.post(url, {"verdict": "accept"}, content_type="application/json")
        assert answer.status_code == 403
        assert answer.json()["message"] == "This is your own work: somebody else reviews it."
        assert not Review.objects.exists()

    def test_accepting_many_leaves_it_out(
        self, project: Project, own: Submission, people: list[Membership], bobs: Client
    ) -> None:
        other = choose(make_task(project), people[0], 0)
        url = reverse("project_reviews", args=[project.uid])
        text = bobs.get(url).content.decode()
        assert f'value="{other.uid}"' in text and f'value="{own.uid}"' not in text
        bobs.post(url, {"submission": [own.uid, other.uid]})
        assert [one.submission for one in Review.objects.all()] == [other]

    def test_deciding_a_task_one_judged_is_refused(
        self, project: Project, own: Submission, people: list[Membership], bobs: Client
    ) -> None:
        choose(own.task, people[0], 1)
        page = reverse("disagreement_detail", args=[project.uid, own.task.uid])
        assert 'name="submission"' not in bobs.get(page).content.decode()
        assert bobs.post(page, {"submission": own.uid}).status_code == 403
        api = reverse("api_adjudication", args=[project.uid, own.task.uid])
        body = {"submission": own.uid}
        assert bobs.post(api, body, content_type="application/json").status_code == 403
        assert not Adjudication.objects.exists()

    def test_calling_it_a_known_answer_is_refused(
        self, project: Project, own: Submission, bobs: Client
    ) -> None:
        bobs.post(reverse("known_new", args=[project.uid, own.uid]), {})
        assert not Task.objects.filter(gold__isnull=False).exists()

    def test_the_admin_has_no_review_to_add(self, project: Project, signed_in) -> None:
        """Not even for whoever may do everything."""
        root = make_user("root", is_staff=True, is_superuser=True)
        own = choose(make_task(project), make_member(project, "root", Membership.Role.MANAGER), 0)
        client = signed_in(root)
        page = reverse("admin:annotation_submission_change", args=[own.pk])
        assert client.get(page).status_code == 200
        given = {
            "reviews-TOTAL_FORMS": 1,
            "reviews-INITIAL_FORMS": 0,
            "reviews-0-verdict": "accept",
        }
        assert client.post(page, given).status_code == 403
        assert not Review.objects.exists()


def test_reviews_by_the_api(
    project: Project, people: list[Membership], rev: Membership, bobs: Client
) -> None:
    submission = choose(make_task(project), people[0], 0)
    url = reverse("api_reviews", args=[project.uid, submission.uid])
    answer = bobs.post(url, {"verdict": "reject", "reason": "No."}, content_type="application/json")
    assert answer.status_code == 201
    assert answer.json()["status"] == "rejected"
    (told,) = bobs.get(url).json()
    assert (told["verdict"], told["reason"], told["reviewer"]) == ("reject", "No.", rev.uid)


def test_a_disagreement_is_decided_and_leaves_the_queue(
    project: Project, people: list[Membership], bobs: Client
) -> None:
    task = make_task(project)
    one, _other = choose(task, people[0], 0, degree=4), choose(task, people[1], 1)
    queue = reverse("project_disagreements", args=[project.uid])
    page = reverse("disagreement_detail", args=[project.uid, task.uid])
    assert page in bobs.get(queue).content.decode()
    text = bobs.get(page).content.decode()
    assert "A is significantly better" in text and "B is better" in text
    assert bobs.post(page, {}).status_code == 400
    assert bobs.post(page, {"submission": one.uid, "reason": "A cites."})["Location"] == queue
    assert page not in bobs.get(queue).content.decode()
    assert Adjudication.objects.get().submission == one


def test_a_known_answer_is_made_shown_and_retired(
    project: Project, people: list[Membership], bobs: Client
) -> None:
    submission = choose(make_task(project), people[0], 1)
    url = reverse("known_new", args=[project.uid, submission.uid])
    bobs.post(url, {"explanation": "It is so.", "is_qualification": "on"})
    gold = Task.objects.get(gold__isnull=False)
    assert gold.is_qualification
    page = reverse("project_known", args=[project.uid])
    text = bobs.get(page).content.decode()
    assert "B is better" in text and "It is so." in text
    bobs.post(page, {"task": gold.uid})
    gold.refresh_from_db()
    assert gold.closed_at is not None


def test_a_manager_lets_somebody_in(
    project: Project, people: list[Membership], dana: User, signed_in
) -> None:
    client, page = signed_in(dana), reverse("project_members", args=[project.uid])
    path = reverse("member_qualify", args=[project.uid, people[0].uid])
    assert path not in client.get(page).content.decode()  # there is no test
    Project.objects.filter(pk=project.pk).update(qualification_pass=0.8)
    assert path in client.get(page).content.decode()
    client.post(path)
    people[0].refresh_from_db()
    assert people[0].qualified_at is not None
    assert path not in client.get(page).content.decode()


def test_filters_show_what_was_asked_for(
    project: Project, people: list[Membership], bobs: Client
) -> None:
    pair = choose(make_task(project), people[0], 0)
    ranking = rank(make_task(project, "ranking"), people[1], "0>1")
    url = reverse("project_reviews", args=[project.uid])

    def shown(**query: str) -> list[Submission]:
        text = bobs.get(url, query).content.decode()
        return [one for one in (pair, ranking) if f"/{one.uid}/" in text]

    assert shown() == [pair, ranking]
    assert shown(kind="pair") == [pair]
    assert shown(annotator=people[1].uid) == [ranking]
    assert shown(status="rejected") == []
    assert shown(status="nonsense", kind="nonsense") == [pair, ranking]


def test_the_parts_of_quality_say_how_many_reports_and_questions_wait(
    project: Project, alice: User, bobs: Client, rev: Membership
) -> None:
    def tabs() -> str:
        page = bobs.get(reverse("project_reviews", args=[project.uid])).content.decode()
        return page.split('class="quality-parts"')[1].split("</ul>")[0]

    member = alice.memberships.get(project=project)
    assert "waiting" not in tabs()
    for _ in range(3):
        make_task(project)
    reported = report_submit(assignment=assignment_next(membership=member), text="Cut off.")
    asked = question_ask(assignment=assignment_next(membership=member), text="Which?")
    question_ask(assignment=assignment_next(membership=member), text="And this?")
    assert "Reports <span" in tabs() and "Questions <span" in tabs()
    assert re.findall(r">(\d+)<span", tabs()) == ["1", "2"]
    question_answer(question=asked, reviewer=rev, text="Both.")
    report_decide(report=reported, reviewer=rev, decision=Report.Decision.RETIRE)
    assert re.findall(r">(\d+)<span", tabs()) == ["1"]
