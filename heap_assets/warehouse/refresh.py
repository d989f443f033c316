"""Reading only what has changed since the last observation, where a table allows it.

Three things are asked, the cheapest first. The engine's own version of the relation: while it stands still nothing is
read. Then, of a table with a key and a column that every change sets, how many rows there are and a checksum of that
column. Then the changed rows, and the whole list of keys, for deletions leave no trace in such a column. The list also
proves that nothing was missed: a key that is neither in the earlier observation nor among the changes, and everything
is read.

A row that was changed without its `updated_at` shows in none of them; reading everything now and then is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from heap_assets.warehouse.model import Newer, Tally, Warehouse, choose_columns

OVERLAP = timedelta(hours=1)
"""How far before the last observation changes are read again: clocks differ, transactions commit late."""


@dataclass(frozen=True)
class Observation:
    """An earlier read: its rows, when they were read (UTC), and what told the state of the relation then."""

    rows: pl.LazyFrame
    observed_at: datetime
    version: str | None = None
    tally: Tally | None = None


@dataclass(frozen=True)
class Refreshed:
    """How things stand now.

    Attributes
    ----------
    mode
        `unchanged` (nothing was read), `changes`, or `full`, with the `reason`.
    observed_at
        Before anything was asked.
    file
        What `frame` scans, if everything was read: it may be taken away.
    """

    frame: pl.LazyFrame
    mode: str
    reason: str
    rows_read: int
    version: str | None
    tally: Tally | None
    observed_at: datetime
    bytes_billed: int = 0
    file: Path | None = None


@contextmanager
def refreshed(
    warehouse: Warehouse,
    relation: str,
    columns: Sequence[str] | None,
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
        Mapped columns and paths; key and `updated_at` are read as well where they are given. None reads all.
    before
        The last observation, or None to read everything.
    """
    wanted = None if columns is None else [*columns, *(name for name in (key, updated_at) if name)]
    observed_at, version = datetime.now(UTC), warehouse.version(relation)
    names = choose_columns(wanted, warehouse.columns(relation), relation).names
    incremental = bool(key in names and updated_at in names)
    tally = warehouse.tally(relation, str(updated_at)) if incremental else None
    reason = _why_all(before, names, incremental=incremental)

    def found(
        frame: pl.LazyFrame, mode: str, why: str, rows: int = 0, billed: int = 0, file: Path | None = None
    ) -> Refreshed:
        return Refreshed(frame, mode, why, rows, version, tally, observed_at, billed, file)

    if before is not None and not reason.startswith("other"):
        if version is not None and version == before.version:
            yield found(before.rows, "unchanged", "the relation's version is that of the last observation")
            return
        if tally is not None and tally == before.tally:
            yield found(before.rows, "unchanged", f"as many rows as before, with the same {updated_at}")
            return
    if before is not None and not reason:
        newer = Newer(str(updated_at), before.observed_at - overlap)
        with _changes(warehouse, relation, names, str(key), newer, before) as changes:
            if changes is not None:
                yield found(changes.frame, "changes", f"{changes.rows} rows changed", changes.rows, changes.billed)
                return
        reason = f"{updated_at} does not tell every change"
    with warehouse.snapshot(relation, names) as snapshot:
        reading = snapshot.reading
        yield found(snapshot.frame, "full", reason, reading.rows, reading.bytes_billed or 0, snapshot.path)


def _why_all(before: Observation | None, names: Sequence[str], *, incremental: bool) -> str:
    """Say why everything has to be read; empty if not."""
    if before is None:
        return "there is no earlier observation"
    if set(before.rows.collect_schema().names()) != set(names):
        return "other columns are mapped than before"
    return "" if incremental else "the table has no key and updated_at"


@dataclass(frozen=True)
class _Folded:
    frame: pl.LazyFrame
    rows: int
    billed: int


@contextmanager
def _changes(
    warehouse: Warehouse, relation: str, columns: Sequence[str], key: str, newer: Newer, before: Observation
) -> Iterator[_Folded | None]:
    """Fold changes and deletions into the earlier rows; None if some key comes from nowhere or types differ."""
    with warehouse.snapshot(relation, [key]) as keys, warehouse.snapshot(relation, columns, newer=newer) as changed:
        if before.rows.collect_schema() != changed.frame.collect_schema():
            yield None
            return
        kept = before.rows.join(changed.frame.select(key), on=key, how="anti").join(keys.frame, on=key, how="semi")
        present = pl.concat([kept.select(key), changed.frame.select(key)])
        missing = keys.frame.join(present, on=key, how="anti").select(pl.len()).collect(engine="streaming").item()
        if missing:
            yield None
            return
        billed = (keys.reading.bytes_billed or 0) + (changed.reading.bytes_billed or 0)
        rows = pl.concat([kept, changed.frame.join(keys.frame, on=key, how="semi")])
        yield _Folded(rows, changed.reading.rows, billed)
