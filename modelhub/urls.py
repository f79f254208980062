"""Pages."""

from django.urls import URLPattern, URLResolver, path

from modelhub import playground_views, views

urlpatterns: list[URLPattern | URLResolver] = [
    path("", views.model_list, name="model_list"),
    path("import/", views.model_import, name="model_import"),
    path("planner/", views.planner, name="planner"),
    path("models/<str:model_uid>/", views.model_detail, name="model_detail"),
    path("versions/<str:version_uid>/", views.version_detail, name="version_detail"),
    path("versions/<str:version_uid>/verify/", views.version_verify, name="version_verify"),
    path("versions/<str:version_uid>/alias/", views.version_alias, name="version_alias"),
    path("playground/", playground_views.playground, name="playground"),
    path("playground/<str:trial_uid>/", playground_views.trial, name="playground_trial"),
    path("runs/", views.run_list, name="run_list"),
    path("compare/", views.run_compare, name="run_compare"),
    path("runs/<str:run_uid>/", views.run_detail, name="run_detail"),
    path("runs/<str:run_uid>/metrics/", views.run_metrics, name="run_metrics"),
    path("runs/<str:run_uid>/cancel/", views.run_cancel_view, name="run_cancel"),
    path("runs/<str:run_uid>/retry/", views.run_retry_view, name="run_retry"),
]
