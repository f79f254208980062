"""gunicorn's settings beyond the command line: nothing about the server in responses, our log."""

import os

from gunicorn.http import wsgi

from config.logs import format_of, logging_config


def _default_headers(self: wsgi.Response) -> list[str]:
    """What gunicorn adds to a response, without its `Server` line."""
    return [line for line in _gunicorn_default_headers(self) if not line.startswith("Server:")]


_gunicorn_default_headers = wsgi.Response.default_headers
wsgi.Response.default_headers = _default_headers

# What the server itself says (a request that is no HTTP, a worker that died) is logged alike. Read
# from the environment: settings loaded here would outlive a reload, in every new worker.
logconfig_dict = logging_config(
    level="WARNING",
    format=format_of(
        given=os.environ.get("RONDO_LOG_FORMAT", ""),
        production=os.environ.get("RONDO_PRODUCTION", "").lower() in {"1", "true", "yes", "on"},
    ),
)
