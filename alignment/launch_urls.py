"""Pages that launch a method."""

from django.urls import path

from alignment import launch_views

urlpatterns = [
    path("", launch_views.method_list, name="method_list"),
    path("<str:method>/", launch_views.method_launch, name="method_launch"),
]
