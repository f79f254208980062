"""Pages of corpora: what they hold, what rules would drop of them, what a cleaning dropped."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from modelhub import tasks
from modelhub.charts import funnel_draw
from modelhub.corpus_forms import (
    DocumentForm,
    ImportCorpusForm,
    JudgementForm,
    rules_query,
    threshold_texts,
    thresholds_query,
    thresholds_read,
)
from modelhub.errors import ApplicationError
from modelhub.ml.corpora.configs import ImportCorpusConfig
from modelhub.ml.corpora.rules import CHINESE, RULES, threshold_for
from modelhub.models import RunOutput
from modelhub.policy import hub_page
from modelhub.selectors import corpora as selectors
from modelhub.selectors.document_judgements import judgements_tally, rule_calibration
from modelhub.selectors.runs import import_asked
from modelhub.serializers import user_of
from modelhub.services.corpora import (
    corpus_import_request,
    document_judge,
)
from modelhub.services.idempotency import idempotent

CORPORA_PER_PAGE = 50


@require_safe
@hub_page
def corpus_list(request: HttpRequest) -> HttpResponse:
    page = Paginator(selectors.corpora_list(), CORPORA_PER_PAGE).get_page(request.GET.get("page"))
    return render(request, "modelhub/corpus_list.html", {"page": page})


@require_http_methods(["GET", "HEAD", "POST"])
@hub_page
def corpus_import(request: HttpRequest) -> HttpResponse:
    """The one form that brings texts in. Sent twice, it starts one run."""
    before = import_asked(program=ImportCorpusConfig.PROGRAM, uid=request.GET.get("run"))
    form = ImportCorpusForm(
        request.POST or None, initial=ImportCorpusForm.asked(before) if before else None
    )
    if request.method == "POST" and form.is_valid():
        user, config = user_of(request), form.config

        def act() -> str:
            return corpus_import_request(config=config, requested_by=user).uid

        try:
            key = f"corpus:{form.cleaned_data['key']}"
            uid = idempotent(user=user, key=key, body=asdict(config), act=act)
        except ApplicationError as error:
            field = error.extra.get("field")
            form.add_error(field if field in form.fields else None, error.message)
        else:
            tasks.ring_queued_runs.delay_on_commit()
            return redirect("run_detail", uid)
    context = {"form": form, "roots": settings.IMPORT_ROOTS}
    status = 422 if form.errors else 200
    return render(request, "modelhub/corpus_import.html", context, status=status)


@require_safe
@hub_page
def corpus_detail(request: HttpRequest, run_uid: str) -> HttpResponse:
    """What a corpus is, and its documents: searched, filtered, from a place on."""
    corpus = corpus_of(run_uid)
    form = DocumentForm(request.GET)
    wanted = form.wanted()
    start = request.GET.get("from", "")
    page = selectors.documents_find(
        corpus=corpus.artifact,
        wanted=wanted,
        start=int(start) if start.isascii() and start.isdecimal() and len(start) < 12 else 0,
    )
    query = {name: value for name, value in asdict(wanted).items() if value not in ("", None)}
    context = {
        "corpus": corpus,
        "page": replace(page, found=_marked(request, corpus, page.found)),
        "wanted": wanted,
        "query": urlencode(query),
        "signals": selectors.signal_names(corpus=corpus.artifact),
        "languages": [one["language"] for one in corpus.run.result.get("languages", [])]
        if corpus.run.result
        else [],
    }
    return render(request, "modelhub/corpus_detail.html", context)


def rules_page(
    request: HttpRequest,
    corpus: RunOutput,
    given: QueryDict,
    *,
    against: Sequence[Any],
    refusal: str = "",
) -> HttpResponse:
    """The page of rules for what stands in its fields; 422 where something is refused.

    against: fields of boxes, for what a cleaning can be held against; their names begin with
    AGAINST.
    """
    rule_set = selectors.rule_set_named(name=given.get("rule_set", ""))
    thresholds, is_no_number = thresholds_read(given)
    if rule_set:
        thresholds, is_no_number = rule_set.thresholds, ""
    texts = threshold_texts(thresholds, {} if rule_set else given)
    refusal = refusal or is_no_number
    survey = selectors.rules_survey(corpus=corpus.artifact, thresholds=thresholds)
    rule = RULES.get(given.get("rule", "")) or next(iter(RULES.values()))
    is_chinese = survey.has_chinese and (not survey.has_other or given.get("language") == "zh")
    asked: dict[str, Any] = {
        "corpus": corpus.artifact,
        "rule": rule,
        "threshold": threshold_for(thresholds, rule.name, is_chinese=is_chinese),
        "is_chinese": is_chinese,
    }
    view = selectors.rule_view(**asked)
    people = rule_calibration(**asked)
    context = {
        "corpus": corpus,
        "survey": survey,
        "rows": [
            {"effect": one, "text": texts[name], "chinese": texts.get(f"{name}@{CHINESE}", "")}
            for one in survey.effects
            for name in (one.rule.name,)
        ],
        "view": replace(view, examples=_marked(request, corpus, view.examples)),
        "people": people,
        "tally": judgements_tally(corpus=corpus.artifact),
        "query": rules_query(given),
        "best_query": ""
        if people.best is None
        else thresholds_query(
            thresholds, rule=rule.name, is_chinese=is_chinese, threshold=people.best
        ),
        "rule_sets": selectors.rule_sets_list(),
        "rule_set": rule_set,
        "set_name": given.get("name") or (rule_set.name if rule_set else ""),
        "refusal": refusal,
        "against": against,
    }
    status = 422 if refusal else 200
    return render(request, "modelhub/corpus_rules.html", context, status=status)


@require_POST
@hub_page
def corpus_judge(request: HttpRequest, run_uid: str) -> HttpResponse:
    """Keep what the reader says of one document, and go back to where it was said."""
    corpus = corpus_of(run_uid)
    form = JudgementForm(request.POST)
    if form.is_valid():
        given = form.cleaned_data
        try:
            document_judge(
                corpus=corpus.artifact,
                place=given["place"],
                is_good=given["is_good"],
                author=user_of(request),
            )
        except ApplicationError as error:
            messages.error(request, error.message)
    else:
        messages.error(request, gettext("Say of which document, and whether it is good."))
    page = "corpus_rules" if request.POST.get("page") == "rules" else "corpus_detail"
    where = reverse(page, args=[run_uid])
    query = QueryDict(request.POST.get("query", "")[:4000]).urlencode()
    place = form.cleaned_data.get("place")
    return redirect(f"{where}?{query}" + (f"#place-{place}" if place is not None else ""))


@require_safe
@hub_page
def corpus_removed(request: HttpRequest, run_uid: str) -> HttpResponse:
    """What a cleaning dropped, step by step, with twenty of each."""
    corpus = corpus_of(run_uid)
    result = corpus.run.result or {}
    steps = result.get("funnel")
    if not steps:
        raise Http404("Not found.")
    dropping = [one["step"] for one in steps if one["dropped"]]
    step = request.GET.get("step", "")
    step = step if step in dropping else (dropping or [""])[0]
    context = {
        "corpus": corpus,
        "before": result["documents_before"],
        "funnel": funnel_draw(
            result["documents_before"], [(one["step"], one["dropped"]) for one in steps]
        ),
        "removed": selectors.removed_view(cleaned=corpus, step=step),
        "step": step,
    }
    return render(request, "modelhub/corpus_removed.html", context)


def _marked(
    request: HttpRequest, corpus: RunOutput, found: list[selectors.FoundDocument]
) -> list[selectors.FoundDocument]:
    return selectors.marked(found, corpus=corpus.artifact, author=user_of(request))


def corpus_of(run_uid: str) -> RunOutput:
    corpus = selectors.corpus_get(run_uid=run_uid)
    if corpus is None:
        raise Http404("Not found.")
    return corpus
