"""Which columns the delivery engine puts beside those of a warehouse table, by kind of sync."""

from __future__ import annotations

from heap_assets.activation import EVENT_COLUMNS, KEY_COLUMNS
from heap_assets.config import BaseSync
from heap_assets.config import sync as kinds


def own_columns(sync: BaseSync) -> tuple[str, ...]:
    """Return the columns that a table's own go apart from (:mod:`heap_assets.values.column_names`)."""
    if isinstance(sync, kinds.SegmentGroup):
        return (*KEY_COLUMNS, "user_id")
    is_event = any(getattr(sync, key, None) is not None for key in ("event_name", "event_name_column"))
    return EVENT_COLUMNS if is_event else KEY_COLUMNS
