"""Compiled loops of the engine: dense ids, union-find, ordered merging. Plain arrays in and out, no rules in here.

Importing this module imports Numba, so the engine does it when it first resolves; compiled code is cached beside the
module, and a second process starts at once. Kernels release the GIL.

Conventions: a node is a dense uint32; `NONE` is no node. Times are int64 microseconds; `NEVER` stands for none and
sorts last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])
U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

NONE: Final = np.uint32(0xFFFFFFFF)
NO_TYPE: Final = np.uint8(255)
NEVER: Final = np.iinfo(np.int64).max
BEFORE: Final = np.iinfo(np.int64).min


def compiled(function: F) -> F:
    """Compile a loop when it is first called, keep the machine code on disk, release the GIL while it runs."""
    return cast("F", numba.njit(cache=True, nogil=True)(function))


@compiled
def mixed(hash_1: int, rank: int) -> Any:
    """Make the same value of two types two keys."""
    return np.uint64(hash_1) ^ (np.uint64(rank + 1) * np.uint64(0x9E3779B97F4A7C15))


@compiled
def encode(
    hash_1: U64, hash_2: U64, ranks: U8, first: I64, last: I64, slots: U64, keys_1: U64, keys_2: U64, seen: I64,
    node_ranks: U8, known: int, ids: U32, fresh: U32,
) -> int:  # fmt: skip
    """Give each (type, value), known by 128 bits, its dense id, and widen its first and last seen.

    `slots` is an open-addressing table whose length is a power of two: the upper half of the first key and the id + 1.
    Rows go in groups: all memory that a group will need is asked for before any is used, so that waits overlap.
    `fresh` receives the rows whose node is new. Returns the number of nodes known afterwards. Rows of NO_TYPE get NONE.
    """
    mask = np.uint64(slots.size - 1)
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    start = known
    group = 32
    keys, held = np.empty(group, np.uint64), np.empty(group, np.uint64)
    second, early = np.empty(group, np.uint64), np.empty(group, np.int64)
    for begin in range(0, hash_1.size, group):
        size = min(group, hash_1.size - begin)
        for i in range(size):
            keys[i] = mixed(hash_1[begin + i], ranks[begin + i])
            held[i] = slots[keys[i] & mask]
        for i in range(size):
            if held[i] != 0:
                node = (held[i] & low) - np.uint64(1)
                second[i] = keys_2[node]
                early[i] = seen[node, 0]
        for i in range(size):
            row = begin + i
            if ranks[row] == NO_TYPE:
                ids[row] = NONE
                continue
            key = keys[i]
            found = held[i]
            if found == 0 or found >> half != key >> half or second[i] != hash_2[row]:
                slot = key & mask
                while True:
                    found = slots[slot]
                    if found == 0:
                        keys_1[known] = key
                        keys_2[known] = hash_2[row]
                        node_ranks[known] = ranks[row]
                        seen[known, 0] = NEVER
                        seen[known, 1] = BEFORE
                        fresh[known - start] = row
                        known += 1
                        found = (key >> half) << half | np.uint64(known)
                        slots[slot] = found
                        break
                    if found >> half == key >> half and keys_2[(found & low) - np.uint64(1)] == hash_2[row]:
                        break
                    slot = (slot + np.uint64(1)) & mask
            node = (found & low) - np.uint64(1)
            ids[row] = node
            if first[row] < seen[node, 0]:
                seen[node, 0] = first[row]
            if last[row] > seen[node, 1]:
                seen[node, 1] = last[row]
    return known


@compiled
def rehash(keys_1: U64, known: int, slots: U64) -> None:
    """Fill an empty, larger table from the keys of all nodes."""
    mask = np.uint64(slots.size - 1)
    half = np.uint64(32)
    for node in range(known):
        key = keys_1[node]
        slot = key & mask
        while slots[slot] != 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = (key >> half) << half | np.uint64(node + 1)


@compiled
def bucket(
    a: U32, b: U32, first: I64, tag: U16, ranks: U8, out_a: U32, out_b: U32, out_first: I64, out_tag: U16, starts: I64
) -> None:
    """Sort links by the rank of their weaker end, the stronger end first; sightings and self-links are left out.

    `starts` has one entry more than there are types: where each bucket begins.
    """
    for row in range(a.size):
        if b[row] != NONE and a[row] != b[row]:
            starts[max(ranks[a[row]], ranks[b[row]]) + 1] += 1
    for rank in range(starts.size - 1):
        starts[rank + 1] += starts[rank]
    place = starts.copy()
    for row in range(a.size):
        if b[row] == NONE or a[row] == b[row]:
            continue
        strong, weak = a[row], b[row]
        if ranks[strong] > ranks[weak]:
            strong, weak = weak, strong
        at = place[ranks[weak]]
        place[ranks[weak]] += 1
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
def union(parent: U32, a: U32, b: U32, shared: U8) -> None:
    """Unite the ends of links neither end of which is shared; the smaller root stays."""
    for row in range(a.size):
        if shared[a[row]] or shared[b[row]]:
            continue
        x, y = find(parent, a[row]), find(parent, b[row])
        if x < y:
            parent[y] = x
        elif y < x:
            parent[x] = y


@compiled
def union_decided(parent: U32, a: U32, b: U32, tag: U16, shared: U8) -> None:
    """Unite the ends of authoritative links that touch a shared value."""
    for row in range(a.size):
        if tag[row] & np.uint16(1) and (shared[a[row]] or shared[b[row]]):
            x, y = find(parent, a[row]), find(parent, b[row])
            if x < y:
                parent[y] = x
            elif y < x:
                parent[x] = y


@compiled
def several_groups(
    parent: U32, counted: U32, judged: U32, ranks: U8, lowest: int, highest: int, shared: U8, group: U32, several: U8
) -> None:
    """Mark values that are linked to two or more groups: `judged` ends by the group of their `counted` end.

    Only counted ends with lowest <= rank < highest that are not shared count.
    """
    for row in range(counted.size):
        other, value = counted[row], judged[row]
        if ranks[other] < lowest or ranks[other] >= highest or shared[other]:
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

    Entries beyond the arrays are counted but not written, so a call with empty arrays measures.
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
def label(parent: U32, labels: U32) -> int:
    """Number components 0, 1, … in the order of their smallest node; returns how many there are."""
    count = 0
    for node in range(parent.size):
        root = find(parent, node)
        if root == node:
            labels[node] = count
            count += 1
        else:
            labels[node] = labels[root]
    return count


@compiled
def over_limit(labels: U32, ranks: U8, limits: I64, components: int) -> U8:
    """Mark components that hold more nodes of a type than its limit (-1: none)."""
    types = limits.size
    counts = np.zeros((components, types), np.int32)
    over = np.zeros(components, np.uint8)
    for node in range(labels.size):
        limit = limits[ranks[node]]
        if limit >= 0:
            counts[labels[node], ranks[node]] += 1
            if counts[labels[node], ranks[node]] > limit:
                over[labels[node]] = 1
    return over


@compiled
def take_over(
    a: U32, b: U32, first: I64, tag: U16, shared: U8, labels: U32, over: U8,
    out_a: U32, out_b: U32, out_first: I64, out_tag: U16, used: int,
) -> int:  # fmt: skip
    """Copy the links inside marked components; a shared value brings only its authoritative ones."""
    for row in range(a.size):
        if not over[labels[a[row]]]:
            continue
        if (shared[a[row]] or shared[b[row]]) and not tag[row] & np.uint16(1):
            continue
        if used < out_a.size:
            out_a[used] = a[row]
            out_b[used] = b[row]
            out_first[used] = first[row]
            out_tag[used] = tag[row]
        used += 1
    return used


@compiled
def merge_in_order(
    parent: U32, a: U32, b: U32, decided: U8, ranks: U8, limits: I64, broken: U8, count_a: I64, count_b: I64, state: U8
) -> None:
    """Take links in the order given; refuse one that would exceed a limit (rule 6).

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
                held_x, held_y = counts[x, kind], counts[y, kind]
                if limits[kind] >= 0 and held_x > 0 and held_y > 0 and held_x + held_y > limits[kind]:
                    state[row] = 2
                    broken[row] = kind
                    count_a[row] = held_x
                    count_b[row] = held_y
                    break
            if state[row] == 2:
                continue
        if y < x:
            x, y = y, x
        parent[y] = x
        for kind in range(types):
            counts[x, kind] += counts[y, kind]


@compiled
def table_of(keys_1: U64, slots: U32) -> None:
    """Put distinct keys into an empty table of their numbers + 1, at least twice as long and a power of two."""
    mask = np.uint64(slots.size - 1)
    for number in range(keys_1.size):
        slot = keys_1[number] & mask
        while slots[slot] != 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = number + 1


@compiled
def matches(keys_1: U64, keys_2: U64, slots: U32, nodes: U32, all_1: U64, all_2: U64, ranks: U8, found: U32) -> None:
    """For each listed node of a large graph, write it to `found` of the equal key of a small one."""
    mask = np.uint64(slots.size - 1)
    for i in range(nodes.size):
        node = nodes[i]
        slot = all_1[node] & mask
        while slots[slot] != 0:
            number = slots[slot] - 1
            if keys_1[number] == all_1[node] and keys_2[number] == all_2[node] and ranks[node] != NO_TYPE:
                found[number] = node
                break
            slot = (slot + np.uint64(1)) & mask


@compiled
def touched(row_a: U32, component: U32, reached: U8, rows: U32, used: int) -> int:
    """List the rows whose component is reached; returns how many. With an empty `rows` it only counts."""
    for row in range(row_a.size):
        if row_a[row] != NONE and reached[component[row_a[row]]]:
            if used < rows.size:
                rows[used] = row
            used += 1
    return used
