"""Compiled loops of the engine: dense ids, union-find, ordered merging. Plain arrays in and out, no rules in here.

Importing this module imports Numba, so the engine does it when it first resolves; compiled code is cached (`cache`),
and a second process starts at once. Kernels release the GIL.

Conventions: a node is a dense uint32; `NONE` is no node. Times are int64 microseconds; `NEVER` stands for none and
sorts last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from heap_assets.identity.engine.native.cache import choose_cache
from heap_assets.identity.engine.native.intrinsics import prefetch, swapped

F = TypeVar("F", bound=Callable[..., Any])
I32 = NDArray[np.int32]
U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

NONE: Final = np.uint32(0xFFFFFFFF)
NO_TYPE: Final = np.uint8(255)
NEVER: Final = np.iinfo(np.int64).max
BEFORE: Final = np.iinfo(np.int64).min


# Columns of the facts that are kept of each node: the second half of its key, first and last seen, and where its text
# begins, shifted up to make room for a rest of the first half.
KEY: Final = 0
FIRST: Final = 1
LAST: Final = 2
PLACE: Final = 3
PLACE_SHIFT: Final = 24

PADDING: Final = 8
"""Loops read and write text eight bytes at once, so arrays of it have as many bytes behind the last text."""


_CACHED: Final = choose_cache() is not None


def compiled(function: F) -> F:
    """Compile a loop when it is first called, keep the machine code on disk, release the GIL while it runs."""
    return cast("F", numba.njit(cache=_CACHED, nogil=True)(function))


@compiled
def checksum(words: U64) -> np.uint64:
    """Return a checksum that changes with any single word."""
    prime = np.uint64(0x9E3779B97F4A7C15)
    a, b, c, d = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    whole = words.size - words.size % 4
    for at in range(0, whole, 4):
        a = (a ^ words[at]) * prime
        b = (b ^ words[at + 1]) * prime
        c = (c ^ words[at + 2]) * prime
        d = (d ^ words[at + 3]) * prime
    for at in range(whole, words.size):
        a = (a ^ words[at]) * prime
    return ((a * prime + b) * prime + c) * prime + d


@compiled
def bucket(
    a: U32, b: U32, rank_a: U8, rank_b: U8, first: I64, tag: U16, out_a: U32, out_b: U32, out_first: I64, out_tag: U16,
    starts: I64,
) -> None:  # fmt: skip
    """Sort links by the rank of their weaker end, the stronger end first; sightings and self-links are left out.

    `starts` has one entry more than there are types: where each bucket begins.
    """
    for row in range(a.size):
        if b[row] != NONE and a[row] != b[row]:
            starts[max(rank_a[row], rank_b[row]) + 1] += 1
    for rank in range(starts.size - 1):
        starts[rank + 1] += starts[rank]
    place = starts.copy()
    for row in range(a.size):
        if b[row] == NONE or a[row] == b[row]:
            continue
        strong, weak, rank = a[row], b[row], rank_b[row]
        if rank_a[row] > rank:
            strong, weak, rank = b[row], a[row], rank_a[row]
        at = place[rank]
        place[rank] += 1
        out_a[at] = strong
        out_b[at] = weak
        out_first[at] = first[row]
        out_tag[at] = tag[row]


@compiled
def find(parent: U32, node: int) -> int:
    """Return the root of a node, halving the path."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@compiled
def _unite(parent: U32, x: int, y: int) -> None:
    # several threads may do this at once: a root is linked only if it still is one, and never to a larger node, so the
    # root of a component is its smallest node whatever the order
    while True:
        x, y = find(parent, x), find(parent, y)
        if x == y:
            return
        if x > y:
            x, y = y, x
        if swapped(parent, np.int64(y), np.uint32(y), np.uint32(x)):
            return


AHEAD: Final = 24
"""Rows that memory is prefetched ahead."""


@compiled
def union(parent: U32, a: U32, b: U32, shared: U8) -> None:
    """Unite the ends of links neither end of which is shared; threads may work on one `parent` at once."""
    for row in range(a.size):
        if row + AHEAD < a.size:
            prefetch(parent, np.int64(a[row + AHEAD]))
            prefetch(parent, np.int64(b[row + AHEAD]))
        if not (shared[a[row]] or shared[b[row]]):
            _unite(parent, a[row], b[row])


@compiled
def union_decided(parent: U32, a: U32, b: U32, tag: U16, shared: U8) -> None:
    """Unite the ends of authoritative links that touch a shared value."""
    for row in range(a.size):
        if tag[row] & np.uint16(1) and (shared[a[row]] or shared[b[row]]):
            _unite(parent, a[row], b[row])


@compiled
def several_groups(
    parent: U32, counted: U32, judged: U32, ranks: U8, lowest: int, highest: int, shared: U8, group: U32, several: U8,
    begin: int, end: int,
) -> None:  # fmt: skip
    """Mark values that are linked to two or more groups: `judged` ends by the group of their `counted` end.

    Only counted ends with lowest <= rank < highest that are not shared count. Threads share the values among them:
    this one judges those from `begin` up to `end`.
    """
    for row in range(counted.size):
        ahead = row + AHEAD
        if ahead < counted.size and begin <= judged[ahead] < end:
            prefetch(parent, np.int64(counted[ahead]))
            prefetch(group, np.int64(judged[ahead]))
        other, value = counted[row], judged[row]
        if value < begin or value >= end or ranks[other] < lowest or ranks[other] >= highest or shared[other]:
            continue
        root = find(parent, other)
        if group[value] == NONE:
            group[value] = root
        elif group[value] != root:
            several[value] = 1


@compiled
def groups_of(
    parent: U32, counted: U32, judged: U32, ranks: U8, lowest: int, highest: int, shared: U8, several: U8,
    values: U32, groups: U32, strongest: U8, used: int,
) -> int:  # fmt: skip
    """List (value, group, rank of the counted end) of marked values; returns how many entries are used.

    Entries beyond the arrays are counted but not written: a call with empty arrays returns the size needed.
    """
    for row in range(counted.size):
        other, value = counted[row], judged[row]
        if not several[value] or ranks[other] < lowest or ranks[other] >= highest or shared[other]:
            continue
        if used < values.size:
            values[used] = value
            groups[used] = find(parent, other)
            strongest[used] = ranks[other]
        used += 1
    return used


@compiled
def flatten(parent: U32, begin: int, end: int) -> int:
    """Let every node of a range point at its root; returns how many are roots.

    Nothing outside the range is written: halving a path there could undo what another thread has flattened.
    """
    roots = 0
    for node in range(begin, end):
        ahead = node + AHEAD
        if ahead < end:
            prefetch(parent, np.int64(parent[ahead]))
        root = parent[node]
        while parent[root] != root:
            root = parent[root]
        parent[node] = root
        roots += root == node
    return roots


@compiled
def number_roots(parent: U32, begin: int, end: int, count: int, labels: U32) -> None:
    """Number the roots of a range from `count` on."""
    for node in range(begin, end):
        if parent[node] == node:
            labels[node] = count
            count += 1


@compiled
def copy_labels(parent: U32, begin: int, end: int, labels: U32) -> None:
    """Give the other nodes of a range the number of their root."""
    for node in range(begin, end):
        if node + AHEAD < end:
            prefetch(labels, np.int64(parent[node + AHEAD]))
        if parent[node] != node:
            labels[node] = labels[parent[node]]


@compiled
def over_limit(
    labels: U32, ranks: U8, limits: I64, counts: U8 | U16 | I64, over: U8, most: int, begin: int, end: int
) -> None:
    """Mark components of a range that hold more nodes of a type than its limit (-1: none).

    `counts` comes as zeros, components × types; counting stops above `most`, the largest limit.
    """
    types = limits.size
    for node in range(labels.size):
        ahead = node + AHEAD
        if ahead < labels.size and begin <= labels[ahead] < end:
            prefetch(counts, np.int64(labels[ahead]) * types + ranks[ahead])
        component, rank = labels[node], ranks[node]
        limit = limits[rank]
        if component < begin or component >= end or limit < 0 or counts[component, rank] > most:
            continue
        counts[component, rank] += 1
        if counts[component, rank] > limit:
            over[component] = 1


@compiled
def mark(labels: U32, over: U8, inside: U8) -> int:
    """Mark the nodes of marked components; returns how many."""
    marked = 0
    for node in range(labels.size):
        inside[node] = over[labels[node]]
        marked += inside[node]
    return marked


@compiled
def take_over(
    a: U32, b: U32, first: I64, tag: U16, shared: U8, inside: U8, out_a: U32, out_b: U32, out_first: I64, out_tag: U16
) -> int:
    """Copy the links between marked nodes, a shared value's only if authoritative; returns how many.

    A link with one marked end has two, since marked nodes are whole components of the links copied, except links of
    shared values.
    """
    used = 0
    for row in range(a.size):
        if not inside[a[row]]:
            continue
        if (shared[a[row]] or shared[b[row]]) and not tag[row] & np.uint16(1):
            continue
        out_a[used] = a[row]
        out_b[used] = b[row]
        out_first[used] = first[row]
        out_tag[used] = tag[row]
        used += 1
    return used


@compiled
def drop_lone(labels: U32, shared: U8, count: int) -> None:
    """Label shared values that are a cluster of their own NONE."""
    holds, members = np.zeros(count, np.uint8), np.zeros(count, np.uint8)
    for node in range(labels.size):
        if shared[node]:
            holds[labels[node]] = 1
    for node in range(labels.size):
        if holds[labels[node]] and members[labels[node]] < 2:
            members[labels[node]] += 1
    for node in range(labels.size):
        if shared[node] and members[labels[node]] == 1:
            labels[node] = NONE


@compiled
def merge_in_order(
    parent: U32, a: U32, b: U32, decided: U8, ranks: U8, limits: I64, broken: U8, count_a: I64, count_b: I64, state: U8
) -> None:
    """Merge the ends of links in order; refuse a link that would exceed a limit (rule 6).

    `state`: 0 tree, 1 redundant, 2 refused. For refused ones `broken` is the strongest type broken, `count_a` and
    `count_b` are how many of it the groups of the two ends hold then.
    """
    types = limits.size
    counts = np.zeros((parent.size, types), np.int64)
    for node in range(parent.size):
        counts[node, ranks[node]] = 1
    for row in range(a.size):
        x, y = find(parent, a[row]), find(parent, b[row])
        if x == y:
            state[row] = 1
            continue
        if not decided[row]:
            for kind in range(types):
                count_x, count_y = counts[x, kind], counts[y, kind]
                if limits[kind] >= 0 and count_x > 0 and count_y > 0 and count_x + count_y > limits[kind]:
                    state[row] = 2
                    broken[row] = kind
                    count_a[row] = count_x
                    count_b[row] = count_y
                    break
            if state[row] == 2:
                continue
        if y < x:
            x, y = y, x
        parent[y] = x
        for kind in range(types):
            counts[x, kind] += counts[y, kind]
