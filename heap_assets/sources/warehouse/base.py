"""What every warehouse can do, whatever its engine: list tables, describe columns, read some of them."""

from __future__ import annotations

import difflib
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, NamedTuple

import polars as pl

from heap_assets.errors import SourceError
from heap_assets.redaction import redact


class WarehouseError(SourceError):
    """The warehouse cannot do what the settings ask; the message names the table or column and what to do."""


class RelationMissingError(WarehouseError):
    """There is no such table or view."""

    exit_status: ClassVar[int] = 2


class ColumnMissingError(WarehouseError):
    """The table has no such column or nested field."""

    exit_status: ClassVar[int] = 2


class AccessError(WarehouseError):
    """The warehouse cannot be reached, or refuses these credentials or this permission.

    Parameters
    ----------
    remedy
        What to do, if it differs from the usual remedy.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class WarehouseBusyError(WarehouseError):
    """The warehouse is unreachable or locked by another process; a retry later may succeed."""


@dataclass(frozen=True)
class Column:
    """One column or nested field.

    Attributes
    ----------
    type
        As the engine writes it (`STRUCT(email VARCHAR)[]`, `NUMERIC`, `ARRAY<STRUCT<sku STRING>>`).
    repeated
        Whether a value is a list.
    fields
        Of a struct, or of the structs in a list.
    """

    name: str
    type: str
    nullable: bool = True
    repeated: bool = False
    fields: tuple[Column, ...] = ()
    description: str = ""

    def paths(self) -> list[str]:
        """Return the path of this column and of all below it: `addr`, `addr.email`, `items[].sku`."""
        top = self.name + "[]" if self.repeated else self.name
        return [top, *(f"{top}.{path}" for child in self.fields for path in child.paths())]

    def parts(self) -> list[tuple[str, ...]]:
        """Return the same paths, part by part and without brackets: a name may hold a dot."""
        return [(self.name,), *((self.name, *parts) for child in self.fields for parts in child.parts())]


@dataclass(frozen=True)
class Table:
    """One table or view; `rows` where the engine knows them without counting."""

    name: str
    kind: str = "table"
    rows: int | None = None
    description: str = ""


@dataclass(frozen=True)
class Reading:
    """Cost and result of a read.

    Attributes
    ----------
    version
        Taken before the read: equal versions mean that nothing has changed. None if the engine cannot tell cheaply.
    bytes_billed
        Where the engine bills by bytes.
    lost
        Column to the number of its values that the lake cannot hold and that are null instead (docs/values.md).
    deleted
        Of a read of changes: the values of the column that names a record, of those that the source says are deleted.
    """

    relation: str
    columns: tuple[str, ...]
    rows: int
    observed_at: datetime
    seconds: float
    version: str | None = None
    bytes_billed: int | None = None
    lost: Mapping[str, int] = field(default_factory=dict)
    deleted: pl.Series | None = None


class ReadRequest(NamedTuple):
    """Arguments of :meth:`Warehouse.read`."""

    relation: str
    columns: Sequence[str] | None
    newer: Newer | None
    limit: int | None
    text: Collection[str]


class ReadResult(NamedTuple):
    """Result of one engine's read, see :class:`Reading`."""

    relation: str
    columns: tuple[str, ...]
    rows: int
    lost: Mapping[str, int]
    version: str | None = None
    bytes_billed: int | None = None
    deleted: pl.Series | None = None


@dataclass(frozen=True)
class Snapshot:
    """A read relation as a lazy frame over a temporary Parquet file, and what it took to read it."""

    frame: pl.LazyFrame
    reading: Reading
    path: Path


@dataclass(frozen=True)
class Sample:
    """Some rows of a relation, or None with the reason; `cost` says in words what they took."""

    frame: pl.DataFrame | None
    cost: str


@dataclass(frozen=True)
class Tally:
    """How many rows a relation has, and a checksum over a column of all of them."""

    rows: int
    checksum: str


@dataclass(frozen=True)
class Newer:
    """Only rows whose `column` is at or after `since`, and before `until` if there is one (UTC).

    Attributes
    ----------
    equals
        A text column and the value that it must have as well.
    """

    column: str
    since: datetime
    until: datetime | None = None
    equals: tuple[str, str] | None = None


@dataclass(frozen=True)
class Permission:
    """One thing that was tried, whether it worked, and what to grant if not."""

    name: str
    passed: bool
    detail: str
    remedy: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", redact(self.detail))


class Warehouse(ABC):
    """A warehouse that tables are read from. Implementations connect for each call and hold nothing open."""

    kind: str
    timestamps_are_instants: ClassVar[bool] = False
    """Whether TIMESTAMP without more is a time in UTC."""
    reports_changes: ClassVar[bool] = False
    """Whether it can return the rows changed since a time, so that listing all keys is not needed."""

    @abstractmethod
    def tables(self) -> list[Table]:
        """Return all tables and views, by name (`crm.contacts`)."""

    def locate(self, name: str) -> tuple[str, str | None]:
        """Return the dataset or schema that a name is or lies in, and the table, if it names one."""
        dataset, dot, table = name.rpartition(".")
        return (dataset, table) if dot else (name, None)

    def table(self, relation: str) -> Table:
        """Describe one relation, with its number of rows where the engine knows it."""
        name = self.resolve(relation)
        return next(table for table in self.tables() if table.name == name)

    @abstractmethod
    def resolve(self, relation: str) -> str:
        """Return the relation's own spelling; RelationMissingError names what there is instead."""

    @abstractmethod
    def columns(self, relation: str) -> list[Column]:
        """Describe the columns of a relation; RelationMissingError names what there is instead."""

    @abstractmethod
    def version(self, relation: str) -> str | None:
        """Return a token that changes whenever the relation may have changed; None if that cannot be told cheaply."""

    def tally(self, relation: str, column: str) -> Tally | None:
        """Count a relation's rows and sum up a column, in the engine; None where `version` answers for free."""
        return None

    def read(
        self,
        relation: str,
        columns: Sequence[str] | None,
        path: Path,
        *,
        newer: Newer | None = None,
        limit: int | None = None,
        text: Collection[str] = (),
    ) -> Reading:
        """Stream columns of a relation into one Parquet file.

        Memory is bounded whatever the number of rows. Structs stay structs, arrays stay lists; timestamps with a
        zone become UTC.

        Parameters
        ----------
        columns
            Names, or paths into structs and lists (`addr.email`, `items[].sku`), whose whole top-level column is
            read. None reads all.
        path
            A file that does not exist; it is there only if all was read.
        newer, limit
            Only newer rows; at most so many, whichever.
        text
            Columns that are read as text if their type has values that no other type of the lake holds.

        Raises
        ------
        RelationMissingError, ColumnMissingError
            With what exists and the nearest name.
        AccessError, WarehouseBusyError
            If it cannot be reached, refuses, or is locked.
        """
        started, observed_at = time.monotonic(), datetime.now(UTC)
        result = self._read(ReadRequest(relation, columns, newer, limit, text), path)
        return Reading(
            result.relation, result.columns, result.rows, observed_at, time.monotonic() - started, result.version,
            result.bytes_billed, result.lost, result.deleted,
        )  # fmt: skip

    @abstractmethod
    def _read(self, request: ReadRequest, path: Path) -> ReadResult:
        """Read into `path`; see :meth:`read`."""

    def sample(self, relation: str, rows: int) -> Sample:
        """Read at most so many rows, whichever are the cheapest."""
        with self.snapshot(relation, limit=rows) as snapshot:
            frame = snapshot.frame.collect()
        return Sample(frame, f"{frame.height} rows read")

    @abstractmethod
    def preflight(self) -> list[Permission]:
        """Try each permission that a run needs; a failed one says what to grant. The result holds no secret."""

    @contextmanager
    def snapshot(
        self,
        relation: str,
        columns: Sequence[str] | None = None,
        *,
        newer: Newer | None = None,
        limit: int | None = None,
        text: Collection[str] = (),
    ) -> Iterator[Snapshot]:
        """Read columns of a relation for the time of a `with` block; see :meth:`read`."""
        with tempfile.TemporaryDirectory(prefix="heap-assets-") as folder:
            path = Path(folder) / "snapshot.parquet"
            reading = self.read(relation, columns, path, newer=newer, limit=limit, text=text)
            yield Snapshot(pl.scan_parquet(path), reading, path)


def qualified(relation: str, schema: str) -> str:
    """Return `schema.table` of a name that may be a table's alone."""
    return relation if "." in relation else f"{schema}.{relation}"


def find_relation(name: str, existing: Iterable[str], where: str, noun: str = "table") -> str:
    """Return the relation's own spelling; names are compared without case if nothing fits exactly."""
    names = list(existing)
    return _find(name, names, RelationMissingError(_missing(f"{where} has no {noun} {name!r}", name, names)))


def choose_columns(paths: Sequence[str] | None, columns: Sequence[Column], relation: str) -> tuple[str, ...]:
    """Check names and nested paths against a relation's columns; return those to read, in table order.

    Raises
    ------
    ColumnMissingError
        Names the columns there are and the nearest one.
    """
    if paths is None:
        return tuple(column.name for column in columns)
    roots = {choose_path(path, columns, relation)[0] for path in paths}
    return tuple(column.name for column in columns if column.name in roots)


def choose_path(path: str, columns: Sequence[Column], relation: str) -> tuple[str, ...]:
    """Return the relation's own spelling of a column or nested path (`addr.email`, `items[].sku`), part by part.

    Raises
    ------
    ColumnMissingError
        Names the columns there are and the nearest one.
    """
    by_path = {".".join(parts): parts for column in columns for parts in column.parts()}
    missing = ColumnMissingError(_missing(f"{relation} has no column {path!r}", path, by_path))
    return by_path[_find(_bare(path), list(by_path), missing)]


def _bare(path: str) -> str:
    """`items[].sku` and `items.sku` are one path."""
    return path.replace("[]", "")


def _find(requested: str, names: Sequence[str], missing: WarehouseError) -> str:
    if requested in names:
        return requested
    folded = [name for name in names if name.casefold() == requested.casefold()]
    if len(folded) == 1:
        return folded[0]
    raise missing


def _missing(problem: str, requested: str, existing: Iterable[str]) -> str:
    names = sorted(existing)
    if not names:
        return f"{problem}: it has none at all"
    shown = ", ".join(names[:30]) + (f" and {len(names) - 30} more" if len(names) > 30 else "")
    close = difflib.get_close_matches(requested.casefold(), {name.casefold(): name for name in names}, n=1, cutoff=0.5)
    nearest = next((name for name in names if close and name.casefold() == close[0]), None)
    return f"{problem}. There are: {shown}.{f' Did you mean {nearest!r}?' if nearest else ''}"
