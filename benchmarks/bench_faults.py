"""What becomes of acknowledged work when the site is hurt, on SQLite and on PostgreSQL.

    python -m benchmarks.bench_faults                              200 kills, 20 restarts, 50k rows
    python -m benchmarks.bench_faults --db sqlite --faults kill --kills 30

Eight clients (benchmarks.patient_annotator, a process each) submit to the production server, two
workers of eight threads, while

- kill: a worker, drawn by lot, gets SIGKILL, `--kills` times, at least 250 ms apart;
- restart: the workers are replaced by HUP, or one ends by SIGTERM, `--restarts` times in turn;
- crowd: a manager imports `--rows` prompts and exports a dataset of as many rows.

A fault lasts as long as its work does: so many kills with so many acknowledged submissions between
them, and not so many seconds. Then the histories are held against the database. One JSON line each:
`lost` acknowledged and not there, or there with another judgement; `duplicates` beyond an overlap
or a second one by one person; `invented` there and never sent; `retries_a_client` the most that
anybody had to ask again for one disturbance; `refused` answers that nobody should get, 5xx and
"database is locked" among them; `locked` lines of the server's log that say so.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench_annotation import OVERLAP
from benchmarks.servers import ROOT, Workers, managed, note, postgres, site_environment, web
from tests.postgres import port_free

CLIENTS = 8
BETWEEN_KILLS_S = 0.25
PATIENCE_S = 90.0  # with a server that should be working


@dataclass
class Site:
    """A filled database and the production server on it."""

    environment: dict[str, str]
    folder: Path
    workers: Workers
    port: int
    filled: dict[str, Any]

    def log(self) -> str:
        return (self.folder / "web.log").read_text(errors="replace")

    def checked(self) -> dict[str, int]:
        """Every history so far against the database."""
        checking = ("-m", "benchmarks.annotation_rows", "histories", str(self.folder))
        found: dict[str, int] = json.loads(managed(self.environment, *checking))
        return found

    def asked(
        self, method: str, path: str, body: bytes = b"", kind: str = "application/json"
    ) -> tuple[int, bytes]:
        """A request of the project's manager to the API."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        headers = {
            "X-Forwarded-Proto": "https",
            "Origin": f"https://127.0.0.1:{self.port}",
            "Content-Type": kind,
            "Cookie": f"sessionid={self.filled['manager']}; csrftoken={'c' * 32}",
            "X-CSRFToken": "c" * 32,
        }
        path = f"/api/v1/projects/{self.filled['project']}/{path}"
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()


@contextlib.contextmanager
def site(
    address: str, folder: Path, *, tasks: int, settings: str = "config.settings"
) -> Iterator[Site]:
    environment = site_environment(folder, address) | {"DJANGO_SETTINGS_MODULE": settings}
    filling = ("-m", "benchmarks.annotation_rows", "fill", str(tasks), str(CLIENTS))
    filled = json.loads(managed(environment, *filling))
    port = port_free()
    with web(environment, port, folder / "web.log") as workers:
        yield Site(environment, folder, workers, port, filled)


class Crowd:
    """Eight people at work, each a process with a history. Leaving lets them end their task."""

    def __init__(self, site: Site, name: str) -> None:
        self.site, self.folder = site, site.folder / "histories" / name
        self.folder.mkdir(parents=True)
        self.histories = [self.folder / f"{number}.jsonl" for number in range(CLIENTS)]

    def __enter__(self) -> "Crowd":
        self.processes = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "benchmarks.patient_annotator"),
                    *(str(self.site.port), session, self.site.filled["project"]),
                    *(str(history), str(self.folder / "stop")),
                ],
                cwd=ROOT,
                stderr=(self.folder / "errors").open("a"),
            )
            for session, history in zip(self.site.filled["sessions"], self.histories, strict=True)
        ]
        return self

    def __exit__(self, *_: object) -> None:
        (self.folder / "stop").touch()
        deadline = time.monotonic() + 2 * PATIENCE_S
        for process in self.processes:
            try:
                process.wait(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if any(process.returncode for process in self.processes):
            raise RuntimeError(f"a client failed:\n{(self.folder / 'errors').read_text()[-3000:]}")

    def told(self, op: str) -> list[int]:
        """How often each client has noted this."""
        start = f'{{"op": "{op}"'
        return [
            sum(line.startswith(start) for line in history.read_text().splitlines())
            if history.exists()
            else 0
            for history in self.histories
        ]

    def acknowledged_wait(self, more: int) -> None:
        """Until so many more were acknowledged. Raises TimeoutError where nothing goes on."""
        wanted = sum(self.told("ok")) + more
        deadline = time.monotonic() + PATIENCE_S
        while sum(self.told("ok")) < wanted:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"fewer than {more} more in {PATIENCE_S} s: {self.found()}\n"
                    + self.site.log()[-3000:]
                )
            time.sleep(0.01)

    def found(self) -> dict[str, Any]:
        lines = [
            json.loads(line)
            for history in self.histories
            for line in history.read_text().splitlines()
        ]
        times_ms = sorted(line["ms"] for line in lines if line["op"] == "ok")
        refused = [line for line in lines if line["op"] == "refused"]
        whys = Counter(line["why"] for line in lines if line["op"] == "retry")
        if refused:
            note(f"refused: {refused[:3]}")
        return {
            "acknowledged": len(times_ms),
            "retries": whys.total(),
            "retries_why": dict(whys),
            "refused": len(refused),
            "submit_p50_ms": statistics.median(times_ms) if times_ms else None,
            "submit_p95_ms": times_ms[int(0.95 * len(times_ms))] if times_ms else None,
            "submit_max_ms": times_ms[-1] if times_ms else None,
        }


def workers_killed(site: Site, *, kills: int, acknowledged_between: int) -> dict[str, Any]:
    """SIGKILL a worker, by lot, again and again, each after some more was acknowledged."""
    draw, killed, last = random.Random(1), 0, 0.0
    with Crowd(site, "kill") as crowd:
        while killed < kills:
            crowd.acknowledged_wait(acknowledged_between)
            time.sleep(max(0.0, last + BETWEEN_KILLS_S - time.monotonic()) + draw.random() / 50)
            with contextlib.suppress(ProcessLookupError, IndexError):
                os.kill(draw.choice(site.workers.pids()), signal.SIGKILL)
                killed, last = killed + 1, time.monotonic()
        crowd.acknowledged_wait(acknowledged_between)
    return {"kills": killed, **crowd.found()}


def workers_replaced(site: Site, *, restarts: int, acknowledged_between: int) -> dict[str, Any]:
    """Replace the workers, by HUP to the server and by SIGTERM to one of them in turn."""
    most = 0
    with Crowd(site, "restart") as crowd:
        crowd.acknowledged_wait(acknowledged_between)
        for number in range(restarts):
            pids, retries = site.workers.pids(), crowd.told("retry")
            if number % 2:
                os.kill(pids[0], signal.SIGTERM)
                gone_wait(site, {pids[0]})
            else:
                os.kill(site.workers.pid, signal.SIGHUP)
                gone_wait(site, set(pids))
            crowd.acknowledged_wait(acknowledged_between)
            again = zip(crowd.told("retry"), retries, strict=True)
            most = max(most, *(now - then for now, then in again))
    return {"restarts": restarts, "retries_a_client": most, **crowd.found()}


def gone_wait(site: Site, pids: set[int]) -> None:
    """Until these workers have ended and others serve in their place. Raises TimeoutError."""
    deadline, count = time.monotonic() + PATIENCE_S, len(site.workers.pids())
    while pids & (now := set(site.workers.pids())) or len(now) < min(count, 2):
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"workers {pids} did not end in {PATIENCE_S} s\n{site.log()[-3000:]}"
            )
        time.sleep(0.02)


def project_crowded(site: Site, *, rows: int, acknowledged: int) -> dict[str, Any]:
    """A large import and a large export, while everybody submits."""
    making = ("-m", "benchmarks.annotation_rows", "dataset", site.filled["project"], str(rows))
    dataset = managed(site.environment, *making)
    prompts = b"".join(b'{"prompt": "Imported question %d?"}\n' % n for n in range(rows))
    took: dict[str, float] = {}

    def timed(name: str, ask: Callable[[], tuple[int, bytes]]) -> tuple[int, bytes]:
        began = time.monotonic()
        answer = ask()
        took[name] = round(time.monotonic() - began, 1)
        return answer

    with Crowd(site, "crowd") as crowd, ThreadPoolExecutor(2) as pool:
        crowd.acknowledged_wait(acknowledged // 4)
        before = sum(crowd.told("ok"))
        kind = "application/x-ndjson"
        works = [
            pool.submit(timed, *work)
            for work in (
                ("import_s", lambda: site.asked("POST", "prompts/import/", prompts, kind)),
                ("export_s", lambda: site.asked("GET", f"datasets/{dataset}/export/")),
            )
        ]
        imported, exported = (work.result() for work in works)
        meanwhile = sum(crowd.told("ok")) - before
        crowd.acknowledged_wait(max(1, acknowledged - before - meanwhile))
    return {
        "rows": rows,
        **took,
        "imported": json.loads(imported[1])["new"] if imported[0] == 200 else imported[1].decode(),
        "exported": exported[1].count(b"\n") if exported[0] == 200 else exported[1].decode(),
        "acknowledged_meanwhile": meanwhile,
        **crowd.found(),
    }


def hurt(fault: str, db: str, options: argparse.Namespace) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="rondo-faults-", dir=options.folder))
    between = options.between
    wanted = {
        "kill": options.kills * 10 * between,
        "restart": options.restarts * 40 * between,
        "crowd": 20_000,
    }[fault]
    try:
        with contextlib.ExitStack() as stack:
            address = f"sqlite:///{folder}/rondo.sqlite3"
            if db == "postgres":
                address = stack.enter_context(postgres(folder, [])).address
            tasks = 2000 + wanted // OVERLAP
            place = stack.enter_context(site(address, folder, tasks=tasks))
            began = time.monotonic()
            if fault == "kill":
                found = workers_killed(place, kills=options.kills, acknowledged_between=between)
            elif fault == "restart":
                found = workers_replaced(
                    place, restarts=options.restarts, acknowledged_between=between
                )
            else:
                found = project_crowded(place, rows=options.rows, acknowledged=2000)
            seconds = round(time.monotonic() - began, 1)
            locked = place.log().count("database is locked")
            return {
                "db": db,
                "fault": fault,
                "seconds": seconds,
                "locked": locked,
                **(found | place.checked()),
            }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--db", nargs="+", default=["sqlite", "postgres"])
    parser.add_argument("--faults", nargs="+", default=["kill", "restart", "crowd"])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--between", type=int, default=50, help="acknowledged between two hurts")
    parser.add_argument("--folder", help="where the databases are made")
    options = parser.parse_args()
    for db in options.db:
        for fault in options.faults:
            print(json.dumps(hurt(fault, db, options)), flush=True)


if __name__ == "__main__":
    main()
