"""The site's production server and its database, started for a benchmark and ended with it."""

import contextlib
import http.client
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.postgres import as_server_user, port_free, programs_folder, ready_wait

ROOT = Path(__file__).resolve().parents[1]
WORKERS = 2
clock = time.monotonic


@dataclass
class Workers:
    """The web server's processes, and the database server's, where it has one."""

    pid: int
    postgres_pid: int | None = None

    def pids(self) -> list[int]:
        """Of the workers: the children of the arbiter."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def cpu_ms(self) -> tuple[float, float]:
        """User and system time so far, in milliseconds: of the workers, and of PostgreSQL."""
        return sum(map(cpu_ms, self.pids())), self._postgres_cpu_ms()

    def _postgres_cpu_ms(self) -> float:
        """Of the processes there are, and of those that have ended."""
        if self.postgres_pid is None:
            return 0.0
        pid = self.postgres_pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return cpu_ms(pid, children=True) + sum(cpu_ms(int(child)) for child in children)

    def rss_mb(self) -> float:
        """Of the largest worker."""
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids()]
        return round(max(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def cpu_ms(pid: int, *, children: bool = False) -> float:
    """User and system time of a process, with that of its children that have ended or without."""
    parts = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    ticks = sum(int(part) for part in parts[11 : 15 if children else 13])
    return 1000 * ticks / os.sysconf("SC_CLK_TCK")


@dataclass
class Database:
    """Where the site finds its database, and the server's process, if there is one."""

    address: str
    pid: int | None = None


@contextlib.contextmanager
def database(db: str, folder: Path, settings: list[str]) -> Iterator[Database]:
    if db == "sqlite":
        yield Database(f"sqlite:///{folder}/rondo.sqlite3")
        return
    with postgres(folder, settings) as served:
        yield served


@contextlib.contextmanager
def postgres(folder: Path, settings: list[str]) -> Iterator[Database]:
    """A PostgreSQL server of one's own: its defaults, and so durable, where nothing is set."""
    programs = programs_folder()
    if programs is None:
        raise SystemExit("PostgreSQL's programs initdb and postgres are not installed")
    folder.chmod(0o755)
    data, log, secret = folder / "data", folder / "postgres.log", folder / "password"
    log.touch()
    port = port_free()
    if data.exists():
        run_as = as_server_user(data)
    else:
        data.mkdir()
        run_as = as_server_user(data)
        secret.write_text(secrets.token_hex(16))
        subprocess.run(
            [
                *(programs / "initdb", "-D", data, "-U", "rondo", "-E", "UTF8"),
                *("--locale=C.UTF-8", "-A", "scram-sha-256", f"--pwfile={secret}"),
            ],
            check=True,
            capture_output=True,
            cwd=data,
            **run_as,
        )
    settings = [
        *("listen_addresses=127.0.0.1", "unix_socket_directories=", "max_wal_size=8GB"),
        *settings,
    ]
    with log.open("wb") as output:
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, "-p", str(port)]
            + [part for setting in settings for part in ("-c", setting)],
            stdout=output,
            stderr=output,
            cwd=data,
            **run_as,
        )
    try:
        ready_wait(server, port, log)
        address = f"postgres://rondo:{secret.read_text()}@127.0.0.1:{port}/postgres"
        yield Database(address, server.pid)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=60)


@contextlib.contextmanager
def web(
    environment: dict[str, str], port: int, log: Path, postgres_pid: int | None = None
) -> Iterator[Workers]:
    """The site's own web process, as `manage.py up` starts it."""
    code = (
        "import json, django; django.setup();"
        " from config.management.commands.up import processes_of_site;"
        f"print(json.dumps(processes_of_site(port={port}, web_workers={WORKERS})[0].command))"
    )
    command = json.loads(managed(environment, "-c", code))
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, process_group=0
        )
    try:
        workers = Workers(server.pid, postgres_pid)
        answer_wait(server, port, log)
        yield workers
    except Exception:
        note(f"the server, {server.poll()}:\n{log.read_text()[-4000:]}")
        raise
    finally:
        server.terminate()
        try:
            server.wait(timeout=40)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def answer_wait(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = clock() + 60
    while clock() < deadline and server.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/healthz", headers={"X-Forwarded-Proto": "https"})
            if connection.getresponse().status == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"the server did not answer:\n{log.read_text()[-4000:]}")


def managed(environment: dict[str, str], *arguments: str) -> str:
    """Run Python in the site's environment and return what it printed last."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    lines = done.stdout.strip().splitlines()
    return lines[-1] if lines else ""


def site_environment(folder: Path, address: str) -> dict[str, str]:
    """The site's, in production, behind a proxy. Its secret stays with what was filled."""
    secret = folder / "secret"
    if not secret.exists():
        secret.write_text(secrets.token_urlsafe(64))
    (folder / "site").mkdir(mode=0o700, exist_ok=True)
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "RONDO_DATA_DIR": str(folder / "site"),
        "RONDO_DATABASE_URL": address,
        "RONDO_PRODUCTION": "1",
        "RONDO_BEHIND_PROXY": "1",
        "RONDO_ALLOWED_HOSTS": "127.0.0.1",
        "RONDO_SECRET_KEY": secret.read_text(),
        "RONDO_LOG_LEVEL": "WARNING",
    }


def note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
