"""Heap's tables, built from landed deliveries: a day is a pure function of the deliveries it comes from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property, partial
from typing import Any

import polars as pl

from heap_assets.errors import HeapAssetsError, MissingInputError
from heap_assets.sources.heap_connect.comparing import DAY, DUMP, OTHER, VERSION
from heap_assets.sources.heap_connect.config import EVENT_KEYS, OWN_COLUMNS
from heap_assets.sources.heap_connect.landing import Landing
from heap_assets.sources.heap_connect.large_days import Run, day_rows
from heap_assets.sources.heap_connect.merging import Columns, fitted, origin_of, to_json
from heap_assets.sources.heap_connect.records import Delivery, DumpRecords, Part, TableState, deliveries, rejected_notes
from heap_assets.sources.heap_connect.values import key_dtype
from heap_assets.storage import FileWriter, Inputs, Store
from heap_assets.tables import SNAPSHOT_TABLES
from heap_assets.values import PRIVATE, apart

_EVENT_ORDER = ("time", "event_id", "user_id")
BROUGHT_BY, _FILLED = f"{PRIVATE}dump", f"{PRIVATE}filled"


class TableError(HeapAssetsError):
    """A table cannot be built from its deliveries; the message names it and says why."""


@dataclass(frozen=True)
class Built:
    """A partition ready to be written.

    Attributes
    ----------
    inputs
        Its deliveries; known before a row is read.
    notes
        rows, rejected (with reasons and objects), late, complete, dumps, failed: for metadata and checks.
    """

    inputs: Inputs
    notes: Mapping[str, Any]
    build: Callable[[], pl.LazyFrame] = field(repr=False)
    writer: FileWriter | None = field(repr=False, default=None)

    @cached_property
    def frame(self) -> pl.LazyFrame:
        """The rows, read on first access."""
        return self.build()


def build_event_day(landing: Landing, table: str, day: date, columns: Sequence[str] | None = None) -> Built:
    """Build one day of an event table: its landed rows of that day since the last full resync.

    A newer dump replaces all rows of an event_id; within one dump rows are distinct on (event_id, user_id). Sorted by
    time, event_id, user_id.

    `columns`: the columns of the result besides the keys; those in no delivery are null String. Values of another type
    than a column's come with it, as `<column>__<type>`. None takes all that landed for the day.

    Raises TableError if the table is no event table, or never landed.
    """
    if table in SNAPSHOT_TABLES:
        raise TableError(f"{table} is no event table: build it with build_users or build_user_migrations")
    records = landing.records()
    current = current_deliveries(records, table)
    of_day = [delivery for delivery in current if any(day in part.days for part in delivery.table.parts)]
    moves = [(d, d.table.moved_key) for d in current if d.table.moved_key and day in d.table.moved]
    schema = schema_of(current, of_day, EVENT_KEYS, columns)
    resync = [d for d in current[:1] if not d.table.incremental]
    versions = {d.input_id: d.table.version for d in [*resync, *of_day, *(winner for winner, _ in moves)]}
    versions["columns"] = digest(schema)
    observed = frozenset(
        one.input_id for one in records.of_table(table) if day in one.table.days_ever or not one.table.incremental
    )

    def rows() -> pl.LazyFrame:
        if not of_day:
            return pl.LazyFrame(schema=dict(schema))
        moved_away, names = _moved_away(landing.store, current, moves, day), placements(current)
        runs = [
            _run(landing.store, part, delivery, names[delivery.dump.dump_id], day, schema)
            for delivery in of_day
            for part in delivery.table.parts
            if day in part.days
        ]
        return day_rows(runs, schema, _EVENT_ORDER, partial(_deduplicated, moved_away))

    return Built(
        Inputs(versions, observed), _event_notes(records, table, day, of_day) | other_types(schema, columns), rows
    )


def _run(
    store: Store,
    part: Part,
    delivery: Delivery,
    names: Mapping[str, str],
    day: date,
    schema: Mapping[str, pl.DataType],
) -> Run:
    begin = sum(rows for earlier, rows in part.days.items() if earlier < day)  # parts are sorted by time
    dump = pl.lit(delivery.dump.dump_id, dtype=pl.Int64).alias(BROUGHT_BY)

    def rows(offset: int, length: int) -> pl.LazyFrame:
        return scan_part(store, part.key, names, schema, (begin + offset, length)).with_columns(dump)

    return Run(rows, part.days[day], begin)


def _deduplicated(moved_away: Sequence[pl.DataFrame], rows: pl.DataFrame) -> pl.DataFrame:
    for moved in moved_away:
        rows = rows.join(moved, on=["event_id", BROUGHT_BY], how="anti")
    return newest(rows, ("event_id",), ("event_id", "user_id"))


def newest(rows: pl.DataFrame, replaced_by: Sequence[str], key: Sequence[str]) -> pl.DataFrame:
    """Keep, of every `replaced_by` value, the rows of its newest dump, and of those one for each `key`.

    Of rows of one dump that share a key and differ, content decides and never their order in a file: the one with the
    most values is kept, of equal ones the greatest.
    """
    if not rows[replaced_by[0]].is_duplicated().any():
        return rows
    if rows[BROUGHT_BY].n_unique() > 1:
        repeated = rows.select(pl.struct(*replaced_by).is_duplicated()).to_series()
        if repeated.any():
            contested = rows.filter(repeated)
            latest = pl.col(BROUGHT_BY) == pl.col(BROUGHT_BY).max().over(*replaced_by)
            rows = pl.concat([rows.filter(~repeated), contested.filter(latest)])
    repeated = rows.select(pl.struct(*key).is_duplicated()).to_series()
    if not repeated.any():
        return rows
    return pl.concat([rows.filter(~repeated), _fullest(rows.filter(repeated), key)])


def _fullest(rows: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    filled = pl.sum_horizontal(pl.all().is_not_null().cast(pl.Int32)).alias(_FILLED)
    comparable = [name for name, dtype in rows.schema.items() if not dtype.is_nested()]
    order = [_FILLED, *comparable]
    return (
        rows.with_columns(filled)
        .sort(order, descending=True, nulls_last=True, maintain_order=True)
        .unique(list(key), keep="first", maintain_order=True)
        .drop(_FILLED)
    )


def current_deliveries(records: DumpRecords, table: str, until: date | None = None) -> list[Delivery]:
    """Return the deliveries that make up a table, those of snapshots as of the end of `until`.

    A day before the first dump takes the oldest dump there is, the best that is known of it.

    Raises
    ------
    MissingInputError
        If none landed, or only before a reset.
    TableError
        If the newest could not be landed.
    """
    if current := deliveries(records, table, until):
        return current
    recorded = [one.table for one in records.of_table(table)]
    if oldest := [one for one in records.of_table(table) if one.table.state is TableState.LANDED][:1]:
        return oldest
    failed = [record for record in recorded if record.failure is not None]
    if failed and failed[-1].failure is not None:
        raise TableError(f"{table} has not landed: {failed[-1].failure.summary}")
    if not any(record.state is TableState.RESET for record in recorded):
        raise MissingInputError(f"{table} is in no dump that landed: land one, or take it out of the catalogue")
    raise MissingInputError(f"{table} was reset and has not landed again: land its dumps")


def _moved_away(
    store: Store, current: Sequence[Delivery], moves: Sequence[tuple[Delivery, str]], day: date
) -> list[pl.DataFrame]:
    """Return event_id and dump of rows of the day that a newer dump has on another day.

    Moves recorded for a superseded version of a dump are ignored: its new version was compared again.
    """
    versions = pl.DataFrame(
        [(d.dump.dump_id, d.table.version) for d in current],
        schema={OTHER: pl.Int64(), VERSION: pl.String()},
        orient="row",
    )
    return [
        store.scan(key)
        .filter(pl.col(DAY) == day)
        .join(versions.lazy(), on=[OTHER, VERSION], how="semi")
        .select("event_id", pl.col(DUMP).alias(BROUGHT_BY))
        .unique()
        .collect()
        for _, key in moves
    ]


def schema_of(
    current: Sequence[Delivery], used: Sequence[Delivery], keys: Sequence[str], columns: Sequence[str] | None
) -> dict[str, pl.DataType]:
    """Return the columns of a result: keys first, then `columns` or all of the deliveries `used`, as first typed.

    Each of `columns` is followed by the columns with its values of other types.
    """
    last = used[-1].dump.dump_id if used else current[-1].dump.dump_id
    own = OWN_COLUMNS.get(current[0].table.table, ())
    types = Columns(own=own)
    placed: dict[str, None] = {}
    for delivery, names in placed_in(types, (one for one in current if one.dump.dump_id <= last)):
        if any(delivery.dump.dump_id == d.dump.dump_id for d in used) or not used:
            placed.update(dict.fromkeys(names.values()))
    if columns is not None:  # a catalogue may still have a property under the name that it has at Heap
        columns = [*dict.fromkeys(apart(name, own) if name.casefold() in own else name for name in columns)]
    schema = {key: key_dtype(current[0].table.table, key) or pl.String() for key in keys}
    for name in placed if columns is None else _with_other_types(columns, types):
        if name not in keys:
            dtype = types.dtypes.get(name, pl.String())
            schema[name] = pl.String() if dtype == pl.Null else dtype
    return schema


def _with_other_types(columns: Sequence[str], types: Columns) -> Iterator[str]:
    by_origin: dict[str, list[str]] = {}
    for name, origin in types.origins.items():
        if name not in columns and name.startswith(f"{origin}__"):
            by_origin.setdefault(origin, []).append(name)
    for name in columns:
        yield name
        yield from by_origin.get(name, ())


def other_types(schema: Iterable[str], columns: Sequence[str] | None) -> dict[str, str]:
    """Return, for notes, which columns of a result hold values of another type of one of `columns`."""
    names = [name for name in schema if columns is not None and origin_of(name, columns) is not None]
    return {"other_types": ", ".join(names)} if names else {}


def placements(current: Sequence[Delivery]) -> dict[int, dict[str, str]]:
    """Return, for each dump, the column of the table that each of its columns goes to."""
    types = Columns(own=OWN_COLUMNS.get(current[0].table.table, ()) if current else ())
    return {delivery.dump.dump_id: names for delivery, names in placed_in(types, current)}


def placed_in(types: Columns, current: Iterable[Delivery]) -> Iterator[tuple[Delivery, dict[str, str]]]:
    """Add the columns of deliveries to those of their table; yields each with the names that its columns got.

    A schema that comes again, as most do, is placed as it was.
    """
    placed: dict[tuple[int, tuple[tuple[str, str], ...]], dict[str, str]] = {}
    for delivery in current:
        schema, origins = delivery.table.schema, delivery.table.origins
        key = id(schema), tuple(origins.items())
        if key not in placed:
            placed[key] = types.add(schema, origins)
        yield delivery, placed[key]


def scan_part(
    store: Store,
    key: str,
    names: Mapping[str, str],
    schema: Mapping[str, pl.DataType],
    place: tuple[int, int] | None = None,
) -> pl.LazyFrame:
    """Scan a landed part in the columns and types of `schema`.

    Parameters
    ----------
    names
        Column of the table by column of the part, see :func:`placements`.
    place
        First row and number of rows; None for all.
    """
    rows = store.scan(key)
    if place is not None:
        rows = rows.slice(*place)
    present = rows.collect_schema()
    origin = {placed: name for name, placed in names.items() if name in present}
    return rows.select(
        fitted(origin.get(name, name), present.get(origin[name]) if name in origin else None, dtype).alias(name)
        for name, dtype in schema.items()
    )


def _event_notes(records: DumpRecords, table: str, day: date, of_day: Sequence[Delivery]) -> dict[str, Any]:
    end, landed = datetime.combine(day, time(), UTC) + timedelta(days=1), TableState.LANDED
    recorded = records.of_table(table)
    return {
        "rows_landed": sum(d.table.days[day] for d in of_day),
        "dumps": [d.dump.dump_id for d in of_day],
        **rejected_notes(one.table for one in recorded if one.dump.day == day),
        "late": sum(d.table.days[day] for d in of_day if d.table.incremental and d.dump.day > day),
        "complete": any(one.dump.as_of >= end and one.table.state is landed for one in recorded),
        "failed": {one.dump.dump_id: failure.summary for one in recorded if (failure := one.table.failure)},
    }


def digest(schema: Mapping[str, pl.DataType]) -> str:
    text = json.dumps([[name, to_json(dtype)] for name, dtype in schema.items()])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
