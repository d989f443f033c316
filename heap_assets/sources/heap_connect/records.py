"""Records of landing: one per dump, written whole, with every landed file that counts.

Readers ignore landed files that are in no record: that is what makes a table land whole or not at all.
"""

from __future__ import annotations

import os
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from heap_assets.redaction import redact
from heap_assets.storage import folder_name, state_keys

ROOT = state_keys.LANDING
DUMPS = "_dumps"
DAY_SHIFT = timedelta(hours=12)


def table_folder(table: str) -> str:
    """Return the folder of everything that landed of a table; see :func:`heap_assets.storage.folder_name`."""
    return f"{ROOT}/{folder_name(table, reserved=(DUMPS,))}"


class TableState(StrEnum):
    """The state of one table of a dump."""

    LANDED = "landed"
    FAILED = "failed"
    UNSELECTED = "unselected"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A data file in the version that was read."""

    uri: str
    etag: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Part:
    """A landed Parquet file and the rows it has of each day; a snapshot table's rows belong to no day."""

    key: str
    rows: int
    days: Mapping[date, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """Why a table or a manifest could not be landed. `block` counts from 0; None if it is not about a block."""

    reason: str
    file: str | None = None
    block: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", redact(self.reason))

    @property
    def summary(self) -> str:
        """File, block and reason, in one line."""
        place = self.file if self.file and self.file not in self.reason else ""
        block = f"block {self.block}" if self.block is not None else ""
        where = ", ".join(part for part in (place, block) if part)
        return f"{redact(where)}: {self.reason}" if where else self.reason


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows of one table of one dump.

    Attributes
    ----------
    read, landed, rejected
        In the files; kept; unreadable and set aside.
    before_start
        Older than the start date: left out.
    ahead
        Of days after the dump was written; they are built on their day.
    late
        Of days before the dump's day, in an incremental dump.
    erased
        Of people who were erased: left out.
    masked
        Cells that a rule of masking has changed.
    new, updated, unchanged
        Landed rows compared with the rows of the same key in earlier dumps; None where they were not compared.
    """

    read: int = 0
    landed: int = 0
    rejected: int = 0
    before_start: int = 0
    ahead: int = 0
    late: int = 0
    erased: int = 0
    masked: int = 0
    new: int | None = None
    updated: int | None = None
    unchanged: int | None = None


@dataclass(frozen=True, slots=True)
class TableRecord:
    """One table of one dump.

    Attributes
    ----------
    version
        A hash of the files, their ETags and the settings that decide what is kept: equal versions, equal rows.
    origins
        The property of each column that holds values of a property of another name (`plan__long`: `plan`).
    left_out
        Columns that are not selected.
    rejected, rejected_keys
        Number of rows set aside by reason, and the objects that hold them.
    lost
        Number of values that are null because their type cannot hold them, by column.
    moved
        Number of rows of other dumps that this dump delivered again for another day, by the day that lost them.
    start
        First day of which rows were kept; None in snapshot tables and in records of former versions.
    days_ever
        Days that this table of this dump ever had rows of or took rows from, in any version of it.
    metered
        Rows read by UTC day of reading, over all times this table of this dump landed: counted for the quota.
    """

    table: str
    state: TableState
    version: str = ""
    incremental: bool = True
    files: tuple[SourceFile, ...] = ()
    parts: tuple[Part, ...] = ()
    schema: Mapping[str, pl.DataType] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    counts: Counts = field(default_factory=Counts)
    rejected: Mapping[str, int] = field(default_factory=dict)
    rejected_keys: tuple[str, ...] = ()
    lost: Mapping[str, int] = field(default_factory=dict)
    moved: Mapping[date, int] = field(default_factory=dict)
    moved_key: str | None = None
    start: date | None = None
    days_ever: frozenset[date] = frozenset()
    metered: Mapping[date, int] = field(default_factory=dict)
    failure: Failure | None = None
    attempts: int = 0
    retry_at: datetime | None = None
    landed_at: datetime | None = None
    seconds: float = 0.0

    @property
    def days(self) -> dict[date, int]:
        """Rows by day, over all parts."""
        rows: dict[date, int] = {}
        for part in self.parts:
            for day, count in part.days.items():
                rows[day] = rows.get(day, 0) + count
        return rows

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True)
class DumpRecord:
    """A dump: when it was written (as first listed), and the state of each of its tables.

    Attributes
    ----------
    outstanding
        Selected tables of the manifest that still have to be landed: set before the first of them lands. None in
        records of former versions.
    unannounced
        Days that a landing touched, by table, until :meth:`Landing.confirm` is called with them.
    """

    dump_id: int
    manifest_key: str
    manifest_etag: str
    as_of: datetime
    tables: Mapping[str, TableRecord] = field(default_factory=dict)
    failure: Failure | None = None
    attempts: int = 0
    retry_at: datetime | None = None
    outstanding: tuple[str, ...] | None = None
    unannounced: Mapping[str, frozenset[date]] = field(default_factory=dict)

    @property
    def day(self) -> date:
        """The UTC day it belongs to: the dump of the night after D carries D (design.md, Day of a dump)."""
        return (self.as_of - DAY_SHIFT).date()

    @cached_property
    def metered(self) -> Mapping[date, int]:
        """Rows read by UTC day of reading, over all tables."""
        rows: dict[date, int] = {}
        for table in self.tables.values():
            for day, count in table.metered.items():
                rows[day] = rows.get(day, 0) + count
        return rows

    def with_table(self, table: TableRecord) -> DumpRecord:
        return replace(self, tables={**self.tables, table.table: table})


@dataclass(frozen=True, slots=True)
class Delivery:
    """One landed table together with the dump it came in."""

    dump: DumpRecord
    table: TableRecord

    @property
    def input_id(self) -> str:
        return f"dump {self.dump.dump_id}"


class DumpRecords(Mapping[int, DumpRecord]):
    """The records of all dumps by id, in dump order.

    What the dumps have of a table is collected once, and of changed dumps only if `before` has collected it: a company
    with years of dumps has hundreds of thousands of table records, and the days of hundreds of tables are built from
    them.
    """

    def __init__(self, records: Mapping[int, DumpRecord], before: DumpRecords | None = None) -> None:
        self._records = {dump_id: records[dump_id] for dump_id in sorted(records)}
        self._of_table: dict[str, list[Delivery]] = {}
        self._of_table_before = before._of_table if before else {}
        former = before._records if before else {}
        self._changed = {i for i in {*former, *records} if former.get(i) is not records.get(i)}

    def __getitem__(self, dump_id: int) -> DumpRecord:
        return self._records[dump_id]

    def __iter__(self) -> Iterator[int]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def with_record(self, record: DumpRecord) -> DumpRecords:
        """Return these records with one in the place of what its dump had."""
        return DumpRecords({**self._records, record.dump_id: record}, before=self)

    def of_table(self, table: str) -> Sequence[Delivery]:
        """Return what each dump has of a table, in dump order, whether it landed or not."""
        if (collected := self._of_table.get(table)) is None:
            collected = self._of_table[table] = self._collected(table)
        return collected

    def _collected(self, table: str) -> list[Delivery]:
        former = self._of_table_before.get(table)
        dumps = self._records.keys() if former is None else self._records.keys() & self._changed
        unchanged = [one for one in former or () if one.dump.dump_id not in self._changed]
        new = [
            Delivery(dump, record)
            for dump in map(self._records.__getitem__, dumps)
            if (record := dump.tables.get(table)) is not None
        ]
        return sorted([*unchanged, *new], key=lambda one: one.dump.dump_id)


def deliveries(records: DumpRecords, table: str, until: date | None = None) -> list[Delivery]:
    """Return the current deliveries of a table, in dump order: those landed since its last full resync.

    `until`: only dumps that belong to this day or an earlier one: those that were current then.
    """
    landed = [
        one
        for one in records.of_table(table)
        if one.table.state is TableState.LANDED and (until is None or one.dump.day <= until)
    ]
    full = max((i for i, d in enumerate(landed) if not d.table.incremental), default=0)
    return landed[full:]


def days_ever(records: DumpRecords, table: str) -> frozenset[date]:
    """Return every day that a table ever had rows of."""
    return frozenset().union(*(one.table.days_ever for one in records.of_table(table)))


def observed_inputs(records: DumpRecords, table: str, until: date) -> frozenset[str]:
    """Return the ids of all dumps until a day that brought a snapshot table, also of those replaced since.

    The inputs that a writer knows only ever grow: a full resync or a reset must not make it look like a stale one.
    """
    return frozenset(one.input_id for one in records.of_table(table) if one.dump.day <= until)


def rejected_notes(tables: Iterable[TableRecord]) -> dict[str, Any]:
    """Return how many rows were set aside, why (no values), and in which files of the lake they are.

    If there are any, also the number of values that are null because their type cannot hold them, by column.
    """
    tables = list(tables)
    reasons: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for table in tables:
        reasons.update(table.rejected)
        lost.update(table.lost)
    notes: dict[str, Any] = {"rejected": sum(table.counts.rejected for table in tables)}
    if keys := [key for table in tables for key in table.rejected_keys]:
        notes |= {"rejected_reasons": dict(reasons), "set_aside": keys}
    if lost:
        notes |= {"values_lost": lost.total(), "values_lost_in": dict(sorted(lost.items()))}
    return notes


UNEXPECTED = (Exception, pl.exceptions.PanicException)
"""Errors that end one table and stop no other; KeyboardInterrupt and SystemExit are not among them."""

_PACKAGE = Path(__file__).parents[2]


def failure_of(error: BaseException) -> Failure:
    """Describe an error without its message, which may quote a value."""
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    detail = place = ""
    if isinstance(error, MemoryError):
        detail = " (memory ran out)"
    elif isinstance(error, OSError) and error.errno:
        detail = f" ({os.strerror(error.errno)})"
    for frame in traceback.extract_tb(error.__traceback__):
        if _PACKAGE in Path(frame.filename).parents:
            place = f" at {Path(frame.filename).relative_to(_PACKAGE).as_posix()}:{frame.lineno}"
    return Failure(f"landing stopped with {name}{detail}{place}; the table is tried again")
