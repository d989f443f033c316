"""Forgetting a person in one sync: whatever its kind, by the key that the destination knows them by."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from heap_assets import clock
from heap_assets.activation import Addressed, anonymous_id, forget
from heap_assets.config import sync as kinds
from heap_assets.pipelines.delivery_destinations import spec_of
from heap_assets.pipelines.delivery_rows import rows_of
from heap_assets.pipelines.delivery_tables import Forwarding
from heap_assets.pipelines.golden import standing_partition
from heap_assets.project import Project
from heap_assets.tables import heap_asset, warehouse_asset


def forget_person(project: Project, name: str, key: str, run_id: str) -> int:
    """Remove a person from all ledgers of a sync, and never send to them again; returns how many keys went.

    Parameters
    ----------
    key
        As the destination has it: an identity, a userId, or (Segment) an anonymousId.
    """
    sync, store = project.settings.sync[name], project.lake.store
    if isinstance(sync, kinds.SegmentTrack):
        forwarding = Forwarding(project, name, sync)
        users = _users_of(project, forwarding, key)
        return sum(
            forget(store, spec_of(project, name, table=table), key, run_id, [*_event_ids(project, table, users)])
            for table in forwarding.tables
        )
    return forget(store, spec_of(project, name), key, run_id, _sent_events(project, name, key))


def _users_of(project: Project, forwarding: Forwarding, key: str) -> list[int]:
    people = forwarding.identities.collect()
    named = people.filter(pl.col("identity") == key)["user_id"].to_list()
    own = anonymous_id(project.settings.heap.app_id, pl.lit(""))
    prefix = str(pl.select(own).item())
    alone = key.removeprefix(prefix)
    return [*named, int(alone)] if key.startswith(prefix) and alone.isdecimal() else named


def _event_ids(project: Project, table: str, users: list[int]) -> Iterator[str]:
    asset = heap_asset(table)
    for day in project.lake.partitions(asset) if users else ():
        rows = project.lake.scan(asset, day).filter(pl.col("user_id").is_in(users))
        yield from rows.select(pl.col("event_id").cast(pl.String)).collect()["event_id"].drop_nulls()


def _sent_events(project: Project, name: str, key: str) -> list[str]:
    """Return the keys of the events that now are the person's, of a sync that sends rows of a warehouse table once."""
    sync = project.settings.sync[name]
    if sync.source not in (project.settings.warehouse.tables if project.settings.warehouse else {}):
        return []
    day = standing_partition(project.lake, warehouse_asset(sync.source), clock.today())
    if day is None:
        return []
    addressed = rows_of(project, name, day)
    rows = addressed.rows if isinstance(addressed, Addressed) else addressed
    if "event_key" not in rows.collect_schema():
        return []
    return rows.filter(pl.col("key") == key).select("event_key").collect()["event_key"].drop_nulls().to_list()
