"""`manage.py up`: the whole site in one terminal."""

import fcntl
import signal
import socket
import sys
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.urls import reverse
from rich.console import Console
from rich.text import Text

from annotation.services.operator import OPERATOR, operator_ensure
from annotation.services.sample import sample_project_ensure
from annotation.services.sign_in import sign_in_link_create
from config.processes import Process, Supervisor


class Command(BaseCommand):
    help = "Start web, workers and scheduler in this terminal; Ctrl-C stops them all."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--web-workers", type=int, default=2)

    def handle(self, *args: Any, port: int, web_workers: int, **options: Any) -> None:
        console = Console(highlight=False)
        # Held until this process ends: two sites on one data folder would fight over the broker's.
        lock = (settings.DATA_DIR / "up.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CommandError(f"Rondo already runs on {settings.DATA_DIR}.") from error
        port_check(port)
        (settings.DATA_DIR / "broker" / "control").mkdir(parents=True, exist_ok=True, mode=0o700)
        (settings.DATA_DIR / "import").mkdir(exist_ok=True, mode=0o700)
        call_command("migrate", verbosity=0)
        call_command("collectstatic", interactive=False, verbosity=0)
        operator = operator_ensure()
        sample_project_ensure(owner=operator)

        def say(name: str, line: str) -> None:
            # As text, not as markup: a request for "/[/x]" in the log is no closing tag.
            console.print(Text.assemble((f"{name:>9}", "dim"), " ", line), soft_wrap=True)

        supervisor = Supervisor(processes_of_site(port=port, web_workers=web_workers), say)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: setattr(supervisor, "stopping", True))
        supervisor.start()
        address = f"http://127.0.0.1:{port}"
        link = address + reverse("sign_in_link", args=[sign_in_link_create(user=operator)])
        console.print(
            f"\n[bold]Rondo[/bold] is at [bold]{address}[/bold]\n"
            f"Sign in as {OPERATOR}, once, within a day:\n  {link}\n"
            "More people: open a project, then People. Ctrl-C stops everything.\n",
            soft_wrap=True,
        )
        supervisor.watch()
        console.print("\nStopping…")
        supervisor.stop()
        console.print("Stopped.")


def processes_of_site(*, port: int, web_workers: int) -> list[Process]:
    """The processes of a one-machine site.

    The program worker runs one program at a time and is its parent (pool `solo`): if it dies, the
    kernel takes the program with it, so no orphan works beside the next attempt.
    """
    python = sys.executable
    celery = [python, "-m", "celery", "-A", "config", "--quiet"]
    worker = [*celery, "worker", "--loglevel", "WARNING", "--without-mingle", "--without-gossip"]
    return [
        Process(
            "web",
            [
                *(python, "-m", "gunicorn", "config.wsgi", "-c", "python:config.gunicorn"),
                *("--bind", f"127.0.0.1:{port}", "--workers", str(web_workers), "--threads", "8"),
                *("--worker-class", "gthread", "--timeout", "60", "--log-level", "warning"),
                *(
                    "--max-requests",
                    "20000",
                    "--max-requests-jitter",
                    "2000",
                    "--no-control-socket",
                ),
            ],
        ),
        Process(
            "worker",
            [*worker, "-Q", "default", "-P", "solo", "-n", "default@%h"],
            orphan_signal=signal.SIGKILL,
        ),
        Process(
            "programs",
            [*worker, "-Q", "cpu,gpu", "-P", "solo", "-n", "programs@%h"],
            orphan_signal=signal.SIGKILL,
        ),
        Process("scheduler", [*celery, "beat", "--loglevel", "WARNING", "--pidfile="]),
    ]


def port_check(port: int) -> None:
    """Raise CommandError, with what to do, if something listens on the port already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise CommandError(
                f"Port {port} is taken; choose another: make up PORT=8001"
            ) from error
