"""The manager's page of tasks: how many of each kind there are, and making more."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods

from annotation import policy
from annotation.forms import error_add
from annotation.frame import project_frame
from annotation.models import CandidateBatch, Membership, Project, Task
from annotation.selectors import task_counts
from annotation.services.tasks import ANSWERS, TasksMade, tasks_create
from modelhub.errors import ApplicationError


class TasksForm(forms.Form):
    kind = forms.ChoiceField(choices=Task.Kind.choices, label=_("Kind of task"))
    batch = forms.ModelChoiceField(
        queryset=CandidateBatch.objects.none(),
        to_field_name="uid",
        required=False,
        empty_label=_("the project’s prompts"),
        label=_("Made of"),
        help_text=_(
            "A batch’s answers, or every prompt with what was sampled for it to be judged."
        ),
    )
    overlap = forms.IntegerField(min_value=1, max_value=50, label=_("People for each task"))
    priority = forms.IntegerField(
        label=_("Priority"), initial=0, help_text=_("Higher comes first.")
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        batches = CandidateBatch.objects.filter(project=project, ingested_at__isnull=False)
        batch = self.fields["batch"]
        assert isinstance(batch, forms.ModelChoiceField)  # noqa: S101
        batch.queryset = batches.select_related("version__model")


@require_http_methods(["GET", "HEAD", "POST"])
def project_tasks(request: HttpRequest, project_uid: str) -> HttpResponse:
    project = policy.project_for(request.user, project_uid, Membership.Role.MANAGER)
    data = request.POST if request.method == "POST" else None
    form = TasksForm(data, project=project, initial={"overlap": project.overlap, "priority": 0})
    if form.is_valid():
        try:
            made = tasks_create(project=project, **form.cleaned_data)
        except ApplicationError as error:
            error_add(form, error)
        else:
            told = messages.success if made.made else messages.warning
            told(request, _told(form.cleaned_data["kind"], made))
            return redirect("project_tasks", project.uid)
    context = project_frame(request, project, "tasks") | {
        "form": form,
        "counts": task_counts(project=project),
    }
    status = 400 if form.is_bound and form.errors else 200
    return render(request, "annotation/project_tasks.html", context, status=status)


def _told(kind: str, made: TasksMade) -> str:
    """How many tasks were made, and why the other prompts have none or no other."""
    told = [
        ngettext("%(made)s task was made.", "%(made)s tasks were made.", made.made)
        % {"made": made.made}
    ]
    if made.too_few:
        few = (
            ngettext(
                "%(number)s prompt has fewer than two different answers.",
                "%(number)s prompts have fewer than two different answers.",
                made.too_few,
            )
            if ANSWERS[kind][0] == 2
            else ngettext(
                "%(number)s prompt has no answer.",
                "%(number)s prompts have no answer.",
                made.too_few,
            )
        )
        told.append(few % {"number": made.too_few})
    if made.existing:
        told.append(
            ngettext(
                "%(number)s prompt has such a task already.",
                "%(number)s prompts have such a task already.",
                made.existing,
            )
            % {"number": made.existing}
        )
    if not (made.made or made.too_few or made.existing):
        told.append(gettext("There is no prompt to make one of: import some first."))
    return " ".join(told)
