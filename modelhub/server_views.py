"""A version served: the part of its page that follows the server, and what starts and stops it."""

import hashlib
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.utils.translation import gettext
from django.views.decorators.http import require_POST, require_safe

from modelhub import storage
from modelhub.errors import ApplicationError
from modelhub.forms import ServerForm
from modelhub.models import ModelVersion
from modelhub.policy import hub_page
from modelhub.selectors import servers
from modelhub.selectors.uses import version_is_unread
from modelhub.selectors.versions import version_get
from modelhub.serializers import user_of
from modelhub.services.servers import server_request, server_stop

LOG_BYTES = 8192


def serving_context(version: ModelVersion) -> dict[str, Any]:
    """What the template modelhub/_serving.html shows of a version: its server, or a form for one.

    Nothing for a version that writes no text.
    """
    if version.role not in servers.SERVES or version_is_unread(version):
        return {}
    server = servers.version_server(version=version)
    form = ServerForm(version=version)
    context: dict[str, Any] = {"server": server, "version": version, "server_form": form}
    if server is not None:
        context["server_log"] = storage.server_log_tail(server, max_bytes=LOG_BYTES)
        context["served_name"] = servers.served_name(version)
    try:
        asked = form["context_tokens"].initial
        size = servers.server_memory_bytes(version=version, context_tokens=asked)
    except ApplicationError:
        return context  # its files are not there, or do not say
    return context | {"server_bytes": size}


@require_safe
@hub_page
def version_serving(request: HttpRequest, version_uid: str) -> HttpResponse:
    """The server's part of the version's page; nothing (204) if it is as the page has it."""
    version = _version_of(version_uid)
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
    version = _version_of(version_uid)
    form = ServerForm(request.POST, version=version)
    try:
        if not form.is_valid():
            raise ApplicationError(str(next(iter(form.errors.values()))[0]))
        server_request(version=version, requested_by=user_of(request), **form.cleaned_data)
    except ApplicationError as error:
        messages.error(request, error.message)
    else:
        messages.success(
            request, gettext("%(version)s is going to be served.") % {"version": version}
        )
    return _back(version)


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


def _version_of(uid: str) -> ModelVersion:
    version = version_get(uid=uid)
    if version is None:
        raise Http404("Not found.")
    return version


def _back(version: ModelVersion) -> HttpResponse:
    reply = redirect("version_detail", version.uid)
    reply["Location"] += "#serving"
    return reply
