"""System checks: settings under which Rondo would lose or leak something are errors."""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

SQLITE_ENGINE = "django.db.backends.sqlite3"


@register(Tags.database)
def database_check(app_configs: Sequence[AppConfig] | None = None, **_: Any) -> list[CheckMessage]:
    """SQLite must be WAL + IMMEDIATE + FULL and wait; PostgreSQL must commit synchronously."""
    return database_errors(settings.DATABASES["default"])


def database_errors(database: dict[str, Any]) -> list[CheckMessage]:
    """The errors of one database's settings, each with what to set."""
    options = database.get("OPTIONS", {})
    errors: list[CheckMessage] = []

    def error(message: str, hint: str, number: int) -> None:
        errors.append(Error(message, hint=hint, id=f"rondo.E{number:03d}"))

    if database["ENGINE"] == SQLITE_ENGINE:
        pragmas = options.get("init_command", "").replace(" ", "").upper()
        if options.get("transaction_mode") != "IMMEDIATE":
            error(
                "SQLite begins transactions without the write lock.",
                'Set OPTIONS["transaction_mode"] = "IMMEDIATE": with Django\'s default, concurrent'
                ' writers fail with "database is locked".',
                1,
            )
        if "JOURNAL_MODE=WAL" not in pragmas:
            error("SQLite does not keep a write-ahead log.", "Set PRAGMA journal_mode=WAL.", 2)
        if "SYNCHRONOUS=FULL" not in pragmas:
            error(
                "SQLite may lose a committed submission when the power fails.",
                "Set PRAGMA synchronous=FULL.",
                3,
            )
        if options.get("timeout", 0) < 10:
            error(
                "SQLite waits too little for its lock.", 'Set OPTIONS["timeout"] to 10 or more.', 4
            )
    elif "synchronous_commit=on" not in str(options.get("options", "")).replace(" ", ""):
        error(
            "PostgreSQL may acknowledge a submission before it is on disk.",
            'Put "-c synchronous_commit=on" in OPTIONS["options"].',
            5,
        )
    if database.get("ATOMIC_REQUESTS"):
        error(
            "A transaction would span whole requests, network calls included.",
            "Leave ATOMIC_REQUESTS off; services open their own transactions.",
            6,
        )
    return errors


@register(Tags.security)
def data_dir_check(app_configs: Sequence[AppConfig] | None = None, **_: Any) -> list[CheckMessage]:
    """The data folder holds the secret key, weights and labels: nobody else may read it."""
    if not settings.DATA_DIR.exists() or not settings.DATA_DIR.stat().st_mode & 0o077:
        return []
    return [
        Warning(
            "Other users of this machine can look into the data folder.",
            hint=f"chmod 700 {settings.DATA_DIR}",
            id="rondo.W001",
        )
    ]
