"""Tries to break the platform, for as long as it is given, and prints what was tried and what survived.

python -m heap_assets_tests.torture                  # all of it, some hours
python -m heap_assets_tests.torture --points 20 --kills 30 --files 2000 --manifests 500
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from heap_assets.demo.server_process import running_server
from heap_assets_tests.torture.delivery import APP, delivery_base
from heap_assets_tests.torture.landings import kill_by_time, large_base
from heap_assets_tests.torture.limited import HEAVY, do_within_limits, make, wrong_of
from heap_assets_tests.torture.manifests import try_manifests
from heap_assets_tests.torture.publishing import TARGETS, publishing_base
from heap_assets_tests.torture.stages import STAGES
from heap_assets_tests.torture.trials import (
    ERRORS,
    FILE_SIZE,
    FILE_SIZES,
    Base,
    Trial,
    make_base,
    mixed_trials,
    run_trial,
    summary,
    trials,
)
from heap_assets_tests.torture.zygote import Zygote

PARTS = ["stages", "time", "manifests", "memory", "tests"]
FAULTS = ["kills", "errors", "sizes"]
_REPORTED = 25
EVERY_STAGE = [*STAGES, *TARGETS, "delivery"]
ROOT = Path(__file__).parent.parent.parent
TESTS: dict[str, tuple[str, list[str], str, str]] = {
    "mutated": (
        "mutated Avro files",
        ["sources/heap_connect/test_mutated_files.py"],
        "HEAP_ASSETS_MUTATED_FILES",
        "files",
    ),
    "sending": (
        "a sync killed while it sends",
        ["activation/test_delivery_kills.py", "pipelines/test_delivery_killed.py"],
        "DELIVERY_KILLS",
        "kills",
    ),
    "memory": ("out of memory", ["torture/test_memory.py"], "", ""),
    "hostile": ("hostile servers", ["activation/test_delivery_to_hostile_servers.py"], "", ""),
    "canaries": ("canaries: secrets and personal data", ["end_to_end/test_canaries.py"], "", ""),
    "network": ("a run that may call nobody", ["end_to_end/test_closed_network.py"], "", ""),
    "damage": (
        "damaged records, each kind",
        ["pipelines/test_damaged_records.py", "quality/test_stored_results.py"],
        "",
        "",
    ),
    "races": (
        "races: records, catalogue, partitions, results, leases",
        [
            "storage/test_object_stores.py",
            "sources/heap_connect/test_table_columns.py",
            "sources/heap_connect/test_interrupted.py",
            "quality/test_stored_results.py",
            "activation/test_delivery_lease.py",
        ],
        "",
        "",
    ),
}
"""Tests of their own that belong here: what the table calls them, and which variable says how much of them there is."""


@dataclass
class Row:
    """One line of the table."""

    what: str
    tried: int
    ended: str
    wrong: list[str]
    seconds: float


def _stages(zygote: Zygote, base: Base, chosen: argparse.Namespace) -> list[Row]:
    rows = []
    for stage in [stage for stage in chosen.stages if stage in base.before]:
        chance = Random(chosen.seed)
        every = {
            "kills": ("killed at a call", list(trials(base, stage, ["SIGKILL"], chosen.points, chance))),
            "errors": ("a call fails", list(mixed_trials(base, stage, ERRORS, chosen.points, chance, chosen.ways))),
            "sizes": ("files may not grow", [Trial(stage, FILE_SIZE, kib) for kib in FILE_SIZES]),
        }
        asked_for = [every[fault] for fault in chosen.faults]
        rows += [_row(zygote, base, f"{stage}: {what}", asked) for what, asked in asked_for]
    return rows


def _row(zygote: Zygote, base: Base, what: str, asked: list[Trial]) -> Row:
    began, ended, wrong = time.monotonic(), Counter[str](), []
    for number, trial in enumerate(asked, 1):
        outcome, found = run_trial(zygote, base, trial)
        ended[outcome.ended] += 1
        found_at = [f"{trial}: {problem}" for problem in found]
        wrong += found_at
        if found or number % _REPORTED == 0:
            print(f"... {what}: {number} of {len(asked)}, {len(wrong)} wrong", *found_at, file=sys.stderr)
    return _told(Row(what, len(asked), summary(ended), wrong, time.monotonic() - began))


def _by_time(zygote: Zygote, folder: Path, chosen: argparse.Namespace) -> Row:
    base = large_base(zygote, folder, chosen.people)
    began = time.monotonic()
    tried, wrong = kill_by_time(zygote, base, chosen.kills, chosen.seed)
    what = f"landing of {base.seconds['landing']:.1f} s: killed at any time"
    ended = summary(Counter(killed=chosen.kills, finished=tried - chosen.kills))
    return _told(Row(what, tried, ended, wrong, time.monotonic() - began))


def _manifests(folder: Path, chosen: argparse.Namespace) -> Row:
    began = time.monotonic()
    ended, wrong = try_manifests(folder, chosen.manifests, chosen.seed)
    return _told(Row("mutated manifests", chosen.manifests, summary(ended), wrong, time.monotonic() - began))


def _memory(folder: Path) -> Iterator[Row]:
    for work, size in HEAVY.items():
        began = time.monotonic()
        place = folder / work.replace(" ", "-")
        place.mkdir()
        make(work, place, size)
        ended = do_within_limits(work, place)
        peak = f"peak {ended.said['peak_mb']:,} MB" if ended.said else f"exit {ended.code}"
        what = f"memory: {work}, {size:,}{' MB' if work == 'one block' else ''}"
        yield _told(Row(what, 1, peak, wrong_of(work, size, ended), time.monotonic() - began))
        shutil.rmtree(place)


def _tests(name: str, chosen: argparse.Namespace) -> Row:
    what, names, variable, count = TESTS[name]
    wide = {"HEAP_ASSETS_LONG": "1", "COLUMNS": "500"}  # so that pytest says in one line why a test failed
    environment = {**os.environ, **wide} | ({variable: str(getattr(chosen, count))} if count else {})
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", *(f"heap_assets_tests/{path}" for path in names)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    counted = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|error|skipped)", done.stdout)}
    wrong = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    tried = getattr(chosen, count) if count else counted.get("passed", 0) + counted.get("failed", 0)
    ended = ", ".join(f"{n} tests {word}" for word, n in counted.items())
    return _told(
        Row(what, tried, ended, wrong or ([] if done.returncode == 0 else ["pytest failed"]), time.monotonic() - began)
    )


def _told(row: Row) -> Row:
    print(f"{row.what}: {row.tried} tried, {row.ended}; {len(row.wrong)} wrong; {row.seconds:.0f} s", file=sys.stderr)
    for problem in row.wrong[:5]:
        print(f"    {problem}", file=sys.stderr)
    return row


def _table(rows: list[Row]) -> str:
    lines = ["| what | tried | how it ended | wrong afterwards | seconds |", "|---|---|---|---|---|"]
    lines += [f"| {r.what} | {r.tried:,} | {r.ended} | {len(r.wrong)} | {r.seconds:.0f} |" for r in rows]
    return "\n".join(lines)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Return what a command asks for; ends the process, as argparse does, if it names a stage or test that is none."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument(
        "--points", type=int, help="calls of each stage at which each kind of fault is tried; all if not given"
    )
    parser.add_argument(
        "--ways", type=int, default=len(ERRORS), choices=range(1, len(ERRORS) + 1), help="ways in which each call fails"
    )
    parser.add_argument("--kills", type=int, default=200, help="landings killed by time, and kills of a sync")
    parser.add_argument("--people", type=int, default=600, help="size of the company whose landings are killed by time")
    parser.add_argument("--files", type=int, default=20_000, help="mutated Avro files")
    parser.add_argument("--manifests", type=int, default=2_000, help="mutated manifests")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stages", nargs="*", default=EVERY_STAGE, choices=EVERY_STAGE)
    parser.add_argument("--faults", nargs="*", default=FAULTS, choices=FAULTS, help="what is done to each stage")
    parser.add_argument("--tests", nargs="*", default=list(TESTS), choices=list(TESTS))
    parser.add_argument("--only", nargs="*", choices=PARTS)
    return parser.parse_args(given)


def _main() -> None:
    chosen = arguments()
    wanted = chosen.only or PARTS
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server("heap", Path(folder, "server"), arguments=["--app-id", APP]) as server,
        Zygote(server.base_url) as zygote,
    ):
        for name in ("small", "sync", "large", "manifests", "memory"):
            Path(folder, name).mkdir()
        if "stages" in wanted and set(chosen.stages) & {*STAGES, *TARGETS}:
            is_published = bool(TARGETS.keys() & set(chosen.stages))
            needed = [stage for stage in STAGES if is_published or stage in chosen.stages]
            base = make_base(zygote, Path(folder, "small"), needed)
            rows += _stages(zygote, base, chosen)
            for kind in [kind for kind in TARGETS if kind in chosen.stages]:
                Path(folder, kind).mkdir()
                with TARGETS[kind]() as target:
                    rows += _stages(zygote, publishing_base(zygote, Path(folder, kind), base, kind, target), chosen)
        if "stages" in wanted and "delivery" in chosen.stages:
            rows += _stages(zygote, delivery_base(zygote, Path(folder, "sync"), server), chosen)
        if "time" in wanted:
            rows.append(_by_time(zygote, Path(folder, "large"), chosen))
        if "manifests" in wanted:
            rows.append(_manifests(Path(folder, "manifests"), chosen))
        if "memory" in wanted:
            rows += _memory(Path(folder, "memory"))
    if "tests" in wanted:
        rows += [_tests(name, chosen) for name in chosen.tests]
    print(_table(rows))
    sys.exit(any(row.wrong for row in rows))


if __name__ == "__main__":
    _main()
