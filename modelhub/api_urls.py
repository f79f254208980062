"""API."""

from django.urls import URLPattern, URLResolver, path

from modelhub import api, comparison_api, corpus_api

urlpatterns: list[URLPattern | URLResolver] = [
    path("models/", api.ModelListApi.as_view(), name="api_model_list"),
    path(
        "versions/compare/",
        comparison_api.VersionCompareApi.as_view(),
        name="api_version_compare",
    ),
    path("versions/<str:version_uid>/", api.VersionDetailApi.as_view(), name="api_version_detail"),
    path("imports/", api.ModelImportApi.as_view(), name="api_model_import"),
    path("corpora/", corpus_api.CorpusListApi.as_view(), name="api_corpus_list"),
    path("corpora/<str:run_uid>/", corpus_api.CorpusDetailApi.as_view(), name="api_corpus_detail"),
    path(
        "corpora/<str:run_uid>/documents/",
        corpus_api.CorpusDocumentsApi.as_view(),
        name="api_corpus_documents",
    ),
    path("runs/", api.RunListApi.as_view(), name="api_run_list"),
    path("runs/<str:run_uid>/", api.RunDetailApi.as_view(), name="api_run_detail"),
    path("runs/<str:run_uid>/metrics/", api.RunMetricsApi.as_view(), name="api_run_metrics"),
    path("runs/<str:run_uid>/cancel/", api.RunCancelApi.as_view(), name="api_run_cancel"),
    path("runs/<str:run_uid>/continue/", api.RunContinueApi.as_view(), name="api_run_continue"),
    path("runs/<str:run_uid>/retry/", api.RunRetryApi.as_view(), name="api_run_retry"),
]
