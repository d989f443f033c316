"""One Identify for each change of a user's history, so that Segment joins the users that Heap joined (heap.md 5)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any, Literal

import polars as pl
from pydantic import Field

from heap_assets import clock
from heap_assets.activation.connectors.base import Connector, Requirement
from heap_assets.activation.connectors.rows import newest, newest_users, suppressed_users
from heap_assets.activation.connectors.segment import (
    SegmentDeletion,
    SegmentDestination,
    SegmentSource,
    ToSegment,
    anonymous_id,
)
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.events import derived_id
from heap_assets.activation.engine.spec import Mode
from heap_assets.config import ExportedSource
from heap_assets.sources.heap_connect import resynced_users
from heap_assets.tables import MIGRATIONS, USERS


class SegmentReidentifySync(ToSegment):
    """One Identify per user whose history changed (a migration), with both ids, once."""

    kind: Literal["segment_reidentify"] = "segment_reidentify"
    mode: Literal["insert"] = "insert"
    source: Literal["heap"] = "heap"
    properties: dict[str, str] = Field(default={}, max_length=0, description="None: only the two ids are sent")


class SegmentReidentifyConnector(Connector[SegmentReidentifySync]):
    """People whose history changed since the sync first ran: merged users, and those in a full resync."""

    settings_model = SegmentReidentifySync
    deletes = SegmentDeletion

    def destination(self, table: str = "") -> SegmentReidentify:
        return SegmentReidentify(SegmentSource.of(self.settings))

    def inputs(self) -> list[str]:
        return [MIGRATIONS, USERS]

    def requirements(self, day: date) -> Iterator[Requirement | str]:
        days = self.deployment.lake.partitions(USERS)
        yield Requirement(USERS, days[-1]) if days else f"{USERS} has not been built"

    def rows(self, day: date, table: str = "") -> pl.LazyFrame:
        deployment, heap = self.deployment, self.deployment.settings.heap
        resynced = None
        if not isinstance(heap.source, ExportedSource):
            resynced = resynced_users(deployment.landing, self.enabled_on or clock.today())
        rows = reidentify_rows(newest(deployment, MIGRATIONS), newest_users(deployment), heap.app_id, resynced)
        suppressed = suppressed_users(deployment)
        if suppressed.is_empty():
            return rows
        unnamed = suppressed.select(name=anonymous_id(heap.app_id, pl.col("user_id")))["name"]
        identities = suppressed["identity"].drop_nulls()
        return rows.filter(~pl.col("key").is_in(identities.implode()), ~pl.col("anonymous_id").is_in(unnamed.implode()))


class SegmentReidentify(SegmentDestination):
    """Sends one Identify per change of somebody's history (a migration, a resync), with both ids, once.

    Rows come from :func:`reidentify_rows`.
    """

    kind = "segment_reidentify"
    mode = Mode.INSERT
    required = ("event_key",)
    optional = ("anonymous_id",)
    key_may_be_null = False

    def element(self, row: Row) -> dict[str, Any]:
        message = self._addressed("identify", row, "heap_assets-" + derived_id(self.kind, row.key))
        return {**message, "traits": dict(row.values), "integrations": {"Heap": False}}


def reidentify_rows(
    migrations: pl.LazyFrame, users: pl.LazyFrame, app_id: str, resynced: pl.LazyFrame | None = None
) -> pl.LazyFrame:
    """Return one row per user whose history changed and who has an identity today.

    Parameters
    ----------
    migrations
        `heap/user_migrations`: `from_user_id`, `resolved_to`. Segment has not heard of these joins.
    users
        `heap/users`: `user_id`, `identity`.
    resynced
        `user_id`, `resync` String: users whose events a full resync brought anew, and a name for that resync; each
        identity is sent once per resync, whichever of its users were in it.
    """
    homes = users.select(resolved_to="user_id", key="identity").drop_nulls()
    joined = migrations.select("from_user_id", "resolved_to").drop_nulls().join(homes, on="resolved_to")
    rows = joined.select(
        "key",
        anonymous_id=anonymous_id(app_id, pl.col("from_user_id")),
        event_key=pl.concat_str(pl.col("from_user_id").cast(pl.String), pl.lit(">"), "key"),
    )
    if resynced is not None:
        migrated = migrations.select("resolved_to", user_id="from_user_id").drop_nulls()
        renewed = (
            resynced.drop_nulls()
            .join(migrated, on="user_id", how="left")
            .with_columns(pl.coalesce("resolved_to", "user_id").alias("resolved_to"))
            .join(homes, on="resolved_to")
            .sort("user_id")
        )
        resent = renewed.select(
            "key",
            anonymous_id=anonymous_id(app_id, pl.col("user_id")),
            event_key=pl.concat_str(pl.lit("resync "), "resync", pl.lit(">"), "key"),
        )
        rows = pl.concat([rows, resent])
    return rows.unique("event_key", keep="first", maintain_order=True)
