"""The page that sends documents of a corpus to annotators. For engineers, as all the hub."""

from typing import Any

from django import forms
from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods

from annotation import policy
from annotation.forms import error_add
from annotation.models import Project
from annotation.selectors.documents import documents_sent_counts
from annotation.services.documents import MAX_DOCUMENTS, documents_send
from annotation.services.projects import project_create
from modelhub.corpus_forms import rules_query, thresholds_read
from modelhub.errors import ApplicationError
from modelhub.ml.corpora.documents import has_signals
from modelhub.ml.corpora.rules import RULES
from modelhub.models import RunOutput
from modelhub.policy import hub_page
from modelhub.rule_labels import step_label
from modelhub.selectors.corpora import corpus_get, rule_set_named
from modelhub.selectors.document_judgements import judgements_tally
from modelhub.selectors.document_samples import ANYWHERE, EVERY_RULE
from modelhub.serializers import user_of
from modelhub.storage import artifact_folder


class DocumentsForm(forms.Form):
    near = forms.ChoiceField(label=_("Which documents"))
    count = forms.IntegerField(
        label=_("How many documents"), min_value=1, max_value=MAX_DOCUMENTS, initial=60
    )
    overlap = forms.IntegerField(
        label=_("People for each document"),
        min_value=1,
        max_value=50,
        initial=2,
        help_text=_("Two or more tell how far people agree."),
    )
    project = forms.ModelChoiceField(
        queryset=Project.objects.none(),
        to_field_name="uid",
        required=False,
        empty_label=_("a new project"),
        label=_("Project"),
        help_text=_("Its members are asked. No round samples answers to these tasks."),
    )
    name = forms.CharField(label=_("Name of the new project"), required=False, max_length=120)

    def __init__(self, *args: Any, projects: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        near, project = self.fields["near"], self.fields["project"]
        assert isinstance(near, forms.ChoiceField)  # noqa: S101
        assert isinstance(project, forms.ModelChoiceField)  # noqa: S101
        near.choices = [
            (EVERY_RULE, gettext("on either side of every rule’s threshold")),
            (ANYWHERE, gettext("drawn from all of the corpus")),
            (
                gettext("on either side of one threshold"),
                [(name, step_label(name)) for name in RULES],
            ),
        ]
        project.queryset = projects

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        if not given.get("project") and not given.get("name", "").strip() and not self.errors:
            self.add_error("name", gettext("Choose a project, or name a new one."))
        return given


@require_http_methods(["GET", "HEAD", "POST"])
@hub_page
def corpus_ask(request: HttpRequest, run_uid: str) -> HttpResponse:
    """Send documents to a project's people, near the thresholds that the query string holds."""
    corpus = corpus_get(run_uid=run_uid)
    if corpus is None:
        raise Http404("Not found.")
    if not has_signals(artifact_folder(corpus.artifact)):
        messages.warning(request, gettext("Nothing was measured of this corpus: import it again."))
        return redirect("corpus_detail", run_uid)
    source = str((corpus.run.result or {}).get("source", "")) or corpus.run.label
    rule = request.GET.get("rule", "")
    projects = policy.projects_managed(request.user).distinct().order_by("name")
    form = DocumentsForm(
        request.POST if request.method == "POST" else None,
        projects=projects,
        initial={
            "near": rule if rule in RULES else EVERY_RULE,
            "name": gettext("Texts of %(source)s") % {"source": source[:80]},
        },
    )
    if form.is_valid():
        try:
            project = _send(request, corpus, form.cleaned_data)
        except ApplicationError as error:
            error_add(form, error)
        else:
            return redirect("project_tasks", project.uid)
    context = {
        "corpus": corpus,
        "source": source,
        "form": form,
        "query": rules_query(request.GET),
        "sent": documents_sent_counts(corpus=corpus.artifact),
        "tally": judgements_tally(corpus=corpus.artifact),
    }
    status = 400 if form.is_bound and form.errors else 200
    return render(request, "annotation/corpus_ask.html", context, status=status)


@transaction.atomic
def _send(request: HttpRequest, corpus: RunOutput, given: dict[str, Any]) -> Project:
    rule_set = rule_set_named(name=request.GET.get("rule_set", ""))
    thresholds = rule_set.thresholds if rule_set else thresholds_read(request.GET)[0]
    project: Project = given["project"] or project_create(
        name=given["name"], overlap=given["overlap"], created_by=user_of(request)
    )
    sent = documents_send(
        project=project,
        corpus=corpus,
        thresholds=thresholds,
        near=given["near"],
        count=given["count"],
        overlap=given["overlap"],
    )
    told = ngettext(
        "{number} document was sent to {people}.",
        "{number} documents were sent to {people}.",
        sent.made,
    )
    people = format_html(
        '<a href="{}">{}</a>',
        reverse("project_members", args=[project.uid]),
        gettext("this project’s people"),
    )
    messages.success(request, format_html(told, number=sent.made, people=people))
    return project
