"""A corpus's rules, and its cleaning by them, held against what projects keep apart.

The page is modelhub's; held-out prompts are known here alone.
"""

from collections.abc import Mapping

from django import forms
from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext
from django.views.decorators.http import require_POST, require_safe

from alignment.launch_origins import origins_html
from alignment.methods import METHODS
from alignment.selectors.launches import artifact_references, input_choices
from alignment.services.cleanings import HELD_AGAINST, cleaning_request
from modelhub import tasks
from modelhub.corpus_forms import AGAINST, RuleSetForm, rules_query, thresholds_given
from modelhub.corpus_views import corpus_of, rules_page
from modelhub.errors import ApplicationError
from modelhub.ml.configs import ConfigError
from modelhub.ml.corpora.documents import has_signals
from modelhub.models import RunOutput
from modelhub.policy import hub_page
from modelhub.serializers import user_of
from modelhub.storage import artifact_folder


class AgainstForm(forms.Form):
    """What a cleaning is held against, by reference: a field of boxes for each of HELD_AGAINST."""

    def __init__(self, given: QueryDict, *, corpus: RunOutput, user: User) -> None:
        super().__init__(given)
        own = artifact_references(artifact=corpus.artifact)
        for one in METHODS["clean_corpus"].inputs:
            if one.role not in HELD_AGAINST:
                continue
            choices = input_choices(input=one, user=user)
            self.fields[AGAINST + one.role] = forms.MultipleChoiceField(
                label=gettext(one.title),
                choices=[choice for choice in choices if choice[0] not in own],
                widget=forms.CheckboxSelectMultiple,
                required=False,
                help_text="" if choices else origins_html(one),
            )
        self.order_fields([AGAINST + role for role in HELD_AGAINST])

    def boxes(self) -> list[forms.BoundField]:
        return list(self)


@require_safe
@hub_page
def corpus_rules(request: HttpRequest, run_uid: str) -> HttpResponse:
    """What thresholds would drop of a corpus, and twenty of it, before anything is dropped."""
    corpus = corpus_of(run_uid)
    if not has_signals(artifact_folder(corpus.artifact)):
        messages.warning(request, gettext("Nothing was measured of this corpus: import it again."))
        return redirect("corpus_detail", run_uid)
    form = AgainstForm(request.GET, corpus=corpus, user=user_of(request))
    return rules_page(request, corpus, request.GET, against=form.boxes())


@require_POST
@hub_page
def corpus_clean(request: HttpRequest, run_uid: str) -> HttpResponse:
    """Keep the thresholds under a name, and clean the corpus by them; or only show them.

    What is refused comes back with all that stood in the fields.
    """
    corpus = corpus_of(run_uid)
    if "show" in request.POST:
        where = reverse("corpus_rules", args=[run_uid])
        return redirect(f"{where}?{rules_query(request.POST)}")
    user = user_of(request)
    named = RuleSetForm(request.POST)
    against = AgainstForm(request.POST, corpus=corpus, user=user)

    def refuse(refusal: str) -> HttpResponse:
        boxes = against.boxes()
        return rules_page(request, corpus, request.POST, against=boxes, refusal=refusal)

    if not named.is_valid():
        return refuse(gettext("Give the thresholds a name: letters, digits, - and _."))
    if not against.is_valid():
        return refuse(str(next(iter(against.errors.values()))[0]))
    try:
        run = cleaning_request(
            corpus=corpus,
            thresholds=thresholds_given(request.POST),
            against=_chosen(against.cleaned_data),
            requested_by=user,
            **named.cleaned_data,
        )
    except (ApplicationError, ConfigError) as error:
        return refuse(str(error))
    tasks.ring_queued_runs.delay_on_commit()
    return redirect("run_detail", run.uid)


def _chosen(given: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {role: given[AGAINST + role] for role in HELD_AGAINST}
