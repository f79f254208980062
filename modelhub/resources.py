"""How much memory and disk there is, how much is taken, and by which run.

The kernel ends what it likes once memory is out: the database, the site, another run. The runner
looks first (modelhub/runner.py). Linux; plain Python.
"""

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes in use and bytes there are, of the tightest control group this process is in, or the
    machine. What the kernel keeps of files and can drop at once is not in use."""

    used: int
    limit: int
    where: str  # "the machine", or "its control group"

    @property
    def share(self) -> float:
        return self.used / self.limit


def memory_read(*, proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> Memory:
    """The tightest of the machine and the control groups (version 2, or 1) around this process."""
    fields = {}
    for line in (proc / "meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        fields[name] = int(value.split()[0]) * 1024
    total = fields["MemTotal"]
    found = [Memory(used=total - fields["MemAvailable"], limit=total, where="the machine")]
    for folder in _group_folders(proc, groups):
        for limit_name, used_name, stem in (
            ("memory.max", "memory.current", ""),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
        ):
            # Absent in the root, "max" where there is no limit.
            with contextlib.suppress(OSError, ValueError):
                limit = int((folder / limit_name).read_text())
                used = int((folder / used_name).read_text())
                stat = dict(
                    line.split() for line in (folder / "memory.stat").read_text().splitlines()
                )
                # Active are pages read twice, such as a token set's that is read in place.
                used -= sum(int(stat.get(f"{stem}{one}_file", 0)) for one in ("inactive", "active"))
                if 0 < limit <= total:
                    found.append(Memory(used=used, limit=limit, where="its control group"))
    return max(found, key=lambda one: one.share)


def _group_folders(proc: Path, groups: Path) -> list[Path]:
    """This process's control group and those around it, as far as they can be seen from here."""
    found = [groups, groups / "memory"]  # in a container its own is mounted as the root
    with contextlib.suppress(OSError):
        for line in (proc / "self" / "cgroup").read_text().splitlines():
            number, controllers, name = line.split(":", 2)
            root = groups if number == "0" else groups / "memory"
            if number == "0" or controllers == "memory":
                folder = root / name.strip("/")
                while folder != root:
                    found.append(folder)
                    folder = folder.parent
    return found


def processes_memory(pids: list[int], *, proc: Path = Path("/proc")) -> int:
    """Bytes that these processes have for themselves, or share with each other, in memory."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError):  # it has ended meanwhile
            for line in (proc / str(pid) / "status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in ("RssAnon", "RssShmem"):
                    total += int(value.split()[0]) * 1024
    return total


def disk_full_reason(places: Mapping[str, Path | str]) -> str:
    """What is full, and how much of it is free now: of these places by name, the fuller."""
    usages = {
        name: shutil.disk_usage(place) for name, place in places.items() if Path(place).exists()
    }
    if not usages:
        return "disk full"
    name, usage = min(usages.items(), key=lambda one: one[1].free)
    return (
        f"disk full: {_mib(usage.free)} of {_mib(usage.total)} are free where {name} lie. "
        "Free some and retry: the run goes on from its newest checkpoint"
    )


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"


def gib(size: int) -> str:
    return f"{size / (1 << 30):.2f} GiB"
