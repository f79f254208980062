"""Keeps this machine's servers: starts what is wanted, tells what is ready, ends what is not.

The rows say what is wanted. One keeper a machine makes it so, a thread of a worker that runs
programs (modelhub/tasks.py). A server outlives a keeper that is killed: the next one takes it over,
if a process of that id that started at that moment is still there, or says that it is dead.
A keeper that stops in good order ends its servers first. Linux.
"""

import contextlib
import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

import httpx
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError, close_old_connections, connection
from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.translation import gettext

from modelhub import storage
from modelhub.ml.hardware import has_gpu
from modelhub.ml.serve import HOST, LOOKED_AFTER_NAME, Served, served_write
from modelhub.models import ModelVersion, Server
from modelhub.runner import environment_without_secrets, processes_kill
from modelhub.selectors.servers import served_name, servers_live
from modelhub.services import servers

logger = logging.getLogger(__name__)

_LOOK_S = 1.0
_SEEN_S = 10.0  # how often the row is told that its server is looked after, at the least
_STOP_GRACE_S = 15.0  # from SIGTERM to SIGKILL
_ERROR_TAIL_BYTES = 4096
_CGROUP = Path("/sys/fs/cgroup")


class Keeper(threading.Thread):
    """Looks after this machine's servers until `stop` is called."""

    def __init__(self, *, host: str = "") -> None:
        super().__init__(name="servers", daemon=True)
        self.host = host or socket.gethostname()
        self._stopping = threading.Event()
        self._own: dict[int, subprocess.Popen[bytes]] = {}  # those it has started itself
        self._ending: dict[int, float] = {}  # since when
        self._kept: dict[int, Path] = {}  # the folders of those it looks after

    def run(self) -> None:
        lock = self._lock()
        if lock is None:
            return
        with lock:
            while not self._stopping.wait(_LOOK_S):
                try:
                    close_old_connections()
                    self.look()
                except DatabaseError:
                    logger.warning("the database does not answer", exc_info=True)
                    connection.close()
                except Exception:
                    logger.exception("the servers could not be looked after")
            self.end_all()
            connection.close()

    def stop(self) -> None:
        """End every server of this machine and then the thread; wait for that."""
        self._stopping.set()
        self.join(_STOP_GRACE_S + 5)

    def _lock(self) -> IO[bytes] | None:
        """Wait to be the only keeper of this machine; None if stopped meanwhile."""
        folder = Path(settings.SERVERS_DIR)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / f".keeper-{self.host}.lock").open("wb")
        while not self._stopping.is_set():
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._stopping.wait(_LOOK_S)
            else:
                return lock
        lock.close()
        return None

    def look(self) -> None:
        """Look at every live server once, in the order they were asked for."""
        for folder in self._kept.values():  # first: the database may be away for a while
            with contextlib.suppress(FileNotFoundError):
                os.utime(folder / LOOKED_AFTER_NAME)
        live = list(servers_live())
        for pk in self._kept.keys() - {one.pk for one in live}:
            self._drop(pk)
        for server in live:
            try:
                self._look_at(server)
            except (OperationalError, InterfaceError):
                raise  # the others would fare no better
            except Exception:
                logger.exception("%s could not be looked after", server)

    def end_all(self) -> None:
        """End every server of this machine, because the site's worker ends."""
        mine = [one for one in servers_live() if one.host == self.host]
        for server in mine:
            self._signal(server, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_GRACE_S
        while time.monotonic() < deadline and any(self._is_alive(one) for one in mine):
            time.sleep(0.1)
        for server in mine:
            self._end(server, gettext("It ended with the site's worker."))

    def _look_at(self, server: Server) -> None:
        if server.status == Server.Status.WAITING:
            if server.stop_asked_at is None and servers.server_claim(server=server, host=self.host):
                try:
                    self._begin(server)
                except Exception as error:
                    logger.exception("%s could not be started", server)
                    self._end(server, f"{type(error).__name__}: {error}")
        elif server.host == self.host:
            self._look_after(server)

    def _begin(self, server: Server) -> None:
        """Start a server that was claimed, if there is room for it."""
        starting = [
            one.memory_bytes
            for one in servers_live().filter(host=self.host, status=Server.Status.STARTING)
            if one.pk != server.pk
        ]
        free = memory_free_bytes() - sum(starting)  # these have not taken all of theirs yet
        if not has_gpu() and server.memory_bytes > free:
            told = {
                "wanted": filesizeformat(server.memory_bytes),
                "free": filesizeformat(max(0, free)),
                "host": self.host,
            }
            reason = gettext(
                "It takes about %(wanted)s of memory, and %(host)s has %(free)s free: stop another "
                "server or ask for a shorter context."
            )
            servers.server_end(server=server, error=reason % told)
            return
        folder = storage.server_folder_make(server)
        (folder / LOOKED_AFTER_NAME).touch(mode=0o600)
        port = port_free()
        served_write(folder, served_of(server, port=port))
        process = self._own[server.pk] = server_launch(folder)
        self._kept[server.pk] = folder
        mark = process_mark(process.pid)
        if not servers.server_started(server=server, process=mark, port=port):
            self._end(server, "")

    def _look_after(self, server: Server) -> None:
        if not self._is_alive(server):
            self._end(server, "" if server.stop_asked_at else self._reason(server))
            return
        if server.pk not in self._kept:  # taken over
            self._kept[server.pk] = storage.server_folder(server)
            with contextlib.suppress(FileNotFoundError):
                os.utime(self._kept[server.pk] / LOOKED_AFTER_NAME)
        if server.stop_asked_at is not None:
            if server.pk not in self._ending:  # asked once: it is ending in its own time
                self._ending[server.pk] = time.monotonic()
                self._signal(server, signal.SIGTERM)
            elif time.monotonic() - self._ending[server.pk] > _STOP_GRACE_S:
                self._signal(server, signal.SIGKILL)
            return
        often_s = min(_SEEN_S, settings.SERVER_LEASE_S / 4)
        if server.seen_at is None or (timezone.now() - server.seen_at).total_seconds() > often_s:
            servers.server_seen(server=server)
        if server.status == Server.Status.STARTING and server_answers(server):
            servers.server_ready(server=server)

    def _reason(self, server: Server) -> str:
        tail = storage.server_log_tail(server, max_bytes=_ERROR_TAIL_BYTES)
        process = self._own.get(server.pk)
        if process is None:
            told = gettext("It ended while no worker looked after it.")
        elif process.returncode is not None and process.returncode < 0:
            name = signal.Signals(-process.returncode).name
            told = gettext("It was ended by %(signal)s.") % {"signal": name}
        else:
            told = gettext("It ended by itself.")
        return f"{told}\n\n{tail}".strip()

    def _end(self, server: Server, error: str) -> None:
        """Leave nothing of it behind, and say so."""
        self._signal(server, signal.SIGKILL)
        processes_kill(storage.server_folder(server) / storage.LOG_NAME)
        process = self._own.pop(server.pk, None)
        if process is not None:
            process.wait()
        self._ending.pop(server.pk, None)
        self._kept.pop(server.pk, None)
        servers.server_end(server=server, error=error)

    def _drop(self, pk: int) -> None:
        """Leave nothing of one that was ended elsewhere, while this keeper was not heard of."""
        processes_kill(self._kept.pop(pk) / storage.LOG_NAME)
        process = self._own.pop(pk, None)
        if process is not None:
            process.kill()
            process.wait()
        self._ending.pop(pk, None)

    def _is_alive(self, server: Server) -> bool:
        process = self._own.get(server.pk)
        if process is not None:
            return process.poll() is None
        pid = server.process.partition(":")[0]
        return pid.isdecimal() and process_mark(int(pid)) == server.process

    def _signal(self, server: Server, number: signal.Signals) -> None:
        """To the server's launcher and all it has started: it leads their group."""
        if self._is_alive(server):
            own = self._own.get(server.pk)  # known before the row is
            pid = own.pid if own is not None else int(server.process.partition(":")[0])
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)


def served_of(server: Server, *, port: int) -> Served:
    """What the launcher reads."""
    version = server.version
    is_adapter = version.role == ModelVersion.Role.ADAPTER
    base = version.parent.artifact if is_adapter and version.parent else None
    return Served(
        name=served_name(version),
        model=str(storage.artifact_folder(version.artifact)),
        sha256=version.artifact.sha256,
        base=str(storage.artifact_folder(base)) if base else "",
        base_sha256=base.sha256 if base else "",
        port=port,
        context_tokens=server.context_tokens,
        cache_bytes=server.cache_bytes,
        module=settings.SERVER_MODULE,
        lease_s=settings.SERVER_LEASE_S,
    )


def server_launch(folder: Path) -> "subprocess.Popen[bytes]":
    """Start the launcher, in a session of its own: it is to outlive this process."""
    descriptor = os.open(folder / storage.LOG_NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "modelhub.ml.serve", str(folder)],
            cwd=settings.BASE_DIR,
            env=environment_without_secrets(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
        )


def server_answers(server: Server) -> bool:
    """Whether what listens on the server's port is the server: it names the version it serves."""
    try:
        reply = httpx.get(f"http://{HOST}:{server.port}/v1/models", timeout=2.0, trust_env=False)
        named = {one["id"] for one in reply.json()["data"]} if reply.status_code == 200 else set()
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return False
    return served_name(server.version) in named


def port_free() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def process_mark(pid: int) -> str:
    """A process's id and when it started, which no later one shares; "" if there is none.

    The start is in clock ticks since the machine's, which the mark names too (proc(5), stat).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        return ""
    # The name in parentheses may hold spaces and parentheses: what follows the last one is plain.
    state, *rest = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else f"{pid}:{rest[18]}:{boot[:8]}"


def memory_free_bytes() -> int:
    """What this machine, or the control group this process is in, could still give."""
    free = 0
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) << 10
    with contextlib.suppress(OSError, ValueError, KeyError):
        most = int((_CGROUP / "memory.max").read_text())  # "max" is no number
        told = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        taken = int((_CGROUP / "memory.current").read_text()) - int(told["inactive_file"])
        free = min(free, most - taken)
    return free
