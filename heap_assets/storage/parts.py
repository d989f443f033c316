"""Partitions of several files: for writers that are many, such as a cluster, and for tables that no process holds.

The files lie in `_parts/<asset>/<partition>/<run>/…`, and nothing reads them until the partition's usual object says
so. That object, the marker, is a Parquet file with the columns of the table, one more by which every reader of a schema
knows it, and no rows; its footer has what that of any partition has, and the keys of the parts in their order. Parts
never change: what replaces one has another name, and the marker is replaced after it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import polars as pl

from heap_assets.errors import DamagedFileError
from heap_assets.storage import state_keys
from heap_assets.storage.store import ObjectInfo, Store
from heap_assets.values import PRIVATE

MARK: Final = f"{PRIVATE}parts"
"""The column that only a marker has."""
FOOTER: Final = "heap_assets"
_SUFFIX: Final = ".parquet"
_RUN_AND_FILE: Final = 2
_UNNAMED_FOR: Final = timedelta(days=1)
"""So long parts that no marker names may be those of a job that goes on."""


@dataclass(frozen=True)
class Parts:
    """Stored files that are to be one partition: their columns, their keys in order, and how many rows they have."""

    schema: pl.Schema
    keys: tuple[str, ...]
    rows: int

    @property
    def facts(self) -> dict[str, Any]:
        """What the footer of the marker has of them."""
        return {"parts": {"keys": [*self.keys], "rows": self.rows}} if self.keys else {}

    @property
    def marker(self) -> pl.LazyFrame:
        """The rows of the marker, of which there are none."""
        mark = {MARK: pl.String()} if self.keys else {}  # without parts, an empty table is a plain one
        return pl.LazyFrame(schema={**self.schema, **mark})


def parts_folder(asset: str, partition: str, run: str) -> str:
    """Return the folder for the parts that a run writes of a partition."""
    return f"{state_keys.PARTS}/{asset}/{partition}/{run}"


def table_of_part(key: str) -> tuple[str, str] | None:
    """Return asset and partition of a part; None if the object is none. Folders by value (`piece=1`) may be in it."""
    root, *steps = key.split("/")
    if root != state_keys.PARTS:
        return None
    *steps, _file = steps
    while steps and "=" in steps[-1]:
        steps.pop()
    return ("/".join(steps[:-_RUN_AND_FILE]), steps[-_RUN_AND_FILE]) if len(steps) > _RUN_AND_FILE else None


def is_marker(schema: Collection[str]) -> bool:
    """Whether a file with these columns stands for parts."""
    return MARK in schema


def footer_of(store: Store, key: str) -> Any:
    """Return what the footer of a partition has of ours."""
    return json.loads(pl.read_parquet_metadata(store.uri(key), storage_options=store.storage_options)[FOOTER])


def parts_of(store: Store, key: str) -> list[ObjectInfo]:
    """Return the parts that the marker `key` names, in their order.

    Raises
    ------
    DamagedFileError
        If one of them is not there, or the marker cannot be read.
    """
    try:
        names: list[str] = footer_of(store, key)["parts"]["keys"]
    except (pl.exceptions.PolarsError, KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(f"{store.uri(key)} cannot be read as the marker of a partition of this lake") from error
    asset, _, partition = key.removesuffix(_SUFFIX).rpartition("/")
    stored = {info.key: info for info in store.list(f"{state_keys.PARTS}/{asset}/{partition}")}
    if missing := [name for name in names if name not in stored]:
        raise DamagedFileError(
            f"{store.uri(missing[0])} is gone, which {store.uri(key)} names"
            f"{f' with {len(missing) - 1} others' if len(missing) > 1 else ''}: materialize the partition again"
        )
    return [stored[name] for name in names]


def tables_with_parts(infos: Iterable[ObjectInfo]) -> set[str]:
    """Return the keys of the partitions that some of these objects are parts of, whether or not they have a marker."""
    tables = filter(None, (table_of_part(info.key) for info in infos))
    return {f"{asset}/{partition}{_SUFFIX}" for asset, partition in tables}


def files_of(store: Store, key: str, with_parts: Collection[str]) -> list[str]:
    """Return the keys of the files that have the rows of a partition.

    `with_parts`: as of :func:`tables_with_parts`; other partitions are not looked into.
    """
    if key not in with_parts or not is_marker(store.scan_unchecked(key).collect_schema()):
        return [key]
    return [info.key for info in parts_of(store, key)]


def unnamed_parts(store: Store, now: datetime) -> Iterator[str]:
    """Yield what lies among parts, is named by no marker, and belongs to a run that has written nothing for a day."""
    by_run: dict[str, list[ObjectInfo]] = {}
    for info in store.list(state_keys.PARTS):
        table = table_of_part(info.key)
        head = "/".join((state_keys.PARTS, *(table or ())))
        run = info.key.removeprefix(f"{head}/").partition("/")[0] if table else ""
        by_run.setdefault(f"{head}/{run}", []).append(info)
    named = named_parts(store)
    for infos in by_run.values():
        if max(info.last_modified for info in infos) < now - _UNNAMED_FOR:
            yield from (info.key for info in infos if info.key not in named)


def markers(store: Store) -> set[str]:
    """Return the keys of all partitions that have parts."""
    keys = tables_with_parts(store.list(state_keys.PARTS))
    return {key for key in keys if store.exists(key) and is_marker(store.scan_unchecked(key).collect_schema())}


def named_parts(store: Store) -> set[str]:
    """Return the keys of all parts that are in force."""
    return {part for key in markers(store) for part in footer_of(store, key)["parts"]["keys"]}


def renamed(facts: Mapping[str, Any], names: Mapping[str, str], rows: int) -> dict[str, Any]:
    """Return the facts of a footer with other names for parts, which have so many rows together."""
    keys = [names.get(key, key) for key in facts["parts"]["keys"]]
    return {**facts, "parts": {"keys": keys, "rows": rows}}
