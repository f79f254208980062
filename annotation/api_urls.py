"""API."""

from django.urls import path

from annotation import api

ASSIGNMENT = "assignments/<str:assignment_uid>"

urlpatterns = [
    path("projects/<str:project_uid>/next/", api.AssignmentNextApi.as_view(), name="api_next"),
    path(f"{ASSIGNMENT}/draft/", api.DraftSaveApi.as_view(), name="api_draft"),
    path(
        f"{ASSIGNMENT}/submit/",
        api.RankingSubmitApi.as_view(),
        name="api_submit",
    ),
    path(f"{ASSIGNMENT}/skip/", api.AssignmentSkipApi.as_view(), name="api_skip"),
    path(
        f"{ASSIGNMENT}/renew/",
        api.AssignmentRenewApi.as_view(),
        name="api_renew",
    ),
]
