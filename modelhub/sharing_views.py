"""Versions on their way out and in: pushed, pulled, and as a GGUF file to take away."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from modelhub import storage
from modelhub.errors import ApplicationError
from modelhub.forms import AliasForm, PullForm, PushForm
from modelhub.policy import hub_page
from modelhub.selectors.runs import run_get
from modelhub.selectors.variants import gguf_output
from modelhub.serializers import user_of
from modelhub.services.idempotency import idempotent
from modelhub.services.sharing import version_pull, version_push
from modelhub.views import version_of, version_page


@require_POST
@hub_page
def version_push_view(request: HttpRequest, version_uid: str) -> HttpResponse:
    """Push the version to a folder or to the model hub."""
    version = version_of(version_uid)
    form = PushForm(request.POST)
    if form.is_valid():
        given = form.cleaned_data
        try:
            where = version_push(
                version=version,
                target=given["target"],
                to_hub=given["place"] == "hub",
                private=not given["is_public"],
                actor=user_of(request),
            )
        except ApplicationError as error:
            form.add_error(error.extra.get("field"), error.message)
        else:
            told = {"version": version, "where": where}
            messages.success(request, gettext("%(version)s is at %(where)s.") % told)
            return redirect("version_detail", version.uid)
    return version_page(request, version, AliasForm(), push_form=form, status=422)


@require_http_methods(["GET", "HEAD", "POST"])
@hub_page
def model_pull(request: HttpRequest) -> HttpResponse:
    """The form that takes in a pushed folder. Sent twice, it registers one version."""
    form = PullForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        user = user_of(request)
        given = {name: form.cleaned_data[name] for name in ("location", "model", "role")}

        def act() -> dict[str, Any]:
            version = version_pull(actor=user, **given)
            return {"uid": version.uid, "name": str(version), "sha256": version.artifact.sha256}

        try:
            key = f"pull:{form.cleaned_data['key']}"
            pulled = idempotent(user=user, key=key, body=given, act=act)
        except ApplicationError as error:
            field = error.extra.get("field")
            form.add_error(field if field in form.fields else None, error.message)
        else:
            told = {"version": pulled["name"], "sha256": pulled["sha256"][:12]}
            messages.success(request, gettext("%(version)s is artifact %(sha256)s.") % told)
            return redirect("version_detail", pulled["uid"])
    context = {"form": form, "roots": settings.IMPORT_ROOTS}
    status = 422 if form.errors else 200
    return render(request, "modelhub/model_pull.html", context, status=status)


@require_safe
@hub_page
def gguf_download(request: HttpRequest, run_uid: str) -> FileResponse:
    """The GGUF file that a run has made."""
    artifact, run = gguf_output(run_uid=run_uid), run_get(uid=run_uid)
    name = str((run.result or {}).get("file", "")) if run else ""
    if artifact is None or artifact.damage or name not in artifact.manifest["files"]:
        raise Http404("Not found.")
    path = storage.artifact_folder(artifact) / name
    if not path.is_file():
        raise Http404("Not found.")
    return FileResponse(path.open("rb"), as_attachment=True, filename=f"{run_uid[:8]}-{name}")
