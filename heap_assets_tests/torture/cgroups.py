"""Cgroups with a limit of memory, of version 1 or 2: made by systemd, or as folders where those may be made."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_CGROUPS = Path("/sys/fs/cgroup")
_SYSTEMD = ("systemd-run", "--user", "--scope", "--quiet", "--collect", "-p", "MemorySwapMax=0", "-p")
_JOIN = 'echo $$ > "$0" && exec "$@"'


@contextmanager
def limited_to(megabytes: int) -> Iterator[Sequence[str]]:
    """Give the command that runs another within so much memory, without swap; skip, saying what was not tested."""
    size = megabytes << 20
    if (command := _by_systemd(size)) is not None:
        yield command
        return
    folder = _version_1(size) or _version_2(size)
    if folder is None:
        pytest.skip("no cgroup can be made here: what a limit of memory does was NOT tested, only RLIMIT_AS")
    try:
        yield ("sh", "-c", _JOIN, str(folder / "cgroup.procs"))
    finally:
        _remove(folder)


def _by_systemd(size: int) -> Sequence[str] | None:
    command = (*_SYSTEMD, f"MemoryMax={size}")
    if shutil.which(command[0]) is None or not (_CGROUPS / "cgroup.controllers").exists():
        return None
    return command if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0 else None


def _version_1(size: int) -> Path | None:
    return _made(_CGROUPS / "memory", {"memory.limit_in_bytes": size, "memory.swappiness": 0})


def _version_2(size: int) -> Path | None:
    with suppress(OSError):  # is refused where the controller is handed down already, or this is not the root
        (_CGROUPS / "cgroup.subtree_control").write_text("+memory")
    return _made(_CGROUPS, {"memory.max": size, "memory.swap.max": 0})


def _made(above: Path, limits: dict[str, int]) -> Path | None:
    """Make a cgroup that a process can join; None where that may not be, or the first limit, of memory, is none."""
    folder = above / f"heap-assets-tests-{uuid.uuid4().hex[:8]}"
    if not above.is_dir() or not os.access(above, os.W_OK):
        return None
    try:
        folder.mkdir()
    except OSError:
        return None
    memory, *_ = limits
    try:
        for name in [name for name in limits if name == memory or (folder / name).exists()]:
            with (folder / name).open("r+") as file:  # a plain folder has no such files
                file.write(str(limits[name]))
        subprocess.run(["sh", "-c", _JOIN, str(folder / "cgroup.procs"), "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        _remove(folder)
        return None
    return folder


def _remove(folder: Path) -> None:
    for _ in range(50):  # the kernel lets go of a killed process a moment later
        try:
            folder.rmdir()
        except OSError:
            time.sleep(0.1)
        else:
            return
