"""Tables that a full resync has replaced and whose days are not all built again yet."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from urllib.parse import quote

from heap_assets.heap_connect.landing import Landing
from heap_assets.heap_connect.records import ROOT, Delivery
from heap_assets.heap_connect.selection import SNAPSHOT_TABLES
from heap_assets.lake import Lake


def rebuilding(landing: Landing, lake: Lake, asset_of: Callable[[str], str]) -> dict[str, frozenset[date]]:
    """Return event tables to the days that still lack their last full resync; identity and syncs wait for them.

    A day counts once its partition was built from the resync or what came after it. Days before the start date and
    after today are not waited for.

    Parameters
    ----------
    asset_of
        Table name to asset key (`signup` to `heap/events/signup`).
    """
    waiting = {}
    for table in landing.tables():
        if table in SNAPSHOT_TABLES:
            continue
        standing = landing.deliveries(table)
        if standing and not standing[0].table.incremental:
            days = _not_rebuilt(landing, lake, asset_of(table), table, standing[0])
            if days:
                waiting[table] = days
    return waiting


def _not_rebuilt(landing: Landing, lake: Lake, asset: str, table: str, resync: Delivery) -> frozenset[date]:
    done = f"{ROOT}/{quote(table, safe='')}/_rebuilt/{resync.dump.dump_id}-{resync.table.version}"
    if landing.store.exists(done):
        return frozenset()
    today = landing.config.now().date()
    wanted = [day for day in landing.days(table) if landing.config.start_date <= day <= today]
    built = lake.versions(asset)
    waiting = frozenset(day for day in wanted if day.isoformat() not in built or not _holds(lake, asset, day, resync))
    if not waiting:
        landing.store.write(done, b"")  # so that nobody opens all partitions again to find out
    return waiting


def _holds(lake: Lake, asset: str, day: date, resync: Delivery) -> bool:
    partition = lake.find(asset, day.isoformat())
    return partition is not None and partition.inputs.versions.get(resync.input_id) == resync.table.version
