"""Refuses what no database keeps before anything looks it up."""

from collections.abc import Callable
from typing import Any

from django.core.exceptions import SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse


class StorableTextMiddleware:
    """404 for an address with a NUL in it, 400 for a query or a form with one.

    PostgreSQL refuses a NUL even where a text is only compared; JSON bodies have their parser.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Any, arguments: Any, named: dict[str, Any]
    ) -> None:
        if "\x00" in request.path_info:
            raise Http404("Not found.")
        asked = [request.GET]
        # The API's bodies are read by its own parsers, and some are large files.
        if request.method == "POST" and not request.path_info.startswith("/api/"):
            asked.append(request.POST)
        for given in asked:
            for name, values in given.lists():
                if any("\x00" in text for text in (name, *map(str, values))):
                    raise SuspiciousOperation(f"{name!r} holds a NUL character")
