"""A person's own page of tokens, by which their scripts use the API."""

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods, require_POST

from annotation.forms import error_add
from annotation.models import PersonalToken
from annotation.selectors.personal_tokens import personal_token_get, personal_tokens_of
from annotation.services import personal_tokens as services
from annotation.services.tokens import MAX_NAME_CHARS
from modelhub.errors import ApplicationError
from modelhub.models import uid_new
from modelhub.serializers import user_of
from modelhub.services.idempotency import idempotent


class PersonalTokenForm(forms.Form):
    """What a new token is for, and what it may do."""

    key = forms.CharField(widget=forms.HiddenInput, max_length=64, initial=uid_new)
    name = forms.CharField(
        label=_("What it is for"),
        max_length=MAX_NAME_CHARS,
        help_text=_("The script or the machine that uses it: you revoke it by this name."),
    )
    access = forms.ChoiceField(
        label=_("It may"),
        choices=[("read", _("read")), ("write", _("read and write"))],
        help_text=_("Reading is enough to export datasets and, for staff, to follow runs."),
    )
    days = forms.TypedChoiceField(
        label=_("It ends after"),
        coerce=int,
        choices=[
            (30, _("30 days")),
            (90, _("90 days")),
            (365, _("a year")),
        ],
        initial=90,
    )


@require_http_methods(["GET", "HEAD", "POST"])
def personal_tokens(request: HttpRequest) -> HttpResponse:
    """One's tokens, the newest first; a POST makes one, whose secret this one reply shows.

    Sent twice, it makes one, and only the first reply has its secret.
    """
    if request.method != "POST":
        return _page(request, PersonalTokenForm())
    form = PersonalTokenForm(request.POST)
    if not form.is_valid():
        return _page(request, form)
    given = form.cleaned_data
    user, asked = user_of(request), {one: given[one] for one in ("name", "access", "days")}
    made: list[services.MadeToken] = []

    def act() -> str:
        made.append(
            services.personal_token_create(
                user=user,
                name=given["name"],
                may_write=given["access"] == "write",
                days=given["days"],
            )
        )
        return made[0].token.uid

    try:
        idempotent(user=user, key=f"token:{given['key']}", body=asked, act=act)
    except ApplicationError as error:
        error_add(form, error)
        return _page(request, form)
    if not made:
        messages.info(request, gettext("This token was made already, and its secret shown then."))
        return redirect("personal_tokens")
    return _page(request, PersonalTokenForm(), made=made[0])


@require_http_methods(["GET", "HEAD", "POST"])
def personal_token_renew(request: HttpRequest, token_uid: str) -> HttpResponse:
    """Another secret under the same name, shown once; the old one goes on for a day.

    Its address, opened anew, leads to the tokens.
    """
    token = _token_of(request, token_uid)
    if request.method != "POST":
        return redirect("personal_tokens")
    try:
        made = services.personal_token_renew(token=token)
    except ApplicationError as error:
        messages.error(request, error.message)
        return redirect("personal_tokens")
    return _page(request, PersonalTokenForm(), made=made, is_renewed=True)


@require_POST
def personal_token_revoke(request: HttpRequest, token_uid: str) -> HttpResponse:
    token = _token_of(request, token_uid)
    services.personal_token_revoke(token=token)
    messages.success(request, gettext("%(name)s is let in no more.") % {"name": token.name})
    return redirect("personal_tokens")


def _token_of(request: HttpRequest, token_uid: str) -> PersonalToken:
    token = personal_token_get(user=user_of(request), uid=token_uid)
    if token is None:
        raise Http404("Not found.")
    return token


def _page(
    request: HttpRequest,
    form: PersonalTokenForm,
    *,
    made: services.MadeToken | None = None,
    is_renewed: bool = False,
) -> HttpResponse:
    context = {
        "tokens": personal_tokens_of(user=user_of(request)),
        "form": form,
        "made": made,
        "is_renewed": is_renewed,
        "example": request.build_absolute_uri(reverse("api_projects")),
    }
    status = 400 if form.errors else 200
    return render(request, "annotation/personal_tokens.html", context, status=status)
