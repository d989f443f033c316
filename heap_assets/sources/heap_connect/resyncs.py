"""Who was in a full resync of a table that had landed before: their history may be another one now."""

from __future__ import annotations

from datetime import date

import polars as pl

from heap_assets.sources.heap_connect.landing import Landing
from heap_assets.sources.heap_connect.records import Delivery, TableState
from heap_assets.sources.heap_connect.selection import USER_MIGRATIONS

RESYNC_SCHEMA = {"user_id": pl.Int64(), "resync": pl.String()}


def resynced_users(landing: Landing, since: date) -> pl.LazyFrame:
    """Return `user_id`, `resync`: the users that full resyncs written since a day brought, and a name for each resync.

    One name for all tables of a dump. The first delivery of a table is no resync, and neither is any of
    user_migrations, which Heap always sends whole.
    """
    frames = [
        landing.store.scan(part.key)
        .select(pl.col("user_id").cast(pl.Int64), pl.lit(f"dump {delivery.dump.dump_id}").alias("resync"))
        .unique()
        for delivery in _resyncs(landing)
        if delivery.dump.as_of.date() >= since
        for part in delivery.table.parts
    ]
    return pl.concat(frames).drop_nulls().unique() if frames else pl.LazyFrame(schema=RESYNC_SCHEMA)


def _resyncs(landing: Landing) -> list[Delivery]:
    landed: set[str] = set()
    resyncs = []
    for dump in landing.records().values():
        for name, table in dump.tables.items():
            if table.state is not TableState.LANDED or name == USER_MIGRATIONS:
                continue
            if name in landed and not table.incremental:
                resyncs.append(Delivery(dump, table))
            landed.add(name)
    return resyncs
