"""Segment's HTTP tracking API: Track, Identify, Group in batches (heap.md 5)."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import polars as pl

from heap_assets.activation.connectors.base import BaseDestination, Limits, Rate, Request, Response, Row
from heap_assets.activation.connectors.heap_events import event_faults
from heap_assets.activation.connectors.heap_properties import JUNK_IDENTITIES, named_rows
from heap_assets.activation.engine.events import derived_id
from heap_assets.activation.engine.spec import Mode
from heap_assets.errors import SettingsError
from heap_assets.sources.heap_connect import without_own

HOSTS: Mapping[str, str] = {"us": "https://api.segment.io", "eu": "https://events.eu1.segmentapis.com"}
"""EU workspaces that post to the US host get no error and lose the data (heap.md 5)."""
EVENT_BYTES, BATCH_BYTES, BATCH_EVENTS = 32 * 1024, 500 * 1024, 2500
_ENVELOPE = 1024
_SUFFIX = b'],"context":{"library":{"name":"heap_assets","version":"1"}},"integrations":{"Heap":false}}'


@dataclass(frozen=True)
class SegmentSource:
    """One Segment source.

    Attributes
    ----------
    write_key
        Its write key; never shown.
    """

    write_key: str = field(repr=False)
    region: Literal["us", "eu"] = "us"
    base_url: str | None = None

    def __post_init__(self) -> None:
        if not self.write_key.strip():
            raise SettingsError("segment: write_key is empty; set it, for example to ${SEGMENT_WRITE_KEY}")
        if self.region not in HOSTS:
            raise SettingsError(f"segment: region is {self.region!r}; it must be us or eu")

    @property
    def url(self) -> str:
        return (self.base_url or HOSTS[self.region]).rstrip("/")


class SegmentDestination(BaseDestination):
    """What all calls to Segment have in common. Rows go to `key` (userId), `anonymous_id`, or both."""

    key_may_be_null = True
    limits = Limits(
        batch_rows=BATCH_EVENTS,
        batch_bytes=BATCH_BYTES - _ENVELOPE,
        row_bytes=EVENT_BYTES,
        rates=(Rate(1000, 1, per_call=True),),
        junk_keys=JUNK_IDENTITIES,
    )

    def __init__(self, source: SegmentSource) -> None:
        self.source = source

    @property
    def target(self) -> str:
        return f"{self.kind}:{self.source.url}:{self.source.write_key}"

    def unusable(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        has_anonymous = "anonymous_id" in rows.collect_schema()
        nobody = pl.col("key").is_null() & (pl.col("anonymous_id").is_null() if has_anonymous else pl.lit(value=True))
        return {"neither userId nor anonymousId": nobody}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        token = base64.b64encode(f"{self.source.write_key}:".encode()).decode()
        body = b'{"batch":[' + b",".join(elements) + _SUFFIX
        return Request(f"{self.source.url}/v1/batch", body, headers={"Authorization": f"Basic {token}"})

    def rejections(self, response: Response, rows: Sequence[Row]) -> Mapping[int, str] | None:
        return named_rows(response, len(rows))

    def _addressed(self, kind: str, row: Row, message_id: str) -> dict[str, Any]:
        message: dict[str, Any] = {"type": kind, "messageId": message_id}
        if row.person is not None:
            message["userId"] = row.person
        if row.extra.get("anonymous_id") is not None:
            message["anonymousId"] = row.extra["anonymous_id"]
        return message

    def _upsert_id(self, row: Row) -> str:
        """Name a message by its content and run: a repeated call is dropped, a value that comes back is not."""
        return "heap_assets-" + derived_id(f"{self.kind}:{row.extra['fence']}", f"{row.key}:{row.extra['row_hash']}")


class SegmentTrack(SegmentDestination):
    """Sends events as Track, each once; a resend has the same messageId and is dropped by Segment.

    Rows need `key` or `anonymous_id`, `event_key`, `event`; `time` is optional ISO 8601 text.

    Parameters
    ----------
    table
        Name of the event table; with the event key it makes the messageId.
    """

    kind = "segment_track"
    mode = Mode.INSERT
    required = ("event_key", "event")
    optional = ("anonymous_id", "time")

    def __init__(self, source: SegmentSource, *, table: str) -> None:
        super().__init__(source)
        self._table = table

    def unusable(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        return {**super().unusable(rows), **event_faults(rows, 1024)}

    def element(self, row: Row) -> dict[str, Any]:
        message_id = "heap_assets-" + derived_id(self._table, row.key)
        message = {**self._addressed("track", row, message_id), "event": row.extra["event"]}
        if row.extra.get("time") is not None:
            message["timestamp"] = row.extra["time"]
        return {**message, "properties": dict(row.values), "integrations": {"Heap": False}}


class SegmentIdentify(SegmentDestination):
    """Upserts traits as Identify, keyed by userId."""

    kind = "segment_identify"
    mode = Mode.UPSERT
    optional = ("anonymous_id",)
    key_may_be_null = False

    def element(self, row: Row) -> dict[str, Any]:
        message = self._addressed("identify", row, self._upsert_id(row))
        return {**message, "traits": dict(row.values), "integrations": {"Heap": False}}


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


class SegmentGroup(SegmentDestination):
    """Upserts account traits as Group: `key` is the group, `user_id` one of its members.

    Segment wants somebody with every Group call; who that is does not count as a change.
    """

    kind = "segment_group"
    mode = Mode.UPSERT
    required = ("user_id",)
    key_may_be_null = False

    def unusable(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        return {"no member of the group is known": pl.col("user_id").is_null()} if _has(rows, "user_id") else {}

    def element(self, row: Row) -> dict[str, Any]:
        message = {"type": "group", "messageId": self._upsert_id(row), "groupId": row.key}
        member = row.extra.get("user_id") or row.key
        return {**message, "userId": member, "traits": dict(row.values), "integrations": {"Heap": False}}


def track_rows(events: pl.LazyFrame, name: str, identities: pl.LazyFrame, app_id: str) -> pl.LazyFrame:
    """Turn rows of a Heap event table into Track rows; our own events are left out, they would echo.

    Parameters
    ----------
    events
        `event_id`, `user_id`, `time`, then properties.
    identities
        `user_id` Int64, `identity` String: who a user is today, migrations followed.

    Returns
    -------
    LazyFrame
        `key` is the identity, null for anonymous users; `anonymous_id` is the original user_id, named by environment
        (heap.md 4), so that Segment can join it later.
    """
    people = (
        identities.select("user_id", key="identity").drop_nulls().unique("user_id", keep="first", maintain_order=True)
    )
    joined = without_own(events).drop("key", strict=False).join(people, on="user_id", how="left", maintain_order="left")
    return joined.with_columns(
        anonymous_id=anonymous_id(app_id, pl.col("user_id")),
        event_key=pl.col("event_id").cast(pl.String),
        event=pl.lit(name),
        time=pl.col("time").dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"),
    ).unique("event_key", keep="first", maintain_order=True)


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
        moved = migrations.select("resolved_to", user_id="from_user_id").drop_nulls()
        renewed = (
            resynced.drop_nulls()
            .join(moved, on="user_id", how="left")
            .with_columns(pl.coalesce("resolved_to", "user_id").alias("resolved_to"))
            .join(homes, on="resolved_to")
            .sort("user_id")
        )
        again = renewed.select(
            "key",
            anonymous_id=anonymous_id(app_id, pl.col("user_id")),
            event_key=pl.concat_str(pl.lit("resync "), "resync", pl.lit(">"), "key"),
        )
        rows = pl.concat([rows, again])
    return rows.unique("event_key", keep="first", maintain_order=True)


def anonymous_id(app_id: str, user_id: pl.Expr) -> pl.Expr:
    """Return the anonymousId under which a Heap user_id is known at Segment: `heap|<app>|<user_id>`."""
    return pl.concat_str(pl.lit(f"heap|{app_id}|"), user_id.cast(pl.String))


def _has(rows: pl.LazyFrame, column: str) -> bool:
    return column in rows.collect_schema()
