"""Pages of mixtures: planning what a run reads of which texts, and what was kept of it."""

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext
from django.views.decorators.http import require_POST, require_safe

from modelhub.charts import stacks_draw
from modelhub.errors import ApplicationError
from modelhub.mixture_forms import (
    BY_TITLES,
    MOST_BLENDS,
    MixtureNameForm,
    ask_query,
    ask_read,
    ask_read_some,
)
from modelhub.models import SavedMixture
from modelhub.policy import hub_page
from modelhub.selectors import mixtures as selectors
from modelhub.serializers import user_of
from modelhub.services.mixtures import mixture_save

MIXTURES_PER_PAGE = 50


@require_safe
@hub_page
def mixture_list(request: HttpRequest) -> HttpResponse:
    paged = Paginator(selectors.mixtures_list(), MIXTURES_PER_PAGE)
    context = {"page": paged.get_page(request.GET.get("page"))}
    return render(request, "modelhub/mixture_list.html", context)


@require_safe
@hub_page
def mixture_plan(request: HttpRequest) -> HttpResponse:
    """What a run would read of which token sets, told anew whenever a field changes."""
    saved = selectors.mixture_get(uid=request.GET.get("mixture", ""))
    plan = None
    ask, unread = (
        (selectors.mixture_ask(mixture=saved), []) if saved else ask_read_some(request.GET)
    )
    refusal = " ".join(unread)
    address = f"{reverse('mixture_plan')}?{ask_query(ask)}"
    is_htmx = bool(request.headers.get("HX-Request"))
    if not (refusal or is_htmx) and ("add" in request.GET or "drop" in request.GET):
        return redirect(address)  # loaded again, the page would add another blend
    sets, rates = selectors.token_sets_list(uids=ask.sets), selectors.rates_list()
    if ask.sets and not refusal:
        try:
            plan = selectors.mixture_plan(ask=ask, sets=sets, rates=rates)
        except ApplicationError as error:
            refusal = error.message
    context = {
        "ask": ask,
        "plan": plan,
        # With the field as it came, so that keeping the mixture is refused for it as well.
        "query": request.GET.urlencode() if unread else ask_query(ask),
        "refusal": refusal,
        "saved": saved,
        "rows": selectors.set_rows(ask=ask, sets=sets, plan=plan),
        "blends": selectors.blend_rows(ask=ask, sets=sets, plan=plan),
        "is_full": len(ask.blends) >= MOST_BLENDS,
        "by_titles": BY_TITLES.items(),
        "kinds": selectors.kinds_list(),
        "asks_kinds": any(blend.by == "llama" for blend in ask.blends),
        "rates": rates,
        "name": saved.name if saved else request.GET.get("name", "")[:80],
    }
    # htmx shows no answer of 400 or above.
    status = 422 if unread and not is_htmx else 200
    response = render(request, "modelhub/mixture_plan.html", context, status=status)
    if is_htmx and not refusal:
        response["HX-Push-Url"] = address
    return response


@require_POST
@hub_page
def mixture_keep(request: HttpRequest) -> HttpResponse:
    """Keep what the planner shows under a name."""
    form = MixtureNameForm(request.POST)
    query = request.POST.get("plan", "")[:100_000]
    back = redirect("mixture_plan")
    back["Location"] += f"?{QueryDict(query).urlencode()}"
    if not form.is_valid():
        messages.error(request, gettext("Give the mixture a name: letters, digits, - and _."))
        return back
    try:
        ask = ask_read(QueryDict(query))
        plan = selectors.mixture_plan(ask=ask, sets=selectors.token_sets_list(uids=ask.sets))
    except ApplicationError as error:
        messages.error(request, error.message)
        return back
    saved = mixture_save(
        name=form.cleaned_data["name"],
        plan=plan,
        author=user_of(request),
        note=form.cleaned_data["note"],
    )
    return redirect("mixture_detail", saved.uid)


@require_safe
@hub_page
def mixture_detail(request: HttpRequest, mixture_uid: str) -> HttpResponse:
    """A kept mixture: its blends over the run, its other numbers, and the runs that read it."""
    mixture = selectors.mixture_get(uid=mixture_uid)
    if mixture is None:
        raise Http404("Not found.")
    ask = selectors.mixture_ask(mixture=mixture)
    plan, refusal = None, ""
    try:
        plan = selectors.mixture_plan(ask=ask, sets=selectors.token_sets_list(uids=ask.sets))
    except ApplicationError as error:
        refusal = error.message
    context = {
        "mixture": mixture,
        "plan": plan,
        "refusal": refusal,
        "shares": _shares(plan) if plan else [],
        "numbers": [
            (one, _stacks(one)) for one in selectors.mixtures_list().filter(name=mixture.name)[:20]
        ],
        "runs": selectors.mixture_runs(mixture=mixture)[:20],
    }
    return render(request, "modelhub/mixture_detail.html", context)


def _shares(plan: selectors.MixturePlan) -> list[dict[str, object]]:
    """Each token set with its share in every blend."""
    return [
        {"source": one, "shares": [blend.sampled[one.place] for blend in plan.blends]}
        for one in plan.sources
    ]


def _stacks(mixture: SavedMixture) -> list[object]:
    firsts = [blend["first_step"] for blend in mixture.blends]
    ends = [*firsts[1:], mixture.steps]
    return list(
        stacks_draw(
            [
                (float(end - first), blend["sampled"])
                for first, end, blend in zip(firsts, ends, mixture.blends, strict=True)
            ]
        )
    )
