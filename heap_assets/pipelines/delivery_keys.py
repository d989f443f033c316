"""From the keyed hash of a sync's key (plan, rejected rows, changelog, set-aside rows) back to the key and its rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import polars as pl

from heap_assets.activation import Addressed, hashed_keys, keys_behind, salt, set_aside
from heap_assets.config import SegmentTrack
from heap_assets.pipelines.delivery import ledgers
from heap_assets.pipelines.delivery_due import newest_day
from heap_assets.pipelines.delivery_rows import Rows, newest_profiles_day, rows_of
from heap_assets.pipelines.delivery_tables import Forwarding
from heap_assets.project import Project
from heap_assets.tables import PROFILES, heap_asset

_KEYS = ("key", "event_key", "anonymous_id")


def rows_of_key(project: Project, name: str, key_hash: str, day: date | None, most: int) -> dict[str, pl.DataFrame]:
    """Return where a key of a sync stands: in the ledger, among the rows of a day, set aside, and on which profiles.

    Parameters
    ----------
    day
        Whose rows are looked through; the newest that the sync can send unless given.
    most
        Rows of each place.

    Returns
    -------
    dict
        Place to rows, in clear; empty if the sync knows no such key.
    """
    store = project.lake.store
    places: dict[str, pl.DataFrame] = {}
    profiles: set[str] = set()
    for spec in ledgers(project, name):
        places[f"ledger of {spec.name}"] = keys_behind(store, spec, [key_hash])
        aside = set_aside(store, spec.folder).filter(pl.col("key_hash") == key_hash)
        places[f"set aside by {spec.name}"] = aside.unique(["day", "kind", "reason", "profile_id"]).sort("day")
        profiles |= set(aside["profile_id"].drop_nulls())
    day = day or newest_day(project, name)
    for place, rows in _rows_of_day(project, name, day) if day else ():
        matching = _matching(rows, key_hash, salt(store, ledgers(project, name)[0].salt, keep=False))
        places[f"{place} of {day}"] = matching
        if "profile_id" in matching.columns:
            profiles |= set(matching["profile_id"].drop_nulls())
    standing = newest_profiles_day(project)
    if standing and profiles:
        rows = project.lake.scan(PROFILES, str(standing)).filter(pl.col("profile_id").is_in(sorted(profiles)))
        places[f"{PROFILES} {standing}"] = rows.collect()
    return {place: frame.head(most) for place, frame in places.items() if frame.height}


def _rows_of_day(project: Project, name: str, day: date) -> Iterator[tuple[str, pl.LazyFrame]]:
    sync = project.settings.sync[name]
    if not isinstance(sync, SegmentTrack):
        yield from _parts("rows", rows_of(project, name, day))
        return
    forwarding = Forwarding(project, name, sync)
    for table in forwarding.tables:
        if str(day) in project.lake.partitions(heap_asset(table)):
            yield from _parts(f"rows of {table}", forwarding.rows(table, day))


def _parts(place: str, rows: Rows) -> Iterator[tuple[str, pl.LazyFrame]]:
    if isinstance(rows, Addressed):
        yield place, rows.rows
        yield f"held {place}", rows.held
        yield f"invalid {place}", rows.invalid
    else:
        yield place, rows


def _matching(rows: pl.LazyFrame, key_hash: str, secret: bytes) -> pl.DataFrame:
    frame = rows.collect()
    there = [name for name in _KEYS if name in frame.columns]
    hits = pl.Series([False] * frame.height, dtype=pl.Boolean)
    for name in there:
        hits |= (hashed_keys(frame[name], secret) == key_hash).fill_null(value=False) & frame[name].is_not_null()
    return frame.filter(hits)
