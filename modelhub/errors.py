"""Errors a person can answer."""

from typing import Any


class ApplicationError(Exception):
    """Something asked of Rondo was refused.

    `message` says what, where and what to do; `extra` holds machine-readable details
    (for example `{"line": 12, "field": "messages"}`). The API answers 400 with both, a page shows
    the message and keeps the form.
    """

    status = 400

    def __init__(self, message: str, extra: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.extra = extra or {}


class ConflictError(ApplicationError):
    """What is asked does not fit what already happened, such as another body under a used key."""

    status = 409


class RefusedError(ApplicationError):
    """What is asked is for somebody else to do, such as a review of one's own work."""

    status = 403
