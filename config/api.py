"""The shape of an error of the API."""

import json
from typing import Any

from django.http import Http404
from django.utils.translation import gettext
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import exception_handler

from modelhub.errors import ApplicationError


def error_response(error: Exception, context: dict[str, Any]) -> Response | None:
    """{"message", "extra"} for every refusal; anything unexpected stays a 500 in the log."""
    if isinstance(error, ApplicationError):
        return Response({"message": error.message, "extra": error.extra}, status=error.status)
    if isinstance(error, Http404):
        return Response({"message": gettext("Not found."), "extra": {}}, status=404)
    response = exception_handler(error, context)
    if response is None:
        return None
    detail = response.data
    if isinstance(error, exceptions.ValidationError):
        response.data = {
            "message": gettext("Some fields were refused."),
            "extra": {"fields": json.loads(json.dumps(detail))},
        }
    else:
        message = detail.get("detail") if isinstance(detail, dict) else None
        response.data = {"message": str(message or gettext("Refused.")), "extra": {}}
    return response
