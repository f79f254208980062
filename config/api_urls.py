"""Every URL of the API, version 1."""

from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView

urlpatterns = [
    path("schema/", SpectacularAPIView.as_view(), name="api_schema"),
    path("", include("annotation.api_urls")),
    path("hub/", include("modelhub.api_urls")),
    path("", include("alignment.api_urls")),
]
