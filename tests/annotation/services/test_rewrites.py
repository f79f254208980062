"""None is good, so one is written anew: a ranking that is an edit too."""

import pytest

from annotation.models import Candidate, Edit, Membership, Project, TaskForm
from annotation.selectors import shown_order
from annotation.selectors.judgements import judgement_of
from annotation.services.assignments import assignment_next
from annotation.services.datasets import RANKINGS_NAME, preference_dataset_freeze
from annotation.services.demonstrations import demonstration_submit
from annotation.services.edits import edit_submit
from annotation.services.rankings import ranking_submit
from annotation.services.submissions import submission_undo
from modelhub.errors import ApplicationError
from modelhub.storage import artifact_folder
from tests.builders import make_member, make_ranking_task, make_task

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann(project: Project) -> Membership:
    return make_member(project, "ann")


def rows_of(dataset) -> str:
    return (artifact_folder(dataset.artifact) / RANKINGS_NAME).read_text()


def test_it_is_ranked_and_the_edited_one_is_better_than_the_original(
    project: Project, ann: Membership
) -> None:
    make_ranking_task(project)
    assignment = assignment_next(membership=ann)
    shown = shown_order(assignment=assignment)
    rewrite = {"original": shown[0], "text": "It is Paris, on the Seine."}
    submission = ranking_submit(
        assignment=assignment, tiers=[[uid] for uid in shown], unacceptable=shown, rewrite=rewrite
    )
    assert judgement_of(submission)["rewrite"] == rewrite
    assert submission.edit.original.uid == shown[0]
    assert submission.comparison.worse.uid == shown[0]
    assert submission.comparison.better == submission.edit.candidate
    assert submission.edit.candidate.author == ann.user

    ranked = preference_dataset_freeze(project=project, kind="ranking")
    assert "on the Seine" not in rows_of(ranked)
    edited = preference_dataset_freeze(project=project, kind="edit")
    assert edited.counts["used"] == 1
    assert "on the Seine" in rows_of(edited)


def test_taken_back_and_sent_without_it_there_is_no_edit(project: Project, ann: Membership) -> None:
    make_ranking_task(project)
    assignment = assignment_next(membership=ann)
    shown = shown_order(assignment=assignment)
    rewrite = {"original": shown[0], "text": "Better."}
    ranking_submit(assignment=assignment, tiers=[shown], rewrite=rewrite)
    assert submission_undo(assignment=assignment).draft["rewrite"] == rewrite
    submission = ranking_submit(assignment=assignment, tiers=[shown])
    assert not Edit.objects.exists()
    assert submission.revisions.get().payload["rewrite"] == rewrite


def test_a_project_may_not_want_it_and_nothing_changed_is_refused(
    project: Project, ann: Membership
) -> None:
    make_ranking_task(project, ("Paris.", "Lyon."))
    assignment = assignment_next(membership=ann)
    shown = shown_order(assignment=assignment)
    text = assignment.task.task_candidates.get(candidate__uid=shown[0]).candidate.text
    for rewrite in ({"original": shown[0], "text": text}, {"original": "0" * 32, "text": "New."}):
        with pytest.raises(ApplicationError):
            ranking_submit(assignment=assignment, tiers=[shown], rewrite=rewrite)
    TaskForm.objects.create(project=project, kind="ranking", settings={"rewrite": False})
    fresh = Membership.objects.select_related("project").get(pk=ann.pk)
    assignment.task.project = fresh.project
    with pytest.raises(ApplicationError, match="no answer written anew"):
        ranking_submit(
            assignment=assignment, tiers=[shown], rewrite={"original": shown[0], "text": "New."}
        )


def test_a_name_that_was_hidden_is_whole_again_in_what_is_kept(
    project: Project, ann: Membership
) -> None:
    make_task(project, "edit", ("I am Claude. It is Paris.",))
    assignment = assignment_next(membership=ann)
    (original,) = shown_order(assignment=assignment)
    submission = edit_submit(
        assignment=assignment, original=original, text="I am ⟦hidden name 1⟧. It is Paris, France."
    )
    assert submission.edit.candidate.text == "I am Claude. It is Paris, France."


@pytest.mark.parametrize("kind", ["edit", "ranking", "demonstration"])
def test_a_name_is_hidden_in_what_is_taken_back_too(
    project: Project, ann: Membership, kind: str
) -> None:
    make_task(project, kind, ("I am Claude. It is Paris.", "Lyon."))
    assignment = assignment_next(membership=ann)
    shown = shown_order(assignment=assignment)
    (original,) = assignment.task.task_candidates.filter(position=0)
    uid, text = original.candidate.uid, "This is ⟦hidden name 1⟧: Paris, France."
    if kind == "edit":
        edit_submit(assignment=assignment, original=uid, text=text)
    elif kind == "ranking":
        rewrite = {"original": uid, "text": text}
        ranking_submit(assignment=assignment, tiers=[shown], rewrite=rewrite)
    else:
        demonstration_submit(assignment=assignment, text=text, started_from=uid)
    draft = submission_undo(assignment=assignment).draft
    assert (draft.get("rewrite") or draft)["text"] == text
    kept = Candidate.objects.get(author=ann.user)
    assert kept.text == "This is Claude: Paris, France."
