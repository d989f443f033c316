"""What this process may use (memory and cores of its container or machine), and which processes still live."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_CGROUP: Final = Path("/proc/self/cgroup")
_OWN_PAGES: Final = Path("/proc/self/statm")
"""Pages of addresses that this process has, then pages of memory."""
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_UNLIMITED: Final = 1 << 60
"""Version 1 of cgroups writes "no limit" as a number near 2^63."""


def memory_limit() -> int:
    """Return how many bytes this process may use.

    The least of the machine's memory, the limits of its cgroup and of those above it (versions 1 and 2), and RLIMIT_AS.
    """
    limits = [_PAGE * os.sysconf("SC_PHYS_PAGES"), *_address_space()]
    for folder in _cgroup_folders("memory"):
        limits.extend(_numbers(folder / "memory.max")[:1])
        limits.extend(_numbers(folder / "memory.limit_in_bytes")[:1])
    return min(limit for limit in limits if limit < _UNLIMITED)


def memory_left() -> int:
    """Return how many bytes more this process may use; of RLIMIT_AS what is reserved is taken, used or not."""
    reserved, resident = ([*_numbers(_OWN_PAGES), 0, 0])[:2]
    available = [memory_limit() - resident * _PAGE, *(limit - reserved * _PAGE for limit in _address_space())]
    return max(min(available), 0)


def cores() -> int:
    """Return how many cores this process may keep busy: its affinity, and the processor quota of its cgroups."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    counts = [own]
    for folder in _cgroup_folders("cpu"):
        quota = _numbers(folder / "cpu.max")
        if len(quota) < 2:
            quota = [*_numbers(folder / "cpu.cfs_quota_us")[:1], *_numbers(folder / "cpu.cfs_period_us")[:1]]
        if len(quota) == 2 and quota[0] > 0 and quota[1] > 0:
            counts.append(-(-quota[0] // quota[1]))
    return max(min(counts), 1)


def _cgroup_folders(controller: str) -> Iterator[Path]:
    """Yield the folders of this process' cgroup and of those above it.

    A container sees its own cgroup as the root, although `/proc/self/cgroup` of version 1 may name a path outside.
    """
    try:
        lines = _OWN_CGROUP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _CGROUPS / controller if controllers else _CGROUPS
        folder = root / path.strip("/")
        for above in (folder, *folder.parents):
            yield above
            if above == root:
                break


def _address_space() -> list[int]:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return [] if limit == resource.RLIM_INFINITY else [limit]


def _numbers(file: Path) -> list[int]:
    """Return the numbers of a file; an empty list if there is none, or it says `max`."""
    try:
        words = file.read_text().split()
    except OSError:
        return []
    return [int(word) for word in words] if all(word.lstrip("-").isdigit() for word in words) else []


@cache
def machine() -> str:
    """Name this machine and process namespace: only there does a process id mean something."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    facts = [socket.gethostname(), boot.read_text().strip() if boot.exists() else ""]
    facts.append(os.readlink(namespace) if namespace.exists() else "")  # noqa: PTH115
    return "|".join(facts)


def process_start(pid: int) -> str:
    """Return when a process of this machine started; `alive` where there is no `/proc`, "" if there is no process."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            fields = stat.read_text().rsplit(")", 1)[-1].split()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        return "" if fields[0] == "Z" else fields[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "alive"
    return "alive"
