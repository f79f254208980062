"""Starts the programs of runs: claim a run, start it, follow it, finish or fail it.

With modelhub/keeper.py, which does the same for servers, the only place that starts any.

The program is a child in a session of its own, so that it and what it starts can be ended
together. It dies with this process (modelhub/ml/rundir.py asks the kernel for that); what outlives
it all the same is ended before the next attempt. A program on several processes is started by
modelhub/ml/launch.py, whose ranks die with it: ending the launcher ends them. Linux.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError, close_old_connections, connection

from modelhub import storage
from modelhub.errors import ApplicationError
from modelhub.metrics_file import metric_lines
from modelhub.ml.configs import EXIT_DISK_FULL, EXIT_OUT_OF_MEMORY, EXIT_REFUSED, is_disk_full
from modelhub.ml.manifest import IntegrityError
from modelhub.ml.records import json_canonical
from modelhub.models import Artifact, Endpoint, Run
from modelhub.resources import Memory, disk_full_reason, gib, memory_read, processes_memory
from modelhub.services import runs
from modelhub.services.artifacts import artifact_register

logger = logging.getLogger(__name__)

_POLL_S = 0.1  # how soon the program's end is seen
_LOOK_S = 1.0  # how often metrics, progress and a cancellation are looked for
_STOP_GRACE_S = 10.0  # from SIGTERM to SIGKILL when the worker itself is stopped
_METRICS_BLOCK_BYTES = 1 << 20
_ERROR_TAIL_BYTES = 4096
_LEAST_MEMORY_SHARE = 0.1  # of all, that a run has if it is to be ended for want of memory
# Parts of a variable's name that mark a secret; a program is given none but those it asks for.
_SECRET_WORDS = {"KEY", "KEYS", "SECRET", "SECRETS", "TOKEN", "PASSWORD", "PASSWD", "CREDENTIALS"}
_SECRET_ENDS = ("_PASS", "_PWD", "_DSN")
# How the variables begin that open an object storage, by the scheme of its addresses. Each is a
# secret: a connection string and fsspec's JSON have keys in them, and no word that says so.
_STORE_KEYS = {
    "s3": ("AWS_", "FSSPEC_S3"),
    "gs": ("GOOGLE_", "FSSPEC_GS", "FSSPEC_GCS"),
    "gcs": ("GOOGLE_", "FSSPEC_GS", "FSSPEC_GCS"),
    "az": ("AZURE_", "FSSPEC_AZ", "FSSPEC_ABFS"),
    "abfs": ("AZURE_", "FSSPEC_AZ", "FSSPEC_ABFS"),
}
_STORE_PREFIXES = tuple({prefix for own in _STORE_KEYS.values() for prefix in own})
_SECRET_NAMES = {"RONDO_DATABASE_URL", "RONDO_BROKER_URL", "DATABASE_URL", "PGPASSWORD"}


def run_execute(
    *, run_id: int, owner: str, is_stopping: Callable[[], bool] = lambda: False
) -> None:
    """Claim the run, start its program, follow it to its end and settle the row. Blocks.

    Does nothing if the run is not to be had: not queued, or just claimed by another worker.
    `is_stopping` says that the worker has been asked to stop: the program is ended in good order
    and the run goes back to the queue, its attempt not counted.
    """
    run = runs.run_claim(run_id=run_id, owner=owner)
    if run is not None:
        _Attempt(run, is_stopping).work()


class _LostError(Exception):
    """Another worker owns the run, or nobody: whatever this one does with it no longer counts."""


class _StoppingError(Exception):
    """The worker has been asked to stop."""


class _MemoryError(Exception):
    """Memory is nearly out, and the run has a good part of it; says so in its message."""


class _Attempt:
    """One claim of a run, worked off by one call of `work`."""

    def __init__(self, run: Run, is_stopping: Callable[[], bool]) -> None:
        self.is_stopping = is_stopping
        self.run = run
        self.folder = storage.run_folder(run)
        self.process: subprocess.Popen[bytes] | None = None
        self.metrics_offset = run.metrics_offset
        self.progress: tuple[int, int, str] | None = None
        self.oom_kills = _oom_kills()

    def work(self) -> None:
        try:
            self._prepare()
            self.process = self._start()
            status = self._follow(self.process)
            if (self.folder / "result.json").exists():
                self._finish()
            else:
                self._fail(status)
        except _LostError:
            logger.warning("%s was lost to another worker", self.run)
        except _StoppingError:
            self._release()
        except _MemoryError as error:
            self._end()
            self._attempt_fail(str(error), final=True)
        except (KeyboardInterrupt, SystemExit):
            self._release()
            raise
        except DatabaseError:
            # The row cannot be written now; when its lease has run out, the reaper will.
            logger.exception("%s is left to the reaper", self.run)
        except Exception as error:
            logger.exception("%s could not be worked off", self.run)
            self._end()
            if is_disk_full(error):
                self._attempt_fail(f"{_disk_full()}\n\n{error}", final=True)
            else:
                self._attempt_fail(f"{type(error).__name__}: {error}")
        finally:
            self._end()

    def _prepare(self) -> None:
        """Write what the program reads, and clear away what a killed attempt has left."""
        storage.run_folder_make(self.run)
        processes_kill(self.folder / storage.LOG_NAME)
        inputs = self.folder / "inputs"
        inputs.mkdir(exist_ok=True, mode=0o700)
        described = {}
        for given in self.run.inputs.select_related("artifact"):
            link = inputs / given.role
            link.unlink(missing_ok=True)
            link.symlink_to(storage.artifact_folder(given.artifact))
            described[given.role] = {
                "path": f"inputs/{given.role}",
                "sha256": given.artifact.sha256,
            }
        value = {"program": self.run.program, "config": self.run.config, "inputs": described}
        temporary = self.folder / ".config.json.tmp"
        temporary.touch(mode=0o600)
        temporary.write_text(json_canonical(value))
        temporary.replace(self.folder / "config.json")

    def _start(self) -> subprocess.Popen[bytes]:
        module = settings.RUN_PROGRAMS[self.run.program]
        descriptor = os.open(
            self.folder / storage.LOG_NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600
        )
        with os.fdopen(descriptor, "wb") as log:
            now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
            log.write(f"--- attempt {self.run.fence}, {now} UTC, {self.run.owner}\n".encode())
            log.flush()
            return subprocess.Popen(
                launch_command(self.run, module, self.folder),
                cwd=settings.BASE_DIR,
                env=program_environment(self.run),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
            )

    def _follow(self, process: subprocess.Popen[bytes]) -> int:
        """Until the program has ended: its exit status (negative: the signal that ended it)."""
        look_at = beat_at = 0.0
        terminated_at: float | None = None
        while not _has_ended(process.pid):
            now = time.monotonic()
            if self.is_stopping():
                raise _StoppingError
            if now >= look_at:
                look_at = now + _LOOK_S
                self._metrics_read()
                if self._progress_read():
                    beat_at = now
                self._memory_check()
                if terminated_at is None and self._told(self._is_cancelled):
                    terminated_at = now
                    self._group_kill(signal.SIGTERM)
            if now >= beat_at:
                beat_at = now + settings.RUN_HEARTBEAT_S
                self._told(self._heartbeat)
            if terminated_at is not None and now > terminated_at + settings.RUN_CANCEL_GRACE_S:
                self._group_kill(signal.SIGKILL)
            time.sleep(_POLL_S)
        self._end()
        while self._metrics_read():
            pass
        self._progress_read()
        return process.wait()

    def _memory_check(self) -> None:
        """Raise _MemoryError before the kernel ends a process of its own choice.

        A run that has less than a tenth of the memory is not what fills it, and goes on.
        """
        limit, share = settings.RUN_MEMORY_BYTES, settings.RUN_MEMORY_SHARE
        if not share:
            return
        if limit:
            own = processes_memory(self._pids())
            memory = Memory(used=own, limit=limit, where="its RONDO_RUN_MEMORY_BYTES")
        else:
            memory = memory_read()
        if memory.share < share:
            return
        own = processes_memory(self._pids())
        if own < memory.limit * _LEAST_MEMORY_SHARE:
            return
        raise _MemoryError(
            f"out of memory: {gib(memory.used)} of {gib(memory.limit)} of {memory.where} are in "
            f"use, {gib(own)} of them by this run. It was ended before the kernel ends something "
            "else: give it smaller steps, or a larger machine"
        )

    def _pids(self) -> list[int]:
        return processes_printing_to(self.folder / storage.LOG_NAME)

    def _heartbeat(self) -> None:
        kept = runs.run_heartbeat(run_id=self.run.pk, fence=self.run.fence, progress=self.progress)
        if not kept:
            raise _LostError

    def _is_cancelled(self) -> bool:
        asked = runs.run_cancel_asked(run_id=self.run.pk, fence=self.run.fence)
        if asked is None:
            raise _LostError
        return asked

    def _told(self, ask: Callable[[], bool | None]) -> bool:
        """Ask the database; a database that is away for a while is no reason to stop a program."""
        try:
            if not connection.in_atomic_block:
                close_old_connections()
            return bool(ask())
        except (OperationalError, InterfaceError):
            logger.warning("%s: the database does not answer", self.run, exc_info=True)
            if not connection.in_atomic_block:
                connection.close()
            return False

    def _metrics_read(self) -> bool:
        """Keep the whole lines of metrics.jsonl that are new. Returns whether there were any."""
        try:
            with (self.folder / "metrics.jsonl").open("rb") as file:
                if file.seek(0, os.SEEK_END) < self.metrics_offset:
                    self.metrics_offset = 0  # another file than the one that was read
                file.seek(self.metrics_offset)
                block = file.read(_METRICS_BLOCK_BYTES)
        except FileNotFoundError:
            return False
        whole = block.rfind(b"\n") + 1
        if not whole:
            return False
        points, rewound_to = metric_lines(block[:whole].splitlines())
        offset = self.metrics_offset + whole

        def add() -> bool:
            added = runs.run_metrics_add(
                run_id=self.run.pk,
                fence=self.run.fence,
                points=points,
                offset=offset,
                rewound_to=rewound_to,
            )
            if not added:
                raise _LostError
            return True

        if self._told(add):
            self.metrics_offset = offset
            return True
        return False

    def _progress_read(self) -> bool:
        """Look at progress.json. Returns whether it says something new."""
        try:
            value = json.loads((self.folder / "progress.json").read_text())
            progress = (int(value["done"]), int(value["total"]), str(value["unit"]))
        except (OSError, ValueError, KeyError, TypeError):
            return False
        is_new = progress != self.progress
        self.progress = progress
        return is_new

    def _finish(self) -> None:
        """The program renamed its result into place: store the outputs, then settle the row."""
        self._told(self._heartbeat)
        try:
            payload = json.loads((self.folder / "result.json").read_text())
            outputs = {
                str(role): self._output_store(str(role), described)
                for role, described in payload["outputs"].items()
            }
            result = dict(payload["result"])
        except (IntegrityError, ApplicationError, ValueError, KeyError, TypeError) as error:
            # Another attempt must not find a result that cannot be used.
            (self.folder / "result.json").unlink()
            self._attempt_fail(f"the result cannot be used: {error}")
            return
        try:
            kept = runs.run_finish(
                run_id=self.run.pk, fence=self.run.fence, outputs=outputs, result=result
            )
        except ApplicationError as error:
            self._attempt_fail(f"what follows the run was refused: {error.message}", final=True)
            return
        if not kept:
            raise _LostError
        self.run.refresh_from_db()
        if self.run.status == Run.Status.SUCCEEDED:
            self._outputs_link(outputs)

    def _output_store(self, role: str, described: Any) -> Artifact:
        """Put one output into the store, renewing the lease meanwhile: weights take a while."""
        folder = self.folder / "outputs" / role
        if not runs.ROLE_NAME.fullmatch(role) or described["path"] != f"outputs/{role}":
            raise IntegrityError(f"output {role!r:.80} lies outside the run's outputs")
        with ThreadPoolExecutor(max_workers=1) as pool:
            putting = pool.submit(storage.content_put, folder=folder, link=True)
            while not putting.done():
                with contextlib.suppress(TimeoutError):
                    putting.exception(timeout=settings.RUN_HEARTBEAT_S)
                self._told(self._heartbeat)
            content = putting.result()
        if content.sha256 != described["sha256"]:
            raise IntegrityError(f"output {role} is not what the program wrote")
        return artifact_register(content=content, kind=described["kind"])

    def _outputs_link(self, outputs: dict[str, Artifact]) -> None:
        """Let the run's outputs be links into the store, so that nobody writes to stored files."""
        for role, artifact in outputs.items():
            folder = self.folder / "outputs" / role
            aside = folder.with_name(f".{role}.stored")
            with contextlib.suppress(OSError):
                folder.rename(aside)
                folder.symlink_to(storage.artifact_folder(artifact))
                storage.folder_remove(aside)

    def _fail(self, status: int) -> None:
        tail = storage.run_log_tail(self.run, max_bytes=_ERROR_TAIL_BYTES)
        if status == EXIT_REFUSED:
            refusal = [line for line in tail.splitlines() if line.startswith("refused: ")]
            self._attempt_fail(refusal[-1] if refusal else tail, final=True)
            return
        if status == EXIT_DISK_FULL:
            self._attempt_fail(f"{_disk_full()}\n\n{tail}", final=True)
            return
        out_of_memory = status == EXIT_OUT_OF_MEMORY or (
            status == -signal.SIGKILL and _oom_kills() > self.oom_kills
        )
        if out_of_memory:
            reason = "out of memory: give the run smaller steps, or a larger machine"
        elif status < 0:
            reason = f"the program was ended by {signal.Signals(-status).name}"
        elif status == 0:
            reason = "the program ended without a result"
        else:
            reason = f"the program ended with exit status {status}"
        self._attempt_fail(f"{reason}\n\n{tail}", final=out_of_memory)

    def _attempt_fail(self, reason: str, *, final: bool = False) -> None:
        runs.run_attempt_fail(run_id=self.run.pk, fence=self.run.fence, reason=reason, final=final)

    def _release(self) -> None:
        """Let the program end in good order; it goes on from its checkpoint another time."""
        if self.process is not None and self.process.returncode is None:
            self._group_kill(signal.SIGTERM)
            deadline = time.monotonic() + _STOP_GRACE_S
            while time.monotonic() < deadline and not _has_ended(self.process.pid):
                time.sleep(_POLL_S)
        self._end()
        runs.run_release(run_id=self.run.pk, fence=self.run.fence)

    def _end(self) -> None:
        """End the program and what it started, now.

        The group is named by the program's id, which is taken until the program is waited for.
        """
        if self.process is not None and self.process.returncode is None:
            self._group_kill(signal.SIGKILL)
            self.process.wait()
            if self.run.launcher != "python":
                # Ranks lead sessions of their own. The kernel ends them with their launcher; here
                # nobody goes on before it has.
                processes_kill(self.folder / storage.LOG_NAME)

    def _group_kill(self, number: signal.Signals) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)


def launch_command(run: Run, module: str, folder: Path) -> list[str]:
    """The command line of a run's program, behind its launcher if it has one."""
    if run.launcher == "python":
        return [sys.executable, "-m", module, str(folder)]
    launch = [sys.executable, "-m", "modelhub.ml.launch"]
    return [*launch, run.launcher, str(run.processes), run.strategy, module, str(folder)]


def program_environment(run: Run) -> dict[str, str]:
    """The environment of a run's program: this process's without its secrets.

    Kept are the key of an endpoint, if an administrator has registered the address and the
    variable together (a configuration alone could send any secret anywhere), the hub's token for
    an import from the hub, an object storage's keys for an import of texts from there, and a Ray
    cluster's for a run on it. Only an import from the hub may reach the hub, unless this process's
    HF_HUB_OFFLINE says otherwise.
    """
    asked = _store_keys(run)
    # A corpus has a source too, which whoever imports it may call "hub".
    from_hub = run.program == "import_model" and run.config.get("source") == "hub"
    if from_hub:
        asked |= {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}
    if run.launcher == "ray":
        asked |= {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
    variable = run.config.get("endpoint_key_variable")
    if (
        variable
        and not variable.startswith("RONDO_")
        and Endpoint.objects.filter(
            base_url=run.config.get("endpoint_url"), api_key_variable=variable
        )
    ):
        asked.add(variable)
    kept = environment_without_secrets(asked=asked)
    if from_hub:
        kept.setdefault("HF_ENDPOINT", settings.MODEL_HUB_ENDPOINT)  # where hub_push pushes to
    else:
        kept.setdefault("HF_HUB_OFFLINE", "1")
    return kept | {"RONDO_PARENT_PID": str(os.getpid()), "PYTHONUNBUFFERED": "1"}


def _store_keys(run: Run) -> set[str]:
    """The variables that open the object storage whose texts a run brings in, by their names."""
    if run.program != "import_corpus":
        return set()
    schemes = {
        one.partition("://")[0].lower() for one in run.config.get("locations", ()) if "://" in one
    }
    prefixes = tuple(
        prefix for scheme in schemes & _STORE_KEYS.keys() for prefix in _STORE_KEYS[scheme]
    )
    return {name for name in os.environ if prefixes and name.upper().startswith(prefixes)}


def environment_without_secrets(*, asked: Collection[str] = ()) -> dict[str, str]:
    """This process's environment without its secrets, but for those `asked` for by name."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in asked or not _is_secret(name.upper())
    }
    # A program shares its machine with the site. Threads that spin while they wait for each other
    # made reward training five times slower as soon as anything else ran; asleep they cost nothing.
    kept.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return kept


def _is_secret(name: str) -> bool:
    return (
        name in _SECRET_NAMES
        or name.endswith(_SECRET_ENDS)
        or name.startswith(_STORE_PREFIXES)
        or not _SECRET_WORDS.isdisjoint(name.split("_"))
    )


def _disk_full() -> str:
    return disk_full_reason({"runs": settings.RUNS_DIR, "artifacts": settings.ARTIFACTS_DIR})


def processes_printing_to(log: Path) -> list[int]:
    """The processes on this machine that print to a log, but for this one.

    A recorded process id could by now be somebody else's; an open log cannot.
    """
    name, found = str(log.resolve()), []
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            prints_here = any(str((folder / "fd" / fd).readlink()) == name for fd in "12")
        except OSError:
            continue  # it has ended, or is another user's
        if prints_here and pid != os.getpid():
            found.append(pid)
    return found


def processes_kill(log: Path) -> None:
    """End every process on this machine that prints to this log: what an earlier attempt left."""
    for pid in processes_printing_to(log):
        logger.warning("process %d, left by an earlier attempt, is ended", pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _has_ended(pid: int) -> bool:
    """Whether the child has ended, leaving it to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _oom_kills() -> int:
    """How often the kernel has killed for want of memory: in this control group, or at all."""
    for path in (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat")):
        with contextlib.suppress(OSError, ValueError):
            for line in path.read_text().splitlines():
                name, _, number = line.partition(" ")
                if name == "oom_kill":
                    return int(number)
    return 0
