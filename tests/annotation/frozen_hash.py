"""The same judgements put into another database by another process, and frozen there.

python -m tests.annotation.frozen_hash ROWS.json ORDER
"""

import json
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def hostile_rows() -> list[dict[str, Any]]:
    """Judgements full of what text handling gets wrong."""
    texts = ["İstanbul ist schön", "a\u2028b\u0085c", "e\u0301 é", "👩‍👧 \r\n", "", '"\\']
    rows = []
    for n, text in enumerate(texts):
        candidates = {f"{n}{c}".ljust(32, "c"): f"{text} {c}" for c in "fa1"}
        best, *rest = sorted(candidates)
        rows.append(
            {
                "id": f"{9 - n}".ljust(32, "d"),
                "annotator": f"{n}".ljust(32, "a"),
                "prompt_id": f"{n}".ljust(32, "9"),
                "messages": [{"content": text or "?", "role": "user"}],
                "tags": ["b", "ä"],
                "candidates": candidates,
                "tiers": [[best], rest],
                "active_s": 0.1 + n / 3,
                "rationale": text,
            }
        )
    return rows


def schema_copy(path: Path) -> None:
    """Put the tables of the test database (SQLite, still empty) into a file: migrating is slow."""
    from django.db import connection

    connection.ensure_connection()
    target = sqlite3.connect(path)
    target.executescript("".join(connection.connection.iterdump()))
    target.close()


def frozen_hash(source: Path, *, order: int, data_dir: Path, environment: Mapping[str, str]) -> str:
    """The sha256 of the rows of `source`, put elsewhere in an order of their own and frozen."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(source), str(order)],
        cwd=ROOT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "RONDO_DATA_DIR": str(data_dir),
            **environment,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def main(source: str, order: str) -> None:
    import django

    django.setup()
    from django.contrib.auth.models import User
    from django.core.management import call_command

    from annotation import models
    from annotation.services.datasets import preference_dataset_freeze
    from tests import builders

    call_command("migrate", verbosity=0)
    rows = json.loads(Path(source).read_text())
    random.Random(int(order)).shuffle(rows)
    project = builders.make_project()
    version = builders.make_version()
    version.uid = "e" * 32
    version.save()
    batch = builders.make_batch(project, version=version)
    batch.uid = "b" * 32
    batch.save()
    for row in rows:
        member = models.Membership.objects.create(
            project=project,
            user=User.objects.create(username=row["id"]),
            uid=row["annotator"],
        )
        prompt = models.Prompt.objects.create(
            project=project,
            uid=row["prompt_id"],
            messages=row["messages"],
            content_hash=row["prompt_id"],
            group_hash=row["prompt_id"],
            split="train",
            tags=row["tags"],
        )
        task = models.Task.objects.create(
            project=project, kind="ranking", prompt=prompt, batch=batch, overlap=1, slots_free=0
        )
        for index, (uid, text) in enumerate(row["candidates"].items()):
            candidate = models.Candidate.objects.create(
                uid=uid,
                prompt=prompt,
                batch=batch,
                index=index,
                text=text,
                version=version,
                finish_reason="stop",
                token_count=3,
            )
            models.TaskCandidate.objects.create(task=task, candidate=candidate, position=index)
        assignment = models.Assignment.objects.create(
            task=task,
            annotator=member,
            state=models.Assignment.State.SUBMITTED,
            lease_until="2026-01-01T00:00:00Z",
            shuffle_seed=1,
        )
        submission = models.Submission.objects.create(
            uid=row["id"],
            assignment=assignment,
            task=task,
            annotator=member,
            status=models.Submission.Status.ACCEPTED,
            shown_order=sorted(row["candidates"]),
            active_s=row["active_s"],
            rationale=row["rationale"],
        )
        models.Ranking.objects.create(submission=submission, tiers=row["tiers"])
    print(preference_dataset_freeze(project=project).artifact.sha256)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
