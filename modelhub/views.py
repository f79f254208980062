"""Pages of the hub. No rule of the domain: selectors read, services write."""

import hashlib
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.template.defaultfilters import filesizeformat
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from modelhub import storage, tasks
from modelhub.cards import Card, card_markdown, card_read
from modelhub.errors import ApplicationError
from modelhub.forms import (
    AliasForm,
    CardForm,
    ImportModelForm,
    PlannerForm,
    PushForm,
    ServerForm,
)
from modelhub.lineage_chart import lineage_chart
from modelhub.ml.configs import ImportModelConfig
from modelhub.ml.manifest import IntegrityError
from modelhub.models import Model, ModelVersion, Run
from modelhub.policy import hub_page
from modelhub.rendering import markdown_render
from modelhub.result_tables import result_split
from modelhub.run_settings import settings_grouped
from modelhub.selectors import lineage, weights
from modelhub.selectors import runs as run_selectors
from modelhub.selectors import versions as version_selectors
from modelhub.selectors.garbage import garbage_plan
from modelhub.selectors.playground import version_writes
from modelhub.selectors.uses import version_is_unread, version_uses
from modelhub.selectors.variants import version_variants
from modelhub.selectors.workers import workers_silence, workers_silence_now
from modelhub.serializers import user_of
from modelhub.services.artifacts import version_lineage_verify
from modelhub.services.garbage import garbage_collect
from modelhub.services.idempotency import idempotent
from modelhub.services.imports import model_import_request
from modelhub.services.runs import run_cancel, run_retry
from modelhub.services.versions import alias_move, version_card_write
from modelhub.serving import serving_context

RUNS_PER_PAGE = 50
MAX_COMPARED = 8
UNUSED_FOR = timedelta(days=7)  # before the page of unused weights names a version
LOG_BYTES = 8192
# What is asked for by another page than a method's; "" by a command, or by a page of its own.
ASKED_BY = {
    "import_model": "model_import",
    "import_corpus": "corpus_import",
    "import_questions": "",
    "playground": "",
}
VERIFY_BYTES = 4 << 30  # more than this is hashed by a command, not while a person waits


@require_safe
@hub_page
def model_list(request: HttpRequest) -> HttpResponse:
    context = {
        "models": version_selectors.models_list(),
        "counts": run_selectors.run_counts(),
        "silence": workers_silence_now(),
    }
    return render(request, "modelhub/model_list.html", context)


@require_safe
@hub_page
def model_detail(request: HttpRequest, model_uid: str) -> HttpResponse:
    model = _model_of(model_uid)
    context = {"model": model, "moves": version_selectors.alias_moves(model=model)}
    return render(request, "modelhub/model_detail.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@hub_page
def model_import(request: HttpRequest) -> HttpResponse:
    """The one form that brings a model in. Sent twice, it starts one run."""
    before = run_selectors.import_asked(
        program=ImportModelConfig.PROGRAM, uid=request.GET.get("run")
    )
    form = ImportModelForm(
        request.POST or None, initial=ImportModelForm.asked(before) if before else None
    )
    if request.method == "POST" and form.is_valid():
        user, config = user_of(request), form.config

        def act() -> str:
            return model_import_request(config=config, requested_by=user).uid

        try:
            uid = idempotent(
                user=user, key=f"import:{form.cleaned_data['key']}", body=asdict(config), act=act
            )
        except ApplicationError as error:
            field = error.extra.get("field")
            form.add_error(field if field in form.fields else None, error.message)
        else:
            tasks.ring_queued_runs.delay_on_commit()
            return redirect("run_detail", uid)
    context = {"form": form, "roots": settings.IMPORT_ROOTS}
    status = 422 if form.errors else 200
    return render(request, "modelhub/model_import.html", context, status=status)


@require_safe
@hub_page
def planner(request: HttpRequest) -> HttpResponse:
    """What a pretraining run would take, told anew whenever a field changes."""
    form = PlannerForm(request.GET if "model" in request.GET else PlannerForm.defaults())
    template, is_htmx = "modelhub/planner.html", bool(request.headers.get("HX-Request"))
    plan = form.plan if form.is_valid() else None
    context = {"form": form, "plan": plan, "is_htmx": is_htmx}
    return render(request, f"{template}#told" if is_htmx else template, context)


@require_http_methods(["GET", "HEAD", "POST"])
@hub_page
def garbage(request: HttpRequest) -> HttpResponse:
    """What the hub could do without; sent, it is removed."""
    if request.method == "POST":
        removed = [
            size for _, size in garbage_collect(older_than=UNUSED_FOR, actor=user_of(request))
        ]
        messages.success(
            request,
            gettext("%(number)s removed, %(size)s are free.")
            % {"number": len(removed), "size": filesizeformat(sum(removed))},
        )
        return redirect("garbage")
    context = {"plan": garbage_plan(older_than=UNUSED_FOR)}
    return render(request, "modelhub/garbage.html", context)


@require_safe
@hub_page
def version_detail(request: HttpRequest, version_uid: str) -> HttpResponse:
    return version_page(request, version_of(version_uid), AliasForm())


@require_POST
@hub_page
def version_verify(request: HttpRequest, version_uid: str) -> HttpResponse:
    """Hash everything the version was made of, and say what differs."""
    version = version_of(version_uid)
    size = lineage.lineage_bytes(lineage.version_lineage(version=version))
    if size > VERIFY_BYTES:
        messages.warning(
            request,
            gettext(
                "Its lineage is %(gibibytes)s GiB: run manage.py verify %(name)s@%(number)s on the "
                "server."
            )
            % {
                "gibibytes": f"{size / (1 << 30):.0f}",
                "name": version.model.name,
                "number": version.number,
            },
        )
        return redirect("version_detail", version.uid)
    differences = version_lineage_verify(version=version)
    return version_page(request, version, AliasForm(), differences=differences, verified=True)


@require_safe
@hub_page
def version_weights(request: HttpRequest, version_uid: str) -> HttpResponse:
    """The version's weights beside another's, tensor by tensor; beside its parent's at first."""
    version = version_of(version_uid)
    wanted = request.GET.get("beside") or (version.parent.uid if version.parent else "")
    others = list(weights.versions_beside(version=version, asked_uid=wanted))
    beside = next((one for one in others if one.uid == wanted), others[0] if others else None)
    comparison, refusal = None, ""
    if beside is not None:
        try:
            comparison = weights.weights_compare(here=version.artifact, there=beside.artifact)
        except ApplicationError as error:
            refusal = error.message
        except (IntegrityError, OSError):
            refusal = gettext("The files of one of them are not there.")
    context = {
        "version": version,
        "others": others,
        "beside": beside,
        "comparison": comparison,
        "refusal": refusal,
    }
    return render(request, "modelhub/version_weights.html", context)


@require_POST
@hub_page
def version_card(request: HttpRequest, version_uid: str) -> HttpResponse:
    """Write the words of the version's card."""
    version = version_of(version_uid)
    form = CardForm(request.POST)
    if not form.is_valid():
        return version_page(request, version, AliasForm(), card_form=form, status=422)
    version_card_write(version=version, actor=user_of(request), **form.cleaned_data)
    messages.success(request, gettext("The card is written."))
    return redirect("version_detail", version.uid)


@require_safe
@hub_page
def version_readme(request: HttpRequest, version_uid: str) -> HttpResponse:
    """The version's card as README.md, to take away."""
    version = version_of(version_uid)
    reply = HttpResponse(
        card_markdown(_card_of(version, lineage.version_lineage(version=version))),
        content_type="text/markdown; charset=utf-8",
    )
    reply["Content-Disposition"] = 'attachment; filename="README.md"'
    return reply


@require_POST
@hub_page
def version_alias(request: HttpRequest, version_uid: str) -> HttpResponse:
    """Point an alias at the version."""
    version = version_of(version_uid)
    form = AliasForm(request.POST)
    if form.is_valid():
        try:
            alias = alias_move(
                model=version.model, version=version, actor=user_of(request), **form.cleaned_data
            )
        except ApplicationError as error:
            form.add_error(None, error.message)
        else:
            messages.success(
                request,
                gettext("%(alias)s is %(version)s now.") % {"alias": alias, "version": version},
            )
            return redirect("version_detail", version.uid)
    return version_page(request, version, form, status=422)


@require_safe
@hub_page
def run_list(request: HttpRequest) -> HttpResponse:
    _neglected_ring()
    status, program = request.GET.get("status", ""), request.GET.get("program", "")
    found = run_selectors.runs_list(
        status=status if status in Run.Status.values else "",
        program=program if program in settings.RUN_PROGRAMS else "",
    )
    context = {
        "page": Paginator(found, RUNS_PER_PAGE).get_page(request.GET.get("page")),
        "counts": run_selectors.run_counts(),
        "status": status,
        "program": program,
        "programs": sorted(settings.RUN_PROGRAMS),
        "silence": workers_silence_now(),
    }
    return render(request, "modelhub/run_list.html", context)


@require_safe
@hub_page
def run_compare(request: HttpRequest) -> HttpResponse:
    """Several runs side by side: ?run=UID&run=UID."""
    uids = request.GET.getlist("run")[:MAX_COMPARED]
    context = {"comparison": run_selectors.runs_compare(uids=uids)}
    return render(request, "modelhub/run_compare.html", context)


@require_safe
@hub_page
def run_detail(request: HttpRequest, run_uid: str) -> HttpResponse:
    """The run; to htmx, its live part, or nothing (204) if it is as the page has it."""
    run = _run_of(run_uid)
    _neglected_ring()
    context: dict[str, Any] = {
        "run": run,
        "log": storage.run_log_tail(run, max_bytes=LOG_BYTES),
        "actions_key": _actions_key(run),
        "again_url": _again_url(run),
        "spikes": run_selectors.run_spikes(run=run),
        "goes_on": run_selectors.run_goes_on(run=run),
        "silence": workers_silence(runs=[run]),
    }
    if run.result is not None:
        facts, tables = result_split(run.result)
        context["result"] = {"facts": facts, "tables": tables}
        context["outputs"] = run_selectors.run_outputs(run=run)
    body = render_to_string("modelhub/run_detail.html#live_body", context, request)
    context["seen"] = hashlib.sha256((body + context["log"]).encode()).hexdigest()[:16]
    if not request.headers.get("HX-Request"):
        # Beside the live part, and as it was when the run was asked for: not read by every poll.
        context["inputs"] = run_selectors.run_inputs(run=run, user=user_of(request))
        context["settings"] = settings_grouped(run)
        context["acts"] = run_selectors.run_acts(run=run)
        return render(request, "modelhub/run_detail.html", context)
    if request.GET.get("seen") == context["seen"]:
        return HttpResponse(status=204)
    context["is_poll"] = True
    context["swap_actions"] = request.GET.get("status") != _actions_key(run)
    return render(request, "modelhub/run_detail.html#live", context)


def _again_url(run: Run) -> str:
    """The form that asks for such a run once more, with changes; "" where there is none."""
    page = ASKED_BY.get(run.program)
    if page == "":
        return ""
    form = reverse(page) if page else reverse("method_launch", args=[run.program])
    return f"{form}?run={run.uid}"


@require_safe
@hub_page
def run_metrics(request: HttpRequest, run_uid: str) -> HttpResponse:
    """The run's curves as JSON; nothing (204) if there is no more than the page has `seen`."""
    run = _run_of(run_uid)
    if request.GET.get("seen") == _metrics_key(run):
        return HttpResponse(status=204)
    return JsonResponse(
        {
            "seen": _metrics_key(run),
            "is_ended": run.is_ended,
            "series": run_selectors.run_series(run=run),
        }
    )


@require_POST
@hub_page
def run_cancel_view(request: HttpRequest, run_uid: str) -> HttpResponse:
    run = _run_of(run_uid)
    try:
        run = run_cancel(run=run, actor=user_of(request))
    except ApplicationError as error:
        messages.error(request, error.message)
    else:
        stopping = run.status == Run.Status.RUNNING
        messages.success(
            request,
            gettext("The run is stopping.") if stopping else gettext("The run is cancelled."),
        )
        if run.is_ended:
            tasks.run_ended_ring()
    return redirect("run_detail", run.uid)


@require_POST
@hub_page
def run_retry_view(request: HttpRequest, run_uid: str) -> HttpResponse:
    run = _run_of(run_uid)
    try:
        run = run_retry(run=run, actor=user_of(request))
    except ApplicationError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, gettext("The run is queued again."))
        tasks.ring_queued_runs.delay_on_commit()
    return redirect("run_detail", run.uid)


def _model_of(uid: str) -> Model:
    model = version_selectors.model_get(uid=uid)
    if model is None:
        raise Http404("Not found.")
    return model


def version_of(uid: str) -> ModelVersion:
    """The version, or 404."""
    version = version_selectors.version_get(uid=uid)
    if version is None:
        raise Http404("Not found.")
    return version


def _run_of(uid: str) -> Run:
    run = run_selectors.run_get(uid=uid)
    if run is None:
        raise Http404("Not found.")
    return run


def version_page(
    request: HttpRequest,
    version: ModelVersion,
    alias_form: AliasForm,
    *,
    card_form: CardForm | None = None,
    push_form: PushForm | None = None,
    server_form: ServerForm | None = None,
    differences: list[lineage.Difference] | None = None,
    verified: bool = False,
    status: int = 200,
) -> HttpResponse:
    """The version's page, with the forms as they were sent where something was refused."""
    made_of = lineage.version_lineage(version=version)
    lineage.lineage_titles(made_of)
    children = version_selectors.version_children(version=version)
    card = _card_of(version, made_of)
    initial = {"text": version.card, "license": card.license}
    target = f"{version.model.name}-v{version.number}"
    context = {
        "version": version,
        "lineage": made_of,
        "card": card,
        "card_html": markdown_render(version.card) if version.card else "",
        "card_form": card_form or CardForm(initial=initial),
        "children": children,
        "chart": lineage_chart(made_of, version, children),
        "readers": version_selectors.artifact_readers(artifact=version.artifact),
        "alias_form": alias_form,
        "push_form": push_form or PushForm(initial={"target": target}),
        "export_dir": settings.EXPORT_DIR,
        "hub_endpoint": settings.MODEL_HUB_ENDPOINT,
        "uses": version_uses(version),
        "can_try": version_writes(version),
        "can_shrink": version.role in (ModelVersion.Role.BASE, ModelVersion.Role.POLICY)
        and not version_is_unread(version),
        "variants": version_variants(version=version),
        "differences": differences,
        "verified": verified,
        **serving_context(version, server_form),
    }
    return render(request, "modelhub/version_detail.html", context, status=status)


def _card_of(version: ModelVersion, made_of: lineage.LineageNode) -> Card:
    tried = version_selectors.artifact_evaluations(artifact=version.artifact)
    return card_read(version=version, lineage=made_of, evaluations=tried)


def _actions_key(run: Run) -> str:
    """What the run's buttons depend on."""
    return f"{run.status}{'-stopping' if run.cancel_requested_at else ''}"


def _metrics_key(run: Run) -> str:
    return f"{run.metrics_offset}-{run.is_ended:d}"


def _neglected_ring() -> None:
    """Where no scheduler runs, somebody who looks at runs keeps them going."""
    if run_selectors.runs_are_neglected():
        tasks.reap_runs.delay()
        tasks.ring_queued_runs.delay()
