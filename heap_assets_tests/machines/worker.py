"""One of several machines: builds every day of every event table, in an order and with a Dagster of its own.

python -m heap_assets_tests.machines.worker SETTINGS SEED

Prints a line for each run that has ended; ends with status 0 once all have succeeded.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import dagster as dg

from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.project import Project, load_settings, open_project
from heap_assets.tables import heap_asset

_RANGE = "dagster/asset_partition_range_"
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
_RUNS_A_SIDE = 8
"""Runs share the tables by this number, and the days, but have two of each at least."""


def runs(project: Project, seed: int) -> list[tuple[list[str], list[str]]]:
    """Return all runs, in an order of the seed's: assets, and a range of days."""
    landed = sorted({day.isoformat() for table in project.event_tables for day in project.landing.days(table)})
    assets = [heap_asset(table) for table in project.event_tables]
    tables, days = (max(2, len(every) // _RUNS_A_SIDE) for every in (assets, landed))
    every = [
        (assets[table : table + tables], landed[day : day + days])
        for table in range(0, len(assets), tables)
        for day in range(0, len(landed), days)
    ]
    return random.Random(seed).sample(every, len(every))


def main(settings: Path, seed: int) -> None:
    """Run all; a run that fails ends the process."""
    project = open_project(load_settings(settings), settings)
    job = build_definitions(project).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.get() as instance:
        for assets, days in runs(project, seed):
            chosen = job.get_subset(asset_selection={asset_key(asset) for asset in assets})
            tags = {f"{_RANGE}start": days[0], f"{_RANGE}end": days[-1]}
            done = chosen.execute_in_process(instance=instance, run_config=_QUIET, tags=tags)
            print(f"{len(assets)} tables, {days[0]} to {days[-1]}: {done.success}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
