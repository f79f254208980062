"""A version served: the part of its page that follows the server, and what starts and stops it."""

import hashlib

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.utils.translation import gettext
from django.views.decorators.http import require_POST, require_safe

from modelhub.errors import ApplicationError
from modelhub.forms import AliasForm, ServerForm
from modelhub.models import ModelVersion
from modelhub.policy import hub_page
from modelhub.selectors import servers
from modelhub.serializers import user_of
from modelhub.services.servers import server_request, server_stop
from modelhub.serving import serving_context, serving_needs
from modelhub.views import version_of, version_page


@require_safe
@hub_page
def version_serving(request: HttpRequest, version_uid: str) -> HttpResponse:
    """The server's part of the version's page; nothing (204) if it is as the page has it."""
    version = version_of(version_uid)
    if "context_tokens" in request.GET:  # the form is being filled in: what that would take
        needs = serving_needs(version, request.GET["context_tokens"])
        return render(request, "modelhub/_serving.html#needs", needs)
    context = serving_context(version)
    body = render_to_string("modelhub/_serving.html#body", context, request)
    context["serving_seen"] = hashlib.sha256(body.encode()).hexdigest()[:16]
    if request.GET.get("seen") == context["serving_seen"]:
        return HttpResponse(status=204)
    return render(request, "modelhub/_serving.html", context)


@require_POST
@hub_page
def server_start(request: HttpRequest, version_uid: str) -> HttpResponse:
    """Ask for the version to be served."""
    version = version_of(version_uid)
    form = ServerForm(request.POST, version=version)
    if form.is_valid():
        try:
            server_request(version=version, requested_by=user_of(request), **form.cleaned_data)
        except ApplicationError as error:
            field = error.extra.get("field")
            if field not in form.fields:  # nothing that another number would change
                messages.error(request, error.message)
                return _back(version)
            form.add_error(field, error.message)
        else:
            messages.success(
                request, gettext("%(version)s is going to be served.") % {"version": version}
            )
            return _back(version)
    return version_page(request, version, AliasForm(), server_form=form, status=422)


@require_POST
@hub_page
def server_stop_view(request: HttpRequest, server_uid: str) -> HttpResponse:
    """Ask a server to end."""
    server = servers.server_get(uid=server_uid)
    if server is None:
        raise Http404("Not found.")
    try:
        server_stop(server=server, actor=user_of(request))
    except ApplicationError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, gettext("The server is stopping."))
    return _back(server.version)


def _back(version: ModelVersion) -> HttpResponse:
    reply = redirect("version_detail", version.uid)
    reply["Location"] += "#serving"
    return reply
