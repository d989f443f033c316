"""Rows of a table, or firings of a signal, as Segment's Track (features.md T4, T6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any, Literal

import polars as pl
from pydantic import Field

from heap_assets.activation.connectors.base import Rows
from heap_assets.activation.connectors.inputs import EventRowConnector, EventRowSettings
from heap_assets.activation.connectors.segment import SegmentDestination, SegmentSource, ToSegment, anonymous_id
from heap_assets.activation.engine.addressing import Addressed
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.events import derived_id, event_faults
from heap_assets.activation.engine.spec import Mode
from heap_assets.values import apart

_NAME_UNITS = 1024


class SegmentEventsSync(EventRowSettings, ToSegment):
    """Rows of a table, or firings of a signal, as Track: each once.

    `key` is the column with the userId; of a signal `heap_identity`. With `anonymous_user` a row without one goes to
    the anonymousId of the Heap user that the column holds, as `segment_track` names it. A messageId made of the row's
    key lets Segment drop what it gets twice.
    """

    kind: Literal["segment_events"] = "segment_events"
    anonymous_user: str | None = Field(default=None, description="Column with the Heap user id of who has no userId")


class SegmentEventsConnector(EventRowConnector[SegmentEventsSync]):
    """Rows to Track."""

    settings_model = SegmentEventsSync

    def destination(self, table: str = "") -> SegmentEvents:
        return SegmentEvents(SegmentSource.of(self.settings), self.name)

    def rows(self, day: date, table: str = "") -> Rows:
        rows, column = super().rows(day, table), self.settings.anonymous_user
        if column is None or not isinstance(rows, Addressed):
            return rows
        user = pl.col(apart(column, self.own_columns))
        app = self.deployment.settings.heap.app_id
        return replace(rows, rows=rows.rows.with_columns(anonymous_id=anonymous_id(app, user)))


class SegmentEvents(SegmentDestination):
    """Sends rows as Track. `name`: of the sync, part of each messageId."""

    kind = "segment_events"
    mode = Mode.INSERT
    required = ("event_key", "event")
    optional = ("time", "anonymous_id")

    def __init__(self, source: SegmentSource, name: str) -> None:
        super().__init__(source)
        self._name = name

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        return {**super().invalid_rows(rows), **event_faults(rows, _NAME_UNITS)}

    def element(self, row: Row) -> dict[str, Any]:
        message = self._addressed("track", row, "heap_assets-" + derived_id(self._name, row.key))
        message |= {"event": row.extra["event"], "properties": dict(row.values), "integrations": {"Heap": False}}
        return message | ({"timestamp": row.extra["time"]} if row.extra.get("time") else {})
