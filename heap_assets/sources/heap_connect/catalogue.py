"""The known event tables and columns: a file beside the settings, reviewed like a lock file."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heap_assets.errors import SettingsError
from heap_assets.sources.heap_connect.columns import CatalogueColumn, described
from heap_assets.sources.heap_connect.config import OWN_COLUMNS
from heap_assets.sources.heap_connect.landing import Landing
from heap_assets.sources.heap_connect.merging import Columns, origin_of
from heap_assets.sources.heap_connect.records import DumpRecords, TableState, deliveries
from heap_assets.sources.heap_connect.tables import placed_in
from heap_assets.storage import update_file
from heap_assets.values import apart
from heap_assets.yaml_core import core, read_large_yaml, write_yaml

_HEADER = """\
# The Heap tables and columns this platform knows. `heap-assets catalogue accept` adds what dumps bring;
# descriptions, display names and pii marks may be edited by hand and are kept.
"""


@dataclass(frozen=True)
class CatalogueTable:
    """A table of Heap's; `display_name` is what people call the event."""

    display_name: str
    columns: Mapping[str, CatalogueColumn] = field(default_factory=dict)


@dataclass(frozen=True)
class Missing:
    """Landed tables, and columns of known tables, that are not in the catalogue.

    `other_types` maps those of `columns` that hold values of another type of a known column to that column
    (`plan__long`: `plan`). They are built with it, accepted or not.
    """

    tables: Mapping[str, tuple[str, ...]]
    columns: Mapping[str, tuple[str, ...]]
    other_types: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.tables or self.columns)

    def selected(self, only: Iterable[str] | None = None) -> dict[str, tuple[str, ...]]:
        """Return the new columns by table: all, or those of `only`, each a `table` or a `table.column`.

        Raises SettingsError if one of `only` is not missing.
        """
        new = {**self.tables, **self.columns}
        if only is None:
            return new
        selected: dict[str, tuple[str, ...]] = {}
        for name in only:
            # names of tables and columns may have dots of their own: the longest table that fits is meant
            table = max((t for t in new if name == t or name.startswith(f"{t}.")), key=len, default="")
            column = name.removeprefix(table).removeprefix(".")
            if not table or (column and column not in new[table]):
                raise SettingsError(f"{name} brings nothing new; new are: {', '.join(sorted(new)) or 'none'}")
            more = (column,) if column else new[table]
            selected[table] = tuple(dict.fromkeys((*selected.get(table, ()), *more)))
        return selected


@dataclass(frozen=True)
class Catalogue:
    """All known tables by name. Changes give a new catalogue; :meth:`update` writes them."""

    tables: Mapping[str, CatalogueTable] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path | str) -> Catalogue:
        """Read a catalogue file; one that does not exist is empty.

        Raises SettingsError if it is no catalogue; the message names the key.
        """
        path = Path(path)
        return cls.parse(path.read_bytes(), path) if path.exists() else cls()

    @classmethod
    def parse(cls, data: bytes, path: Path | str) -> Catalogue:
        """Read the text of a catalogue that lies at `path`; SettingsError names the key of a mistake."""
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise SettingsError(f"{path} is not UTF-8 text") from error
        document = read_large_yaml(text, str(path)) or {}
        if not isinstance(document, Mapping):
            raise SettingsError(f"{path} holds a {type(document).__name__} where tables by name belong")
        return cls({str(name): _table(str(name), entry, path) for name, entry in document.items()})

    @classmethod
    def update(cls, path: Path | str, change: Callable[[Catalogue], Catalogue]) -> Catalogue:
        """Change the catalogue that is in a file now, whoever changed it since it was loaded, and return it.

        Raises SettingsError if the file is no catalogue; the file stays as it is.
        """
        path = Path(path)
        changed: list[Catalogue] = []

        def _changed(data: bytes | None) -> bytes:
            changed.append(change(cls() if data is None else cls.parse(data, path)))
            return changed[-1].to_yaml().encode()

        update_file(path, _changed)
        return changed[-1]

    def save(self, path: Path | str) -> None:
        """Replace the file whole, whatever its content; :meth:`update` changes its content."""
        update_file(Path(path), lambda _: self.to_yaml().encode())

    def to_yaml(self) -> str:
        """Return the text of the file: sorted by table, columns in Heap's order."""
        document = {
            name: {
                "display_name": table.display_name,
                "columns": {c: {"description": k.description, "pii": k.pii} for c, k in table.columns.items()},
            }
            for name, table in sorted(self.tables.items())
        }
        return _HEADER + write_yaml(document)

    def merged(self, other: Catalogue) -> Catalogue:
        """Return the tables and columns of both; of those that both have, this one's descriptions."""
        tables = dict(other.tables)
        for name, table in self.tables.items():
            further = other.tables[name].columns if name in other.tables else {}
            tables[name] = CatalogueTable(table.display_name, {**table.columns, **further, **table.columns})
        return Catalogue(tables)

    def columns(self, table: str) -> list[str] | None:
        """Return the known columns of a table; None if the table is not known."""
        entry = self.tables.get(table)
        return None if entry is None else list(entry.columns)

    def missing(self, landing: Landing) -> Missing:
        """Compare with what landed: tables and columns that nobody has accepted yet."""
        return self.compare(landed_columns(landing))

    def compare(self, source: Mapping[str, Iterable[str]]) -> Missing:
        """Compare with the columns of tables as a source has them."""
        new = {
            name: tuple(column for column in columns if column not in self.tables[name].columns)
            for name, columns in source.items()
            if name in self.tables
        }
        other_types = {
            name: {c: origin for c in columns if (origin := origin_of(c, self.tables[name].columns)) is not None}
            for name, columns in new.items()
        }
        return Missing(
            {name: tuple(columns) for name, columns in source.items() if name not in self.tables},
            {name: columns for name, columns in new.items() if columns},
            {name: columns for name, columns in other_types.items() if columns},
        )

    def accept(self, missing: Missing, only: Iterable[str] | None = None) -> Catalogue:
        """Return a catalogue with what was missing, or of that only what :meth:`Missing.picked` gives."""
        tables = dict(self.tables)
        for name, columns in missing.selected(only).items():
            table = tables.get(name) or CatalogueTable(display_name_of(name))
            new = {column: described(name, column) for column in columns if column not in table.columns}
            tables[name] = CatalogueTable(table.display_name, {**table.columns, **new})
        return Catalogue(tables)


def landed_columns(landing: Landing, dumps: Collection[int] | None = None) -> dict[str, list[str]]:
    """Return every landed table's columns in the order in which dumps brought them.

    Values of another type than their column's are columns of their own, as tables have them (`plan__long`).

    `dumps`: only what these dumps brought; all of them unless given.
    """
    records = landing.records()
    if dumps is not None:
        records = DumpRecords({number: record for number, record in records.items() if number in dumps})
    landed = {}
    for name in sorted({name for record in records.values() for name in record.tables}):
        own = OWN_COLUMNS.get(name, ())
        columns: dict[str, None] = {}
        records_landed = [one.table for one in records.of_table(name) if one.table.state is TableState.LANDED]
        for schema in {id(table.schema): table.schema for table in records_landed}.values():
            columns.update(dict.fromkeys(apart(column, own) for column in schema))
        for _, placed in placed_in(Columns(own=own), deliveries(records, name)):
            columns.update(dict.fromkeys(placed.values()))
        if records_landed:
            landed[name] = [*columns]
    return landed


def plain_columns(columns: Collection[str]) -> list[str]:
    """Leave out columns that hold another's values of another type: tables have them, known or not (`plan__long`)."""
    return [name for name in columns if origin_of(name, {*columns} - {name}) is None]


def display_name_of(table: str) -> str:
    """Guess how people call an event; Heap's naming rule cannot be turned round (heap.md 2.7)."""
    words = [word for word in table.split("_") if word]
    is_heaps_spelling = re.fullmatch(r"[a-z0-9_]+", table)
    return (" ".join(words).capitalize() or table) if is_heaps_spelling else table


def _table(name: str, entry: Any, path: Path | str) -> CatalogueTable:
    if not isinstance(entry, Mapping):
        raise SettingsError(f"{path}: {name} is {entry!r}; expected display_name and columns")
    columns = entry.get("columns") or {}
    if not isinstance(columns, Mapping):
        raise SettingsError(f"{path}: {name}.columns is a {type(columns).__name__}; expected columns by name")
    return CatalogueTable(
        str(entry.get("display_name") or display_name_of(name)),
        {column: _column(f"{path}: {name}.columns.{column}", declared or {}) for column, declared in columns.items()},
    )


def _column(where: str, entry: Any) -> CatalogueColumn:
    if not isinstance(entry, Mapping):
        raise SettingsError(f"{where} is {entry!r}; expected description and pii")
    pii = core(entry.get("pii"))
    if not isinstance(pii, bool | None):
        raise SettingsError(f"{where}.pii is {entry['pii']!r}; expected true or false")
    return CatalogueColumn(str(entry.get("description") or ""), pii or False)
