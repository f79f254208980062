"""The reviewers' page of tasks with which something is wrong."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods

from annotation import policy
from annotation.frame import quality_frame
from annotation.models import Membership, Report
from annotation.selectors.reports import reports_of
from annotation.selectors.shown import reports_shown
from annotation.services.reports import report_decide
from modelhub.errors import ApplicationError

REVIEWER = Membership.Role.REVIEWER


@require_http_methods(["GET", "HEAD", "POST"])
def project_reports(request: HttpRequest, project_uid: str) -> HttpResponse:
    """Reports, those that wait first; a POST keeps or retires a task."""
    project = policy.project_for(request.user, project_uid, REVIEWER)
    if request.method == "POST":
        report, reviewer = policy.report_for(
            request.user, project_uid, request.POST.get("report", "")
        )
        decision = request.POST.get("decision", "")
        try:
            report_decide(report=report, reviewer=reviewer, decision=decision)
        except ApplicationError as error:
            messages.error(request, error.message)
        else:
            if decision == Report.Decision.KEEP:
                messages.success(request, gettext("It is handed out again."))
            else:
                messages.success(request, gettext("It is handed out no more."))
        return redirect("project_reports", project.uid)
    reports = list(reports_of(project=project))
    shown = reports_shown(reports=reports)
    context = quality_frame(request, project, "reports") | {
        "reports": [(one, shown[one.pk]) for one in reports],
    }
    return render(request, "annotation/project_reports.html", context)
