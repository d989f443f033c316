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
    unrolled = words.size - words.size % 4
    for at in range(0, unrolled, 4):
        a = (a ^ words[at]) * prime
        b = (b ^ words[at + 1]) * prime
        c = (c ^ words[at + 2]) * prime
        d = (d ^ words[at + 3]) * prime
    for at in range(unrolled, words.size):
        a = (a ^ words[at]) * prime
    return ((a * prime + b) * prime + c) * prime + d


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
def merge_in_order(
    parent: U32, a: U32, b: U32, decided: U8, ranks: U8, limits: I64, apart_a: U32, apart_b: U32, apart_by: U32,
    broken: U8, count_a: I64, count_b: I64, by: U32, state: U8,
) -> None:  # fmt: skip
    """Merge the ends of links in order; refuse a link that joins what is apart, or would exceed a limit (rule 6).

    Parameters
    ----------
    apart_a, apart_b, apart_by
        Nodes that may not come into one group, and the number of the decision that says so.
    broken, count_a, count_b, by, state
        Results. `state`: 0 tree, 1 redundant, 2 refused. `by`, which comes filled with NONE: the smallest decision that
        refused the link. Where it is a limit, `broken` is the strongest type broken, `count_a` and `count_b` are how
        many of it the groups of the two ends hold then.
    """
    types, pairs = limits.size, apart_a.size
    # each group has a list of its nodes that are kept apart: their partners, the beginning, end and size of the list
    partner, number = np.empty(2 * pairs, np.uint32), np.empty(2 * pairs, np.uint32)
    following = np.full(2 * pairs, -1, np.int64)
    size = parent.size if pairs else 0
    begins, ends, sizes = np.full(size, -1, np.int64), np.full(size, -1, np.int64), np.zeros(size, np.int64)
    for entry in range(2 * pairs):
        pair = entry >> 1
        node, partner[entry] = (apart_b[pair], apart_a[pair]) if entry & 1 else (apart_a[pair], apart_b[pair])
        number[entry] = apart_by[pair]
        following[entry] = begins[node]
        if begins[node] < 0:
            ends[node] = entry
        begins[node] = entry
        sizes[node] += 1
    counts = np.zeros((parent.size, types), np.int64)
    for node in range(parent.size):
        counts[node, ranks[node]] = 1
    for row in range(a.size):
        x, y = find(parent, a[row]), find(parent, b[row])
        if x == y:
            state[row] = 1
            continue
        if pairs and sizes[x] and sizes[y]:
            fewer, other = (x, y) if sizes[x] <= sizes[y] else (y, x)
            entry = begins[fewer]
            while entry >= 0:
                if number[entry] < by[row] and find(parent, partner[entry]) == other:
                    by[row] = number[entry]
                entry = following[entry]
            if by[row] != NONE:
                state[row] = 2
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
        if pairs and sizes[y]:
            if sizes[x]:
                following[ends[x]] = begins[y]
            else:
                begins[x] = begins[y]
            ends[x] = ends[y]
            sizes[x] += sizes[y]


@compiled
def renumber(groups: U32, nodes: U32, before: U32, claimed: U8, numbers: U32, following: int) -> int:
    """Give each group of some nodes a number: one that a node of it had before, if no other group has it, or a new one.

    Parameters
    ----------
    groups
        Group of each of `nodes`; NONE is none.
    before
        Number of each node before; nodes beyond it are new.
    claimed
        By number before: whether a group has it. Comes as zeros.
    numbers
        Comes filled with NONE and receives the number of each group that occurs.
    following
        The first new number.

    Returns the first number that is free afterwards.
    """
    for i in range(nodes.size):
        group, node = groups[i], nodes[i]
        if group == NONE or numbers[group] != NONE or node >= before.size:
            continue
        number = before[node]
        if number != NONE and not claimed[number]:
            claimed[number] = 1
            numbers[group] = number
    for i in range(nodes.size):
        group = groups[i]
        if group != NONE and numbers[group] == NONE:
            numbers[group] = following
            following += 1
    return following
