"""A PostgreSQL of one's own for a module of tests: made in a folder, gone afterwards.

Import the fixture where it is wanted: `from tests.postgres import postgres_url`.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

START_S = 30.0
# The server refuses to run as root; the first of these that exists runs it then.
USERS = ("postgres", "nobody")


def programs_folder() -> Path | None:
    """Where initdb and postgres are: on the path, or where Debian puts them (the newest)."""
    found = shutil.which("postgres")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


def as_server_user(folder: Path) -> dict[str, Any]:
    """The subprocess arguments under which the server may run; gives it the folder."""
    if os.geteuid() != 0:
        return {}
    for name in USERS:
        try:
            account = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(folder, account.pw_uid, account.pw_gid)
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    pytest.skip("PostgreSQL does not run as root, and there is no user postgres or nobody")


def port_free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def ready_wait(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0 and "ready to accept" in log.read_text():
                return
        time.sleep(0.05)
    raise TimeoutError(f"PostgreSQL was not ready in {START_S} s:\n{log.read_text()}")


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    """The address of an empty database on 127.0.0.1, sorting text as people do (ICU)."""
    programs = programs_folder()
    if programs is None:
        pytest.skip("PostgreSQL's programs initdb and postgres are not installed")
    folder = Path(tempfile.mkdtemp(prefix="rondo-pg-"))
    password, port = secrets.token_hex(16), port_free()
    secret, data, log = folder / "password", folder / "data", folder / "log"
    secret.write_text(password)
    secret.chmod(0o644)  # the folder itself is closed to others
    log.touch()
    run_as = as_server_user(folder)
    try:
        subprocess.run(
            [
                *(programs / "initdb", "-D", data, "-U", "rondo", "-E", "UTF8", "-N"),
                *("--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"),
                *("-A", "scram-sha-256", f"--pwfile={secret}"),
            ],
            check=True,
            capture_output=True,
            cwd=folder,
            **run_as,
        )
        settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
        settings += ["max_connections=100", "shared_buffers=64MB"]
        with log.open("wb") as output:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, "-p", str(port)]
                + [part for setting in settings for part in ("-c", setting)],
                stdout=output,
                stderr=output,
                cwd=folder,
                **run_as,
            )
        try:
            ready_wait(server, port, log)
            yield f"postgres://rondo:{password}@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # end now, cleanly, whoever is connected
            server.wait(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
