"""Every URL of the site."""

from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.urls import include, path
from django.views.i18n import JavaScriptCatalog, set_language

from config import docs_views, views

urlpatterns = [
    path("healthz", views.healthz, name="healthz"),
    path("language/", login_not_required(set_language), name="set_language"),
    path("words.js", JavaScriptCatalog.as_view(), name="words"),
    path("", include("annotation.urls")),
    path("hub/", include("modelhub.urls")),
    path("hub/", include("alignment.corpus_urls")),
    path("launch/", include("alignment.launch_urls")),
    path("rounds/", include("alignment.urls")),
    path("docs/", docs_views.docs_page, name="docs_index"),
    path("docs/<path:page>/", docs_views.docs_page, name="docs_page"),
    path("docs/<path:image>", docs_views.docs_image, name="docs_image"),
    path("api/v1/", include("config.api_urls")),
    path("admin/", admin.site.urls),
]
