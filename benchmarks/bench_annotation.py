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
import json
import os
import queue
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.annotators import Annotator, next_phase, submit_phase
from benchmarks.servers import database, managed, note, site_environment, web
from tests.postgres import port_free

OVERLAP = 3
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
