"""What preflights share: mapped fields that exist and take their columns' types, and what a vendor has no call for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from heap_assets.sources.warehouse import Permission

Takes = Callable[[pl.DataType], bool]
"""Whether a field takes the values of a column."""


def is_numeric(column: pl.DataType) -> bool:
    """Whether a column has numbers."""
    return column.is_numeric()


def is_integer(column: pl.DataType) -> bool:
    """Whether a column has whole numbers."""
    return column.is_integer()


def may_be_number(column: pl.DataType) -> bool:
    """Whether a column has numbers, or texts that may be some."""
    return column.is_numeric() or column == pl.String


def is_boolean(column: pl.DataType) -> bool:
    """Whether a column has booleans."""
    return column == pl.Boolean


def is_time(column: pl.DataType) -> bool:
    """Whether a column has dates or times, or texts that may be some."""
    return column.is_temporal() or column == pl.String


def is_date(column: pl.DataType) -> bool:
    """Whether a column has dates, or texts that may be some."""
    return column in (pl.Date, pl.String)


def is_text(column: pl.DataType) -> bool:
    """Whether a column has values that are sent as text."""
    return not (column.is_numeric() or column == pl.Boolean)


@dataclass(frozen=True)
class Fields:
    """The fields of an object there.

    `noun`: how the vendor names one; `remedy`: where one is made. `takes`: by type of a field, in lower case; fields of
    other types take any column.
    """

    noun: str
    remedy: str
    takes: Mapping[str, Takes]

    def tried(
        self, names: Iterable[str], kinds: Mapping[str, str], columns: Mapping[str, pl.DataType]
    ) -> Iterator[Permission]:
        """Yield a result for each mapped field. `kinds`: types of the fields there; `columns`: of what they are sent.

        A column whose type is not known yet fits, and so does one without any value.
        """
        for name in names:
            kind, column = kinds.get(name), columns.get(name)
            if kind is None:
                yield Permission(f"{self.noun} {name}", False, "it is missing", self.remedy)
            elif column not in (None, pl.Null) and not self.takes.get(kind.lower(), takes_any)(column):
                detail = f"is of type {kind}, and its column of {column}"
                yield Permission(f"{self.noun} {name}", False, detail, "map a column of that type")
            else:
                yield Permission(f"{self.noun} {name}", True, f"takes values of type {kind}")


def takes_any(column: pl.DataType) -> bool:
    """Take any column."""
    del column
    return True


def untried(subject: str, why: str) -> Permission:
    """Return that something cannot be tried before the first rows: it stands against nothing."""
    return Permission(subject, True, f"not tried: {why}")
