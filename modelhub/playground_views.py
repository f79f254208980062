"""The playground: one prompt, several versions and ways to decode, side by side. Staff."""

import hashlib
from typing import Any

from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.views.decorators.http import require_http_methods, require_safe

from modelhub import tasks
from modelhub.errors import ApplicationError
from modelhub.models import ModelVersion
from modelhub.playground_forms import PlaygroundForm, playground_initial
from modelhub.policy import hub_page
from modelhub.selectors import playground as trials
from modelhub.selectors.runs import run_get
from modelhub.selectors.servers import servers_ready
from modelhub.selectors.workers import workers_silence
from modelhub.serializers import user_of
from modelhub.services.playground import playground_trial_request

TRIALS_SHOWN = 20
MAX_VERSIONS = 200


@require_http_methods(["GET", "HEAD", "POST"])
@hub_page
def playground(request: HttpRequest) -> HttpResponse:
    """The form and what was tried before; sent, it queues a trial and shows it."""
    versions = list(trials.versions_that_write()[:MAX_VERSIONS])
    if request.method != "POST":
        wanted = set(request.GET.getlist("version"))
        chosen = [one for one in versions if one.uid in wanted] or versions[:1]
        initial = playground_initial(config=None, versions=chosen)
        initial["by_servers"] = request.GET.get("by") == "servers"
        return _page(request, PlaygroundForm(versions=versions, initial=initial))
    form = PlaygroundForm(request.POST, versions=versions)
    if form.is_valid():
        try:
            run = playground_trial_request(
                config=form.config,
                versions=form.versions_chosen,
                requested_by=user_of(request),
                by_servers=form.cleaned_data["by_servers"],
            )
        except ApplicationError as error:
            field = error.extra.get("field")
            form.add_error(field if field in form.fields else None, error.message)
        else:
            tasks.ring_queued_runs.delay_on_commit()
            return redirect("playground_trial", run.uid)
    return _page(request, form, status=422)


@require_safe
@hub_page
def trial(request: HttpRequest, trial_uid: str) -> HttpResponse:
    """A trial and, beside it, the form with its settings; to htmx its answers so far, or nothing
    (204) if they are as the page has them."""
    run = run_get(uid=trial_uid)
    config = trials.trial_config(run) if run is not None else None
    if run is None or config is None:
        raise Http404("Not found.")
    context: dict[str, Any] = {
        "trial": trials.trial_read(run=run, config=config),
        "silence": workers_silence(runs=[run]),
    }
    body = render_to_string("modelhub/playground.html#answers", context, request)
    context["seen"] = hashlib.sha256(body.encode()).hexdigest()[:16]
    if request.headers.get("HX-Request"):
        if request.GET.get("seen") == context["seen"]:
            return HttpResponse(status=204)
        return render(request, "modelhub/playground.html#trial", context)
    versions = list(trials.versions_that_write()[:MAX_VERSIONS])
    asked = trials.trial_versions(run=run)
    shown: list[ModelVersion] = [*versions, *(one for one in asked if one not in versions)]
    initial = playground_initial(config=config, versions=asked)
    return _page(request, PlaygroundForm(versions=shown, initial=initial), **context)


def _page(
    request: HttpRequest, form: PlaygroundForm, *, status: int = 200, **context: Any
) -> HttpResponse:
    history = Paginator(trials.trials_list(), TRIALS_SHOWN).get_page(request.GET.get("page"))
    is_served = bool(servers_ready(versions=form.offered.values()))
    context |= {"form": form, "history": history, "is_served": is_served}
    return render(request, "modelhub/playground.html", context, status=status)
