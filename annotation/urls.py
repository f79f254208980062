"""Pages."""

from django.urls import URLPattern, URLResolver, path

from annotation import (
    account_views,
    desk_views,
    document_views,
    feedback_views,
    form_views,
    notification_views,
    personal_token_views,
    proposal_views,
    quality_views,
    question_views,
    report_views,
    settings_views,
    task_views,
    views,
)

urlpatterns: list[URLPattern | URLResolver] = [
    path("", views.home, name="home"),
    path("sign-in/", account_views.SignIn.as_view(), name="sign_in"),
    path("sign-in/<str:token>/", account_views.sign_in_link, name="sign_in_link"),
    path("sign-out/", account_views.SignOut.as_view(), name="sign_out"),
    path("password/", account_views.PasswordChange.as_view(), name="password_change"),
    path("tokens/", personal_token_views.personal_tokens, name="personal_tokens"),
    path(
        "tokens/<str:token_uid>/renew/",
        personal_token_views.personal_token_renew,
        name="personal_token_renew",
    ),
    path(
        "tokens/<str:token_uid>/revoke/",
        personal_token_views.personal_token_revoke,
        name="personal_token_revoke",
    ),
    path("corpora/<str:run_uid>/ask/", document_views.corpus_ask, name="corpus_ask"),
    path("projects/new/", views.project_new, name="project_new"),
    path("projects/<str:project_uid>/", views.project_detail, name="project_detail"),
    path("projects/<str:project_uid>/annotate/", desk_views.annotate, name="annotate"),
    path("projects/<str:project_uid>/rank/", desk_views.rank, name="rank"),
    path("projects/<str:project_uid>/tasks/", task_views.project_tasks, name="project_tasks"),
    path(
        "projects/<str:project_uid>/forms/<str:kind>/",
        form_views.project_form,
        name="project_form",
    ),
    path(
        "projects/<str:project_uid>/guidelines/",
        views.project_guidelines,
        name="project_guidelines",
    ),
    path(
        "projects/<str:project_uid>/questions/",
        question_views.project_questions,
        name="project_questions",
    ),
    path(
        "projects/<str:project_uid>/reports/", report_views.project_reports, name="project_reports"
    ),
    path(
        "projects/<str:project_uid>/dashboard/",
        quality_views.project_dashboard,
        name="project_dashboard",
    ),
    path(
        "projects/<str:project_uid>/progress/",
        quality_views.project_progress,
        name="project_progress",
    ),
    path(
        "projects/<str:project_uid>/quality/", quality_views.project_quality, name="project_quality"
    ),
    path(
        "projects/<str:project_uid>/reviews/", quality_views.project_reviews, name="project_reviews"
    ),
    path(
        "projects/<str:project_uid>/reviews/<str:submission_uid>/",
        quality_views.review_detail,
        name="review_detail",
    ),
    path(
        "projects/<str:project_uid>/reviews/<str:submission_uid>/known/",
        quality_views.known_new,
        name="known_new",
    ),
    path(
        "projects/<str:project_uid>/disagreements/",
        quality_views.project_disagreements,
        name="project_disagreements",
    ),
    path(
        "projects/<str:project_uid>/disagreements/<str:task_uid>/",
        quality_views.disagreement_detail,
        name="disagreement_detail",
    ),
    path(
        "projects/<str:project_uid>/settings/",
        settings_views.project_settings,
        name="project_settings",
    ),
    path(
        "projects/<str:project_uid>/description/",
        settings_views.project_description,
        name="project_description",
    ),
    path("projects/<str:project_uid>/known/", quality_views.project_known, name="project_known"),
    path(
        "projects/<str:project_uid>/members/<str:membership_uid>/qualify/",
        quality_views.member_qualify,
        name="member_qualify",
    ),
    path("projects/<str:project_uid>/prompts/", views.project_prompts, name="project_prompts"),
    path(
        "projects/<str:project_uid>/proposals/",
        proposal_views.project_proposals,
        name="project_proposals",
    ),
    path(
        "projects/<str:project_uid>/prompts/<str:prompt_uid>/",
        views.prompt_detail,
        name="prompt_detail",
    ),
    path("projects/<str:project_uid>/members/", views.project_members, name="project_members"),
    path(
        "projects/<str:project_uid>/members/<str:membership_uid>/role/",
        views.member_role,
        name="member_role",
    ),
    path(
        "projects/<str:project_uid>/members/<str:membership_uid>/remove/",
        views.member_remove,
        name="member_remove",
    ),
    path(
        "projects/<str:project_uid>/members/<str:membership_uid>/link/",
        views.member_link,
        name="member_link",
    ),
    path("projects/<str:project_uid>/datasets/", views.project_datasets, name="project_datasets"),
    path(
        "projects/<str:project_uid>/datasets/import/", views.dataset_import, name="dataset_import"
    ),
    path("datasets/<str:dataset_uid>/", views.dataset_detail, name="dataset_detail"),
    path("datasets/<str:dataset_uid>/export/", views.dataset_export, name="dataset_export"),
    path(
        "projects/<str:project_uid>/tokens/", feedback_views.project_tokens, name="project_tokens"
    ),
    path(
        "projects/<str:project_uid>/tokens/<str:token_uid>/revoke/",
        feedback_views.token_revoke,
        name="token_revoke",
    ),
    path("notifications/", notification_views.notifications, name="notifications"),
]
