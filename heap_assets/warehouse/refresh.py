"""Reading only what has changed since the last observation, where a table allows it.

A table allows it if it has a key and a column that every change sets. Deletions leave no trace in such a column, so
the whole list of keys is read as well; it is small, and proves that nothing was missed: if a key is neither in the
earlier observation nor among the changes, everything is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from heap_assets.warehouse.model import Newer, Warehouse, choose_columns

OVERLAP = timedelta(hours=1)
"""How far before the last observation changes are read again: clocks differ, transactions commit late."""


@dataclass(frozen=True)
class Observation:
    """An earlier read: its rows, when they were read (UTC), and the version of the relation then."""

    rows: pl.LazyFrame
    observed_at: datetime
    version: str | None = None


@dataclass(frozen=True)
class Refreshed:
    """How things stand now.

    Attributes
    ----------
    mode
        `unchanged` (nothing was read), `changes`, or `full`, with the `reason`.
    """

    frame: pl.LazyFrame
    mode: str
    reason: str
    rows_read: int
    version: str | None


@contextmanager
def refreshed(
    warehouse: Warehouse,
    relation: str,
    columns: Sequence[str],
    *,
    key: str | None = None,
    updated_at: str | None = None,
    before: Observation | None = None,
    overlap: timedelta = OVERLAP,
) -> Iterator[Refreshed]:
    """Give a relation as it stands now, reading as little as possible, for the time of a `with` block.

    Parameters
    ----------
    columns
        Mapped columns and paths; key and `updated_at` are read as well where they are given.
    before
        The last observation, or None to read everything.
    """
    wanted = list(dict.fromkeys([*columns, *(name for name in (key, updated_at) if name)]))
    version = warehouse.version(relation)
    names = choose_columns(wanted, warehouse.columns(relation), relation).names
    if before is not None and set(before.rows.collect_schema().names()) != set(names):
        before = None
        reason = "other columns are mapped than before"
    elif before is None:
        reason = "there is no earlier observation"
    elif version is not None and version == before.version:
        yield Refreshed(before.rows, "unchanged", "the relation's version is that of the last observation", 0, version)
        return
    else:
        reason = "the table has no key and updated_at" if not (key and updated_at) else ""
    if before is not None and key and updated_at:
        with _changes(
            warehouse, relation, names, key, Newer(updated_at, before.observed_at - overlap), before
        ) as found:
            if found is not None:
                yield Refreshed(found[0], "changes", f"{found[1]} rows changed", found[1], version)
                return
        reason = f"{updated_at} does not tell every change"
    with warehouse.snapshot(relation, names) as snapshot:
        yield Refreshed(snapshot.frame, "full", reason, snapshot.reading.rows, snapshot.reading.version)


@contextmanager
def _changes(
    warehouse: Warehouse, relation: str, columns: Sequence[str], key: str, newer: Newer, before: Observation
) -> Iterator[tuple[pl.LazyFrame, int] | None]:
    """Fold changes and deletions into the earlier rows; None if some key comes from nowhere or types differ."""
    with warehouse.snapshot(relation, [key]) as keys, warehouse.snapshot(relation, columns, newer=newer) as changed:
        if before.rows.collect_schema() != changed.frame.collect_schema():
            yield None
            return
        kept = before.rows.join(changed.frame.select(key), on=key, how="anti").join(keys.frame, on=key, how="semi")
        present = pl.concat([kept.select(key), changed.frame.select(key)])
        missing = keys.frame.join(present, on=key, how="anti").select(pl.len()).collect().item()
        if missing:
            yield None
            return
        yield pl.concat([kept, changed.frame.join(keys.frame, on=key, how="semi")]), changed.reading.rows
