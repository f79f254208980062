"""`manage.py hub_gc`: what the hub could do without, and with --delete, away with it."""

from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.template.defaultfilters import filesizeformat

from modelhub.selectors.garbage import garbage_plan
from modelhub.services.garbage import garbage_collect


class Command(BaseCommand):
    help = "Name unused versions, weights and files, and what they weigh; remove them if told to."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--delete", action="store_true", help="remove them; else only names")
        parser.add_argument(
            "--days", type=float, default=7, help="younger ones stay (default: 7 days)"
        )

    def handle(self, *args: Any, delete: bool, days: float, **options: Any) -> None:
        older_than = timedelta(days=days)
        if delete:
            freed = 0
            for name, size in garbage_collect(older_than=older_than, actor=None):
                self.stdout.write(f"removed {name}, {filesizeformat(size)}")
                freed += size
            self.stdout.write(f"{filesizeformat(freed)} are free.")
            return
        plan = garbage_plan(older_than=older_than)
        for version in plan.versions:
            self.stdout.write(f"{version} ({version.get_role_display()})")
        for artifact in plan.artifacts:
            self.stdout.write(f"{artifact}, {filesizeformat(artifact.size_bytes)}")
        for name, size in plan.folders:
            self.stdout.write(f"files {name[:12]} that nothing names, {filesizeformat(size)}")
        self.stdout.write(f"{filesizeformat(plan.freed_bytes)} would be free: --delete does it.")
