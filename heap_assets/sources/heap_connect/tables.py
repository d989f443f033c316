"""Heap's tables, built from what landed: a day is a pure function of the deliveries it comes from."""

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
from heap_assets.sources.heap_connect.records import Delivery, DumpRecord, Part, TableState, deliveries, rejected_notes
from heap_assets.sources.heap_connect.values import key_dtype
from heap_assets.storage import FileWriter, Inputs, Store
from heap_assets.tables import SNAPSHOT_TABLES
from heap_assets.values import PRIVATE, apart

_EVENT_ORDER = ("time", "event_id", "user_id")
_DAY_END = timedelta(days=1)
BROUGHT_BY, _FILLED = f"{PRIVATE}dump", f"{PRIVATE}filled"


class TableError(HeapAssetsError):
    """A table cannot be built from what landed; the message names it and says why."""


@dataclass(frozen=True)
class Built:
    """A partition ready to be written.

    Attributes
    ----------
    inputs
        The deliveries it is a function of; known before a row is read.
    notes
        rows, rejected (with reasons and where they lie), late, complete, dumps, failed: for metadata and checks.
    """

    inputs: Inputs
    notes: Mapping[str, Any]
    build: Callable[[], pl.LazyFrame] = field(repr=False)
    writer: FileWriter | None = field(repr=False, default=None)

    @cached_property
    def frame(self) -> pl.LazyFrame:
        """The rows, read when they are asked for."""
        return self.build()


def build_event_day(landing: Landing, table: str, day: date, columns: Sequence[str] | None = None) -> Built:
    """Build one day of an event table: its landed rows of that day since the last full resync.

    A newer dump replaces all rows of an event_id; within one dump rows are distinct on (event_id, user_id). Sorted by
    time, event_id, user_id.

    Parameters
    ----------
    columns
        The columns of the result besides the keys; those that nothing brought are null String. Values of another type
        than a column's come with it, as `<column>__<type>`. None takes all that landed for the day.

    Raises
    ------
    TableError
        If the table is no event table, or never landed.
    """
    if table in SNAPSHOT_TABLES:
        raise TableError(f"{table} is no event table: build it with build_users or build_user_migrations")
    records = landing.records()
    standing = standing_deliveries(records, table)
    bringing = [delivery for delivery in standing if day in delivery.table.days]
    moves = _moves(standing, day)
    schema = schema_of(standing, bringing, EVENT_KEYS, columns)
    rebuilt = [d for d in standing[:1] if not d.table.incremental]
    versions = {d.input_id: d.table.version for d in [*rebuilt, *bringing, *(winner for winner, _ in moves)]}
    versions["columns"] = digest(schema)
    seen = frozenset(
        f"dump {record.dump_id}"
        for record in records.values()
        if (known := record.tables.get(table)) and (day in known.days_ever or not known.incremental)
    )
    return Built(
        Inputs(versions, seen),
        _event_notes(records, table, day, bringing) | other_types(schema, columns),
        lambda: _event_rows(
            landing.store, bringing, _gone(landing.store, standing, moves, day), placements(standing), day, schema
        ),
    )


def _rows_before(part: Part, day: date) -> int:
    """Return where a day begins in a part, which is sorted by time: its days lie one after the other."""
    return sum(rows for other, rows in part.days.items() if other < day)


def _event_rows(
    store: Store,
    bringing: Sequence[Delivery],
    moves: Sequence[pl.DataFrame],
    placed: Mapping[int, Mapping[str, str]],
    day: date,
    schema: Mapping[str, pl.DataType],
) -> pl.LazyFrame:
    if not bringing:
        return pl.LazyFrame(schema=dict(schema))
    runs = [
        _run(store, part, delivery, placed[delivery.dump.dump_id], day, schema)
        for delivery in bringing
        for part in delivery.table.parts
        if day in part.days
    ]
    return day_rows(runs, schema, _EVENT_ORDER, partial(_settled, moves))


def _run(
    store: Store,
    part: Part,
    delivery: Delivery,
    names: Mapping[str, str],
    day: date,
    schema: Mapping[str, pl.DataType],
) -> Run:
    begin = _rows_before(part, day)
    dump = pl.lit(delivery.dump.dump_id, dtype=pl.Int64).alias(BROUGHT_BY)

    def rows(offset: int, length: int) -> pl.LazyFrame:
        return scan_part(store, part.key, names, schema, (begin + offset, length)).with_columns(dump)

    return Run(rows, part.days[day], begin)


def _settled(moves: Sequence[pl.DataFrame], rows: pl.DataFrame) -> pl.DataFrame:
    for gone in moves:
        rows = rows.join(gone, on=["event_id", BROUGHT_BY], how="anti")
    return newest(rows, ("event_id",), ("event_id", "user_id"))


def newest(rows: pl.DataFrame, replaced_by: Sequence[str], key: Sequence[str]) -> pl.DataFrame:
    """Keep, of every `replaced_by` value, the rows of its newest dump, and of those one for each `key`.

    Rows of one dump that share a key and differ are told apart by their content, never by their place in a file: the
    one with the most values stands, then the greatest.
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
    return pl.concat([rows.filter(~repeated), _one_each(rows.filter(repeated), key)])


def _one_each(rows: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    filled = pl.sum_horizontal(pl.all().is_not_null().cast(pl.Int32)).alias(_FILLED)
    comparable = [name for name, dtype in rows.schema.items() if not dtype.is_nested()]
    order = [_FILLED, *comparable]
    return (
        rows.with_columns(filled)
        .sort(order, descending=True, nulls_last=True, maintain_order=True)
        .unique(list(key), keep="first", maintain_order=True)
        .drop(_FILLED)
    )


def standing_deliveries(records: Mapping[int, DumpRecord], table: str, until: date | None = None) -> list[Delivery]:
    """Return the deliveries that make up a table, those of snapshots as of the end of `until`.

    A day before the first dump takes the oldest dump there is: nothing is known of it that would be better.

    Raises
    ------
    MissingInputError
        If none landed, or only before a reset.
    TableError
        If the newest could not be landed.
    """
    standing = deliveries(records, table, until) or _landed(records, table)[:1]
    if standing:
        return standing
    known = [record.tables[table] for record in records.values() if table in record.tables]
    failed = [record for record in known if record.failure is not None]
    if failed and failed[-1].failure is not None:
        raise TableError(f"{table} has not landed: {failed[-1].failure.told}")
    if not any(record.state is TableState.RESET for record in known):
        raise MissingInputError(f"{table} is in no dump that landed: land one, or take it out of the catalogue")
    raise MissingInputError(f"{table} was reset and has not landed again: land its dumps")


def _landed(records: Mapping[int, DumpRecord], table: str) -> list[Delivery]:
    found = ((record, record.tables.get(table)) for record in records.values())
    return [Delivery(record, known) for record, known in found if known and known.state is TableState.LANDED]


def _moves(standing: Sequence[Delivery], day: date) -> list[tuple[Delivery, str]]:
    return [(d, d.table.moved_key) for d in standing if d.table.moved_key and day in d.table.moved]


def _gone(
    store: Store, standing: Sequence[Delivery], moves: Sequence[tuple[Delivery, str]], day: date
) -> list[pl.DataFrame]:
    """Return event_id and dump of rows of the day that a newer dump has on another day.

    A dump that landed anew was compared anew: what was noted of its former version counts no more.
    """
    current = pl.DataFrame(
        [(d.dump.dump_id, d.table.version) for d in standing],
        schema={OTHER: pl.Int64(), VERSION: pl.String()},
        orient="row",
    )
    return [
        store.scan(key)
        .filter(pl.col(DAY) == day)
        .join(current.lazy(), on=[OTHER, VERSION], how="semi")
        .select("event_id", pl.col(DUMP).alias(BROUGHT_BY))
        .unique()
        .collect()
        for _, key in moves
    ]


def schema_of(
    standing: Sequence[Delivery], bringing: Sequence[Delivery], keys: Sequence[str], columns: Sequence[str] | None
) -> dict[str, pl.DataType]:
    """Return the columns of a result: keys first, then those asked for or all that were brought, as first typed.

    A column that is asked for brings the columns with its values of other types, next to it.
    """
    last = bringing[-1].dump.dump_id if bringing else standing[-1].dump.dump_id
    own = OWN_COLUMNS.get(standing[0].table.table, ())
    types = Columns(own=own)
    placed: dict[str, None] = {}
    for delivery in standing:
        if delivery.dump.dump_id > last:
            break
        names = types.take(delivery.table.schema, delivery.table.origins)
        if any(delivery.dump.dump_id == d.dump.dump_id for d in bringing) or not bringing:
            placed.update(dict.fromkeys(names.values()))
    if columns is not None:  # a catalogue may still have a property under the name that it has at Heap
        columns = [*dict.fromkeys(apart(name, own) if name.casefold() in own else name for name in columns)]
    asked = [*_with_other_types(columns, types)] if columns is not None else [*placed]
    wanted = [name for name in asked if name not in keys]
    schema = {key: key_dtype(standing[0].table.table, key) or pl.String() for key in keys}
    for name in wanted:
        found = types.dtypes.get(name, pl.String())
        schema[name] = pl.String() if found == pl.Null else found
    return schema


def _with_other_types(columns: Sequence[str], types: Columns) -> Iterator[str]:
    apart: dict[str, list[str]] = {}
    for name, origin in types.origins.items():
        if name not in columns and name.startswith(f"{origin}__"):
            apart.setdefault(origin, []).append(name)
    for name in columns:
        yield name
        yield from apart.get(name, ())


def other_types(schema: Iterable[str], columns: Sequence[str] | None) -> dict[str, str]:
    """Return, for notes, which columns of a result hold values of another type of a column that was asked for."""
    apart = [name for name in schema if columns is not None and origin_of(name, columns) is not None]
    return {"other_types": ", ".join(apart)} if apart else {}


def placements(standing: Sequence[Delivery]) -> dict[int, dict[str, str]]:
    types = Columns(own=OWN_COLUMNS.get(standing[0].table.table, ()) if standing else ())
    return {d.dump.dump_id: types.take(d.table.schema, d.table.origins) for d in standing}


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
        Where its columns went.
    place
        First row and number of rows; None for all.
    """
    rows = store.scan(key)
    if place is not None:
        rows = rows.slice(*place)
    found = rows.collect_schema()
    origin = {placed: name for name, placed in names.items() if name in found}
    return rows.select(
        fitted(origin.get(name, name), found.get(origin[name]) if name in origin else None, dtype).alias(name)
        for name, dtype in schema.items()
    )


def _event_notes(
    records: Mapping[int, DumpRecord], table: str, day: date, bringing: Sequence[Delivery]
) -> dict[str, Any]:
    end = datetime.combine(day, time(), UTC) + _DAY_END
    return {
        "rows_landed": sum(d.table.days[day] for d in bringing),
        "dumps": [d.dump.dump_id for d in bringing],
        **rejected_notes(t for r in records.values() if r.day == day and (t := r.tables.get(table)) is not None),
        "late": sum(d.table.days[day] for d in bringing if d.table.incremental and d.dump.day > day),
        "complete": any(r.as_of >= end for r in records.values() if table in r.tables and not _failed(r, table)),
        "failed": {r.dump_id: f.told for r in records.values() if (t := r.tables.get(table)) and (f := t.failure)},
    }


def _failed(record: DumpRecord, table: str) -> bool:
    return record.tables[table].state is not TableState.LANDED


def digest(schema: Mapping[str, pl.DataType]) -> str:
    spelled = json.dumps([[name, to_json(dtype)] for name, dtype in schema.items()])
    return hashlib.sha256(spelled.encode()).hexdigest()[:16]
