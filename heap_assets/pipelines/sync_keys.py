"""One key of a sync: from its keyed hash (plan, rejected rows, changelog) back to its rows; forgetting a person."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import polars as pl

from heap_assets.activation import (
    Addressed,
    Rows,
    connector_of,
    forget,
    hashed_keys,
    keys_behind,
    newest_profiles_day,
    salt,
    set_aside,
)
from heap_assets.pipelines.sync_schedule import newest_day
from heap_assets.project import Project
from heap_assets.tables import PROFILES, heap_asset

_KEYS = ("key", "event_key", "anonymous_id")


def forget_person(project: Project, name: str, key: str, run_id: str) -> int:
    """Remove a person from all ledgers of a sync, and never send to them again; returns how many keys went.

    Parameters
    ----------
    key
        As the destination has it: an identity, a userId, or (Segment) an anonymousId.
    """
    connector, store = connector_of(project, name), project.lake.store
    return sum(
        forget(store, connector.spec(table), key, run_id, connector.event_keys(key, table))
        for table in connector.ledger_tables
    )


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
    store, specs = project.lake.store, connector_of(project, name).specs()
    places: dict[str, pl.DataFrame] = {}
    profiles: set[str] = set()
    for spec in specs:
        places[f"ledger of {spec.name}"] = keys_behind(store, spec, [key_hash])
        aside = set_aside(store, spec.folder).filter(pl.col("key_hash") == key_hash)
        places[f"set aside by {spec.name}"] = aside.unique(["day", "kind", "reason", "profile_id"]).sort("day")
        profiles |= set(aside["profile_id"].drop_nulls())
    day = day or newest_day(project, name)
    for place, rows in _rows_of_day(project, name, day) if day else ():
        matching = _matching(rows, key_hash, salt(store, specs[0].salt, keep=False))
        places[f"{place} of {day}"] = matching
        if "profile_id" in matching.columns:
            profiles |= set(matching["profile_id"].drop_nulls())
    standing = newest_profiles_day(project)
    if standing and profiles:
        rows = project.lake.scan(PROFILES, str(standing)).filter(pl.col("profile_id").is_in(sorted(profiles)))
        places[f"{PROFILES} {standing}"] = rows.collect()
    return {place: frame.head(most) for place, frame in places.items() if frame.height}


def _rows_of_day(project: Project, name: str, day: date) -> Iterator[tuple[str, pl.LazyFrame]]:
    connector = connector_of(project, name)
    for table in connector.ledger_tables:
        if not table:
            yield from _parts("rows", connector.rows(day))
        elif str(day) in project.lake.partitions(heap_asset(table)):
            yield from _parts(f"rows of {table}", connector.rows(day, table))


def _parts(place: str, rows: Rows) -> Iterator[tuple[str, pl.LazyFrame]]:
    if isinstance(rows, Addressed):
        yield place, rows.rows
        yield f"held {place}", rows.held
        yield f"invalid {place}", rows.invalid
    else:
        yield place, rows


def _matching(rows: pl.LazyFrame, key_hash: str, secret: bytes) -> pl.DataFrame:
    frame = rows.collect()
    hits = pl.Series([False] * frame.height, dtype=pl.Boolean)
    for name in (one for one in _KEYS if one in frame.columns):
        hits |= (hashed_keys(frame[name], secret) == key_hash).fill_null(value=False) & frame[name].is_not_null()
    return frame.filter(hits)
