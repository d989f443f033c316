"""A resolution as arrays that the next day can start from. A cache: written whole under `_identity/`, never trusted.

The arrays are in a folder of their own; one small object, replaced last, points to the current folder. A killed writer
leaves a folder without a pointer, which the next one removes. The pointer holds checksums of everything, itself too: a
state that is damaged anywhere is ignored.
"""

from __future__ import annotations

import io
import json
import math
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO, Final

import numpy as np
import polars as pl

from heap_assets.identity.engine.native.encode import Encoded
from heap_assets.identity.engine.native.kernel import I64, PADDING, U8, U16, U32, U64, checksum
from heap_assets.identity.engine.native.memory import at_once
from heap_assets.identity.engine.native.ordered import Clusters
from heap_assets.identity.engine.native.shared import Components, raw_components
from heap_assets.identity.engine.native.tables import Resolved
from heap_assets.identity.engine.native.texts import Texts
from heap_assets.identity.rules import Rules
from heap_assets.storage import Store, state_keys

FORMAT: Final = f"5 polars {pl.__version__}"
"""Polars' hashes are stable within one version only."""

_POINTER: Final = f"{state_keys.IDENTITY}/state.json"
_FOLDER: Final = f"{state_keys.IDENTITY}/state"


@dataclass
class State:
    """A resolution by node, by cluster and by row.

    Attributes
    ----------
    ranks, facts, texts
        By node, as in :class:`Encoded`; a removed node has NO_TYPE.
    slots, size
        The hash table of all nodes, removed ones too.
    component
        Component of each node by all links, shared values included: all that a change can affect.
    labels, shared
        Cluster of each node, and whether it is a shared value.
    high, low
        Ids of clusters.
    row_a, row_b, row_first, row_last, row_tag
        Links and sightings as in :class:`Rows`, by `sources`; `row_a` of a removed row is NONE.
    refused, report
        As in :class:`Clusters` and :class:`Components`.
    inputs
        Folded partitions of event tables: `table|day` to the file of its links.
    snapshots
        Folded partition of each snapshot table, by :attr:`CurrentSnapshot.version`.
    apart
        The `apart` decisions, as :attr:`Rules.apart`.
    spare
        Arrays with the slack that they were stored with, see :meth:`widened`.
    """

    digest: str
    ranks: U8
    facts: I64
    slots: U64
    size: int
    texts: Texts
    component: U32
    components: int
    labels: U32
    shared: U8
    high: U64
    low: U64
    row_a: U32
    row_b: U32
    row_first: I64
    row_last: I64
    row_tag: U16
    sources: list[str]
    refused: pl.DataFrame
    report: pl.DataFrame
    inputs: dict[str, str] = field(default_factory=dict)
    snapshots: dict[str, str] = field(default_factory=dict)
    apart: tuple[tuple[str, ...], ...] = ()
    spare: dict[str, Any] = field(default_factory=dict, repr=False)

    def widened(self, name: str, size: int) -> Any:
        """Return an array with `size` entries at least, grown in the slack it was stored with if that is enough."""
        array = self.array(name)
        if size <= array.shape[0]:
            return array
        full = self.spare.get(name)
        if full is None or full.shape[0] < size:
            full = np.empty((size + size // _SLACK, *array.shape[1:]), array.dtype)
            full[: array.shape[0]] = array
            self.spare[name] = full
        grown = full[:size]
        if name in ("data", "facts"):
            setattr(self.texts, name, grown)
        if name != "data":
            setattr(self, name, grown)
        return grown

    def array(self, name: str) -> Any:
        """Return an array by its name; `data` is that of the text."""
        return self.texts.data if name == "data" else getattr(self, name)

    @classmethod
    def of(cls, result: Resolved, digest: str) -> State:
        """Return the state of a resolution with `keep_rows`."""
        encoded = result.encoded
        component, count = raw_components(encoded)
        rows = encoded.rows
        texts = Texts(encoded.facts, encoded.texts.data[: encoded.texts.size + PADDING])
        return cls(
            digest, encoded.ranks, encoded.facts, encoded.slots, encoded.size, texts, component, count,
            result.clusters.labels, result.components.shared, result.high, result.low,
            rows.a, rows.b, rows.first, rows.last, rows.tag, list(encoded.sources),
            result.clusters.refused, result.components.report, apart=result.rules.apart,
        )  # fmt: skip

    def resolved(self, rules: Rules) -> Resolved:
        """Return the state as a resolution."""
        sources = [name.rpartition("\x1f")[2] for name in self.sources]
        encoded = Encoded(self.ranks, self.facts, self.slots, self.size, self.texts, sources)
        connected = Components(self.component, self.components, self.shared, self.report)
        split = Clusters(self.labels, self.high.size, self.refused)
        return Resolved(rules, encoded, connected, split, self.high, self.low)


_ARRAYS: Final = (
    "ranks", "facts", "slots", "component", "labels", "shared", "high", "low",
    "row_a", "row_b", "row_first", "row_last", "row_tag", "data",
)  # fmt: skip
_FRAMES: Final = ("refused", "report")
_SLACK: Final = 20
"""Arrays are stored a twentieth longer than they are, so that a day's new entries need no copy of all the others."""


def save(state: State, store: Store) -> None:
    """Write a state and point to it."""
    folder = f"{_FOLDER}/{uuid.uuid4().hex}"
    saved = at_once(*(partial(_save_array, store, f"{folder}/{name}.npy", state.array(name)) for name in _ARRAYS))
    checksums = dict(zip(_ARRAYS, saved, strict=True))
    for name in _FRAMES:
        file = io.BytesIO()
        getattr(state, name).write_parquet(file)
        store.write(f"{folder}/{name}.parquet", file.getvalue())
        checksums[name] = f"{zlib.crc32(file.getvalue()):x}"
    pointer = {
        "format": FORMAT, "folder": folder, "digest": state.digest, "components": state.components,
        "table_size": state.size, "sources": state.sources, "inputs": state.inputs, "standing": state.snapshots,
        "apart": state.apart,
        "sizes": {name: state.array(name).shape[0] for name in _ARRAYS}, "checksums": checksums,
    }  # fmt: skip
    store.write(_POINTER, json.dumps({**pointer, "checksum": _checksum_of(pointer)}).encode())
    for stored in store.list(_FOLDER):
        if not stored.key.startswith(folder):
            store.delete(stored.key)


def load(store: Store) -> State | None:
    """Read the current state; None if there is none that this version can read."""
    try:
        pointer: dict[str, Any] = json.loads(store.read(_POINTER))
        if pointer["format"] != FORMAT or pointer.pop("checksum") != _checksum_of(pointer):
            return None
        return _loaded(store, pointer)
    except Exception:
        # NumPy parses a header as Python, so that damage may raise any error; whatever is wrong with a cache, computing
        # everything is right, and the caller notes that there was no state
        return None


def _loaded(store: Store, pointer: Mapping[str, Any]) -> State:
    folder = pointer["folder"]
    arrays: dict[str, Any] = {name: _array(store, f"{folder}/{name}.npy") for name in _ARRAYS}
    files = {name: store.read(f"{folder}/{name}.parquet") for name in _FRAMES}
    spare = dict(arrays)
    arrays = {name: array[: pointer["sizes"][name]] for name, array in arrays.items()}
    checksums = dict(zip(arrays, at_once(*(partial(_checksum, array) for array in arrays.values())), strict=True))
    if checksums | {name: f"{zlib.crc32(file):x}" for name, file in files.items()} != pointer["checksums"]:
        raise ValueError("a file of the state is not what was written")
    frames: dict[str, Any] = {name: pl.read_parquet(io.BytesIO(file)) for name, file in files.items()}
    texts = Texts(arrays["facts"], arrays.pop("data"))
    return State(
        digest=pointer["digest"], size=pointer["table_size"], texts=texts, components=pointer["components"],
        sources=list(pointer["sources"]), inputs=dict(pointer["inputs"]), snapshots=dict(pointer["standing"]),
        spare=spare, apart=tuple(map(tuple, pointer["apart"])), **arrays, **frames,
    )  # fmt: skip


def _checksum(array: Any) -> str:
    """Return a checksum of an array's type and bytes, about as fast as memory is read."""
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    even_size = content.size - content.size % 8
    words = checksum(content[:even_size].view(np.uint64))
    return f"{array.dtype.str} {array.shape[1:]} {words:x} {content[even_size:].tobytes().hex()}"


def _checksum_of(pointer: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(pointer).encode())


def _save_array(store: Store, key: str, array: Any) -> str:
    """Write an array, and return its checksum."""
    with store.staged(key) as path, path.open("wb") as file:
        _write(file, array)
    return _checksum(array)


def _write(file: BinaryIO, array: Any) -> None:
    capacity = array.shape[0] + array.shape[0] // _SLACK
    header = {"descr": array.dtype.str, "fortran_order": False, "shape": (capacity, *array.shape[1:])}
    np.lib.format.write_array_header_1_0(file, header)
    file.flush()
    np.ascontiguousarray(array).tofile(file)
    file.truncate(file.tell() + (capacity - array.shape[0]) * array.dtype.itemsize * math.prod(array.shape[1:]))


def _array(store: Store, key: str) -> Any:
    path = store.local_path(key)
    if path is None:
        return np.load(io.BytesIO(store.read(key)))
    # copy on write: pages are read when they are used, and changes stay in memory; an empty array cannot be mapped
    return np.load(path, mmap_mode="c" if path.stat().st_size > 128 else None)
