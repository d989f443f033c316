"""Profile ids: a pure function of the profile's strongest, then earliest, then smallest identifier (rule 7)."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np

from heap_assets.identity import kernel_text
from heap_assets.identity.encode import Encoded
from heap_assets.identity.kernel import I64, NONE, U8, U32, U64
from heap_assets.identity.rules import Rules

SEPARATOR: Final = "\x1f"


def profile_id(identifier_type: str, identifier: str) -> str:
    """Return the id of the profile that this identifier stands for: 32 hexadecimal digits.

    The first 128 bits of SHA-256 over the UTF-8 bytes of type, 0x1F and value; test vectors are in
    `heap_assets_tests/identity/vectors.json`.
    """
    return hashlib.sha256(f"{identifier_type}{SEPARATOR}{identifier}".encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Profiles:
    """Clusters laid out one after the other, and their ids.

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
    kernel_text.representatives(starts, keys, nodes, encoded.seen, best)
    used = np.flatnonzero(best != NONE).astype(np.uint32)
    high, low = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
    high[used], low[used] = hashed(encoded, best[used], rules)
    return Profiles(starts, nodes, keys, high, low, _by_id(used, high, low))


def laid_out(encoded: Encoded, labels: U32, count: int, shared: U8, rules: Rules) -> tuple[I64, U32, U64]:
    """Lay out clusters whose ids are known or come later: starts, nodes and keys as in :class:`Profiles`."""
    texts = encoded.texts
    skip = np.full(len(rules.types), -1, np.int64)
    kernel_text.common_prefix(encoded.ranks, texts.offsets, texts.data, skip)
    starts = np.zeros(count + 3, np.int64)
    nodes, keys = np.empty(encoded.nodes, np.uint32), np.empty(encoded.nodes, np.uint64)
    kernel_text.runs(labels, encoded.ranks, shared, texts.offsets, texts.data, skip, starts, keys, nodes)
    return starts, nodes, keys


def with_ids(encoded: Encoded, labels: U32, high: U64, low: U64, shared: U8, rules: Rules) -> Profiles:
    """Lay out clusters whose ids are known."""
    starts, nodes, keys = laid_out(encoded, labels, high.size, shared, rules)
    used = np.flatnonzero(starts[1 : high.size + 1] > starts[: high.size]).astype(np.uint32)
    return Profiles(starts, nodes, keys, high, low, _by_id(used, high, low))


def _by_id(used: U32, high: U64, low: U64) -> U32:
    order = used[np.argsort(high[used])]
    sorted_high = high[order]
    if (sorted_high[1:] == sorted_high[:-1]).any():
        order = used[np.lexsort((low[used], high[used]))]
    return order


def hashed(encoded: Encoded, nodes: U32, rules: Rules) -> tuple[U64, U64]:
    """Hash type and value of some nodes, half of them in a second thread."""
    parts = [f"{name}{SEPARATOR}".encode() for name in rules.types]
    prefixes = np.frombuffer(b"".join(parts), np.uint8).copy()
    prefix_offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    high, low = np.empty(nodes.size, np.uint64), np.empty(nodes.size, np.uint64)
    texts, half = encoded.texts, nodes.size // 2

    def run(part: slice) -> None:
        kernel_text.sha256_128(
            nodes[part], encoded.ranks, texts.offsets, texts.data, prefix_offsets, prefixes, high[part], low[part]
        )

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, (slice(0, half), slice(half, None))))
    return high, low
