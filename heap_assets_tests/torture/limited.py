"""Runs work of :mod:`heap_assets_tests.torture.memory` in a process of its own, within limits that end it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heap_assets_tests.sources.warehouse import servers
from heap_assets_tests.torture.memory import ROOM, ROW_BYTES, TABLE

ROOT = Path(__file__).parent.parent.parent
HEAVY = {"one block": 221, "eight files": 2_000_000, "links": 1_000_000, "a day for PostgreSQL": 1_000_000}
LIGHT = {"one block": 16, "eight files": 80_000, "links": 50_000, "a day for PostgreSQL": 50_000}
LIMIT_MB = 1024
ROOM_MB = {"one block": 1000, "eight files": 1500, "links": 2500, "a day for PostgreSQL": 2500}
"""Of address space, beyond what the libraries take."""
_SECONDS = 900


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (negative: the signal), what it said, its errors."""

    code: int
    said: dict[str, Any] = field(default_factory=dict)
    errors: str = ""


def make(work: str, folder: Path, size: int) -> None:
    """Write what some work is done on; `size` is megabytes of a block, rows or links."""
    ended = _run([], [work, str(folder), str(size)], {})
    assert ended.code == 0, ended.errors


def do(work: str, folder: Path, *, room_mb: int | None = None, within: Sequence[str] = (), **more: str) -> Ended:
    """Do it, with so many megabytes of address space beyond the libraries', below a command that limits it."""
    return _run(within, [work, str(folder), "0"], {**more, **({ROOM: str(room_mb)} if room_mb is not None else {})})


def do_within_limits(work: str, folder: Path, within: Sequence[str] = ()) -> Ended:
    """Do it below a command that limits it, or else within :data:`ROOM_MB`; with a PostgreSQL, if it needs one."""
    room = None if within else ROOM_MB[work]
    if work != "a day for PostgreSQL":
        return do(work, folder, room_mb=room, within=within)
    with servers.postgres_cluster() as address:
        uri = f"postgresql://{address}/postgres"
        return do(work, folder, room_mb=room, within=within, HEAP_ASSETS_TEST_POSTGRES=uri)


def do_until(work: str, folder: Path, resident_mb: int) -> int:
    """Kill the work as the kernel does that is out of memory, once it has so much; return its exit code."""
    process = subprocess.Popen(
        _command(work, str(folder), "0"),
        cwd=ROOT,
        env=_environment({}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    pages = Path(f"/proc/{process.pid}/statm")
    while process.poll() is None:
        if int((pages.read_text().split() or ["0", "0"])[1]) * os.sysconf("SC_PAGE_SIZE") >> 20 >= resident_mb:
            process.kill()
        time.sleep(0.001)
    return process.wait()


def wrong_of(work: str, size: int, ended: Ended) -> list[str]:
    """Return what is wrong with how some work ended within :data:`LIMIT_MB`: nothing, if all its rows came out."""
    if ended.code:
        return [f"it ended with {ended.code}: {ended.errors[-500:]}"]
    expected = {"one block": (size << 20) // ROW_BYTES, "links": size * 3 // 2}.get(work, size)
    rows = ended.said["rows"]
    wrong = [f"{table} failed: {reason}" for table, reason in ended.said.get("failed", {}).items()]
    if (rows[TABLE] if isinstance(rows, dict) else rows) != expected:
        wrong.append(f"{expected} rows were to come out: {rows}")
    if ended.said["peak_mb"] >= LIMIT_MB:
        wrong.append(f"it took {ended.said['peak_mb']} MB")
    return wrong


def _run(within: Sequence[str], arguments: list[str], more: dict[str, str]) -> Ended:
    command = [*within, *_command(*arguments)]
    done = subprocess.run(
        command, cwd=ROOT, env=_environment(more), capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    return Ended(done.returncode, json.loads(done.stdout) if done.returncode == 0 and done.stdout else {}, done.stderr)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "heap_assets_tests.torture.memory", *arguments]


def _environment(more: dict[str, str]) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    # Each thread's arena would reserve address space that it does not use.
    return {**environment, "MALLOC_ARENA_MAX": "1", **more}
