"""Profile ids: a pure function of the profile's strongest, then earliest, then smallest identifier (rule 7)."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa

from heap_assets.identity.engine.native import texts
from heap_assets.identity.engine.native.encode import Encoded
from heap_assets.identity.engine.native.kernel import I64, NONE, U8, U32, U64
from heap_assets.identity.engine.native.memory import in_ranges
from heap_assets.identity.rules import Rules

SEPARATOR: Final = "\x1f"
_HASHED_AT_ONCE: Final = 20_000


def profile_id(identifier_type: str, identifier: str) -> str:
    """Return the id of the profile whose representative this identifier is: 32 hexadecimal digits.

    The first 128 bits of SHA-256 over the UTF-8 bytes of type, 0x1F and value; test vectors are in
    `heap_assets_tests/identity/vectors.json`.
    """
    return sha256(f"{identifier_type}{SEPARATOR}{identifier}".encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Profiles:
    """Clusters as runs of nodes, one after the other, and their ids.

    Attributes
    ----------
    starts, nodes, keys
        Cluster c is `nodes[starts[c]:starts[c + 1]]`, by type and value; the run after the last cluster holds the
        nodes of no profile. `keys` has one per place: 7 bits type, 1 bit shared, the rest begins the value.
    high, low
        The two halves of each cluster's id; meaningless for an empty cluster.
    order
        Clusters that are not empty, by id.
    """

    starts: I64
    nodes: U32
    keys: U64
    high: U64
    low: U64
    order: U32


def profiles(encoded: Encoded, labels: U32, count: int, shared: U8, rules: Rules) -> Profiles:
    """Lay out clusters and compute their ids: one hash per profile."""
    starts, nodes, keys = laid_out(encoded, labels, count, shared)
    best = np.empty(count, np.uint32)
    in_ranges(count, lambda begin, end: texts.representatives(starts, keys, nodes, encoded.facts, best, begin, end))
    best[best == NONE] = 0  # empty clusters, whose ids are not used
    high, low = hashed(encoded, best, rules)
    return Profiles(starts, nodes, keys, high, low, in_order(starts, high, low))


def laid_out(encoded: Encoded, labels: U32, count: int, shared: U8) -> tuple[I64, U32, U64]:
    """Lay out clusters without ids: starts, nodes and keys as in :class:`Profiles`."""
    facts, data, ranks = encoded.facts, encoded.texts.data, encoded.ranks
    nodes, keys = np.empty(encoded.nodes, np.uint32), np.empty(encoded.nodes, np.uint64)
    # first the sizes, two places on; then the beginnings, one place on; once filled, the ends
    starts = np.zeros(count + 4, np.int64)
    in_ranges(count + 2, lambda begin, end: texts.count_runs(labels, ranks, starts[1:], begin, end))
    np.cumsum(starts, out=starts)
    in_ranges(
        count + 2,
        lambda begin, end: texts.fill_runs(labels, ranks, shared, facts, data, starts[1:-1], keys, nodes, begin, end),
    )
    in_ranges(count + 1, lambda begin, end: texts.sort_runs(starts, keys, nodes, facts, data, begin, end))
    return starts[:-1], nodes, keys


def with_ids(encoded: Encoded, labels: U32, high: U64, low: U64, shared: U8) -> Profiles:
    """Lay out clusters whose ids are known."""
    starts, nodes, keys = laid_out(encoded, labels, high.size, shared)
    return Profiles(starts, nodes, keys, high, low, in_order(starts, high, low))


def in_order(starts: I64, high: U64, low: U64) -> U32:
    """Sort the clusters that are not empty by their ids; `starts` as in :class:`Profiles`."""
    used = np.flatnonzero(starts[1 : high.size + 1] > starts[: high.size]).astype(np.uint32)
    order: U32 = used[np.argsort(high[used])]
    if (np.diff(high[order]) == 0).any():
        order = used[np.lexsort((low[used], high[used]))]
    return order


def hashed(encoded: Encoded, nodes: U32, rules: Rules) -> tuple[U64, U64]:
    """Hash type and value of some nodes, see :func:`profile_id`."""
    prefixes = [f"{name}{SEPARATOR}" for name in rules.types]
    halves = np.empty((nodes.size, 2), np.uint64)

    def work(begin: int, end: int) -> None:
        with duckdb.connect(config={"threads": 1}) as database:
            for first in range(begin, end, _HASHED_AT_ONCE):
                place = slice(first, min(first + _HASHED_AT_ONCE, end))
                offsets, data = (pa.py_buffer(array) for array in encoded.texts.gathered(nodes[place]))
                text = pa.Array.from_buffers(pa.large_string(), place.stop - first, [None, offsets, data])
                prefix = texts.dictionary(encoded.ranks[nodes[place]], prefixes)
                database.register("texts", pa.Table.from_arrays([prefix, text], ["prefix", "text"]))
                digits = pl.Series(database.sql("SELECT sha256(prefix || text) FROM texts").to_arrow_table().column(0))
                halves[place] = _halves(texts.flat(digits).view("<u8").reshape(-1, 8)[:, :4])

    in_ranges(nodes.size, work)
    return halves[:, 0].copy(), halves[:, 1].copy()


def _halves(digits: U64) -> U64:
    """Return the two numbers of each 32 hexadecimal digits, which come as four words of eight, the first digit lowest.

    Digits become half bytes, pairs of them bytes, and so on up to whole words.
    """
    words = (digits & 0x0F0F0F0F0F0F0F0F) + 9 * (digits >> 6 & 0x0101010101010101)
    words = (words << 4 | words >> 8) & 0x00FF00FF00FF00FF
    words = (words | words >> 8) & 0x0000FFFF0000FFFF
    words = (words | words >> 16).astype(np.uint32).byteswap().astype(np.uint64)
    halves: U64 = words[:, ::2] << 32 | words[:, 1::2]
    return halves
