"""The page on which a stopped pretraining run is gone on from with something else."""

import math

from django import forms
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods

from modelhub import storage, tasks
from modelhub.errors import ApplicationError
from modelhub.models import Run, uid_new
from modelhub.policy import hub_page
from modelhub.selectors.runs import run_get, run_goes_on
from modelhub.serializers import user_of
from modelhub.services.continuing import run_continue
from modelhub.services.idempotency import idempotent


class ContinueForm(forms.Form):
    """What is to be different from a checkpoint on; an empty field leaves it as it was."""

    key = forms.CharField(widget=forms.HiddenInput, max_length=64, initial=uid_new)
    from_step = forms.TypedChoiceField(coerce=int, label=_("From the checkpoint of step"))
    skip_samples = forms.CharField(
        max_length=2000,
        required=False,
        label=_("Samples to leave out"),
        help_text=_("Numbers as a spike tells them, from the first to the last: 80-91."),
    )
    shares = forms.CharField(
        max_length=2000,
        required=False,
        label=_("Other shares"),
        help_text=_("One for each source, in the order of the inputs: 0.2 0.8."),
    )
    shares_step = forms.IntegerField(
        min_value=1,
        required=False,
        label=_("From step"),
        help_text=_("Empty: from the checkpoint on."),
    )
    steps = forms.IntegerField(
        min_value=1,
        required=False,
        label=_("Steps of the whole run"),
        help_text=_("The schedule of the rate is stretched over them."),
    )

    def __init__(self, *given: object, run: Run, **named: object) -> None:
        super().__init__(*given, **named)  # type: ignore[arg-type]
        kept = storage.checkpoint_steps(run)
        self.fields["from_step"].choices = [(step, str(step)) for step in kept]  # type: ignore[attr-defined]

    def clean_skip_samples(self) -> list[str]:
        return str(self.cleaned_data["skip_samples"]).replace(",", " ").split()

    def clean_shares(self) -> list[float]:
        words = str(self.cleaned_data["shares"]).replace(",", " ").split()
        try:
            shares = [float(word) for word in words]
        except ValueError:
            shares = [math.nan]
        if not all(map(math.isfinite, shares)):
            raise forms.ValidationError(gettext("Numbers, with spaces between them."))
        return shares


@require_http_methods(["GET", "HEAD", "POST"])
@hub_page
def run_continue_page(request: HttpRequest, run_uid: str) -> HttpResponse:
    """The form. Sent twice, it starts one run."""
    run = run_get(uid=run_uid)
    if run is None or not run_goes_on(run=run):
        raise Http404("Not found.")
    asked = {
        name: request.GET[name] for name in ("from_step", "skip_samples") if name in request.GET
    }
    form = ContinueForm(request.POST or None, run=run, initial=asked)
    if request.method == "POST" and form.is_valid():
        user = user_of(request)
        given = {name: value for name, value in form.cleaned_data.items() if name != "key"}

        def act() -> str:
            return run_continue(run=run, requested_by=user, **given).uid

        try:
            key = f"continue:{form.cleaned_data['key']}"
            uid = idempotent(user=user, key=key, body={"run": run.uid, **given}, act=act)
        except ApplicationError as error:
            field = error.extra.get("field")
            form.add_error(field if field in form.fields else None, error.message)
        else:
            tasks.ring_queued_runs.delay_on_commit()
            return redirect("run_detail", uid)
    context = {"run": run, "form": form}
    return render(
        request, "modelhub/run_continue.html", context, status=422 if form.errors else 200
    )
