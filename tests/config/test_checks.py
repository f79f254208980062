"""RELIABILITY D10: a database that could lose an acknowledged label does not pass the checks."""

import copy

import pytest
from django.conf import settings

from config.checks import database_errors

SQLITE = {
    "ENGINE": "django.db.backends.sqlite3",
    "OPTIONS": {
        "transaction_mode": "IMMEDIATE",
        "timeout": 60,
        "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=FULL;",
    },
}
POSTGRES = {
    "ENGINE": "django.db.backends.postgresql",
    "OPTIONS": {"options": "-c lock_timeout=5s -c synchronous_commit=on"},
}


def test_the_products_own_settings_pass() -> None:
    from config import settings as product

    assert database_errors(product.DATABASES["default"]) == []
    assert settings.DATABASES["default"]["OPTIONS"]["transaction_mode"] == "IMMEDIATE"


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("transaction_mode", "DEFERRED", "rondo.E001"),
        ("init_command", "PRAGMA synchronous=FULL;", "rondo.E002"),
        ("init_command", "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;", "rondo.E003"),
        ("timeout", 5, "rondo.E004"),
    ],
)
def test_a_weaker_sqlite_is_an_error(option: str, value: object, expected: str) -> None:
    database = copy.deepcopy(SQLITE)
    database["OPTIONS"][option] = value
    assert [error.id for error in database_errors(database)] == [expected]


def test_a_postgresql_that_commits_lazily_is_an_error() -> None:
    assert database_errors(POSTGRES) == []
    lazy = {**POSTGRES, "OPTIONS": {"options": "-c synchronous_commit=off"}}
    assert [error.id for error in database_errors(lazy)] == ["rondo.E005"]


def test_transactions_never_span_a_whole_request() -> None:
    assert [e.id for e in database_errors({**SQLITE, "ATOMIC_REQUESTS": True})] == ["rondo.E006"]
