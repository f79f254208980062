"""RELIABILITY S59: every class of response carries the security headers."""

import pytest
from django.test import Client

REQUIRED = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def headers_check(response) -> None:
    for name, value in REQUIRED.items():
        assert response.headers.get(name) == value, (name, response.headers.get(name))
    policy = response.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    for directive in ("default-src 'self'", "frame-ancestors 'none'", "object-src 'none'"):
        assert directive in policy
    assert "X-Powered-By" not in response.headers
    assert "Server" not in response.headers


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("get", "/", 302),
        ("get", "/sign-in/", 200),
        ("get", "/healthz", 200),
        ("post", "/healthz", 405),
        ("get", "/no-such-page", 404),
        ("get", "/api/v1/projects/", 401),
        ("get", "/admin/", 302),
    ],
)
def test_a_visitor_gets_the_headers(method: str, path: str, status: int) -> None:
    response = getattr(Client(), method)(path)
    assert response.status_code == status
    headers_check(response)


def test_a_signed_in_persons_pages_are_never_cached(alice, project, signed_in) -> None:
    for path in ("/", f"/projects/{project.uid}/", f"/projects/{project.uid}/annotate/"):
        response = signed_in(alice).get(path)
        assert response.status_code == 200
        headers_check(response)
        assert "no-store" in response.headers["Cache-Control"]


def test_the_admin_gets_the_headers(eve, signed_in) -> None:
    response = signed_in(eve).get("/admin/")
    assert response.status_code == 200
    headers_check(response)


@pytest.mark.urls("tests.config.planted_urls")
def test_a_failed_request_gets_the_headers(alice, signed_in) -> None:
    client = signed_in(alice)
    client.raise_request_exception = False
    response = client.get("/planted/broken")
    assert response.status_code == 500
    headers_check(response)


@pytest.mark.django_db
def test_a_forged_form_gets_403_with_the_headers() -> None:
    response = Client(enforce_csrf_checks=True).post(
        "/sign-in/", {"username": "a", "password": "b"}
    )
    assert response.status_code == 403
    headers_check(response)
