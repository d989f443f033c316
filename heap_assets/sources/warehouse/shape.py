"""Conversion of a relation's columns for the lake: renamed as the settings spell them, times in UTC."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal
from zoneinfo import ZoneInfo

import polars as pl

from heap_assets.sources.warehouse.base import Column, ColumnMissingError, WarehouseError, choose_path

Family = Literal["number", "text", "truth value", "time"]

_FAMILIES: tuple[tuple[Family, re.Pattern[str]], ...] = (
    ("number", re.compile(r"(u?(tiny|small|big|huge)?int(eger|[0-9]+)?|(small|big)?serial|(big)?(numeric|decimal)"
                          r"|double( precision)?|float[0-9]*|real)(\s*\(.*\))?\Z")),
    ("text", re.compile(r"((var|n|bp)*char(acter)?( varying)?[0-9]*|string)(\s*\(.*\))?\Z|(ci)?text\Z|enum\b")),
    ("truth value", re.compile(r"bool(ean)?\Z")),
    ("time", re.compile(r"date\Z|datetime\Z|timestamp")),
)  # fmt: skip


def family_of(columns: Sequence[Column], path: str) -> Family | None:
    """Return what kind of value the column at a path (`addr.email`, `items[].sku`) holds; None if that is not known."""
    column = _column_at(columns, path)
    if column is None or column.repeated:
        return None
    return next((family for family, pattern in _FAMILIES if pattern.match(column.type.strip().lower())), None)


def _column_at(columns: Sequence[Column], path: str) -> Column | None:
    column = None
    for part in path.replace("[]", "").split("."):
        same = [c for c in columns if c.name == part] or [c for c in columns if c.name.casefold() == part.casefold()]
        if not same:
            return None
        column = same[0]
        columns = column.fields
    return column


_NO_IDENTIFIER = re.compile(r"(double|float|real|bool|bytea|bytes|blob|time\b(?! with time))")
_DAY = timedelta(days=1)


class TimeKind(StrEnum):
    """How precisely a column gives a time."""

    INSTANT = "instant"
    LOCAL = "local"
    DATE = "date"
    TEXT = "text"
    OTHER = "other"


def time_kind(engine_type: str, *, timestamps_are_instants: bool = False) -> TimeKind:
    """Return the kind of time of an engine's type: `timestamp(3) with time zone` is an instant.

    Parameters
    ----------
    timestamps_are_instants
        As in BigQuery, which calls a time without zone DATETIME.
    """
    kind = engine_type.upper()
    if kind.endswith("]") or kind.startswith("ARRAY"):
        return TimeKind.OTHER
    if kind.startswith(("TIMESTAMP", "DATETIME")):
        zoned = "WITH TIME ZONE" in kind or kind == "TIMESTAMPTZ"
        return TimeKind.INSTANT if zoned or (timestamps_are_instants and kind == "TIMESTAMP") else TimeKind.LOCAL
    if kind == "DATE":
        return TimeKind.DATE
    return TimeKind.TEXT if kind.startswith(("VARCHAR", "TEXT", "STRING", "CHAR")) else TimeKind.OTHER


@dataclass(frozen=True)
class Shape:
    """The columns of one relation: their kinds, and how the settings spell them.

    Attributes
    ----------
    spellings
        Path as the relation spells it (parts in a tuple) to the last part as the settings do.
    zone
        Of times without zone; None if they stay without.
    """

    columns: tuple[Column, ...]
    spellings: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    zone: str | None = None
    timestamps_are_instants: bool = False

    @classmethod
    def of(
        cls,
        columns: Sequence[Column],
        paths: Iterable[str],
        relation: str,
        zone: str | None = None,
        *,
        timestamps_are_instants: bool = False,
    ) -> Shape:
        """Compare the spelling of columns and paths with those of a relation.

        Raises
        ------
        ColumnMissingError
            If one does not exist, or two spell one column in different ways.
        """
        shape = cls(tuple(columns), {}, zone, timestamps_are_instants)
        for path in dict.fromkeys(paths):
            shape = shape.spelling(path, relation)
        return shape

    def spelling(self, path: str, relation: str) -> Shape:
        """Return this shape with one more column or path spelled as the settings do; see :meth:`of`."""
        spellings = dict(self.spellings)
        source_path, settings_path = choose_path(path, self.columns, relation), path.replace("[]", "")
        parts = source_path if settings_path == ".".join(source_path) else settings_path.split(".")
        for depth, name in enumerate(parts, start=1):
            previous = spellings.setdefault(source_path[:depth], name)
            if previous != name:
                raise ColumnMissingError(
                    f"{relation}: the settings spell the column {'.'.join(source_path[:depth])!r} both {previous!r} "
                    f"and {name!r}: spell it in one way"
                )
        return replace(self, spellings=spellings)

    @property
    def names(self) -> list[str]:
        """Top-level names as the lake has them."""
        return self.renamed([column.name for column in self.columns])

    def renamed(self, names: Iterable[str]) -> list[str]:
        """Return the relation's top-level names as the lake has them."""
        return [self.spellings.get((name,), name) for name in names]

    def renamed_counts(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Return counts by the lake's names."""
        return dict(zip(self.renamed(counts), counts.values(), strict=True))

    def source(self, name: str) -> str:
        """Return the relation's own spelling of a top-level name."""
        source_names = {new: path[0] for path, new in self.spellings.items() if len(path) == 1}
        return source_names.get(name, name)

    def kind(self, name: str) -> TimeKind:
        """Return the kind of time of a top-level column; OTHER for paths and missing columns."""
        types = {column.name: column.type for column in self.columns}
        return time_kind(types.get(self.source(name), ""), timestamps_are_instants=self.timestamps_are_instants)

    def check_times(self, relation: str, **settings: str | None) -> None:
        """Refuse columns that cannot tell a time; text can, if its values do, and a path is judged when it is used.

        Parameters
        ----------
        settings
            Key of the settings (`updated_at`) to the column that it names.

        Raises
        ------
        WarehouseError
            With table, column and type.
        """
        for key, name in settings.items():
            column = next((column for column in self.columns if column.name == self.source(name or "")), None)
            if column is not None and time_kind(column.type) is TimeKind.OTHER:
                raise WarehouseError(
                    f"{relation}: {key} is the column {column.name!r} of type {column.type}, which tells no time: name "
                    "a timestamp, a date or ISO text, or read a view that makes one of it (of seconds: to_timestamp)"
                )

    def check_identifiers(self, relation: str, paths: Iterable[str]) -> None:
        """Refuse columns of types that cannot hold identifiers: a float, for example, rounds large ids.

        Raises
        ------
        WarehouseError
            With table, column and type.
        """
        for path in paths:
            column = _column_at(self.columns, path)
            if column is not None and _NO_IDENTIFIER.match(column.type.strip().lower()):
                raise WarehouseError(
                    f"{relation}: the column {path!r} of type {column.type} is mapped as an identifier, which must be "
                    "text, a whole number, a decimal or a date: read a view that casts it to text or to a whole number"
                )

    def moment_of(self, name: str, moment: datetime) -> datetime:
        """Return the time that a column of the relation has at a moment, as if it were UTC."""
        if self.zone is None or self.kind(name) is not TimeKind.LOCAL:
            return moment
        return moment.astimezone(ZoneInfo(self.zone)).replace(tzinfo=UTC)

    def changes(self, frame: pl.LazyFrame) -> bool:
        """Whether `apply` does anything to a frame."""
        times = any(isinstance(d, pl.Datetime) and d.time_zone is None for d in frame.collect_schema().values())
        respelled = any(path[-1] != name for path, name in self.spellings.items())
        return respelled or (self.zone is not None and times)

    def apply(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Spell the columns as the settings do, and turn times of the zone into UTC."""
        if not self.changes(frame):
            return frame
        return frame.select(self._column(name, dtype) for name, dtype in frame.collect_schema().items())

    def _column(self, name: str, dtype: pl.DataType) -> pl.Expr:
        value = pl.col(name)
        if self.zone is not None and isinstance(dtype, pl.Datetime) and dtype.time_zone is None:
            value = in_utc(value, self.zone)
        deeper = [p for p, new in self.spellings.items() if len(p) > 1 and p[0] == name and p[-1] != new]
        if deeper:
            value = self._respelled(value, dtype, (name,))
        return value.alias(self.spellings.get((name,), name))

    def _respelled(self, value: pl.Expr, dtype: Any, path: tuple[str, ...]) -> pl.Expr:
        if isinstance(dtype, pl.List):
            return value.list.eval(self._respelled(pl.element(), dtype.inner, path))
        if not isinstance(dtype, pl.Struct):
            return value
        fields = [
            self._respelled(value.struct.field(child.name), child.dtype, (*path, child.name)).alias(
                self.spellings.get((*path, child.name), child.name)
            )
            for child in dtype.fields
        ]
        return pl.when(value.is_not_null()).then(pl.struct(fields))


def in_utc(value: pl.Expr, zone: str) -> pl.Expr:
    """Turn local times into UTC; an hour that comes twice is its first, one that a clock skips has the offset before.

    Parameters
    ----------
    value
        Datetime without zone.
    """

    def zoned(local: pl.Expr) -> pl.Expr:
        return local.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")

    return pl.coalesce(zoned(value), zoned(value - _DAY) + _DAY)
