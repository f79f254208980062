"""The pages around a project: who sees what, what a form refuses, what is shown once."""

import io
import json
import re

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from annotation.models import Guideline, Membership, PreferenceDataset, Project, Submission
from annotation.services.assignments import assignment_next
from annotation.services.datasets import RANKINGS_NAME
from annotation.services.rankings import ranking_submit
from modelhub.storage import artifact_folder
from tests import builders


def judge(project: Project, user, count: int = 1) -> None:
    for _ in range(count):
        assignment = assignment_next(membership=user.memberships.get(project=project))
        uids = [one.candidate.uid for one in assignment.task.task_candidates.all()]
        ranking_submit(assignment=assignment, tiers=[[uid] for uid in uids], active_s=30.0)


def upload(name: str, *lines: str) -> io.BytesIO:
    file = io.BytesIO("\n".join(lines).encode())
    file.name = name
    return file


def test_home_offers_to_go_on_where_work_waits(project, alice, signed_in) -> None:
    builders.make_ranking_task(project)
    builders.make_ranking_task(project)
    quiet = builders.make_project("Quiet")
    builders.make_member(quiet, "alice")
    client = signed_in(alice)
    text = client.get(reverse("home")).content.decode()
    assert ">Start</a>" in text
    assert text.index("Helpfulness") < text.index("Quiet")
    judge(project, alice)
    text = client.get(reverse("home")).content.decode()
    assert ">Go on</a>" in text
    assert "1 of 2 judgements" in text


def test_home_of_somebody_without_a_project_says_what_to_do(db, signed_in) -> None:
    text = signed_in(builders.make_user("frank")).get(reverse("home")).content.decode()
    assert "Tell them your user name: frank." in text
    assert reverse("project_new") not in text


def test_pages_for_managers_do_not_exist_for_others(
    project, alice, bob, charlie, dana, signed_in
) -> None:
    names = ("project_prompts", "project_members", "project_datasets")
    for name in names:
        url = reverse(name, args=[project.uid])
        assert signed_in(dana).get(url).status_code == 200
        for other in (alice, bob, charlie):
            assert signed_in(other).get(url).status_code == 404
            assert signed_in(other).post(url).status_code == 404
    for name in ("project_detail", "project_guidelines", "annotate"):
        url = reverse(name, args=[project.uid])
        assert signed_in(alice).get(url).status_code == 200
        assert signed_in(charlie).get(url).status_code == 404


def test_the_overview_shows_contributions_to_reviewers_and_not_to_annotators(
    project, alice, bob, signed_in
) -> None:
    for _ in range(3):
        builders.make_ranking_task(project)
    judge(project, alice, 2)
    url = reverse("project_detail", args=[project.uid])
    seen = signed_in(bob).get(url).content.decode()
    assert "Who judged" in seen
    assert "30 s" in seen
    assert "2 of 3 are in" in seen
    assert "Who judged" not in signed_in(alice).get(url).content.decode()


def test_a_project_is_made_by_those_who_manage_one_or_are_staff(
    dana, alice, eve, signed_in
) -> None:
    form = {"name": "New one", "overlap": "2", "description": ""}
    url = reverse("project_new")
    assert signed_in(alice).post(url, form).status_code == 404
    for person in (dana, eve):
        assert signed_in(person).post(url, form).status_code == 302
        made = Project.objects.latest("pk")
        assert made.memberships.get().user == person
        assert made.memberships.get().role == Membership.Role.MANAGER
    refused = signed_in(dana).post(url, form | {"overlap": "51"})
    assert refused.status_code == 400
    assert "New one" in refused.content.decode()


def test_a_new_person_gets_a_link_that_is_shown_once_and_works(project, dana, signed_in) -> None:
    client = signed_in(dana)
    url = reverse("project_members", args=[project.uid])
    answer = client.post(url, {"username": "nora", "role": "annotator"})
    link = re.search(r"http://testserver(/sign-in/[\w-]+/)", answer.content.decode())
    assert link is not None
    assert link.group(1) not in client.get(url).content.decode()
    nora = Client()
    assert nora.post(link.group(1)).status_code == 302
    assert nora.get(reverse("project_detail", args=[project.uid])).status_code == 200


def test_who_signed_out_without_a_password_gets_a_new_link(project, dana, signed_in) -> None:
    manager = signed_in(dana)
    people = reverse("project_members", args=[project.uid])
    manager.post(people, {"username": "nora", "role": "annotator"})
    again = reverse("member_link", args=[project.uid, project.memberships.latest("pk").uid])
    for _ in range(2):  # before the first signing in, and after
        assert again in manager.get(people).content.decode()
        shown = manager.post(again).content.decode()
        link = re.search(r"http://testserver(/sign-in/[\w-]+/)", shown)
        assert link is not None
        nora = Client()
        assert nora.post(link[1]).status_code == 302
        nora.post(reverse("sign_out"))
        used = nora.post(link[1]).content.decode()
        assert "ask the manager who added you" in used
    opened = manager.get(again)  # as after a reload: the people, and no link
    assert (opened.status_code, opened.url) == (302, people)
    nora = User.objects.get(username="nora")
    nora.set_password("quite another phrase")
    nora.save()
    assert again not in manager.get(people).content.decode()
    assert "has a password" in manager.post(again, follow=True).content.decode()


def test_a_name_that_cannot_be_one_is_refused_at_its_field(project, dana, signed_in) -> None:
    url = reverse("project_members", args=[project.uid])
    answer = signed_in(dana).post(url, {"username": "a b<c>", "role": "annotator"})
    assert answer.status_code == 400
    assert "letters, digits and @" in answer.content.decode()
    form = answer.context["form"]
    assert list(form.errors) == ["username"]
    assert form.non_field_errors() == []
    again = signed_in(dana).post(url, {"username": "nora", "role": "emperor"})
    assert again.status_code == 400
    assert project.memberships.count() == 1


def test_roles_change_and_the_last_manager_stays(project, dana, alice, signed_in) -> None:
    client = signed_in(dana)

    def act(name: str, user, **values: str):
        uid = user.memberships.get(project=project).uid
        return client.post(reverse(name, args=[project.uid, uid]), values, follow=True)

    assert "alice is reviewer now." in act("member_role", alice, role="reviewer").content.decode()
    refused = act("member_remove", dana).content.decode()
    assert "last manager" in refused
    act("member_remove", alice)
    assert alice.memberships.get().removed_at is not None
    answer = client.post(reverse("member_remove", args=[project.uid, "f" * 32]))
    assert answer.status_code == 404


def test_a_member_of_another_project_cannot_be_changed_through_this_one(
    project, dana, charlie, signed_in
) -> None:
    theirs = charlie.memberships.get()
    for name in ("member_role", "member_remove", "member_link"):
        url = reverse(name, args=[project.uid, theirs.uid])
        assert signed_in(dana).post(url, {"role": "annotator"}).status_code == 404
    theirs.refresh_from_db()
    assert theirs.removed_at is None
    assert theirs.role == Membership.Role.MANAGER


def test_prompts_come_in_whole_or_not_at_all(project, dana, signed_in) -> None:
    client = signed_in(dana)
    url = reverse("project_prompts", args=[project.uid])
    bad = upload("bad.jsonl", '{"prompt": "one"}', '{"prompt": "two", "tag": "x"}')
    refused = client.post(url, {"file": bad})
    assert refused.status_code == 400
    text = refused.content.decode()
    assert "Nothing was imported." in text
    assert "bad.jsonl" in text
    assert "line 2" in text
    assert "tag" in text
    assert project.prompts.count() == 0

    good = upload("good.jsonl", '{"prompt": "one"}', '{"prompt": "two"}', '{"prompt": "one"}')
    answer = client.post(url, {"file": good}, follow=True)
    assert "2 prompts imported; already here: 1. New answers: 0." in answer.content.decode()
    assert client.post(url, {}).status_code == 400


def test_prompts_are_found_by_words_and_split(project, dana, signed_in) -> None:
    builders.make_prompt(project, "Why is the sky blue?")
    builders.make_prompt(project, "Write a poem.", split="held_out")
    url = reverse("project_prompts", args=[project.uid])
    found = signed_in(dana).get(url, {"q": "sky"}).content.decode()
    assert "Why is the sky blue?" in found
    assert "Write a poem." not in found
    found = signed_in(dana).get(url, {"split": "held_out"}).content.decode()
    assert "Write a poem." in found
    assert "sky" not in found
    assert "Nothing found" in signed_in(dana).get(url, {"q": "zebra"}).content.decode()
    assert signed_in(dana).get(url, {"page": "999", "split": "' OR 1"}).status_code == 200


def test_the_number_of_queries_does_not_grow_with_the_rows(
    project, dana, signed_in, django_assert_max_num_queries
) -> None:
    client = signed_in(dana)
    for number in range(30):
        builders.make_prompt(project)
        builders.make_member(project, f"member-{number}")
        builders.make_ranking_task(project)
    for name in ("project_detail", "project_prompts", "project_members", "project_datasets"):
        with django_assert_max_num_queries(22):
            assert client.get(reverse(name, args=[project.uid])).status_code == 200


def test_guidelines_are_published_by_managers_and_read_by_all(
    project, dana, alice, signed_in
) -> None:
    url = reverse("project_guidelines", args=[project.uid])
    assert signed_in(alice).post(url, {"text": "Mine"}).status_code == 404
    signed_in(dana).post(url, {"text": "Be **kind**."})
    assert Guideline.objects.get().number == 1
    seen = signed_in(alice).get(url).content.decode()
    assert "<strong>kind</strong>" in seen
    assert "<textarea" not in seen
    assert signed_in(dana).post(url, {"text": "   "}).status_code == 400


def test_a_dataset_is_frozen_and_exported_from_its_pages(
    project, dana, alice, charlie, signed_in
) -> None:
    client = signed_in(dana)
    url = reverse("project_datasets", args=[project.uid])
    refused = client.post(url, {"origin": ""})
    assert refused.status_code == 400
    assert "no accepted ranking to freeze" in refused.content.decode()

    builders.make_ranking_task(project)
    judge(project, alice)
    assert client.post(url, {"origin": "simulated"}).status_code == 400
    page = client.post(url, {"origin": "person"}, follow=True)
    dataset = PreferenceDataset.objects.get()
    assert dataset.artifact.sha256 in page.content.decode()

    export = reverse("dataset_export", args=[dataset.uid])
    answer = client.get(export)
    rows = [json.loads(line) for line in b"".join(answer.streaming_content).splitlines()]
    assert len(rows) == 3
    assert {"prompt", "chosen", "rejected"} <= set(rows[0])
    assert answer["Content-Disposition"].startswith('attachment; filename="rondo-dataset-1-')
    assert answer["X-Content-Type-Options"] == "nosniff"
    parquet = client.get(export, {"format": "parquet", "layout": "rankings"})
    assert b"".join(parquet.streaming_content)[:4] == b"PAR1"
    for query in ({"format": "xlsx"}, {"layout": "../etc/passwd"}):
        assert client.get(export, query).status_code == 404
    for other in (alice, charlie):
        assert signed_in(other).get(export).status_code == 404
    assert Submission.objects.count() == 1


def test_rankings_are_imported_by_managers_whole_or_not_at_all(
    project, dana, alice, signed_in
) -> None:
    builders.make_ranking_task(project)
    judge(project, alice)
    client = signed_in(dana)
    client.post(reverse("project_datasets", args=[project.uid]), {"origin": ""})
    export = reverse("dataset_export", args=[PreferenceDataset.objects.get().uid])
    line = b"".join(client.get(export, {"layout": "rankings"}).streaming_content).decode().strip()
    url = reverse("dataset_import", args=[project.uid])
    moved = json.dumps(json.loads(line) | {"split": "nowhere"})
    refused = client.post(url, {"file": upload("bad.jsonl", moved)})
    assert refused.status_code == 400
    text = refused.content.decode()
    assert "Nothing was imported." in text
    assert "bad.jsonl, line 1, field split" in text
    assert client.post(url, {}).status_code == 400
    assert PreferenceDataset.objects.count() == 1
    page = client.post(url, {"file": upload("good.jsonl", line)}, follow=True).content.decode()
    assert "Dataset 2 holds 1 ranking." in page
    assert "the rows of good.jsonl, imported" in page
    assert signed_in(alice).post(url, {"file": upload("good.jsonl", line)}).status_code == 404


def test_a_dataset_that_was_damaged_is_not_exported_and_the_page_says_so(
    project, dana, alice, signed_in
) -> None:
    builders.make_ranking_task(project)
    judge(project, alice)
    client = signed_in(dana)
    client.post(reverse("project_datasets", args=[project.uid]), {"origin": ""})
    dataset = PreferenceDataset.objects.get()
    path = artifact_folder(dataset.artifact) / RANKINGS_NAME
    path.write_bytes(path.read_bytes() + b"\n")
    answer = client.get(reverse("dataset_export", args=[dataset.uid]), follow=True)
    assert answer.redirect_chain == [(reverse("dataset_detail", args=[dataset.uid]), 302)]
    assert "is not as it was frozen" in answer.content.decode()


@pytest.mark.parametrize("path", ["/nothing/", "/projects/x/", "/datasets/../admin/x/"])
def test_what_does_not_exist_is_said_in_the_sites_own_words(alice, signed_in, path) -> None:
    answer = signed_in(alice).get(path)
    assert answer.status_code == 404
    assert "Nothing here" in answer.content.decode()


def test_a_stale_form_is_answered_in_the_sites_own_words(alice) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    answer = client.post(reverse("sign_out"))
    assert answer.status_code == 403
    assert "Not allowed" in answer.content.decode()


def test_when_something_breaks_the_page_stands_without_database_or_base(
    alice, signed_in, monkeypatch
) -> None:
    from annotation import overviews

    def broken(**_: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(overviews, "project_cards", broken)
    client = signed_in(alice)
    client.raise_request_exception = False
    answer = client.get(reverse("home"))
    assert answer.status_code == 500
    assert "Something broke" in answer.content.decode()
    assert "broken on purpose" not in answer.content.decode()


def test_an_export_from_the_page_is_of_the_training_rows_unless_asked_otherwise(
    project, dana, alice, signed_in
) -> None:
    for split in ("train", "held_out"):
        builders.make_ranking_task(project, prompt=builders.make_prompt(project, split=split))
        judge(project, alice)
    client = signed_in(dana)
    client.post(reverse("project_datasets", args=[project.uid]), {"origin": ""})
    dataset = PreferenceDataset.objects.get()
    page = client.get(reverse("dataset_detail", args=[dataset.uid])).content.decode()
    assert "layout=rankings&amp;split=train" in page and "Leave them out" not in page
    export = reverse("dataset_export", args=[dataset.uid])

    def sides(**query: str) -> list[str]:
        answer = client.get(export, {"layout": "rankings", **query})
        return sorted(json.loads(line)["split"] for line in b"".join(answer).splitlines())

    assert sides(split="train") == ["train"]
    assert sides(split="held_out") == ["held_out"]
    assert sides(split="all") == ["held_out", "train"]
    assert sides() == ["train"]
    assert (
        "-rankings-train.jsonl" in client.get(export, {"layout": "rankings"})["Content-Disposition"]
    )
    everything = client.get(export, {"layout": "rankings", "split": "all"})
    assert "-rankings-all.jsonl" in everything["Content-Disposition"]
    listed = client.get(reverse("project_datasets", args=[project.uid])).content.decode()
    for text in (page, listed):  # the same button, with the same rows, on both pages
        assert "JSONL · train</a>" in text
        assert "split=train" in text and "split=all&" not in text and 'split=all"' not in listed
    assert '<a href="?split=train" aria-current="true">train</a>' in page
    assert client.get(export, {"split": "nowhere"}).status_code == 404
    everything = client.get(reverse("dataset_detail", args=[dataset.uid]), {"split": "all"})
    assert "Leave them out of training" in everything.content.decode()
