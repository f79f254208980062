"""Every URL of the site."""

from django.contrib import admin
from django.urls import include, path

from config import views

urlpatterns = [
    path("healthz", views.healthz, name="healthz"),
    path("", include("annotation.urls")),
    path("hub/", include("modelhub.urls")),
    path("rounds/", include("alignment.urls")),
    path("api/v1/", include("config.api_urls")),
    path("admin/", admin.site.urls),
]
