"""Pages."""

from django.urls import path

from alignment import views

urlpatterns = [
    path("", views.campaign_list, name="campaign_list"),
    path("campaigns/new/", views.campaign_new, name="campaign_new"),
    path("campaigns/<str:campaign_uid>/", views.campaign_detail, name="campaign_detail"),
    path("campaigns/<str:campaign_uid>/start/", views.round_new, name="round_new"),
    path("candidates/<str:candidate_uid>/", views.candidate_origin, name="candidate_origin"),
    path("<str:round_uid>/", views.round_detail, name="round_detail"),
    path("<str:round_uid>/samples/", views.round_samples, name="round_samples"),
    path("<str:round_uid>/cancel/", views.round_cancel_view, name="round_cancel"),
    path("<str:round_uid>/retry/", views.round_retry_view, name="round_retry"),
    path("<str:round_uid>/close/", views.round_close_view, name="round_close"),
    path("<str:round_uid>/continue/", views.round_continue_view, name="round_continue"),
    path(
        "<str:round_uid>/runs/<str:run_uid>/cancel/",
        views.round_run_cancel_view,
        name="round_run_cancel",
    ),
    path(
        "<str:round_uid>/runs/<str:run_uid>/retry/",
        views.round_run_retry_view,
        name="round_run_retry",
    ),
    path("<str:round_uid>/decide/", views.round_decide_view, name="round_decide"),
]
