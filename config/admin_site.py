"""The admin site: Django's own, in Rondo's clothes, entered through Rondo's sign-in page."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.apps import AdminConfig
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.http import urlencode


class RondoAdminConfig(AdminConfig):
    default_site = "config.admin_site.RondoAdminSite"


class RondoAdminSite(admin.AdminSite):
    site_header = "Rondo"
    site_title = "Rondo admin"
    index_title = "Administration"

    @method_decorator(login_not_required)
    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Send strangers to the one sign-in page; to others the admin does not exist."""
        if self.has_permission(request):
            return redirect("admin:index")
        if request.user.is_authenticated:
            raise Http404("Not found.")
        wanted = request.GET.get(REDIRECT_FIELD_NAME) or reverse("admin:index")
        return redirect(f"{reverse('sign_in')}?{urlencode({REDIRECT_FIELD_NAME: wanted})}")
