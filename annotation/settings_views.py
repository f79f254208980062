"""The manager's page of what a project is called, and of how it hands out its tasks."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods, require_POST

from annotation import policy
from annotation.forms import DescriptionForm, error_add
from annotation.frame import project_frame
from annotation.models import Membership, Project
from annotation.services.project_settings import (
    MAX_GOLD_SHARE,
    MAX_MIRRORED_SHARE,
    MAX_OVERLAP,
    MAX_SKIPS_TO_REVIEW,
    project_settings_change,
)
from annotation.services.projects import project_describe
from modelhub.errors import ApplicationError


class SettingsForm(forms.Form):
    """Shares are asked for in per cent."""

    overlap = forms.IntegerField(
        label=_("People for each task"),
        min_value=1,
        max_value=MAX_OVERLAP,
        help_text=_("Of the tasks made from now on. Two or more let you measure agreement."),
    )
    queue_order = forms.ChoiceField(label=_("What comes next"), choices=Project.Order.choices)
    gold_percent = forms.FloatField(
        label=_("Known answers mixed in, %"),
        min_value=0,
        max_value=100 * MAX_GOLD_SHARE,
        help_text=_("Of what each person gets. 0 mixes none in."),
    )
    pass_percent = forms.FloatField(
        label=_("Score that passes the test, %"),
        min_value=0,
        max_value=100,
        help_text=_("0 asks for no test. Tasks of the test are made under Quality, Reviews."),
    )
    mirrored_percent = forms.FloatField(
        label=_("Pairs asked again mirrored, %"),
        min_value=0,
        max_value=100 * MAX_MIRRORED_SHARE,
        help_text=_(
            "Of what each person gets: a pair of their own from a while ago, sides swapped. "
            "It tells how far they agree with themselves, and is in no dataset."
        ),
    )
    skips_to_review = forms.IntegerField(
        label=_("Skips before a reviewer looks"),
        min_value=0,
        max_value=MAX_SKIPS_TO_REVIEW,
        help_text=_("A task that so many people skipped waits for a reviewer. 0 never does."),
    )


@require_http_methods(["GET", "HEAD", "POST"])
def project_settings(request: HttpRequest, project_uid: str) -> HttpResponse:
    project = policy.project_for(request.user, project_uid, Membership.Role.MANAGER)
    form = SettingsForm(
        request.POST if request.method == "POST" else None, initial=_settings_of(project)
    )
    if form.is_valid():
        given = form.cleaned_data
        try:
            project_settings_change(
                project=project,
                overlap=given["overlap"],
                queue_order=given["queue_order"],
                gold_share=given["gold_percent"] / 100,
                qualification_pass=given["pass_percent"] / 100,
                mirrored_share=given["mirrored_percent"] / 100,
                skips_to_review=given["skips_to_review"],
            )
        except ApplicationError as error:
            error_add(form, error)
        else:
            messages.success(
                request, gettext("Kept. It holds for the next task that is handed out.")
            )
            return redirect("project_settings", project.uid)
    return _page(request, project, form, DescriptionForm(initial=_description_of(project)))


@require_POST
def project_description(request: HttpRequest, project_uid: str) -> HttpResponse:
    """Another name and description."""
    project = policy.project_for(request.user, project_uid, Membership.Role.MANAGER)
    form = DescriptionForm(request.POST)
    if form.is_valid():
        try:
            project_describe(project=project, **form.cleaned_data)
        except ApplicationError as error:
            error_add(form, error)
        else:
            messages.success(request, gettext("Kept."))
            return redirect("project_settings", project.uid)
    return _page(request, project, SettingsForm(initial=_settings_of(project)), form)


def _settings_of(project: Project) -> dict[str, Any]:
    return {
        "overlap": project.overlap,
        "queue_order": project.queue_order,
        "gold_percent": f"{100 * project.gold_share:g}",
        "pass_percent": f"{100 * project.qualification_pass:g}",
        "mirrored_percent": f"{100 * project.mirrored_share:g}",
        "skips_to_review": project.skips_to_review,
    }


def _description_of(project: Project) -> dict[str, Any]:
    return {"name": project.name, "description": project.description}


def _page(
    request: HttpRequest, project: Project, form: SettingsForm, description_form: DescriptionForm
) -> HttpResponse:
    context = project_frame(request, project, "settings") | {
        "form": form,
        "description_form": description_form,
    }
    refused = any(one.is_bound and one.errors for one in (form, description_form))
    status = 400 if refused else 200
    return render(request, "annotation/project_settings.html", context, status=status)
