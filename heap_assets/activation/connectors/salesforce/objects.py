"""Which object a row is a record of, and how that object's fields are named in the mapping, the ledger and a call.

A sync of one object names fields as they are. One of several objects keeps them apart as `Lead.Title`, `Contact.Title`:
a row has values for the fields of its own object only, so that one that becomes a record of another object is sent
there whole, and what it left behind is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from heap_assets.activation.engine.destination import Row

NAME = re.compile(r"[A-Za-z]\w*")
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "Lead": ("LastName", "Company"),
    "Contact": ("LastName",),
    "Account": ("Name",),
    "Opportunity": ("Name", "StageName", "CloseDate"),
}
"""Fields that a record is not made without, and that are never emptied."""
Choice = Mapping[str, Mapping[str, list[Any]]]
"""Object to what a row of it has: column to values. The first that fits counts; one without conditions always does."""


@dataclass(frozen=True)
class Objects:
    """The objects of a sync, and the mapping of each."""

    choice: Choice
    properties: Mapping[str, str]
    """Field, or `Object.Field`, to column."""

    @property
    def are_several(self) -> bool:
        """Whether the object depends on the row."""
        return len(self.choice) > 1

    def fields(self, object: str) -> dict[str, str]:
        """Return field to column of one object."""
        own = {}
        for name, column in self.properties.items():
            of, _, field = name.rpartition(".")
            if of in ("", object):
                own[field] = column
        return own

    def mapped(self) -> dict[str, str]:
        """Return the mapping as the engine has it: name to column of the rows."""
        if not self.are_several:
            return self.fields(next(iter(self.choice)))
        return {f"{object}.{field}": f"{object}.{field}" for object in self.choice for field in self.fields(object)}

    def mistakes(self) -> Iterator[str]:
        """Yield what is wrong with the names."""
        for object in self.choice:
            if not NAME.fullmatch(object):
                yield f"objects: {object!r} is no name of an object"
        for name in self.properties:
            of, dot, field = name.rpartition(".")
            if dot and of not in self.choice:
                yield f"properties: {name!r} is of an object that this sync does not write; it writes " + ", ".join(
                    self.choice
                )
            if not NAME.fullmatch(field):
                yield f"properties: {name!r} is no API name of a field"

    def chosen(self, named: Mapping[str, str]) -> pl.Expr:
        """Return the object of each row, null if it fits none. `named`: column of the settings to that of the rows."""
        object = pl.lit(None, pl.String)
        for name, conditions in reversed([*self.choice.items()]):
            fits = [
                pl.col(named[column]).cast(pl.String).is_in([_text(value) for value in values])
                for column, values in conditions.items()
            ]
            object = pl.when(pl.all_horizontal(pl.lit(value=True), *fits)).then(pl.lit(name)).otherwise(object)
        return object

    def values(self, object: pl.Expr, named: Mapping[str, str]) -> list[pl.Expr]:
        """Return a column for each field of each object, null in rows of another one."""
        return [
            pl.when(object == name).then(pl.col(named[column])).alias(f"{name}.{field}")
            for name in self.choice
            for field, column in self.fields(name).items()
        ]

    def record(self, row: Row) -> tuple[str, dict[str, Any]]:
        """Return the object of a row and the values of its fields as they are sent: None empties one."""
        object, values = next(iter(self.choice)), dict(row.values)
        if self.are_several:
            # a row whose object is another now has values there, and only withdrawn ones at the former
            of = [name.partition(".")[0] for name in (*row.filled, *row.cleared)]
            object = of[0] if of else object
            values = {n.partition(".")[2]: v for n, v in values.items() if n.partition(".")[0] == object}
        never_emptied = REQUIRED.get(object, ())
        return object, {name: v for name, v in values.items() if v is not None or name not in never_emptied}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
