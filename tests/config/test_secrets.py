"""RELIABILITY S21: no installation shares a key, and production never starts on a default one."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from config.secrets import secret_key_read


def test_a_first_start_generates_a_key_that_only_its_owner_reads(tmp_path: Path) -> None:
    key = secret_key_read(given="", data_dir=tmp_path, production=False)
    assert len(key) >= 50
    assert stat.S_IMODE((tmp_path / "secret-key").stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [tmp_path / "secret-key"]


def test_the_key_stays_the_same_from_start_to_start(tmp_path: Path) -> None:
    first = secret_key_read(given="", data_dir=tmp_path, production=False)
    assert secret_key_read(given="", data_dir=tmp_path, production=False) == first


def test_two_installations_have_different_keys(tmp_path: Path) -> None:
    keys = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        keys.add(secret_key_read(given="", data_dir=tmp_path / name, production=False))
    assert len(keys) == 2


@pytest.mark.parametrize("key", ["django-insecure-" + "x" * 60, "ChangeMe" * 10, "short"])
def test_a_published_or_short_key_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="RONDO_SECRET_KEY"):
        secret_key_read(given=key, data_dir=tmp_path, production=True)


@pytest.mark.parametrize("key", ["", "django-insecure-" + "x" * 60, "changeme"])
def test_production_refuses_to_start_without_a_real_key(tmp_path: Path, key: str) -> None:
    environment = {
        **os.environ,
        "RONDO_PRODUCTION": "1",
        "RONDO_SECRET_KEY": key,
        "RONDO_DATA_DIR": str(tmp_path),
        "DJANGO_SETTINGS_MODULE": "config.settings",
    }
    done = subprocess.run(
        [sys.executable, "manage.py", "check"], env=environment, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "RONDO_SECRET_KEY" in done.stderr
    assert not (tmp_path / "secret-key").exists()
