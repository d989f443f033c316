"""Reading only what has changed since the last observation, where a table allows it.

Three checks, the cheapest first. First the engine's version of the relation: if it is unchanged, nothing is read. Then,
for a table with a key and a column that every change sets (`updated_at`), the number of rows and a checksum of that
column. Then key and `updated_at` of every row: a row whose pair differs from the previous observation has changed,
however old its time is (loaders copy rows hours after their change), and a missing row was deleted. Rows are read from
the oldest time that differs, never from a wall-clock bound. The merged result must hold exactly the listed rows with
the listed times; otherwise everything is read.

A row that was changed without its `updated_at` escapes all three; the caller reads everything now and then.

A source with a change feed (`reports_changes`) is read from an hour before the newest `updated_at` on; rows that it
does not name as deleted, and are, show when everything is read.
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
"""Rows changed within this time before the last observation are read again: a later change may carry the same time."""

_EARLIEST = datetime(1, 1, 1, tzinfo=UTC)
_GRAIN = {TimeKind.INSTANT: timedelta(seconds=2), TimeKind.LOCAL: timedelta(hours=15), TimeKind.DATE: timedelta(days=2)}
"""Resolution of a column as the time of a change, including the offset of local times from UTC."""


@dataclass(frozen=True)
class Observation:
    """A previous read: its rows, its time (UTC), and the version and tally of the relation at that time.

    `types` maps the relation's column names to the engine's types; None if they were not recorded.
    """

    rows: pl.LazyFrame
    observed_at: datetime
    version: str | None = None
    tally: Tally | None = None
    types: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Refreshed:
    """The current rows of a relation, and how they were read.

    Attributes
    ----------
    mode
        `unchanged` (nothing was read), `changes`, or `full`, with the `reason`.
    observed_at
        Taken before the first query.
    file
        The file that `frame` scans, if everything was read and nothing converted; the caller may move it.
    lost
        Column to the number of values that became null because the lake has no type for them.
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
    previous: Observation | None = None,
    overlap: timedelta = OVERLAP,
    spellings: Sequence[str] = (),
    zone: str | None = None,
) -> Iterator[Refreshed]:
    """Yield the current rows of a relation, reading as little as possible; they are valid inside the `with` block.

    Parameters
    ----------
    columns
        Mapped columns and paths; key and `updated_at` are read too if given. None reads all.
    previous
        The last observation, or None to read everything.
    spellings
        Columns and paths in the case that the frame uses, where the relation's differs.
    zone
        Time zone of the relation's times without zone, which become UTC; None keeps them as they are.

    Raises
    ------
    ColumnMissingError
        If a column does not exist, or is spelled in two ways.
    """
    pair = [name for name in (key, updated_at) if name]
    requested = None if columns is None else [*columns, *pair]
    observed_at, version = datetime.now(UTC), warehouse.version(relation)
    existing = warehouse.columns(relation)
    instants = warehouse.timestamps_are_instants
    shape = Shape.of(existing, [*spellings, *(columns or ()), *pair], relation, zone, timestamps_are_instants=instants)
    names = choose_columns(requested, existing, relation)
    kind = shape.kind(updated_at) if updated_at else TimeKind.OTHER
    incremental = key in shape.names and kind in _GRAIN
    tally = warehouse.tally(relation, shape.source(str(updated_at))) if incremental else None
    retyped = _retyped(previous, existing, names)
    read = _Read(warehouse, relation, names, shape, _texts(previous, shape, retyped))
    reason = _full_read_reason(previous, shape.renamed(names), kind, retyped, incremental=incremental)

    def outcome(frame: pl.LazyFrame, mode: str, why: str) -> Refreshed:
        return Refreshed(frame, mode, why, 0, version, tally, observed_at)

    if previous is not None and not reason.startswith("other"):
        if version is not None and version == previous.version:
            yield outcome(previous.rows, "unchanged", "the relation's version is that of the last observation")
            return
        if tally is not None and tally == previous.tally and _is_past_grain(previous, str(updated_at), _GRAIN[kind]):
            yield outcome(previous.rows, "unchanged", f"as many rows as before, with the same {updated_at}")
            return
    if previous is not None and not reason:
        fold = _reported_changes if warehouse.reports_changes else _changes
        with fold(read, str(key), str(updated_at), previous, max(overlap, _GRAIN[kind])) as changes:
            if changes is not None and changes.frame is previous.rows:
                yield outcome(previous.rows, "unchanged", "the source names no row that has changed")
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


def _retyped(previous: Observation | None, existing: Sequence[Column], names: Collection[str]) -> list[str]:
    """Return the columns that have another type than when they were read; a change of type touches no `updated_at`."""
    types = {} if previous is None or previous.types is None else previous.types
    return [c.name for c in existing if c.name in names and types.get(c.name, c.type) != c.type]


def _texts(previous: Observation | None, shape: Shape, retyped: Collection[str]) -> tuple[str, ...]:
    """Return the columns that were read as text before and stay text, so that their type does not alternate."""
    schema = previous.rows.collect_schema() if previous else pl.Schema()
    texts = (shape.source(name) for name, dtype in schema.items() if dtype == pl.String)
    return tuple(name for name in texts if name not in retyped)


def _full_read_reason(
    previous: Observation | None, names: Sequence[str], kind: TimeKind, retyped: Sequence[str], *, incremental: bool
) -> str:
    """Return why everything has to be read; empty if it has not."""
    if previous is None:
        return "there is no earlier observation"
    if set(previous.rows.collect_schema().names()) != set(names):
        return "other columns are mapped than before"
    if retyped:
        return f"other types than before: {', '.join(retyped)}"
    if kind is TimeKind.TEXT:
        return "updated_at is text, which no engine compares as a time"
    return "" if incremental else "the table has no key and updated_at"


def _is_past_grain(previous: Observation, updated_at: str, grain: timedelta) -> bool:
    """Whether the newest time was older than the column's resolution when read, so that a later change differs."""
    newest = _moment(previous.rows.select(pl.col(updated_at).max()).collect(engine="streaming").item())
    return newest is None or newest + grain < previous.observed_at


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
    read: _Read, key: str, updated_at: str, previous: Observation, overlap: timedelta
) -> Iterator[_Folded | None]:
    """Merge changes and deletions into the previous rows; None if the result is not what the relation lists."""
    shape, pair = read.shape, [key, updated_at]
    source_names = [shape.source(name) for name in pair]
    with read.warehouse.snapshot(read.relation, source_names, text=read.text) as listed:
        rows = shape.apply(listed.frame).select(pair)
        if any(rows.collect_schema()[name] != previous.rows.collect_schema()[name] for name in pair):
            yield None
            return
        since = _since(rows, previous, pair, overlap)
        if since is None:
            yield None
            return
        newer = Newer(source_names[1], shape.moment_of(updated_at, since))
        with read.warehouse.snapshot(read.relation, read.columns, newer=newer, text=read.text) as snapshot:
            changed = shape.apply(snapshot.frame)
            folded = _folded(previous.rows, changed, rows, pair)
            billed = (listed.reading.bytes_billed or 0) + (snapshot.reading.bytes_billed or 0)
            lost = shape.renamed_counts(snapshot.reading.lost)
            yield None if folded is None else _Folded(folded, snapshot.reading.rows, billed, lost)


@contextmanager
def _reported_changes(
    read: _Read, key: str, updated_at: str, previous: Observation, overlap: timedelta
) -> Iterator[_Folded | None]:
    """Merge the rows that the source reports as changed or deleted into the previous ones."""
    newest = _moment(previous.rows.select(pl.col(updated_at).max()).collect(engine="streaming").item())
    if newest is None:
        yield None
        return
    newer = Newer(read.shape.source(updated_at), read.shape.moment_of(updated_at, _earlier(newest, overlap)))
    with read.warehouse.snapshot(read.relation, read.columns, newer=newer, text=read.text) as snapshot:
        changed = read.shape.apply(snapshot.frame)
        if changed.collect_schema() != previous.rows.collect_schema():
            yield None
            return
        lost = read.shape.renamed_counts(snapshot.reading.lost)
        pair = [key, updated_at]
        changed_rows = changed.join(previous.rows.select(pair), on=pair, how="anti", nulls_equal=True)
        remaining, removed = _without_deleted(previous.rows, snapshot.reading.deleted)
        if not removed and not changed_rows.select(pl.len()).collect(engine="streaming").item():
            yield _Folded(previous.rows, 0, 0, lost)
            return
        unchanged = remaining.join(changed.select(key), on=key, how="anti")
        read_rows, billed = snapshot.reading.rows + removed, snapshot.reading.bytes_billed or 0
        yield _Folded(pl.concat([unchanged, changed]), read_rows, billed, lost)


def _without_deleted(rows: pl.LazyFrame, deleted: pl.Series | None) -> tuple[pl.LazyFrame, int]:
    """Remove records that are deleted, if the column that names them is there; returns how many were removed."""
    if deleted is None or rows.collect_schema().get(deleted.name) != deleted.dtype:
        return rows, 0
    removed = deleted.to_frame().lazy()
    count = rows.join(removed, on=deleted.name, how="semi").select(pl.len()).collect(engine="streaming").item()
    return rows.join(removed, on=deleted.name, how="anti"), int(count)


def _earlier(moment: datetime, by: timedelta) -> datetime:
    return moment - by if moment > _EARLIEST + by else _EARLIEST


def _since(rows: pl.LazyFrame, previous: Observation, pair: list[str], overlap: timedelta) -> datetime | None:
    """Return the time from which rows have to be read; None if no time tells which have changed."""
    key, updated_at = pair
    differing = rows.join(previous.rows.select(pair), on=pair, how="anti", nulls_equal=True)
    differences, newest_row, keyless = pl.collect_all(
        [
            differing.select(oldest=pl.col(updated_at).min(), untimed=pl.col(updated_at).null_count()),
            previous.rows.select(newest=pl.col(updated_at).max()),
            rows.select(pl.col(key).null_count()),
        ],
        engine="streaming",
    )
    oldest, untimed = differences.row(0)
    newest = _moment(newest_row.item())
    if untimed or keyless.item() or newest is None:
        return None
    # nothing differs: rows were only deleted, none has to be read
    since = _moment(oldest) or newest + timedelta(microseconds=1)
    if newest + overlap < previous.observed_at:
        return since
    return min(since, _earlier(newest, overlap))


def _folded(
    previous: pl.LazyFrame, changed: pl.LazyFrame, listed: pl.LazyFrame, pair: list[str]
) -> pl.LazyFrame | None:
    """Merge previous and changed rows; None unless the result is exactly the listed rows with the listed times.

    Rows that were added after the list was read are included.
    """
    if previous.collect_schema() != changed.collect_schema():
        return None
    key = pair[0]
    unchanged = previous.join(changed.select(key), on=key, how="anti").join(
        listed, on=pair, how="semi", nulls_equal=True
    )
    row_counts = pl.collect_all(
        [frame.select(pl.len()) for frame in (unchanged, changed.join(listed.select(key), on=key, how="semi"), listed)],
        engine="streaming",
    )
    unchanged_rows, changed_rows, listed_rows = (count.item() for count in row_counts)
    return pl.concat([unchanged, changed]) if unchanged_rows + changed_rows == listed_rows else None
