"""gunicorn's settings beyond the command line: say nothing about the server in responses."""

from gunicorn.http import wsgi


def _default_headers(self: wsgi.Response) -> list[str]:
    """What gunicorn adds to a response, without its `Server` line."""
    return [line for line in _gunicorn_default_headers(self) if not line.startswith("Server:")]


_gunicorn_default_headers = wsgi.Response.default_headers
wsgi.Response.default_headers = _default_headers
