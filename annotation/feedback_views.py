"""The managers' page of tokens, by which a product sends its users' feedback."""

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods, require_POST

from annotation import policy
from annotation.frame import project_frame
from annotation.models import Membership, ProjectToken
from annotation.selectors.tokens import tokens_of
from annotation.services.tokens import (
    MAX_NAME_CHARS,
    project_token_create,
    project_token_revoke,
)
from modelhub.errors import ApplicationError

MANAGER = Membership.Role.MANAGER


@require_http_methods(["GET", "HEAD", "POST"])
def project_tokens(request: HttpRequest, project_uid: str) -> HttpResponse:
    """Tokens, the newest first; a POST makes one, whose secret this one reply shows."""
    project = policy.project_for(request.user, project_uid, MANAGER)
    name, refused, made = request.POST.get("name", ""), "", {}
    if request.method == "POST":
        try:
            token, secret = project_token_create(project=project, name=name)
        except ApplicationError as error:
            refused = error.message
        else:
            made, name = {"name": token.name, "secret": secret}, ""
    context = project_frame(request, project, "tokens") | {
        "tokens": tokens_of(project=project),
        "made": made,
        "name": name,
        "refused": refused,
        "most_chars": MAX_NAME_CHARS,
        "address": request.build_absolute_uri(reverse("api_feedback")),
    }
    status = 400 if refused else 200
    return render(request, "annotation/project_tokens.html", context, status=status)


@require_POST
def token_revoke(request: HttpRequest, project_uid: str, token_uid: str) -> HttpResponse:
    project = policy.project_for(request.user, project_uid, MANAGER)
    token = ProjectToken.objects.filter(project=project, uid=token_uid).first()
    if token is None:
        raise Http404("Not found.")
    project_token_revoke(token=token)
    messages.success(
        request,
        gettext("%(name)s sends nothing any more. What it sent stays.") % {"name": token.name},
    )
    return redirect("project_tokens", project.uid)
