"""The rows of bench_annotation: made by the database itself, and counted afterwards.

python -m benchmarks.annotation_rows fill TASKS PEOPLE     migrate, fill; prints JSON
python -m benchmarks.annotation_rows check UIDS.json       prints {"duplicates", "lost"}
python -m benchmarks.annotation_rows histories FOLDER      the same, of bench_faults' histories
python -m benchmarks.annotation_rows dataset PROJECT ROWS  import rankings; prints the dataset's uid
"""

import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django

django.setup()

from django.conf import settings
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import Count, F, Q
from django.test import RequestFactory

from annotation.models import (
    Assignment,
    Candidate,
    Comparison,
    Membership,
    Project,
    Prompt,
    Submission,
    Task,
    TaskCandidate,
)
from annotation.records import RankingRecord
from annotation.services.datasets import preference_dataset_import
from annotation.services.projects import guideline_publish
from annotation.splits import group_hash, split_of
from config.sessions import SessionStore
from modelhub.ml.records import records_write

OVERLAP = 3
TEXTS = 500  # different ones, each made unique by a number
PROMPT_WORDS, ANSWER_WORDS = 30, 110
WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "you",
    "that",
    "it",
    "for",
    "was",
    "on",
    "are",
    "with",
    "as",
    "his",
    "they",
    "at",
    "be",
    "this",
    "from",
    "have",
    "or",
    "one",
    "had",
    "by",
    "word",
    "but",
    "not",
    "what",
    "all",
    "were",
    "we",
    "when",
    "your",
    "can",
    "said",
    "there",
    "use",
    "an",
    "each",
    "which",
    "she",
    "do",
    "how",
    "their",
    "if",
    "will",
    "up",
    "other",
    "about",
    "out",
    "many",
    "then",
    "them",
    "these",
    "so",
    "some",
    "her",
    "would",
    "make",
    "like",
    "him",
    "into",
    "time",
    "has",
    "look",
    "two",
    "more",
    "write",
    "go",
    "see",
    "number",
    "no",
    "way",
    "could",
    "people",
    "my",
    "than",
    "first",
    "water",
    "been",
    "call",
]


def words(draw: random.Random, count: int) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(count))


def answer(draw: random.Random) -> str:
    """About 110 words of what models write: paragraphs, emphasis, a list or some code."""
    head = f"{words(draw, 25).capitalize()}. **{words(draw, 3)}** {words(draw, 22)}."
    if draw.random() < 0.5:
        body = "\n".join(f"{n}. *{words(draw, 2)}*: {words(draw, 12)}" for n in (1, 2, 3))
    else:
        body = (
            f"```python\nfor {draw.choice(WORDS)} in range(10):\n    print({words(draw, 1)!r})\n```"
        )
        body += f"\n\nThen `{words(draw, 1)}` {words(draw, 32)}."
    return f"{head}\n\n{body}\n\n{words(draw, 20).capitalize()}."


def rows_fill(project: Project, tasks: int) -> None:
    """Prompts, two candidates each, and their tasks, by INSERT … SELECT."""
    draw = random.Random(0)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE texts (n integer, prompt text, one text, two text)")
        cursor.executemany(
            "INSERT INTO texts VALUES (%s, %s, %s, %s)",
            [
                (n, words(draw, PROMPT_WORDS) + "?", answer(draw), answer(draw))
                for n in range(TEXTS)
            ],
        )
        on_postgres = connection.vendor == "postgresql"
        uid = "md5(random()::text || i)" if on_postgres else "lower(hex(randomblob(16)))"
        hash64 = "md5('a' || i) || md5('b' || i)" if on_postgres else "lower(hex(randomblob(32)))"
        lottery = "(random() * 2147483647)::int" if on_postgres else "abs(random() % 2147483647)"
        null_json = "'[]'"
        cast = "::jsonb" if on_postgres else ""
        messages = (
            "jsonb_build_array(jsonb_build_object('role', 'user', 'content', prompt || ' ' || i))"
            if on_postgres
            else "json_array(json_object('role', 'user', 'content', prompt || ' ' || i))"
        )
        now = "now()" if on_postgres else "datetime('now')"
        if on_postgres:
            numbers = f"(SELECT generate_series(1, {tasks}) AS i) AS numbers"
        else:
            numbers = (
                "(WITH RECURSIVE many(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM many WHERE"
                f" i < {tasks}) SELECT i FROM many) AS numbers"
            )
        source = f"FROM {numbers} JOIN texts ON texts.n = numbers.i % {TEXTS} ORDER BY i"
        insert(
            cursor,
            Prompt,
            {
                "id": "i",
                "uid": uid,
                "created_at": now,
                "project_id": project.pk,
                "messages": messages,
                "content_hash": hash64,
                "group_hash": hash64,
                "split": "'train'",
                "tags": f"{null_json}{cast}",
                "source": "'bench'",
            },
            source,
        )
        for place, name in enumerate(("one", "two")):
            insert(
                cursor,
                Candidate,
                {
                    "id": f"2 * i - {1 - place}",
                    "uid": uid,
                    "created_at": now,
                    "prompt_id": "i",
                    "batch_id": "NULL",
                    "index": place,
                    "text": f"'{place + 1} of ' || i || '. ' || {name}",
                    "version_id": "NULL",
                    "author_id": "NULL",
                    "decoding": f"'{{}}'{cast}",
                    "token_count": 150,
                    "finish_reason": "'stop'",
                    "mean_logprob": "-0.5",
                },
                source,
            )
        insert(
            cursor,
            Task,
            {
                "id": "i",
                "uid": uid,
                "created_at": now,
                "project_id": project.pk,
                "kind": "'pair'",
                "prompt_id": "i",
                "batch_id": "NULL",
                "overlap": OVERLAP,
                "slots_free": OVERLAP,
                "priority": 0,
                "lottery": lottery,
                "doubt": 0,
                "gold": "NULL",
                "gold_explanation": "''",
                "is_qualification": "false",
                "mirror_of_id": "NULL",
                "held_at": "NULL",
                "closed_at": "NULL",
            },
            source,
        )
        for place in (0, 1):
            insert(
                cursor,
                TaskCandidate,
                {
                    "id": f"2 * i - {1 - place}",
                    "task_id": "i",
                    "candidate_id": f"2 * i - {1 - place}",
                    "position": place,
                },
                source,
            )
        if on_postgres:
            for model in (Prompt, Candidate, Task, TaskCandidate):
                table = model._meta.db_table
                cursor.execute(
                    f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}"
                )


def insert(cursor: Any, model: Any, values: dict[str, Any], source: str) -> None:
    """INSERT … SELECT. Every column of the model must be there: a new one is heard of."""
    columns = {field.column for field in model._meta.concrete_fields}
    if columns != set(values):
        raise SystemExit(f"{model.__name__}: {sorted(columns ^ set(values))}")
    names = ", ".join(f'"{name}"' for name in values)
    picked = ", ".join(str(value) for value in values.values())
    cursor.execute(f"INSERT INTO {model._meta.db_table} ({names}) SELECT {picked} {source}")


def fill(tasks: int, people: int) -> dict[str, Any]:
    began = time.monotonic()
    call_command("migrate", verbosity=0)
    call_command("collectstatic", interactive=False, verbosity=0)
    project = Project.objects.create(name="Benchmark", overlap=OVERLAP)
    guideline_publish(project=project, text=f"# Rules\n\n{answer(random.Random(1))}", author=None)
    with connection.cursor() as cursor:  # what is asked here is asked of these rows alone
        if connection.vendor == "postgresql":
            cursor.execute("SET session_replication_role = replica")  # look up no foreign key
            cursor.execute("SET statement_timeout = 0")  # a million rows take their time
        else:
            cursor.execute("PRAGMA foreign_keys = OFF")
            cursor.execute("PRAGMA synchronous = OFF")
            cursor.execute("PRAGMA cache_size = -1000000")
    with transaction.atomic():
        rows_fill(project, tasks)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET session_replication_role = origin")
    users = User.objects.bulk_create(User(username=f"p{n}", password="!") for n in range(people))
    Membership.objects.bulk_create(Membership(project=project, user=user) for user in users)
    manager = User.objects.create(username="manager", password="!")
    Membership.objects.create(project=project, user=manager, role=Membership.Role.MANAGER)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_database_size(current_database())")
            size = cursor.fetchone()[0]
        else:
            size = Path(connection.settings_dict["NAME"]).stat().st_size
    return {
        "project": project.uid,
        "sessions": [signed_in(user) for user in users],
        "manager": signed_in(manager),
        "seconds": round(time.monotonic() - began, 1),
        "size_mb": size >> 20,
    }


def signed_in(user: User) -> str:
    """The key of a session in which the user is signed in, as by the page."""
    request = RequestFactory().get("/")
    request.session = SessionStore()
    login(request, user, backend="config.backends.PersonBackend")
    request.session.save()
    return str(request.session.session_key)


def dataset(project: str, rows: int) -> str:
    """A frozen dataset of so many rankings of two answers, taken in from a file."""
    draw = random.Random(0)
    texts = [answer(draw) for _ in range(TEXTS)]

    def rankings() -> Iterator[RankingRecord]:
        for number in range(rows):
            uids = [f"{number:031d}{letter}" for letter in "ab"]
            messages = [{"role": "user", "content": f"Ranked question {number}?"}]
            shown = [
                {
                    "id": uid,
                    "text": f"{uid} {texts[(number + place) % TEXTS]}",
                    "finish_reason": "stop",
                    "token_count": 150,
                    "model_version": None,
                }
                for place, uid in enumerate(uids)
            ]
            yield RankingRecord(
                id=f"{number:032d}",
                prompt_id=f"{number:032d}",
                messages=messages,
                split=split_of(group_hash(messages), settings.PROMPT_SPLIT_SHARES),
                tags=[],
                batch=None,
                candidates=shown,
                tiers=[[uid] for uid in uids],
                unacceptable=[],
                annotator="a",
                is_simulated=False,
                shown_order=uids,
                active_s=1.0,
                rationale="",
                guideline=None,
            )

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rankings.jsonl"
        records_write(path, rankings())
        with path.open("rb") as file:
            taken_in = preference_dataset_import(
                project=Project.objects.get(uid=project),
                lines=file,
                name=path.name,
                created_by=None,
            )
    return taken_in.uid


def histories_check(folder: Path) -> dict[str, int]:
    """What the clients were told, against what is there.

    What was sent and not acknowledged may be there or not; what is there was sent.
    """
    sent: dict[str, tuple[str, int]] = {}
    acknowledged: dict[str, str] = {}
    for history in sorted(folder.rglob("histories/*/*.jsonl")):
        for line in map(json.loads, history.read_text().splitlines()):
            if line["op"] == "ask":
                sent[line["assignment"]] = (line["better"], line["degree"])
            elif line["op"] == "ok":
                acknowledged[line["submission"]] = line["assignment"]
    stored = {
        submission: (assignment, (better, degree))
        for submission, assignment, better, degree in Comparison.objects.values_list(
            "submission__uid", "submission__assignment__uid", "better__uid", "degree"
        )
    }
    changed = sum(
        stored[submission] != (assignment, sent[assignment])
        for submission, assignment in acknowledged.items()
        if submission in stored
    )
    found = check(list(acknowledged))
    return {
        "duplicates": found["duplicates"],
        "lost": found["lost"] + changed,
        "invented": sum(assignment not in sent for assignment, _ in stored.values()),
    }


def check(acknowledged: list[str]) -> dict[str, int]:
    """Over the whole database: what should not be there, and what should be and is not."""
    stored = set()
    for start in range(0, len(acknowledged), 500):
        some = acknowledged[start : start + 500]
        stored |= set(Submission.objects.filter(uid__in=some).values_list("uid", flat=True))
    touched = Task.objects.filter(slots_free__lt=F("overlap"))
    held = Q(assignments__state__in=Assignment.HOLDING) | Q(
        assignments__submission__status=Submission.Status.ACCEPTED
    )
    over = sum(
        taken != overlap - free
        for taken, overlap, free in touched.annotate(
            taken=Count("assignments", filter=held)
        ).values_list("taken", "overlap", "slots_free")
    )
    twice = (
        Submission.objects.values("task", "annotator")
        .annotate(times=Count("pk"))
        .filter(times__gt=1)
        .count()
    )
    return {
        "duplicates": over + twice + len(acknowledged) - len(set(acknowledged)),
        "lost": len(set(acknowledged) - stored),
    }


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        print(json.dumps(fill(int(sys.argv[2]), int(sys.argv[3]))))
    elif sys.argv[1] == "dataset":
        print(dataset(sys.argv[2], int(sys.argv[3])))
    elif sys.argv[1] == "histories":
        print(json.dumps(histories_check(Path(sys.argv[2]))))
    else:
        print(json.dumps(check(json.loads(Path(sys.argv[2]).read_text()))))
