"""Who may see the model hub: staff. To everyone else its pages and API do not exist."""

import functools
from collections.abc import Callable
from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase


def may_use_hub(user: User | AnonymousUser) -> bool:
    """ML engineers are staff; administrators are superusers."""
    return user.is_active and (user.is_staff or user.is_superuser)


def hub_page(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """A page of the hub: 404 for those who may not use it, whatever they ask for."""

    @functools.wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not may_use_hub(request.user):
            raise Http404("Not found.")
        return view(request, *args, **kwargs)

    return guarded
