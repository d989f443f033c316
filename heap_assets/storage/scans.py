"""Many Parquet objects as few nodes of a plan.

A plan with a node for each file takes seconds to be made, and hundreds of threads to be run: a node for each set of
files whose columns agree takes neither.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import polars as pl

from heap_assets.storage import state_keys
from heap_assets.storage.parts import MARK, files_of, is_marker, parts_of, tables_with_parts
from heap_assets.storage.store import Store
from heap_assets.values import PRIVATE

_ADDRESS = f"{PRIVATE}address"


@dataclass
class _Group:
    """Objects that one node reads, with the columns of all of them."""

    is_remote: bool
    schema: dict[str, pl.DataType] = field(default_factory=dict)
    addresses: list[str] = field(default_factory=list)

    def fits(self, schema: Mapping[str, pl.DataType], *, is_remote: bool) -> bool:
        """Whether an object can be read with the others: equally named columns have equal types."""
        if self.is_remote != is_remote:
            return False
        return all(self.schema.get(name, dtype) == dtype for name, dtype in schema.items())


def scan_together(
    store: Store, keys: Iterable[str], *, columns: Collection[str] | None = None, address: str | None = None
) -> list[pl.LazyFrame]:
    """Scan Parquet objects that are known to be there: as one frame, or as one for each set that agrees in types.

    `columns`: those to read, all unless given. `address`: what a column is called that has each row's
    :meth:`Store.uri`; none unless given.

    A marker stands for its parts.

    A frame has the columns of all of its objects, null where an object has none, and rows in the order of `keys`.
    However many the objects are, there are as many frames as their equally named columns have types.

    Raises DamagedFileError if an object is not what was written.
    """
    groups: list[_Group] = []
    for key in keys:
        stored, is_remote = store.scan_stored(key).collect_schema(), store.local_path(key) is None
        files = [key]
        if is_marker(stored):
            files = [info.key for info in parts_of(store, key)]
            is_remote = store.local_path(files[0]) is None
            for file in files:
                store.check(file)
        schema = {
            name: dtype for name, dtype in stored.items() if (columns is None or name in columns) and name != MARK
        }
        group = next((one for one in groups if one.fits(schema, is_remote=is_remote)), None)
        if group is None:
            groups.append(group := _Group(is_remote))
        group.schema |= schema
        group.addresses.extend(map(store.uri, files))
    return [
        pl.scan_parquet(
            group.addresses,
            schema=group.schema,
            missing_columns="insert",
            extra_columns="ignore",
            include_file_paths=address,
            storage_options=store.storage_options if group.is_remote else None,
            glob=False,
        )
        for group in groups
    ]


def scan_named(store: Store, names: Mapping[str, str], columns: Collection[str], named: str) -> list[pl.LazyFrame]:
    """Scan Parquet objects as :func:`scan_together`, in any order of rows, with a column `named`.

    `names`: what that column says of the rows of an object, by its key.
    """
    with_parts = tables_with_parts(store.list(state_keys.PARTS))
    pairs = [(store.uri(file), name) for key, name in names.items() for file in files_of(store, key, with_parts)]
    by_address = pl.LazyFrame(pairs, schema={_ADDRESS: pl.String, named: pl.String}, orient="row")
    frames = scan_together(store, names, columns=columns, address=_ADDRESS)
    return [frame.join(by_address, on=_ADDRESS, how="left").drop(_ADDRESS) for frame in frames]
