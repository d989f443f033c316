"""The known event tables and columns: a file beside the settings, reviewed like a lock file."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heap_assets.errors import SettingsError
from heap_assets.sources.heap_connect.columns import knowledge_of
from heap_assets.sources.heap_connect.config import OWN_COLUMNS
from heap_assets.sources.heap_connect.landing import Landing
from heap_assets.sources.heap_connect.merging import Columns, origin_of
from heap_assets.sources.heap_connect.records import TableState, deliveries
from heap_assets.storage import update_file
from heap_assets.values import apart
from heap_assets.yaml_core import core, read_yaml, write_yaml

_HEADER = """\
# The Heap tables and columns this platform knows. `heap-assets catalogue accept` adds what dumps bring;
# descriptions, display names and pii marks may be edited by hand and are kept.
"""


@dataclass(frozen=True)
class CatalogueColumn:
    """A column: what it means, and whether it may name a person."""

    description: str = ""
    pii: bool = False


@dataclass(frozen=True)
class CatalogueTable:
    """A table under Heap's own name for it; the name people gave the event is only shown."""

    display_name: str
    columns: Mapping[str, CatalogueColumn] = field(default_factory=dict)


@dataclass(frozen=True)
class Missing:
    """What landed and the catalogue does not know: whole tables, and columns of known tables.

    `other_types` are those of `columns` that hold the values of a known column that came in another type, with that
    column (`plan__long`: `plan`). They are built with it, accepted or not.
    """

    tables: Mapping[str, tuple[str, ...]]
    columns: Mapping[str, tuple[str, ...]]
    other_types: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.tables or self.columns)

    def picked(self, only: Iterable[str] | None = None) -> dict[str, tuple[str, ...]]:
        """Return table to its new columns: of all, or of what is named as `table` or `table.column`.

        Raises
        ------
        SettingsError
            If something is named that is not missing.
        """
        news = {**self.tables, **self.columns}
        if only is None:
            return news
        picked: dict[str, tuple[str, ...]] = {}
        for name in only:
            # names of tables and columns may have dots of their own: the longest table that fits is meant
            fitting = [t for t in news if name == t or name.startswith(f"{t}.")]
            table = max(fitting, key=len, default="")
            column = name.removeprefix(table).removeprefix(".")
            if not table or (column and column not in news[table]):
                raise SettingsError(f"{name} brings nothing new; new are: {', '.join(sorted(news)) or 'none'}")
            more = (column,) if column else news[table]
            picked[table] = tuple(dict.fromkeys((*picked.get(table, ()), *more)))
        return picked


@dataclass(frozen=True)
class Catalogue:
    """All known tables by name. Changes give a new catalogue; :meth:`update` writes them."""

    tables: Mapping[str, CatalogueTable] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path | str) -> Catalogue:
        """Read a catalogue file; one that does not exist is empty.

        Raises
        ------
        SettingsError
            If it is no catalogue; the message names the key.
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
        document = read_yaml(text, str(path)) or {}
        if not isinstance(document, Mapping):
            raise SettingsError(f"{path} holds a {type(document).__name__} where tables by name belong")
        return cls({str(name): _table(str(name), entry, path) for name, entry in document.items()})

    @classmethod
    def update(cls, path: Path | str, change: Callable[[Catalogue], Catalogue]) -> Catalogue:
        """Change the catalogue that stands in a file now, whoever changed it since it was loaded, and return it.

        Raises
        ------
        SettingsError
            If the file is no catalogue; the file stays as it is.
        """
        path = Path(path)
        changed: list[Catalogue] = []

        def _changed(data: bytes | None) -> bytes:
            changed.append(change(cls() if data is None else cls.parse(data, path)))
            return changed[-1].to_yaml().encode()

        update_file(path, _changed)
        return changed[-1]

    def save(self, path: Path | str) -> None:
        """Write the file, replaced whole, whatever stands in it; :meth:`update` changes what stands in it."""
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

    def with_news(self, other: Catalogue) -> Catalogue:
        """Return what both know; where both know a table or a column, this one's words stand."""
        tables = dict(other.tables)
        for name, table in self.tables.items():
            further = other.tables[name].columns if name in other.tables else {}
            tables[name] = CatalogueTable(table.display_name, {**table.columns, **further, **table.columns})
        return Catalogue(tables)

    def columns(self, table: str) -> list[str] | None:
        """Return the known columns of a table; None if the table is not known."""
        known = self.tables.get(table)
        return None if known is None else list(known.columns)

    def missing(self, landing: Landing) -> Missing:
        """Compare with what landed: tables and columns that nobody has accepted yet."""
        return self.compare(landed_columns(landing))

    def compare(self, found: Mapping[str, Iterable[str]]) -> Missing:
        """Compare with the columns of tables as a source has them."""
        new = {
            name: tuple(column for column in columns if column not in self.tables[name].columns)
            for name, columns in found.items()
            if name in self.tables
        }
        apart = {
            name: {c: origin for c in columns if (origin := origin_of(c, self.tables[name].columns)) is not None}
            for name, columns in new.items()
        }
        return Missing(
            {name: tuple(columns) for name, columns in found.items() if name not in self.tables},
            {name: columns for name, columns in new.items() if columns},
            {name: columns for name, columns in apart.items() if columns},
        )

    def accept(self, missing: Missing, only: Iterable[str] | None = None) -> Catalogue:
        """Return a catalogue that also knows what was missing, or of that only what is named: `table`, `table.column`.

        Raises
        ------
        SettingsError
            If a table or column is named that is not missing.
        """
        news = chosen = missing.picked(only)
        tables = dict(self.tables)
        for name in chosen:
            known = tables.get(name) or CatalogueTable(display_name_of(name))
            news_still = [column for column in news[name] if column not in known.columns]
            tables[name] = CatalogueTable(known.display_name, {**known.columns, **_described(name, news_still)})
        return Catalogue(tables)


def landed_columns(landing: Landing, dumps: Collection[int] | None = None) -> dict[str, list[str]]:
    """Return every landed table's columns in the order in which dumps brought them.

    Values of another type than their column's are columns of their own, as tables have them (`plan__long`).

    Parameters
    ----------
    dumps
        Only what these dumps brought; all of them unless given.
    """
    records = {number: record for number, record in landing.records().items() if dumps is None or number in dumps}
    landed: dict[str, dict[str, None]] = {}
    for record in records.values():
        for name, table in record.tables.items():
            if table.state is TableState.LANDED:
                landed.setdefault(name, {}).update(dict.fromkeys(table.schema))
    for name, columns in landed.items():
        own = OWN_COLUMNS.get(name, ())
        types = Columns(own=own)
        landed[name] = dict.fromkeys(apart(column, own) for column in columns)
        for delivery in deliveries(records, name):
            placed = types.take(delivery.table.schema, delivery.table.origins)
            landed[name].update(dict.fromkeys(placed.values()))
    return {name: list(columns) for name, columns in sorted(landed.items())}


def plain_columns(columns: Collection[str]) -> list[str]:
    """Leave out columns that hold another's values of another type: tables have them, known or not (`plan__long`)."""
    return [name for name in columns if origin_of(name, {*columns} - {name}) is None]


def display_name_of(table: str) -> str:
    """Guess how people call an event; Heap's naming rule cannot be turned round (heap.md 2.7)."""
    words = [word for word in table.split("_") if word]
    is_heaps_spelling = re.fullmatch(r"[a-z0-9_]+", table)
    return (" ".join(words).capitalize() or table) if is_heaps_spelling else table


def _described(table: str, columns: Iterable[str]) -> dict[str, CatalogueColumn]:
    known = {column: knowledge_of(table, column) for column in columns}
    return {column: CatalogueColumn(k.description, k.pii) for column, k in known.items()}


def _table(name: str, entry: Any, path: Path | str) -> CatalogueTable:
    if not isinstance(entry, Mapping):
        raise SettingsError(f"{path}: {name} is {entry!r}; expected display_name and columns")
    columns = entry.get("columns") or {}
    if not isinstance(columns, Mapping):
        raise SettingsError(f"{path}: {name}.columns is a {type(columns).__name__}; expected columns by name")
    return CatalogueTable(
        str(entry.get("display_name") or display_name_of(name)),
        {
            column: CatalogueColumn(str(known.get("description") or ""), core(known.get("pii")) or False)
            for column, known in ((column, _knowledge(name, column, known, path)) for column, known in columns.items())
        },
    )


def _knowledge(table: str, column: str, known: Any, path: Path | str) -> Mapping[str, Any]:
    known = known or {}
    if not isinstance(known, Mapping):
        raise SettingsError(f"{path}: {table}.columns.{column} is {known!r}; expected description and pii")
    if not isinstance(core(known.get("pii")), bool | None):
        raise SettingsError(f"{path}: {table}.columns.{column}.pii is {known['pii']!r}; expected true or false")
    return known
