"""The annotators' queue over HTTP: the production server, on SQLite and on PostgreSQL.

    python -m benchmarks.bench_annotation                           everything: twenty minutes or so
    python -m benchmarks.bench_annotation --db postgres --tasks 10000 --clients 1 32 --seconds 5
    python -m benchmarks.bench_annotation --fill-only --folder var/bench   fill now, measure later

One JSON line for each database, size and number of clients on standard output, a table on standard
error, and at the end each figure beside its target.

With --folder, what was filled there before is measured, and then removed: a quiet machine is not
kept waiting for it.

What is measured: `config.wsgi` as `manage.py up` serves it (gunicorn, two workers of eight threads)
with the production settings on. A project of pairs with overlap 3: a prompt of 30 words and two
answers of 110 words in Markdown, about 2 kB, no text twice. Each client is an annotator with a
session, on a connection kept alive, and thinks for no time.

- next: POST projects/…/next/ by annotators who hold nothing, and again for the task to load ahead:
  each request claims a task that the caller never had and answers with its whole page.
- submit: POST assignments/…/submit/ under an Idempotency-Key; the answer holds the next task, which
  it claims. `submits_per_s` counts these, each with its next task.

Latency is the client's, from before the request to after its last byte. `…_cpu_ms` is the user and
system time of the web workers over the requests of the phase (from /proc): what does not hang on
the machine's other work. On SQLite the database's time is in it; PostgreSQL's own is
`postgres_cpu_ms`, and the clients' `client_cpu_ms`, for each submission: all share the cores.
`duplicates` counts slots and judgements beyond the overlap and second judgements of one person,
`lost` the acknowledged submissions that are not in the database, `http_5xx` also what was cut off.
"""

import argparse
import contextlib
import http.client
import json
import os
import queue
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.postgres import as_server_user, port_free, programs_folder, ready_wait

ROOT = Path(__file__).resolve().parents[1]
WORKERS, OVERLAP = 2, 3
TASKS, CLIENTS = (10_000, 100_000, 1_000_000), (1, 8, 32)
NEXT_CALLS = {1: 120, 8: 240, 32: 320}  # two by each annotator; other numbers of clients: 240
PEOPLE = 40 + sum(calls // 2 + clients for clients, calls in NEXT_CALLS.items())
COLUMNS = (
    *("db", "tasks", "clients", "next_p50_ms", "next_p95_ms", "next_p99_ms", "next_cpu_ms"),
    *("submit_p50_ms", "submit_p95_ms", "submit_p99_ms", "submit_cpu_ms", "submits_per_s"),
    *("postgres_cpu_ms", "client_cpu_ms"),
    *("duplicates", "lost", "http_5xx", "rss_mb_per_worker"),
)
# figure → (the most it may be, or the least), where it is meant
AT_MOST = {"next_p50_ms": 20.0, "next_cpu_ms": 8.0, "submit_p50_ms": 25.0}  # at one client
NOWHERE = ("duplicates", "lost", "http_5xx")
SUBMITS_PER_S, RSS_MB, FLATNESS = 150.0, 160.0, 1.3
# Of a server that is filled: nothing is lost if it dies, it is filled again.
FILLING = ["fsync=off", "full_page_writes=off", "shared_buffers=1GB", "maintenance_work_mem=512MB"]
clock = time.perf_counter


@dataclass
class Answered:
    """What the clients of a phase saw. Times in milliseconds."""

    times_ms: list[float] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)  # uids of submissions
    failures: int = 0
    refusals: list[str] = field(default_factory=list)
    wall_s: float = 0.0
    cpu_ms: float = 0.0
    postgres_cpu_ms: float = 0.0
    client_cpu_ms: float = 0.0

    def percentile_ms(self, percent: float) -> float:
        ordered = sorted(self.times_ms)
        place = min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))
        return round(ordered[place], 1) if ordered else float("nan")

    def each(self, cpu_ms: float) -> float:
        return round(cpu_ms / max(1, len(self.times_ms)), 2)


class Annotator:
    """One person's browser: a session, a connection that is kept, and no patience."""

    def __init__(self, port: int, session: str, project: str, *, timeout_s: float = 60.0) -> None:
        self.port, self.project, self.timeout_s = port, project, timeout_s
        token = secrets.token_hex(16)
        self.headers = (
            f"Host: 127.0.0.1:{port}\r\nX-Forwarded-Proto: https\r\n"
            f"Origin: https://127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
            f"Cookie: sessionid={session}; csrftoken={token}\r\nX-CSRFToken: {token}\r\n"
        )
        self.socket: socket.socket | None = None
        self.reader: Any = None

    def connect(self) -> socket.socket:
        if self.socket is None:
            self.socket = socket.create_connection(("127.0.0.1", self.port), self.timeout_s)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.reader = self.socket.makefile("rb")
        return self.socket

    def post(self, path: str, body: Any, key: str = "") -> tuple[int, Any]:
        """The status and the JSON of a reply; 599 and why where the connection broke."""
        data = json.dumps(body).encode()
        extra = f"Idempotency-Key: {key}\r\n" if key else ""
        head = f"POST /api/v1/{path} HTTP/1.1\r\n{self.headers}{extra}Content-Length: {len(data)}"
        try:
            self.connect().sendall(f"{head}\r\n\r\n".encode() + data)
            status = int(self.reader.readline().split()[1])
            length, closes = 0, False
            while (line := self.reader.readline().strip().lower()) != b"":
                name, _, value = line.partition(b":")
                if name == b"content-length":
                    length = int(value)
                closes |= name == b"connection" and value.strip() == b"close"
            reply = self.reader.read(length)
            value = json.loads(reply) if length else None  # of half a reply: no JSON
        except (OSError, IndexError, ValueError) as error:
            self.close()
            return 599, repr(error)
        if closes:
            self.close()
        return status, value

    def next(self, after: str = "") -> tuple[int, Any]:
        return self.post(f"projects/{self.project}/next/", {"after": after} if after else {})

    def submit(self, page: dict[str, Any], draw: random.Random, key: str) -> tuple[int, Any]:
        choice = {
            "better": draw.choice(page["candidates"])["uid"],
            "degree": draw.randint(1, 4),
            "active_s": 12.5,
        }
        return self.post(f"assignments/{page['assignment']['uid']}/submit/", choice, key)

    def close(self) -> None:
        if self.socket is not None:
            self.reader.close()
            self.socket.close()
        self.socket = None


def together(works: list[Callable[[Answered], None]], workers: "Workers") -> Answered:
    """Do the works at once, each in a thread; what they saw, added up."""
    seen = [Answered() for _ in works]
    threads = [
        threading.Thread(target=work, args=(answered,))
        for work, answered in zip(works, seen, strict=True)
    ]
    before, clients_before, started = workers.cpu_ms(), time.process_time(), clock()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    web_ms, database_ms = (
        after - earlier for after, earlier in zip(workers.cpu_ms(), before, strict=True)
    )
    total = Answered(
        wall_s=clock() - started,
        cpu_ms=web_ms,
        postgres_cpu_ms=database_ms,
        client_cpu_ms=1000 * (time.process_time() - clients_before),
    )
    for one in seen:
        total.times_ms += one.times_ms
        total.acknowledged += one.acknowledged
        total.failures += one.failures
        total.refusals += one.refusals
    return total


def count(answered: Answered, status: int, reply: Any) -> None:
    if status >= 500:
        answered.failures += 1
        answered.refusals.append("cut off" if status == 599 else f"{status} {reply}")
    elif status not in (200, 204):
        answered.refusals.append(f"{status} {reply}")


def next_phase(
    annotators: "queue.SimpleQueue[Annotator]", clients: int, calls: int, workers: "Workers"
) -> Answered:
    """Each annotator asks twice: for a task, and for the one after it."""
    turns = queue.SimpleQueue[int]()
    for turn in range(max(1, calls // 2)):
        turns.put(turn)

    def work(answered: Answered) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                turns.get_nowait()
                annotator = annotators.get_nowait()
                annotator.connect()
                after = ""
                for _ in range(2):
                    began = clock()
                    status, reply = annotator.next(after)
                    answered.times_ms.append(1000 * (clock() - began))
                    count(answered, status, reply)
                    if status == 200:
                        after = reply["assignment"]["uid"]
                annotator.close()

    return together([work] * clients, workers)


def submit_phase(annotators: list[Annotator], seconds: float, workers: "Workers") -> Answered:
    """Each annotator submits what they were given, and goes on with what the reply holds."""
    deadline = clock() + seconds

    def work_of(number: int, annotator: Annotator, page: Any) -> Callable[[Answered], None]:
        draw = random.Random(number)

        def work(answered: Answered) -> None:
            current = page
            while current is not None and clock() < deadline:
                key = secrets.token_hex(16)
                began = clock()
                status, reply = annotator.submit(current, draw, key)
                if status == 599:  # the reply was lost: ask again, under the same key
                    count(answered, status, reply)
                    status, reply = annotator.submit(current, draw, key)
                answered.times_ms.append(1000 * (clock() - began))
                count(answered, status, reply)
                if status != 200:
                    break
                answered.acknowledged.append(reply["submission"]["uid"])
                current = reply["next"]

        return work

    pages = [annotator.next()[1] for annotator in annotators]
    for annotator in annotators:  # the server has hung up on those that waited for the others
        annotator.close()
        annotator.connect()
    works = [work_of(*one) for one in zip(range(len(pages)), annotators, pages, strict=True)]
    deadline = clock() + seconds
    return together(works, workers)


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


def filled_ensure(db: str, tasks: int, folder: Path) -> dict[str, Any]:
    """What the folder was filled with; filled now, if it was not."""
    told = folder / "filled.json"
    if not told.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with database(db, folder, FILLING) as served:
            environment = site_environment(folder, served.address)
            filling = ("-m", "benchmarks.annotation_rows", "fill", str(tasks), str(PEOPLE))
            told.write_text(managed(environment, *filling))
        os.sync()
        filled = json.loads(told.read_text())
        note(f"{db}, {tasks} tasks: filled in {filled['seconds']} s, {filled['size_mb']} MB")
    filled = json.loads(told.read_text())
    return dict(filled)


def measured(
    db: str, tasks: int, folder: Path, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    filled = filled_ensure(db, tasks, folder)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        port = port_free()
        served = stack.enter_context(database(db, folder, []))
        environment = site_environment(folder, served.address)
        workers = stack.enter_context(web(environment, port, folder / "web.log", served.pid))
        annotators = queue.SimpleQueue[Annotator]()
        for session in filled["sessions"]:
            annotators.put(Annotator(port, session, filled["project"]))
        next_phase(annotators, 4, 40, workers)  # each thread has connected and imported
        for clients in options.clients:
            calls = NEXT_CALLS.get(clients, 240)
            asked = next_phase(annotators, clients, calls, workers)
            people_now = [annotators.get_nowait() for _ in range(clients)]
            sent = submit_phase(people_now, options.seconds, workers)
            uids = folder / "acknowledged.json"
            uids.write_text(json.dumps(sent.acknowledged))
            checking = ("-m", "benchmarks.annotation_rows", "check", str(uids))
            for refusal in (asked.refusals + sent.refusals)[:3]:
                note(f"refused: {refusal[:300]}")
            if asked.failures + sent.failures:
                note((folder / "web.log").read_text()[-3000:])
            yield {
                "db": db,
                "tasks": tasks,
                "clients": clients,
                "next_p50_ms": asked.percentile_ms(50),
                "next_p95_ms": asked.percentile_ms(95),
                "next_p99_ms": asked.percentile_ms(99),
                "next_cpu_ms": asked.each(asked.cpu_ms),
                "submit_p50_ms": sent.percentile_ms(50),
                "submit_p95_ms": sent.percentile_ms(95),
                "submit_p99_ms": sent.percentile_ms(99),
                "submit_cpu_ms": sent.each(sent.cpu_ms),
                "submits_per_s": round(len(sent.acknowledged) / sent.wall_s, 1),
                "postgres_cpu_ms": sent.each(sent.postgres_cpu_ms),
                "client_cpu_ms": sent.each(sent.client_cpu_ms),
                **json.loads(managed(environment, *checking)),
                "http_5xx": asked.failures + sent.failures,
                "rss_mb_per_worker": workers.rss_mb(),
                "nexts": len(asked.times_ms),
                "submits": len(sent.acknowledged),
                "load_1m": round(os.getloadavg()[0], 1),
            }


def summary(lines: list[dict[str, Any]]) -> Iterator[str]:
    """Each figure that has a target, beside it."""

    def told(what: str, value: float, holds: bool, target: str) -> str:
        return f"{what:<58} {value:>9}   {target:<10} {'ok' if holds else 'SHORT'}"

    for line in lines:
        where = f"{line['db']}, {line['tasks']} tasks, {line['clients']} clients"
        if line["clients"] == 1:
            for name, most in AT_MOST.items():
                yield told(f"{where}: {name}", line[name], line[name] <= most, f"<= {most:g}")
        if line["db"] == "postgres" and line["clients"] == 32:
            rate = line["submits_per_s"]
            target = f">= {SUBMITS_PER_S:g}"
            yield told(f"{where}: submits_per_s", rate, rate >= SUBMITS_PER_S, target)
        for name in NOWHERE:
            if line[name]:
                yield told(f"{where}: {name}", line[name], False, "0")
    for name in NOWHERE:
        total = sum(line[name] for line in lines)
        yield told(f"everywhere: {name}", total, not total, "0")
    largest = max(line["rss_mb_per_worker"] for line in lines)
    yield told("largest rss_mb_per_worker", largest, largest <= RSS_MB, f"<= {RSS_MB:g}")
    for db in sorted({line["db"] for line in lines}):
        of_one = {
            line["tasks"]: line for line in lines if line["db"] == db and line["clients"] == 1
        }
        if len(of_one) > 1:
            least, most = min(of_one), max(of_one)
            for name in ("next_cpu_ms", "next_p50_ms"):
                ratio = round(of_one[most][name] / of_one[least][name], 2)
                what = f"{db}, 1 client: {name} at {most} / {least} tasks"
                yield told(what, ratio, ratio <= FLATNESS, f"<= {FLATNESS:g}")


def note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--db", nargs="+", default=["sqlite", "postgres"])
    parser.add_argument("--tasks", nargs="+", type=int, default=list(TASKS))
    parser.add_argument("--clients", nargs="+", type=int, default=list(CLIENTS))
    parser.add_argument("--seconds", type=float, default=15.0, help="of submitting, each")
    parser.add_argument("--folder", help="where the databases are made; 1M tasks want 8 GB")
    parser.add_argument("--fill-only", action="store_true", help="fill --folder, measure nothing")
    options = parser.parse_args()
    if options.fill_only and not options.folder:
        parser.error("--fill-only wants a --folder")
    places = [(db, tasks) for db in options.db for tasks in options.tasks]
    with contextlib.ExitStack() as stack:
        made = options.folder or stack.enter_context(
            tempfile.TemporaryDirectory("", "rondo-bench-")
        )
        folders = {place: Path(made).resolve() / f"{place[0]}-{place[1]}" for place in places}
        if options.fill_only:
            for (db, tasks), folder in folders.items():
                filled_ensure(db, tasks, folder)
            return
        note(" ".join(f"{name:>{max(8, len(name))}}" for name in COLUMNS))
        lines = []
        for (db, tasks), folder in folders.items():
            for line in measured(db, tasks, folder, options):
                lines.append(line)
                print(json.dumps(line), flush=True)
                note(" ".join(f"{line[name]!s:>{max(8, len(name))}}" for name in COLUMNS))
    note("\n" + "\n".join(summary(lines)))


if __name__ == "__main__":
    main()
