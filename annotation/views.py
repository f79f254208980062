"""Pages of people and projects. They hold no rule of the domain: selectors read, services write."""

from django.contrib.auth import views as auth_views
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse_lazy
from django.views.decorators.http import require_safe


class SignIn(auth_views.LoginView):
    template_name = "registration/sign_in.html"
    redirect_authenticated_user = True


class SignOut(auth_views.LogoutView):
    http_method_names = ["post", "options"]


class PasswordChange(auth_views.PasswordChangeView):
    template_name = "registration/password_change.html"
    success_url = reverse_lazy("home")


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    return render(request, "annotation/home.html", {})


def sign_in_link(request: HttpRequest, token: str) -> HttpResponse:
    return render(request, "registration/sign_in_link.html", {"token": token})
