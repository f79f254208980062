"""Files that a page sends: to be kept, never to be opened as a page of this site."""

from django.http.response import HttpResponseBase


def as_download(response: HttpResponseBase, name: str) -> None:
    """Make a response a download of this name. `name` is the site's own, never somebody's text.

    Whatever a browser makes of the bytes in spite of that, it runs no script and asks for nothing.
    """
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = "sandbox; default-src 'none'; frame-ancestors 'none'"
