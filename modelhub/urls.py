"""Pages."""

from django.urls import URLPattern, URLResolver, path

from modelhub import (
    comparison_views,
    continue_views,
    corpus_views,
    mixture_views,
    playground_views,
    server_views,
    sharing_views,
    views,
)

urlpatterns: list[URLPattern | URLResolver] = [
    path("", views.model_list, name="model_list"),
    path("import/", views.model_import, name="model_import"),
    path("pull/", sharing_views.model_pull, name="model_pull"),
    path("planner/", views.planner, name="planner"),
    path("garbage/", views.garbage, name="garbage"),
    path("models/<str:model_uid>/", views.model_detail, name="model_detail"),
    path("versions/compare/", comparison_views.version_compare, name="version_compare"),
    path("versions/<str:version_uid>/", views.version_detail, name="version_detail"),
    path("versions/<str:version_uid>/weights/", views.version_weights, name="version_weights"),
    path("versions/<str:version_uid>/verify/", views.version_verify, name="version_verify"),
    path("versions/<str:version_uid>/card/", views.version_card, name="version_card"),
    path("versions/<str:version_uid>/README.md", views.version_readme, name="version_readme"),
    path("versions/<str:version_uid>/alias/", views.version_alias, name="version_alias"),
    path("versions/<str:version_uid>/push/", sharing_views.version_push_view, name="version_push"),
    path(
        "versions/<str:version_uid>/serving/", server_views.version_serving, name="version_serving"
    ),
    path("versions/<str:version_uid>/serve/", server_views.server_start, name="server_start"),
    path("servers/<str:server_uid>/stop/", server_views.server_stop_view, name="server_stop"),
    path("playground/", playground_views.playground, name="playground"),
    path("playground/<str:trial_uid>/", playground_views.trial, name="playground_trial"),
    path("corpora/", corpus_views.corpus_list, name="corpus_list"),
    path("corpora/import/", corpus_views.corpus_import, name="corpus_import"),
    path("corpora/<str:run_uid>/", corpus_views.corpus_detail, name="corpus_detail"),
    path("corpora/<str:run_uid>/judge/", corpus_views.corpus_judge, name="corpus_judge"),
    path("corpora/<str:run_uid>/removed/", corpus_views.corpus_removed, name="corpus_removed"),
    path("mixtures/", mixture_views.mixture_list, name="mixture_list"),
    path("mixtures/plan/", mixture_views.mixture_plan, name="mixture_plan"),
    path("mixtures/keep/", mixture_views.mixture_keep, name="mixture_keep"),
    path("mixtures/<str:mixture_uid>/", mixture_views.mixture_detail, name="mixture_detail"),
    path("runs/", views.run_list, name="run_list"),
    path("compare/", views.run_compare, name="run_compare"),
    path("runs/<str:run_uid>/", views.run_detail, name="run_detail"),
    path("runs/<str:run_uid>/metrics/", views.run_metrics, name="run_metrics"),
    path("runs/<str:run_uid>/gguf/", sharing_views.gguf_download, name="gguf_download"),
    path("runs/<str:run_uid>/cancel/", views.run_cancel_view, name="run_cancel"),
    path("runs/<str:run_uid>/continue/", continue_views.run_continue_page, name="run_continue"),
    path("runs/<str:run_uid>/retry/", views.run_retry_view, name="run_retry"),
]
