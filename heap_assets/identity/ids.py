"""Profile ids: a pure function of the profile's strongest, then earliest, then smallest identifier (rule 7)."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np

from heap_assets.identity import kernel_text
from heap_assets.identity.encode import Encoded
from heap_assets.identity.kernel import NONE, U32, U64
from heap_assets.identity.ordered import Clusters
from heap_assets.identity.rules import Rules

SEPARATOR: Final = "\x1f"


def profile_id(identifier_type: str, identifier: str) -> str:
    """Return the id of the profile that this identifier stands for: 32 hexadecimal digits.

    The first 128 bits of SHA-256 over the UTF-8 bytes of type, 0x1F and value; test vectors are in
    `heap_assets_tests/identity/vectors.json`.
    """
    return hashlib.sha256(f"{identifier_type}{SEPARATOR}{identifier}".encode()).hexdigest()[:32]


@dataclass(frozen=True)
class ProfileIds:
    """Ids of clusters: the two halves of each, and the node it stands for (NONE for an unused number)."""

    high: U64
    low: U64
    node: U32


def profile_ids(encoded: Encoded, clusters: Clusters, rules: Rules) -> ProfileIds:
    """Compute the ids of all clusters: one hash per profile, in as many threads as two."""
    best = np.full(clusters.count, NONE, np.uint32)
    offsets, data = encoded.texts.offsets, encoded.texts.data
    kernel_text.representatives(clusters.labels, encoded.ranks, encoded.first, offsets, data, best)
    used = np.flatnonzero(best != NONE)
    nodes = best[used]
    high, low = hashed(encoded, nodes, rules)
    all_high, all_low = np.zeros(clusters.count, np.uint64), np.zeros(clusters.count, np.uint64)
    all_high[used], all_low[used] = high, low
    return ProfileIds(all_high, all_low, best)


def hashed(encoded: Encoded, nodes: U32, rules: Rules) -> tuple[U64, U64]:
    """Hash type and value of some nodes."""
    parts = [f"{name}{SEPARATOR}".encode() for name in rules.types]
    prefixes = np.frombuffer(b"".join(parts), np.uint8).copy()
    prefix_offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    high, low = np.empty(nodes.size, np.uint64), np.empty(nodes.size, np.uint64)
    offsets, data = encoded.texts.offsets, encoded.texts.data
    half = nodes.size // 2

    def run(part: slice) -> None:
        kernel_text.sha256_128(
            nodes[part], encoded.ranks, offsets, data, prefix_offsets, prefixes, high[part], low[part]
        )

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, (slice(0, half), slice(half, None))))
    return high, low
