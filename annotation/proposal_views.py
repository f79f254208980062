"""The page on which a person accepts or rejects what a model proposes as prompts, one by one."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods

from annotation import policy
from annotation.frame import project_frame
from annotation.models import Membership, Proposal
from annotation.services.proposals import proposal_decide
from modelhub.errors import ConflictError
from modelhub.serializers import user_of


@require_http_methods(["GET", "HEAD", "POST"])
def project_proposals(request: HttpRequest, project_uid: str) -> HttpResponse:
    """The oldest proposal that waits; A accepts it, R rejects it (proposals.js)."""
    project = policy.project_for(request.user, project_uid, Membership.Role.MANAGER)
    proposals = Proposal.objects.filter(project=project)
    if request.method == "POST":
        proposal = get_object_or_404(proposals, uid=request.POST.get("proposal", ""))
        accept = request.POST.get("decision") == "accept"
        try:
            proposal_decide(proposal=proposal, accept=accept, decided_by=user_of(request))
        except ConflictError as error:
            messages.error(request, error.message)
        return redirect("project_proposals", project.uid)
    waiting = proposals.filter(state=Proposal.State.WAITING)
    context = project_frame(request, project, "prompts") | {
        "proposal": waiting.select_related("run").first(),
        "waiting": waiting.count(),
        "accepted": proposals.filter(state=Proposal.State.ACCEPTED).count(),
        "rejected": proposals.filter(state=Proposal.State.REJECTED).count(),
    }
    return render(request, "annotation/project_proposals.html", context)
