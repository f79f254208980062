"""The reviewers' page of what annotators asked."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods

from annotation import policy
from annotation.frame import quality_frame
from annotation.models import Membership
from annotation.selectors.questions import questions_of
from annotation.selectors.shown import tasks_shown
from annotation.services.questions import MAX_QUESTION_CHARS, question_answer
from modelhub.errors import ApplicationError

REVIEWER = Membership.Role.REVIEWER


@require_http_methods(["GET", "HEAD", "POST"])
def project_questions(request: HttpRequest, project_uid: str) -> HttpResponse:
    """Questions, those that wait first; a POST answers one. One's own are answered by others."""
    project = policy.project_for(request.user, project_uid, REVIEWER)
    refused: dict[str, str] = {}
    if request.method == "POST":
        question, reviewer = policy.question_for(request.user, request.POST.get("question", ""))
        text = request.POST.get("text", "")
        try:
            question_answer(question=question, reviewer=reviewer, text=text)
        except ApplicationError as error:
            refused = {"uid": question.uid, "message": error.message, "text": text}
        else:
            messages.success(request, gettext("Answered. The annotator gets the task back next."))
            return redirect("project_questions", project.uid)
    questions = list(questions_of(project=project))
    shown = tasks_shown(assignments=[one.assignment for one in questions])
    context = quality_frame(request, project, "questions") | {
        "questions": [(one, shown[one.assignment_id]) for one in questions],
        "refused": refused,
        "most_chars": MAX_QUESTION_CHARS,
    }
    status = 400 if refused else 200
    return render(request, "annotation/project_questions.html", context, status=status)
