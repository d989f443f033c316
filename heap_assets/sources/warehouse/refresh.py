"""Reading only what has changed since the last observation, where a table allows it.

Three things are asked, the cheapest first. The engine's own version of the relation: while it stands still nothing is
read. Then, of a table with a key and a column that every change sets (`updated_at`), how many rows there are and a
checksum of that column. Then key and `updated_at` of every row: a row whose pair is not that of the earlier observation
has changed, however old its time is (loaders copy rows hours after their change), and one that is not listed is gone.
Rows are read from the oldest time that differs; no clock is asked what may have changed. The fold must hold every row
of the list with the time that the list has; if it does not, everything is read.

A row that was changed without its `updated_at` shows in none of them; reading everything now and then is the caller's.

A source that tells itself what has changed (`tells_changes`) is asked for that alone, from an hour before the newest
`updated_at` on; rows that are gone show when everything is read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import polars as pl

from heap_assets.sources.warehouse.base import Column, Newer, Tally, Warehouse, choose_columns
from heap_assets.sources.warehouse.shape import Shape, TimeKind

OVERLAP = timedelta(hours=1)
"""Rows whose time is so near to the last observation are read again: a second change may leave it as it is."""

_EARLIEST = datetime(1, 1, 1, tzinfo=UTC)
_GRAIN = {TimeKind.INSTANT: timedelta(seconds=2), TimeKind.LOCAL: timedelta(hours=15), TimeKind.DATE: timedelta(days=2)}
"""How exactly a column tells the time of a change, with what local times are away from UTC."""


@dataclass(frozen=True)
class Observation:
    """An earlier read: its rows, when they were read (UTC), and what told the state of the relation then.

    `types` are the engine's, by the relation's own names of its columns; None if nobody wrote them down.
    """

    rows: pl.LazyFrame
    observed_at: datetime
    version: str | None = None
    tally: Tally | None = None
    types: Mapping[str, str] | None = None


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
        What `frame` scans, if everything was read and is as it was read: it may be taken away.
    lost
        Column to the number of values read that no column of the lake can hold, and that are null instead.
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
    lost: Mapping[str, int] = field(default_factory=dict)


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
    spelled: Sequence[str] = (),
    zone: str | None = None,
) -> Iterator[Refreshed]:
    """Give a relation as it stands now, reading as little as possible, for the time of a `with` block.

    Parameters
    ----------
    columns
        Mapped columns and paths; key and `updated_at` are read as well where they are given. None reads all.
    before
        The last observation, or None to read everything.
    spelled
        Columns and paths whose spelling the frame takes over where the relation's own differs in case.
    zone
        Time zone of the relation's times without zone, which become UTC; None keeps them as they are.

    Raises
    ------
    ColumnMissingError
        If a column does not exist, or is spelled in two ways.
    """
    own = [name for name in (key, updated_at) if name]
    wanted = None if columns is None else [*columns, *own]
    observed_at, version = datetime.now(UTC), warehouse.version(relation)
    existing = warehouse.columns(relation)
    instants = warehouse.timestamps_are_instants
    shape = Shape.of(existing, [*spelled, *(columns or ()), *own], relation, zone, timestamps_are_instants=instants)
    names = choose_columns(wanted, existing, relation)
    kind = shape.kind(updated_at) if updated_at else TimeKind.OTHER
    incremental = key in shape.names and kind in _GRAIN
    tally = warehouse.tally(relation, shape.source(str(updated_at))) if incremental else None
    retyped = _retyped(before, existing, names)
    read = _Read(warehouse, relation, names, shape, _texts(before, shape, retyped))
    reason = _why_all(before, shape.renamed(names), kind, retyped, incremental=incremental)

    def outcome(frame: pl.LazyFrame, mode: str, why: str) -> Refreshed:
        return Refreshed(frame, mode, why, 0, version, tally, observed_at)

    if before is not None and not reason.startswith("other"):
        if version is not None and version == before.version:
            yield outcome(before.rows, "unchanged", "the relation's version is that of the last observation")
            return
        if tally is not None and tally == before.tally and _is_settled(before, str(updated_at), _GRAIN[kind]):
            yield outcome(before.rows, "unchanged", f"as many rows as before, with the same {updated_at}")
            return
    if before is not None and not reason:
        fold = _told_changes if warehouse.tells_changes else _changes
        with fold(read, str(key), str(updated_at), before, max(overlap, _GRAIN[kind])) as changes:
            if changes is not None and changes.frame is before.rows:
                yield outcome(before.rows, "unchanged", "the source names no row that has changed")
                return
            if changes is not None:
                yield Refreshed(
                    changes.frame, "changes", f"{changes.rows} rows changed", changes.rows, version, tally, observed_at,
                    changes.billed, None, changes.lost,
                )  # fmt: skip
                return
        reason = f"{updated_at} does not tell every change"
    with warehouse.snapshot(relation, names, text=read.text) as snapshot:
        reading = snapshot.reading
        yield Refreshed(
            shape.apply(snapshot.frame), "full", reason, reading.rows, version, tally, observed_at,
            reading.bytes_billed or 0, None if shape.changes(snapshot.frame) else snapshot.path,
            shape.renamed_counts(reading.lost),
        )  # fmt: skip


def _retyped(before: Observation | None, existing: Sequence[Column], names: Collection[str]) -> list[str]:
    """Return the columns that have another type than when they were read; a change of type touches no `updated_at`."""
    types = {} if before is None or before.types is None else before.types
    return [c.name for c in existing if c.name in names and types.get(c.name, c.type) != c.type]


def _texts(before: Observation | None, shape: Shape, retyped: Collection[str]) -> tuple[str, ...]:
    """A column that had to be read as text stays text, so that its type does not go to and fro with its values."""
    schema = before.rows.collect_schema() if before else pl.Schema()
    texts = (shape.source(name) for name, dtype in schema.items() if dtype == pl.String)
    return tuple(name for name in texts if name not in retyped)


def _why_all(
    before: Observation | None, names: Sequence[str], kind: TimeKind, retyped: Sequence[str], *, incremental: bool
) -> str:
    """Say why everything has to be read; empty if not."""
    if before is None:
        return "there is no earlier observation"
    if set(before.rows.collect_schema().names()) != set(names):
        return "other columns are mapped than before"
    if retyped:
        return f"other types than before: {', '.join(retyped)}"
    if kind is TimeKind.TEXT:
        return "updated_at is text, which no engine compares as a time"
    return "" if incremental else "the table has no key and updated_at"


def _is_settled(before: Observation, updated_at: str, grain: timedelta) -> bool:
    """Whether the newest time was old enough when it was read for a later change to have another."""
    newest = _moment(before.rows.select(pl.col(updated_at).max()).collect(engine="streaming").item())
    return newest is None or newest + grain < before.observed_at


def _moment(value: date | datetime | None) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, datetime):
        return datetime.combine(value, time.min, UTC)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


@dataclass(frozen=True)
class _Read:
    warehouse: Warehouse
    relation: str
    columns: Sequence[str]
    shape: Shape
    text: Collection[str]


@dataclass(frozen=True)
class _Folded:
    frame: pl.LazyFrame
    rows: int
    billed: int
    lost: Mapping[str, int]


@contextmanager
def _changes(
    read: _Read, key: str, updated_at: str, before: Observation, overlap: timedelta
) -> Iterator[_Folded | None]:
    """Fold changes and deletions into the earlier rows; None if they do not give the rows that the relation lists."""
    shape, pair = read.shape, [key, updated_at]
    own = [shape.source(name) for name in pair]
    with read.warehouse.snapshot(read.relation, own, text=read.text) as listed:
        rows = shape.apply(listed.frame).select(pair)
        if any(rows.collect_schema()[name] != before.rows.collect_schema()[name] for name in pair):
            yield None
            return
        since = _since(rows, before, pair, overlap)
        if since is None:
            yield None
            return
        newer = Newer(own[1], shape.moment_of(updated_at, since))
        with read.warehouse.snapshot(read.relation, read.columns, newer=newer, text=read.text) as snapshot:
            changed = shape.apply(snapshot.frame)
            folded = _folded(before.rows, changed, rows, pair)
            billed = (listed.reading.bytes_billed or 0) + (snapshot.reading.bytes_billed or 0)
            lost = shape.renamed_counts(snapshot.reading.lost)
            yield None if folded is None else _Folded(folded, snapshot.reading.rows, billed, lost)


@contextmanager
def _told_changes(
    read: _Read, key: str, updated_at: str, before: Observation, overlap: timedelta
) -> Iterator[_Folded | None]:
    """Fold the rows that the source itself names as changed into the earlier ones; what is gone is told by none."""
    newest = _moment(before.rows.select(pl.col(updated_at).max()).collect(engine="streaming").item())
    if newest is None:
        yield None
        return
    newer = Newer(read.shape.source(updated_at), read.shape.moment_of(updated_at, _earlier(newest, overlap)))
    with read.warehouse.snapshot(read.relation, read.columns, newer=newer, text=read.text) as snapshot:
        changed = read.shape.apply(snapshot.frame)
        if changed.collect_schema() != before.rows.collect_schema():
            yield None
            return
        lost = read.shape.renamed_counts(snapshot.reading.lost)
        pair = [key, updated_at]
        news = changed.join(before.rows.select(pair), on=pair, how="anti", nulls_equal=True)
        if not news.select(pl.len()).collect(engine="streaming").item():
            yield _Folded(before.rows, 0, 0, lost)
            return
        kept = before.rows.join(changed.select(key), on=key, how="anti")
        yield _Folded(pl.concat([kept, changed]), snapshot.reading.rows, snapshot.reading.bytes_billed or 0, lost)


def _earlier(moment: datetime, by: timedelta) -> datetime:
    return moment - by if moment > _EARLIEST + by else _EARLIEST


def _since(rows: pl.LazyFrame, before: Observation, pair: list[str], overlap: timedelta) -> datetime | None:
    """Return the time from which rows have to be read; None if no time tells which have changed."""
    key, updated_at = pair
    differing = rows.join(before.rows.select(pair), on=pair, how="anti", nulls_equal=True)
    found, known, keyless = pl.collect_all(
        [
            differing.select(oldest=pl.col(updated_at).min(), untimed=pl.col(updated_at).null_count()),
            before.rows.select(newest=pl.col(updated_at).max()),
            rows.select(pl.col(key).null_count()),
        ],
        engine="streaming",
    )
    oldest, untimed = found.row(0)
    newest = _moment(known.item())
    if untimed or keyless.item() or newest is None:
        return None
    # nothing differs, nothing was new: rows are gone, and no other needs to be read
    since = _moment(oldest) or newest + timedelta(microseconds=1)
    if newest + overlap < before.observed_at:
        return since
    return min(since, _earlier(newest, overlap))


def _folded(before: pl.LazyFrame, changed: pl.LazyFrame, listed: pl.LazyFrame, pair: list[str]) -> pl.LazyFrame | None:
    """Return earlier and changed rows; None unless they are the listed ones, each with the time that is listed.

    Rows that came after the list was read are taken as well: they are as true as the others.
    """
    if before.collect_schema() != changed.collect_schema():
        return None
    key = pair[0]
    kept = before.join(changed.select(key), on=key, how="anti").join(listed, on=pair, how="semi", nulls_equal=True)
    counts = pl.collect_all(
        [frame.select(pl.len()) for frame in (kept, changed.join(listed.select(key), on=key, how="semi"), listed)],
        engine="streaming",
    )
    standing, arrived, expected = (count.item() for count in counts)
    return pl.concat([kept, changed]) if standing + arrived == expected else None
