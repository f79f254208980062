"""The secret key: given in production, generated once per data folder otherwise."""

import os
import secrets
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

REFUSED_WORDS = ("django-insecure-", "changeme", "change-me", "secret-key")
MIN_LENGTH = 50


def secret_key_read(*, given: str, data_dir: Path, production: bool) -> str:
    """Return the key to sign with.

    A given key wins. Without one, an installation on one machine keeps a generated key in
    `data_dir/secret-key` (mode 0600); production refuses to start. Raises ImproperlyConfigured,
    naming the variable, where a key is missing, short or a known default.
    """
    if given:
        if any(word in given.lower() for word in REFUSED_WORDS):
            raise ImproperlyConfigured(
                "RONDO_SECRET_KEY is a published default; generate your own."
            )
        if len(given) < MIN_LENGTH:
            raise ImproperlyConfigured(
                f"RONDO_SECRET_KEY has {len(given)} characters; give at least {MIN_LENGTH}."
            )
        return given
    if production:
        raise ImproperlyConfigured("RONDO_PRODUCTION=1 needs RONDO_SECRET_KEY; none was given.")
    path = data_dir / "secret-key"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        pass
    key = secrets.token_urlsafe(64)
    own = path.with_name(f"secret-key.{os.getpid()}")
    descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key)
    try:
        # link() refuses to replace: of two first starts, one key wins and both use it.
        os.link(own, path)
    except FileExistsError:
        pass
    finally:
        own.unlink()
    return path.read_text().strip()
