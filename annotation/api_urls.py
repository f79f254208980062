"""API."""

from django.urls import path, re_path

from annotation.api import (
    annotating,
    datasets,
    desk,
    documents,
    feedback,
    preview,
    projects,
    questions,
    reviews,
    tasks,
)

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
    path(f"{PROJECT}/documents/", documents.DocumentsApi.as_view(), name="api_documents"),
    path(f"{PROJECT}/datasets/", datasets.DatasetListApi.as_view(), name="api_datasets"),
    path(f"{DATASET}/export/", datasets.DatasetExportApi.as_view(), name="api_dataset_export"),
    path(f"{PROJECT}/preview/", preview.PreviewApi.as_view(), name="api_preview"),
    path("desk/keys/", desk.KeysApi.as_view(), name="api_desk_keys"),
    path(
        f"{PROJECT}/guidelines/read/",
        desk.GuidelinesReadApi.as_view(),
        name="api_guidelines_read",
    ),
    path(f"{PROJECT}/next/", annotating.AssignmentNextApi.as_view(), name="api_next"),
    path(f"{ASSIGNMENT}/draft/", annotating.DraftSaveApi.as_view(), name="api_draft"),
    path(f"{ASSIGNMENT}/renew/", annotating.AssignmentRenewApi.as_view(), name="api_renew"),
    path(f"{ASSIGNMENT}/skip/", annotating.AssignmentSkipApi.as_view(), name="api_skip"),
    path(f"{ASSIGNMENT}/submit/", annotating.SubmitApi.as_view(), name="api_submit"),
    path(f"{ASSIGNMENT}/undo/", annotating.UndoApi.as_view(), name="api_undo"),
    path(f"{ASSIGNMENT}/question/", annotating.QuestionAskApi.as_view(), name="api_question"),
    path(f"{ASSIGNMENT}/report/", annotating.ReportApi.as_view(), name="api_report"),
    path(f"{ASSIGNMENT}/answers/", annotating.AnswersApi.as_view(), name="api_answers"),
    path(
        f"{PROJECT}/submissions/<str:submission_uid>/reviews/",
        reviews.ReviewListApi.as_view(),
        name="api_reviews",
    ),
    path(
        f"{PROJECT}/tasks/<str:task_uid>/adjudication/",
        reviews.AdjudicationApi.as_view(),
        name="api_adjudication",
    ),
    path(f"{PROJECT}/task-forms/", tasks.TaskFormListApi.as_view(), name="api_task_forms"),
    path(f"{PROJECT}/tasks/", tasks.TasksCreateApi.as_view(), name="api_tasks"),
    path(f"{PROJECT}/questions/", questions.QuestionListApi.as_view(), name="api_questions"),
    path(
        "questions/<str:question_uid>/answer/",
        questions.QuestionAnswerApi.as_view(),
        name="api_question_answer",
    ),
    # A product writes it with or without the slash.
    re_path(r"^feedback/?$", feedback.FeedbackApi.as_view(), name="api_feedback"),
]
