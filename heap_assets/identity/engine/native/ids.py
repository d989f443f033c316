"""Profile ids: a pure function of the profile's strongest, then earliest, then smallest identifier (rule 7)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np

from heap_assets.identity.engine.native import kernel_fold, kernel_sha, texts
from heap_assets.identity.engine.native.encode import Encoded
from heap_assets.identity.engine.native.kernel import I64, NONE, PADDING, PLACE, PLACE_SHIFT, U8, U32, U64
from heap_assets.identity.engine.native.memory import in_ranges
from heap_assets.identity.rules import Rules

SEPARATOR: Final = "\x1f"
_SORTED_AT_ONCE: Final = 1 << 18
"""Buckets of eight to sixteen ids."""


def profile_id(identifier_type: str, identifier: str) -> str:
    """Return the id of the profile whose representative this identifier is: 32 hexadecimal digits.

    The first 128 bits of SHA-256 over the UTF-8 bytes of type, 0x1F and value; test vectors are in
    `heap_assets_tests/identity/vectors.json`.
    """
    return hashlib.sha256(f"{identifier_type}{SEPARATOR}{identifier}".encode()).hexdigest()[:32]


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
    starts, nodes, keys = laid_out(encoded, labels, count, shared, rules)
    best = np.empty(count, np.uint32)
    in_ranges(count, lambda begin, end: texts.representatives(starts, keys, nodes, encoded.facts, best, begin, end))
    best[best == NONE] = 0  # empty clusters, whose ids are not used
    high, low = hashed(encoded, best, rules)
    return Profiles(starts, nodes, keys, high, low, in_order(starts, high, low))


def laid_out(encoded: Encoded, labels: U32, count: int, shared: U8, rules: Rules) -> tuple[I64, U32, U64]:
    """Lay out clusters without ids: starts, nodes and keys as in :class:`Profiles`."""
    facts, data, ranks = encoded.facts, encoded.texts.data, encoded.ranks
    skip = _common_prefixes(encoded, rules)
    nodes, keys = np.empty(encoded.nodes, np.uint32), np.empty(encoded.nodes, np.uint64)
    # first the sizes, two places on; then the beginnings, one place on; once filled, the ends
    starts = np.zeros(count + 4, np.int64)
    in_ranges(count + 2, lambda begin, end: texts.count_runs(labels, ranks, starts[1:], begin, end))
    np.cumsum(starts, out=starts)
    in_ranges(
        count + 2,
        lambda begin, end: texts.fill_runs(
            labels, ranks, shared, facts, data, skip, starts[1:-1], keys, nodes, begin, end
        ),
    )
    in_ranges(count + 1, lambda begin, end: texts.sort_runs(starts, keys, nodes, facts, data, begin, end))
    return starts[:-1], nodes, keys


def _common_prefixes(encoded: Encoded, rules: Rules) -> I64:
    """Return the length of the common prefix of each type's values."""
    facts, ranks = encoded.facts, encoded.ranks
    example, most = np.zeros(len(rules.types), np.int64), np.zeros(len(rules.types), np.int64)
    for rank in range(len(rules.types)):
        node = int(np.argmax(ranks == rank)) if ranks.size else 0
        if ranks.size and ranks[node] == rank:
            example[rank] = node
            most[rank] = (facts[node + 1, PLACE] >> PLACE_SHIFT) - (facts[node, PLACE] >> PLACE_SHIFT)

    def shortest(begin: int, end: int) -> I64:
        lengths = most.copy()
        texts.common_prefix(ranks, facts, encoded.texts.data, example, lengths, begin, end)
        return lengths

    lengths: I64 = np.min(in_ranges(ranks.size, shortest), axis=0)
    return lengths


def with_ids(encoded: Encoded, labels: U32, high: U64, low: U64, shared: U8, rules: Rules) -> Profiles:
    """Lay out clusters whose ids are known."""
    starts, nodes, keys = laid_out(encoded, labels, high.size, shared, rules)
    return Profiles(starts, nodes, keys, high, low, in_order(starts, high, low))


def in_order(starts: I64, high: U64, low: U64) -> U32:
    """Sort the clusters that are not empty by their ids; `starts` as in :class:`Profiles`."""
    used = int(np.count_nonzero(starts[1 : high.size + 1] > starts[: high.size]))
    bits = max(used.bit_length() - 4, 1)
    shift, buckets, order = 64 - bits, np.zeros((1 << bits) + 1, np.int64), np.empty(used, np.uint32)
    in_ranges(1 << bits, lambda begin, end: kernel_fold.count_buckets(starts, high, shift, buckets, begin, end))
    np.cumsum(buckets, out=buckets)

    def sort(begin: int, end: int) -> None:
        # sorting copies the ids: of many, only some at a time
        for first in range(begin, end, _SORTED_AT_ONCE):
            last = min(first + _SORTED_AT_ONCE, end)
            kernel_fold.sort_buckets(starts, high, low, shift, buckets, order, first, last)

    in_ranges(1 << bits, sort)
    return order


def hashed(encoded: Encoded, nodes: U32, rules: Rules) -> tuple[U64, U64]:
    """Hash type and value of some nodes."""
    parts = [f"{name}{SEPARATOR}".encode() for name in rules.types]
    prefixes = np.frombuffer(b"".join(parts) + bytes(PADDING), np.uint8).copy()
    prefix_offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    high, low = np.empty(nodes.size, np.uint64), np.empty(nodes.size, np.uint64)

    def work(begin: int, end: int) -> None:
        kernel_sha.sha256_128(
            nodes[begin:end], encoded.ranks, encoded.facts, encoded.texts.data, prefix_offsets, prefixes,
            high[begin:end], low[begin:end],
        )  # fmt: skip

    in_ranges(nodes.size, work)
    return high, low
