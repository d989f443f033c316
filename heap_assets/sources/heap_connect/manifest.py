"""Sync manifests: which files of which table make up a dump (heap.md 2.3)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heap_assets.errors import HeapAssetsError

MOST_BYTES = 64 << 20
_DIGITS = re.compile(r"[0-9]{1,19}")
_MOST_SHOWN = 80


class ManifestError(HeapAssetsError):
    """A sync manifest that cannot be understood; its dump waits until it is written anew."""


@dataclass(frozen=True)
class ManifestTable:
    """One table of a dump: its data files, its column names, and whether it adds to earlier dumps or replaces them.

    `problem` says why the table cannot be read as it is listed; it then has no files.
    """

    name: str
    files: tuple[str, ...]
    columns: tuple[str, ...]
    incremental: bool
    problem: str | None = None


@dataclass(frozen=True)
class Manifest:
    """A dump as its manifest describes it."""

    dump_id: int
    tables: tuple[ManifestTable, ...]


def parse_manifest(data: bytes, key: str, dump_id: int) -> Manifest:
    """Read a manifest; unknown keys are ignored, `property_definitions` is left alone.

    A table listed twice is one table with the files of both; it replaces earlier dumps if either says so. A table that
    is listed wrongly has a `problem` and stops no other.

    Raises ManifestError if it is no JSON object, names another dump than its file name, or has no list of tables.
    """
    if len(data) > MOST_BYTES:
        raise ManifestError(f"{key} is larger than {MOST_BYTES >> 20} MiB: it is not read")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits are a ValueError, too
        raise ManifestError(
            f"{key} is not JSON ({error.__class__.__name__}): the dump waits for a good manifest"
        ) from error
    if not isinstance(document, dict):
        raise ManifestError(f"{key} holds a {type(document).__name__} where an object with dump_id and tables belongs")
    listed_id = document.get("dump_id", dump_id)
    if _number(listed_id) != dump_id:
        raise ManifestError(f"{key} says dump_id {_shown(listed_id)}, which is not the {dump_id} of its name")
    entries = document.get("tables")
    if not isinstance(entries, list):
        raise ManifestError(f"{key} has no list of tables")
    tables: dict[str, ManifestTable] = {}
    for number, entry in enumerate(entries, 1):
        table = _table(entry, number, key)
        tables[table.name] = _joined(tables[table.name], table) if table.name in tables else table
    return Manifest(dump_id, tuple(tables.values()))


def _number(value: Any) -> int | None:
    if isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _shown(value: Any) -> str:
    text = printable(repr(value))
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def printable(text: str) -> str:
    """Spell control characters and lone surrogates as escapes, for databases and terminals."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _table(entry: Any, number: int, key: str) -> ManifestTable:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str) or not entry["name"]:
        return _unreadable(f"(table {number})", f"{key}: entry {number} of tables has no name")
    name = entry["name"]
    if not _is_text(name):
        return _unreadable(printable(name), f"{key}: the name of table {number} is no Unicode text")
    files = entry.get("files") or []
    if not isinstance(files, list) or not all(isinstance(file, str) and file and _is_text(file) for file in files):
        return _unreadable(name, f"{key}: the files of table {_shown(name)} are not a list of addresses")
    columns = entry.get("columns") or []
    incremental = entry.get("incremental")
    # Absent means incremental, as the documented consumers read it: only an explicit false replaces what was there.
    return ManifestTable(
        name,
        tuple(dict.fromkeys(files)),
        tuple(c for c in columns if isinstance(c, str) and _is_text(c)) if isinstance(columns, list) else (),
        incremental is not False,
    )


def _unreadable(name: str, problem: str) -> ManifestTable:
    return ManifestTable(name, (), (), incremental=True, problem=problem)


def _is_text(text: str) -> bool:
    """Lone surrogates, which JSON can spell, are in no encoding."""
    return all(not "\ud800" <= c <= "\udfff" for c in text)


def _joined(first: ManifestTable, second: ManifestTable) -> ManifestTable:
    return ManifestTable(
        first.name,
        tuple(dict.fromkeys(first.files + second.files)),
        tuple(dict.fromkeys(first.columns + second.columns)),
        first.incremental and second.incremental,
        first.problem or second.problem,
    )
