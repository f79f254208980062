"""How long somebody stays signed in."""

import time
from collections.abc import Callable

from django.conf import settings
from django.contrib.auth import SESSION_KEY, logout
from django.http import HttpRequest, HttpResponse

_SEEN_EVERY_S = 600  # so exact is the idle time; a write to the session costs a transaction
UNATTENDED = "X-Unattended"  # a page that asks by itself says so: nobody need be in front of it


class SessionLifetimeMiddleware:
    """Signs out whoever did nothing for SESSION_IDLE_S, or signed in SESSION_COOKIE_AGE ago.

    What a page asks for on its own, by a clock, is nothing that somebody did.

    Django alone counts from the last change of a session, so that one kept in use never ends. Both
    times are written at sign-in (annotation/account_views.py); one without them has Django's end.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        session, now = request.session, int(time.time())
        if SESSION_KEY in session:
            began, seen = session.get("began", now), session.get("seen", now)
            if now - began > settings.SESSION_COOKIE_AGE or now - seen > settings.SESSION_IDLE_S:
                logout(request)
            elif now - seen > _SEEN_EVERY_S and UNATTENDED not in request.headers:
                session["began"], session["seen"] = began, now
        return self.get_response(request)
