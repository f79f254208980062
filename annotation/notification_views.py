"""The page of what somebody was told."""

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from annotation.selectors import memberships_of
from annotation.selectors.notifications import notifications_of
from annotation.services.notifications import notifications_read
from modelhub.serializers import user_of

ON_A_PAGE = 50


@require_http_methods(["GET", "HEAD", "POST"])
def notifications(request: HttpRequest) -> HttpResponse:
    """The newest first; a POST marks all of them as read."""
    user = user_of(request)
    if request.method == "POST":
        for membership in memberships_of(user=user):
            notifications_read(recipient=membership)
        return redirect("notifications")
    told = notifications_of(user=user)
    page = Paginator(told, ON_A_PAGE).get_page(request.GET.get("page"))
    context = {"page": page, "has_unread": told.filter(read_at=None).exists()}
    return render(request, "annotation/notifications.html", context)
