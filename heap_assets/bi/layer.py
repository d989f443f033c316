"""What BI tools are told of a target: its tables, what their columns mean, how they join, and what reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from uuid import NAMESPACE_URL, UUID, uuid5

import polars as pl

from heap_assets.config import SqlLocation

DAY = "partition_day"
_NAMESPACE = uuid5(NAMESPACE_URL, "https://github.com/heap_assets/bi")


class Kind(StrEnum):
    """What a BI tool needs to know of a column's type."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    TIME = "time"
    DATE = "date"
    OTHER = "other"

    @classmethod
    def of(cls, dtype: pl.DataType) -> Kind:
        """Return the kind of a column of the lake; lists, structs and bytes are `other`.

        >>> [str(Kind.of(dtype)) for dtype in (pl.Int64(), pl.Decimal(20, 0), pl.Datetime("us", "UTC"), pl.Null())]
        ['integer', 'number', 'time', 'other']
        """
        if dtype.is_integer():
            return cls.INTEGER
        if dtype.is_numeric():
            return cls.NUMBER
        kinds = {pl.String: cls.TEXT, pl.Boolean: cls.BOOLEAN, pl.Datetime: cls.TIME, pl.Date: cls.DATE}
        text = isinstance(dtype, pl.Categorical | pl.Enum)
        return cls.TEXT if text else kinds.get(dtype.base_type(), cls.OTHER)


@dataclass(frozen=True)
class Column:
    """A column as the target has it."""

    name: str
    kind: Kind
    description: str = ""
    personal: bool = False

    @property
    def title(self) -> str:
        """What people call it."""
        return _title(self.name)

    @property
    def meaning(self) -> str:
        """The description, which says so if the column names a person."""
        return " ".join(filter(None, [self.description, "Personal data." if self.personal else ""]))


@dataclass(frozen=True)
class Table:
    """A table or view of the target.

    Attributes
    ----------
    newest
        Whether a day is how things stood: a BI tool shows the newest day, else rows would be counted once a day.
    key
        Columns that tell rows apart: of the newest day, or of all days of an event table; empty if unknown.
    time
        The column that says when a row happened.
    """

    name: str
    schema: str
    description: str
    columns: tuple[Column, ...]
    newest: bool
    key: tuple[str, ...] = ()
    time: str | None = None

    @property
    def title(self) -> str:
        """What people call it."""
        return _title(self.name)

    def has(self, name: str) -> bool:
        """Whether it has a column, spelled as the target does."""
        return any(column.name == name for column in self.columns)

    def column(self, name: str) -> Column:
        """Return one of its columns; KeyError if it has none of the name."""
        return {column.name: column for column in self.columns}[name]


@dataclass(frozen=True)
class Join:
    """Many rows of `left` belong to one of `right`: pairs of columns that are equal."""

    left: str
    right: str
    on: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Exposure:
    """Something that reads the tables, such as a sync; `owner` is an address or a team."""

    name: str
    description: str
    tables: tuple[str, ...]
    owner: str


@dataclass(frozen=True)
class Layer:
    """All that a BI tool is told of one target; tables are named uniquely, without case too."""

    name: str
    location: SqlLocation
    tables: tuple[Table, ...]
    joins: tuple[Join, ...] = ()
    exposures: tuple[Exposure, ...] = field(default=())

    def table(self, name: str) -> Table:
        """Return one of its tables."""
        return {table.name: table for table in self.tables}[name]

    def joins_of(self, table: Table) -> list[Join]:
        """Return the joins that begin at a table."""
        return [join for join in self.joins if join.left == table.name]

    def uuid(self, *names: str) -> UUID:
        """Return the id of an object, the same for the same target and names: importing twice updates."""
        return uuid5(_NAMESPACE, "/".join([self.name, *names]))


def _title(name: str) -> str:
    words = name.replace("_", " ").strip() or name
    return words[:1].upper() + words[1:] if words.islower() else words.capitalize()
