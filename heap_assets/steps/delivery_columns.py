"""Which columns the delivery engine puts beside those of a warehouse table, by kind of sync."""

from __future__ import annotations

from heap_assets.destinations import EVENT_COLUMNS, KEY_COLUMNS
from heap_assets.settings import sync as kinds
from heap_assets.settings.sync import BaseSync


def own_columns(sync: BaseSync) -> tuple[str, ...]:
    """Return the columns that a table's own go apart from (:mod:`heap_assets.column_names`)."""
    if isinstance(sync, kinds.SegmentGroup):
        return (*KEY_COLUMNS, "user_id")
    is_event = any(getattr(sync, key, None) is not None for key in ("event_name", "event_name_column"))
    return EVENT_COLUMNS if is_event else KEY_COLUMNS
