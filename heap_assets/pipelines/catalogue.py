"""Accepting tables and columns of Heap into the catalogue: automatically (`heap.tables.accept`), or on request."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

from heap_assets.errors import HeapAssetsError, SourceError
from heap_assets.pipelines import exports
from heap_assets.pipelines.functions import function_version
from heap_assets.pipelines.landing import remember, remember_accepted, unaccepted_of_first_dumps
from heap_assets.project import CATALOGUE_KEY, Project, is_writable
from heap_assets.sources.heap_connect import (
    OWN_COLUMNS,
    Catalogue,
    ManifestError,
    ManifestFile,
    Missing,
    first_day,
    parse_manifest,
    plain_columns,
)
from heap_assets.storage import state_keys
from heap_assets.values import apart
from heap_assets.versions import version_of

_CHANGES_KEY = f"{state_keys.CATALOGUE}/changes.json"
_READERS = 8
_log = logging.getLogger("heap_assets")


@dataclass(frozen=True)
class CatalogueChange:
    """The catalogue after accepting, what was accepted, and the path or address that it was written to."""

    catalogue: Catalogue
    accepted: Missing
    uri: str

    @property
    def summary(self) -> str:
        """The number of accepted columns and tables, as text."""
        columns = sum(len(names) for names in (*self.accepted.tables.values(), *self.accepted.columns.values()))
        tables = len(self.accepted.tables) + len(self.accepted.columns)
        return f"{columns} columns of {tables} tables"


def first_day_of_source(project: Project) -> date | None:
    """Return the first day of which the source holds events; None if none could be read, or it is an export."""
    if exports.is_exported(project):
        return None
    return first_day(project.source(), project.landing.config.tables)


def accept_first(project: Project) -> CatalogueChange | None:
    """Accept what the source holds if the catalogue is empty and the settings allow it; None if nothing was accepted.

    What only the files of these dumps hold is accepted once they have landed, by :func:`accept_automatically`. A source
    that cannot be reached is logged and read with the next load.
    """
    if project.catalogue.tables or project.settings.heap.tables.accept == "never":
        return None
    try:
        offered = exports.missing(project) if exports.is_exported(project) else _offered_by_manifests(project)
        change = accept(project, offered) if offered else None
    except HeapAssetsError as error:
        _log.warning("the catalogue stays empty: what the source holds cannot be listed: %s", error)
        return None
    if change:
        _log.info("took %s into %s (heap.tables.accept: first)", change.summary, change.uri)
    return change


def with_first_tables(project: Project) -> Project:
    """Return a project with what its source holds in the catalogue, if that was empty, see :func:`accept_first`."""
    accepted = accept_first(project)
    return replace(project, catalogue=accepted.catalogue) if accepted else project


def accept_automatically(project: Project) -> CatalogueChange | None:
    """Accept landed tables and columns as `heap.tables.accept` allows; None if none was accepted."""
    choice = project.settings.heap.tables.accept
    if choice == "never":
        return None
    if choice == "first":
        return _accept_of_first_dumps(project) if project.catalogue.tables else accept_first(project)
    landed = missing(project)
    return accept(project, landed) if landed else None


def _accept_of_first_dumps(project: Project) -> CatalogueChange | None:
    unaccepted = None if exports.is_exported(project) else unaccepted_of_first_dumps(project)
    if unaccepted is None:
        return None
    accepted = accept(project, unaccepted) if unaccepted else None
    remember_accepted(project, {**unaccepted.tables, **unaccepted.columns})
    return accepted


def missing(project: Project) -> Missing:
    """Return what landed, or what the export has, that the catalogue does not know."""
    return exports.missing(project) if exports.is_exported(project) else project.catalogue.missing(project.landing)


def accept(project: Project, offered: Missing, only: Iterable[str] | None = None) -> CatalogueChange:
    """Add tables and columns to the catalogue file, or to the lake's copy where the file cannot be written.

    `only`: names as `table` or `table.column`; all that is offered unless given.
    """
    selected = None if only is None else list(only)

    def _change(catalogue: Catalogue) -> Catalogue:
        return catalogue.accept(offered, selected)

    def _change_in_lake(data: bytes | None) -> bytes:
        stored = Catalogue.parse(data, CATALOGUE_KEY) if data else Catalogue()
        return _change(project.catalogue.merged(stored)).to_yaml().encode()

    path, store = project.settings.catalogue, project.lake.store
    if is_writable(path):
        return CatalogueChange(Catalogue.update(path, _change), _selected(offered, selected), str(path))
    store.update(CATALOGUE_KEY, _change_in_lake)
    changed = Catalogue.parse(store.read(CATALOGUE_KEY), store.uri(CATALOGUE_KEY))
    return CatalogueChange(changed, _selected(offered, selected), store.uri(CATALOGUE_KEY))


def uncommitted(project: Project) -> str | None:
    """Return the catalogue as YAML if the file is read-only and differs from it, else None.

    Where the file is read-only, what was taken in is kept in the lake until somebody puts it into the file.
    """
    path = project.settings.catalogue
    if is_writable(path) or Catalogue.load(path) == project.catalogue:
        return None
    return project.catalogue.to_yaml()


def noted_functions(project: Project) -> dict[str, str]:
    """Return each table that had a function when changes were last recorded, with the function's version."""
    versions = {name: str(entry["columns"]).partition("+")[2] for name, entry in _changes(project).items()}
    return {name: version for name, version in versions.items() if version}


def note_changes(project: Project) -> None:
    """Record when the columns or the function of each table last changed: days built before are built again.

    Tables without a record count as never changed, so that an upgrade rebuilds nothing.
    """
    now = datetime.now(UTC).isoformat()
    tables = project.catalogue.tables
    # days have the columns of other types whether the catalogue knows them or not, so they make no new version
    functions = {name: _function(project, name) for name in tables}
    columns = {name: version_of(plain_columns(table.columns)) + functions[name] for name, table in tables.items()}
    all_columns = {
        name: version_of(list(table.columns)) + functions[name] for name, table in tables.items()
    }  # noted so by former versions
    columns |= {asset: _function(project, asset) for asset in project.message_tables}
    all_columns |= {asset: columns[asset] for asset in project.message_tables}
    recorded = _changes(project)
    if all(name in recorded and recorded[name]["columns"] in (columns[name], all_columns[name]) for name in columns):
        return

    def _updated_record(data: bytes | None) -> bytes:
        changes = _read_changes(project, data) if data is not None else {}
        # after a damaged record it is unknown when columns changed: every day is built once more
        unknown_since, changes = (now, {}) if changes is None else (None, changes)
        for name, digest in columns.items():
            if name not in changes:
                changes[name] = {"columns": digest, "since": unknown_since}
            elif changes[name]["columns"] not in (digest, all_columns[name]):
                changes[name] = {"columns": digest, "since": now}
        return json.dumps(changes, sort_keys=True).encode()

    project.lake.store.update(_CHANGES_KEY, _updated_record)


def _function(project: Project, table: str) -> str:
    version = function_version(project, table)
    return f"+{version}" if version else ""


def columns_since(project: Project) -> dict[str, datetime]:
    """Return table to when its known columns or its function last changed; tables that never changed are left out."""
    return {name: datetime.fromisoformat(entry["since"]) for name, entry in _changes(project).items() if entry["since"]}


def _changes(project: Project) -> dict[str, dict[str, str | None]]:
    try:
        data = project.lake.store.read(_CHANGES_KEY)
    except FileNotFoundError:
        return {}
    return _read_changes(project, data) or {}


def _read_changes(project: Project, data: bytes) -> dict[str, dict[str, str | None]] | None:
    """Read the record of each table; None, and a warning, if it is damaged."""
    try:
        changes = json.loads(data)
        return {str(name): {"columns": entry["columns"], "since": entry["since"]} for name, entry in changes.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        _log.warning("%s is damaged: it is written anew", project.lake.store.uri(_CHANGES_KEY))
        return None


def _selected(offered: Missing, only: list[str] | None) -> Missing:
    selected = offered.selected(only)

    def _selected_of(tables: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        return {name: selected[name] for name in tables if name in selected}

    return Missing(_selected_of(offered.tables), _selected_of(offered.columns), offered.other_types)


def _offered_by_manifests(project: Project) -> Missing:
    """Return the selected tables and columns that the source's manifests list, and remember which dumps they are."""
    source, selection = project.source(), project.landing.config.tables
    columns: dict[str, dict[str, None]] = {}

    def _tables(manifest: ManifestFile) -> list[tuple[str, tuple[str, ...]]]:
        try:
            tables = parse_manifest(source.read(manifest.key), manifest.key, manifest.dump_id).tables
        except (ManifestError, SourceError):
            return []  # its landing will say what is wrong with it
        return [(table.name, table.columns) for table in tables]

    manifests = source.manifests()
    with ThreadPoolExecutor(_READERS) as readers:
        for tables in readers.map(_tables, manifests):
            for name, listed in tables:
                own_columns = OWN_COLUMNS.get(name, ())
                columns.setdefault(name, {}).update(dict.fromkeys(apart(column, own_columns) for column in listed))
    offered = project.catalogue.compare(
        {
            name: selection.chosen(name, list(listed))
            for name, listed in sorted(columns.items())
            if selection.takes_table(name)
        }
    )
    if offered:
        remember(project, [manifest.dump_id for manifest in manifests], offered.tables)
    return offered
