"""Sync manifests: which files of which table make up a dump (heap.md 2.3)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heap_assets.errors import HeapAssetsError


class ManifestError(HeapAssetsError):
    """A sync manifest that cannot be understood; its dump waits until it is written anew."""


@dataclass(frozen=True)
class ManifestTable:
    """One table of a dump: its data files, its column names, and whether it adds to earlier dumps or replaces them."""

    name: str
    files: tuple[str, ...]
    columns: tuple[str, ...]
    incremental: bool


@dataclass(frozen=True)
class Manifest:
    """A dump as its manifest describes it."""

    dump_id: int
    tables: tuple[ManifestTable, ...]


def parse_manifest(data: bytes, key: str, dump_id: int) -> Manifest:
    """Read a manifest; unknown keys are ignored, `property_definitions` is left alone.

    A table listed twice is one table with the files of both; it replaces earlier dumps if either says so.

    Raises
    ------
    ManifestError
        If it is no JSON object, names another dump than its file name, or a table has no name or files.
    """
    try:
        document = json.loads(data)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ManifestError(
            f"{key} is not JSON ({error.__class__.__name__}): the dump waits for a good manifest"
        ) from error
    if not isinstance(document, dict):
        raise ManifestError(f"{key} holds a {type(document).__name__} where an object with dump_id and tables belongs")
    named = document.get("dump_id", dump_id)
    if not str(named).strip().isdigit() or isinstance(named, float | bool) or int(named) != dump_id:
        raise ManifestError(f"{key} says dump_id {named!r}, which is not the {dump_id} of its name")
    entries = document.get("tables")
    if not isinstance(entries, list):
        raise ManifestError(f"{key} has no list of tables")
    tables: dict[str, ManifestTable] = {}
    for entry in entries:
        table = _table(entry, key)
        tables[table.name] = _joined(tables[table.name], table) if table.name in tables else table
    return Manifest(dump_id, tuple(tables.values()))


def _table(entry: Any, key: str) -> ManifestTable:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str) or not entry["name"]:
        raise ManifestError(f"{key} lists a table without a name")
    name = entry["name"]
    files = entry.get("files") or []
    if not isinstance(files, list) or not all(isinstance(file, str) and file for file in files):
        raise ManifestError(f"{key}: the files of table {name} are not a list of addresses")
    columns = entry.get("columns") or []
    incremental = entry.get("incremental")
    # Absent means incremental, as the documented consumers read it: only an explicit false replaces what was there.
    return ManifestTable(
        name,
        tuple(dict.fromkeys(files)),
        tuple(column for column in columns if isinstance(column, str)) if isinstance(columns, list) else (),
        incremental is not False,
    )


def _joined(one: ManifestTable, other: ManifestTable) -> ManifestTable:
    return ManifestTable(
        one.name,
        tuple(dict.fromkeys(one.files + other.files)),
        tuple(dict.fromkeys(one.columns + other.columns)),
        one.incremental and other.incremental,
    )
