"""The arrows between the rooms, and what the web side never loads."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRAINING_LIBRARIES = ("torch", "transformers", "trl", "vllm", "peft", "datasets", "accelerate")


def python_modules_after(code: str, tmp_path: Path) -> set[str]:
    """The top-level modules a fresh interpreter holds after running `code`."""
    report = "\nimport sys; print('MODULES', *{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code + report],
        cwd=ROOT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "RONDO_DATA_DIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("MODULES")]
    return set(line.split()[1:])


def test_the_import_contracts_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_web_process_never_imports_a_training_library(tmp_path: Path) -> None:
    modules = python_modules_after(
        "import config.wsgi\n"
        "from django.urls import get_resolver\n"
        "def walk(resolver):\n"
        "    for pattern in resolver.url_patterns:\n"
        "        if hasattr(pattern, 'url_patterns'): walk(pattern)\n"
        "        else: pattern.callback\n"
        "walk(get_resolver())",
        tmp_path,
    )
    assert "annotation" in modules
    assert modules.isdisjoint(TRAINING_LIBRARIES)


def test_the_celery_worker_never_imports_a_training_library(tmp_path: Path) -> None:
    modules = python_modules_after(
        "from config.celery import app\n"
        "import django; django.setup()\n"
        "app.loader.import_default_modules()\n"
        "assert 'modelhub.tasks.execute_run' in app.tasks, sorted(app.tasks)",
        tmp_path,
    )
    assert modules.isdisjoint(TRAINING_LIBRARIES)


def test_manage_check_never_imports_a_training_library(tmp_path: Path) -> None:
    modules = python_modules_after(
        "import django; django.setup()\n"
        "from django.core.management import call_command\n"
        "call_command('check')",
        tmp_path,
    )
    assert modules.isdisjoint(TRAINING_LIBRARIES)


def test_a_program_runs_without_django(tmp_path: Path) -> None:
    modules = python_modules_after("import modelhub.ml.rundir, alignment.ml.configs", tmp_path)
    assert "django" not in modules
    assert "celery" not in modules
