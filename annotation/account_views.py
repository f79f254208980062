"""Signing in and out: by password, or by a link that works once."""

import time

from django.contrib import messages
from django.contrib.auth import login, logout
from django.contrib.auth import views as auth_views
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm, SetPasswordForm
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse_lazy
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods

from annotation.services.sign_in import sign_in_link_use, sign_in_links_end
from modelhub.serializers import user_of


class SignIn(auth_views.LoginView):
    """By name and password; django-axes counts the failures."""

    template_name = "registration/sign_in.html"
    redirect_authenticated_user = True

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        response = super().form_valid(form)
        session_begin(self.request)
        return response


class SignOut(auth_views.LogoutView):
    http_method_names = ["post", "options"]


class PasswordChange(auth_views.PasswordChangeView):
    """Another password for the old one; the first, for somebody who came by a link and has none."""

    template_name = "registration/password_change.html"
    success_url = reverse_lazy("home")

    def get_form_class(  # type: ignore[override]  # the wider form: one without the old password
        self,
    ) -> "type[SetPasswordForm[User]]":
        has_one = user_of(self.request).has_usable_password()
        return PasswordChangeForm if has_one else SetPasswordForm

    def form_valid(self, form: "SetPasswordForm[User]") -> HttpResponse:
        # This session goes on, the others are signed out. What it calls both forms have.
        response = super().form_valid(form)  # type: ignore[arg-type]
        sign_in_links_end(user=form.user)
        if isinstance(form, PasswordChangeForm):
            told = gettext(
                "Your password is changed; other sessions and your API tokens have ended."
            )
        else:
            told = gettext("You have a password now: sign in with your user name and it.")
        messages.success(self.request, told)
        return response


@login_not_required
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in_link(request: HttpRequest, token: str) -> HttpResponse:
    """Opening the link shows a button; pressing it signs in and uses the link up.

    Mail scanners and chat previews open links: a GET must not burn one.
    """
    if request.method == "POST":
        person = sign_in_link_use(token=token)
        if person is not None:
            logout(request)
            login(request, person, backend="config.backends.PersonBackend")
            session_begin(request)
            return redirect("home")
        response = render(request, "registration/sign_in_link.html", {"stale": True}, status=410)
    else:
        response = render(request, "registration/sign_in_link.html", {"stale": False})
    # The address is the secret. Not "no-referrer": the form's Origin would be "null", and refused.
    response["Referrer-Policy"] = "strict-origin"
    return response


def session_begin(request: HttpRequest) -> None:
    """Note when somebody signed in, and was last seen: what ends the session counts from there."""
    request.session["began"] = request.session["seen"] = int(time.time())
