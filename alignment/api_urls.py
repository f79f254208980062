"""API."""

from django.urls import path

from alignment import api, corpus_api, launch_api

CAMPAIGN = "campaigns/<str:campaign_uid>"
ROUND = "rounds/<str:round_uid>"

urlpatterns = [
    path("methods/", launch_api.MethodListApi.as_view(), name="api_method_list"),
    path("runs/", launch_api.RunLaunchApi.as_view(), name="api_run_launch"),
    path(
        "hub/corpora/<str:run_uid>/clean/",
        corpus_api.CorpusCleanApi.as_view(),
        name="api_corpus_clean",
    ),
    path("campaigns/", api.CampaignsApi.as_view(), name="api_campaigns"),
    path(f"{CAMPAIGN}/", api.CampaignApi.as_view(), name="api_campaign"),
    path(f"{CAMPAIGN}/rounds/", api.RoundsApi.as_view(), name="api_rounds"),
    path(f"{ROUND}/", api.RoundApi.as_view(), name="api_round"),
    path(f"{ROUND}/cancel/", api.RoundCancelApi.as_view(), name="api_round_cancel"),
    path(f"{ROUND}/retry/", api.RoundRetryApi.as_view(), name="api_round_retry"),
    path(f"{ROUND}/close/", api.RoundCloseApi.as_view(), name="api_round_close"),
    path(f"{ROUND}/continue/", api.RoundContinueApi.as_view(), name="api_round_continue"),
    path(f"{ROUND}/decide/", api.RoundDecideApi.as_view(), name="api_round_decide"),
]
