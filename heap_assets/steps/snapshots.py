"""Warehouse tables by day, although a live source has no past (design.md, Heap tables)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl

from heap_assets import clock
from heap_assets.errors import MissingInputError, SettingsError
from heap_assets.lake import Inputs
from heap_assets.names import warehouse_asset
from heap_assets.platform import Platform
from heap_assets.settings.warehouse import WarehouseTable
from heap_assets.steps.golden import standing_partition
from heap_assets.steps.table import Made, Task
from heap_assets.warehouse import choose_columns


def snapshot_of_day(task: Task, name: str) -> Made | None:
    """Return a warehouse table as of a day, None if the day's partition stays as it is.

    Only the newest complete day and the running one are read from the source. An older partition that exists is kept
    (unless forced); one that is missing carries the nearest earlier observation forward, marked `observed: false`.

    Raises
    ------
    MissingInputError
        An older day with nothing before it that could be carried forward.
    """
    platform, day, asset = task.platform, task.day, warehouse_asset(name)
    if platform.settings.warehouse is None:
        raise SettingsError(f"{asset} is an asset, but the settings have no warehouse any more: reload definitions")
    if day >= clock.newest_complete_day() or task.force:
        return _observed(task, name, platform.settings.warehouse.tables[name])
    if platform.lake.find(asset, str(day)) is not None:
        return None
    earlier = standing_partition(platform.lake, asset, day)
    if earlier is None:
        raise MissingInputError(
            f"{asset} {day} was never observed and nothing before it was: the warehouse only knows how things stand now"
        )
    version = platform.lake.versions(asset)[str(earlier)]
    return Made(
        platform.lake.scan(asset, str(earlier)),
        Inputs({f"{asset}@{earlier}": version}),
        {"observed": False, "carried_from": str(earlier)},
    )


def _observed(task: Task, name: str, table: WarehouseTable) -> Made:
    path = task.scratch / "snapshot.parquet"
    mapped = mapped_columns(task.platform, name)
    columns = None if table.columns is None else sorted({*table.columns, *mapped})
    warehouse = task.platform.warehouse()
    # a mapped column that is gone would come to light where nobody looks for it: when identities are resolved
    choose_columns(mapped, warehouse.columns(table.relation), table.relation)
    reading = warehouse.read(table.relation, columns, path)
    return Made(
        pl.scan_parquet(path),
        Inputs({table.relation: _digest(path)}),
        {
            "observed": True,
            "observed_at": reading.observed_at.isoformat(),
            "complete": task.day < clock.today(),
            "bytes_billed": reading.bytes_billed or 0,
        },
    )


def mapped_columns(platform: Platform, name: str) -> list[str]:
    """Return the columns of a warehouse table that the settings give a meaning."""
    tables = platform.settings.warehouse.tables if platform.settings.warehouse else {}
    table = tables[name]
    mapped = [table.key, table.created_at, table.updated_at]
    mapped += [column for one in platform.snapshot_sources[warehouse_asset(name)].mappings for column in one.columns]
    for trait in platform.settings.profiles.traits.values():
        mapped += [column for asset, _, column in (s.partition(".") for s in trait.sources) if asset == name]
    return sorted({column for column in mapped if column})


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
