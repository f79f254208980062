"""A worker process for tests: works off one run of the test's database, then ends."""

import json
import os
import subprocess
import sys

from django.conf import settings
from django.db import connection

SETTINGS = (
    "ARTIFACTS_DIR",
    "RUNS_DIR",
    "RUN_PROGRAMS",
    "RUN_LEASE_S",
    "RUN_HEARTBEAT_S",
    "RUN_CANCEL_GRACE_S",
)


def worker_start(run_id: int) -> "subprocess.Popen[bytes]":
    """Start a process that executes the run, with the test's database and folders."""
    values = {name: getattr(settings, name) for name in SETTINGS}
    described = {"run_id": run_id, "settings": values, "database": connection.settings_dict["NAME"]}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.modelhub.worker", json.dumps(described, default=str)],
        cwd=settings.BASE_DIR,
    )


def main() -> None:
    described = json.loads(sys.argv[1])
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    settings.DATABASES["default"]["NAME"] = described["database"]
    for name, value in described["settings"].items():
        setattr(settings, name, value)
    import django

    django.setup()
    from modelhub.runner import run_execute

    run_execute(run_id=described["run_id"], owner=f"worker:{os.getpid()}")


if __name__ == "__main__":
    main()
