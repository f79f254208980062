"""API."""

from django.urls import path

from annotation.api import datasets, projects, ranking

PROJECT = "projects/<str:project_uid>"
MEMBER = f"{PROJECT}/members/<str:membership_uid>"
DATASET = f"{PROJECT}/datasets/<str:dataset_uid>"
ASSIGNMENT = "assignments/<str:assignment_uid>"

urlpatterns = [
    path("projects/", projects.ProjectListApi.as_view(), name="api_projects"),
    path(f"{PROJECT}/members/", projects.MemberListApi.as_view(), name="api_members"),
    path(f"{MEMBER}/", projects.MemberDetailApi.as_view(), name="api_member"),
    path(
        f"{PROJECT}/prompts/import/",
        projects.PromptsImportApi.as_view(),
        name="api_prompts_import",
    ),
    path(f"{PROJECT}/datasets/", datasets.DatasetListApi.as_view(), name="api_datasets"),
    path(f"{DATASET}/export/", datasets.DatasetExportApi.as_view(), name="api_dataset_export"),
    path(f"{PROJECT}/next/", ranking.AssignmentNextApi.as_view(), name="api_next"),
    path(f"{ASSIGNMENT}/draft/", ranking.DraftSaveApi.as_view(), name="api_draft"),
    path(f"{ASSIGNMENT}/renew/", ranking.AssignmentRenewApi.as_view(), name="api_renew"),
    path(f"{ASSIGNMENT}/skip/", ranking.AssignmentSkipApi.as_view(), name="api_skip"),
    path(f"{ASSIGNMENT}/submit/", ranking.RankingSubmitApi.as_view(), name="api_submit"),
]
