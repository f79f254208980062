"""The pages that launch a method. Staff, as all of the hub."""

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods, require_safe

from alignment.launch_forms import LaunchForm, launch_body, launch_given, launch_initial
from alignment.methods import FAMILIES, METHODS
from alignment.services.launches import run_launch
from modelhub import tasks
from modelhub.errors import ApplicationError
from modelhub.ml.pretraining.configs import PretrainConfig
from modelhub.policy import hub_page
from modelhub.selectors.mixtures import mixture_get
from modelhub.selectors.runs import run_get
from modelhub.selectors.servers import endpoint_get
from modelhub.serializers import user_of
from modelhub.services.idempotency import idempotent

_FAMILY_TITLES = {
    "policies": _("To train a policy"),
    "rewards": _("To train a reward model"),
    "answers": _("To write, choose and judge answers"),
    "versions": _("To change or compare versions"),
    "pretraining": _("To pretrain"),
}


@require_safe
@hub_page
def method_list(request: HttpRequest) -> HttpResponse:
    families = [(_FAMILY_TITLES[name], methods) for name, methods in FAMILIES.items()]
    return render(request, "alignment/method_list.html", {"families": families})


@require_http_methods(["GET", "HEAD", "POST"])
@hub_page
def method_launch(request: HttpRequest, method: str) -> HttpResponse:
    """The one form that launches a method. Sent twice, it starts one run."""
    found = METHODS.get(method)
    if found is None:
        raise Http404("Not found.")
    user = user_of(request)
    copied = run_get(uid=request.GET.get("run", ""))
    if copied is not None and copied.program != found.name:
        copied = None
    preset = request.GET.get("preset", "")
    mixture = None
    if found.config is PretrainConfig:
        mixture = mixture_get(uid=request.GET.get("mixture", ""))
    initial = launch_initial(method=found, preset=preset, run=copied, mixture=mixture)
    initial |= launch_given(
        method=found,
        given=request.GET.dict(),
        endpoint=endpoint_get(name=request.GET.get("endpoint", "")),
    )
    form = LaunchForm(
        request.POST or None, method=found, user=user, initial=initial, mixture=mixture
    )
    if request.method == "POST" and form.is_valid():
        launch = form.launch()

        def act() -> str:
            return run_launch(launch=launch, requested_by=user).uid

        try:
            key = f"launch:{form.cleaned_data['key']}"
            uid = idempotent(user=user, key=key, body=launch_body(launch), act=act)
        except ApplicationError as error:
            form.refuse(str(error.extra.get("field", "")), error.message)
        else:
            tasks.ring_queued_runs.delay_on_commit()
            return redirect("run_detail", uid)
    context = {"method": found, "form": form, "preset": preset, "copied": copied}
    context["mixture"] = mixture
    status = 422 if form.errors else 200
    return render(request, "alignment/method_launch.html", context, status=status)
