"""Compiled loops that fold changes into a state."""

from __future__ import annotations

from typing import Any

import numpy as np

from heap_assets.identity.engine.native.intrinsics import prefetch
from heap_assets.identity.engine.native.kernel import (
    AHEAD,
    FIRST,
    I64,
    LAST,
    NO_TYPE,
    NONE,
    U8,
    U16,
    U32,
    U64,
    compiled,
)


@compiled
def count_buckets(runs: I64, high: U64, shift: int, starts: I64, begin: int, end: int) -> None:
    """Count the ids of bucket b, those whose first bits are b, in `starts[b + 1]`, which comes as zeros.

    Cluster c is empty, and has no id, if `runs[c]` is `runs[c + 1]`.
    """
    for row in range(high.size):
        bucket = np.int64(high[row] >> np.uint64(shift))
        if begin <= bucket < end and runs[row] < runs[row + 1]:
            starts[bucket + 1] += 1


@compiled
def sort_buckets(
    runs: I64, high: U64, low: U64, shift: int, starts: I64, order: U32, begin: int, end: int
) -> None:  # fmt: skip
    """Write into `order` the clusters of a range of buckets, sorted by id; `starts` says where buckets begin."""
    first, size = starts[begin], starts[end] - starts[begin]
    keys, tails = np.empty(size, np.uint64), np.empty(size, np.uint64)
    ends = starts[begin:end].copy()
    for row in range(high.size):
        own = np.int64(high[row] >> np.uint64(shift)) - begin
        if 0 <= own < end - begin and runs[row] < runs[row + 1]:
            free = ends[own]
            ends[own] = free + 1
            keys[free - first], tails[free - first], order[free] = high[row], low[row], row
    for bucket in range(begin, end):
        for at in range(starts[bucket] + 1, starts[bucket + 1]):
            key, tail, mine = keys[at - first], tails[at - first], order[at]
            place = at
            while place > starts[bucket]:
                before = place - 1 - first
                if keys[before] < key or (keys[before] == key and tails[before] <= tail):
                    break
                keys[place - first], tails[place - first], order[place] = keys[before], tails[before], order[place - 1]
                place -= 1
            keys[place - first], tails[place - first], order[place] = key, tail, mine


@compiled
def reached_nodes(component: U32, ranks: U8, reached: U8, nodes: U32, begin: int, end: int) -> int:
    """List the nodes of a range that are not removed and whose component is reached; `nodes` has room for all."""
    used = 0
    for node in range(begin, end):
        if reached[component[node]] and ranks[node] != NO_TYPE:
            nodes[used] = node
            used += 1
    return used


@compiled
def reached_rows(row_a: U32, component: U32, reached: U8, rows: U32, begin: int, end: int) -> int:
    """List those of a range of rows whose component is reached; returns how many. `rows` has room for all."""
    used = 0
    for row in range(begin, end):
        if row + AHEAD < end and row_a[row + AHEAD] != NONE:
            prefetch(component, np.int64(row_a[row + AHEAD]))
        if row_a[row] != NONE and reached[component[row_a[row]]]:
            rows[used] = row
            used += 1
    return used


@compiled
def widen_rows(
    rows: U32, row_first: I64, row_last: I64, row_tag: U16, first: I64, last: I64, tag: U16
) -> None:  # fmt: skip
    """Widen rows: seen earlier, seen later, decided by Heap."""
    for i in range(rows.size):
        row = rows[i]
        if first[i] < row_first[row]:
            row_first[row] = first[i]
        if last[i] > row_last[row]:
            row_last[row] = last[i]
        if tag[i] & np.uint16(1) and not row_tag[row] & np.uint16(1):
            row_tag[row] |= np.uint16(1)


@compiled
def mark_ends(row_a: U32, row_b: U32, rows: U32, flags: U8) -> None:
    """Mark the end nodes of some rows."""
    for i in range(rows.size):
        flags[row_a[rows[i]]] = 1
        if row_b[rows[i]] != NONE:
            flags[row_b[rows[i]]] = 1


@compiled
def local_rows(
    rows: U32, row_a: U32, row_b: U32, row_first: I64, row_last: I64, row_tag: U16, place: U32, ranks: U8,
    a: U32, b: U32, rank_a: U8, rank_b: U8, first: I64, tag: U16, facts: I64,
) -> None:  # fmt: skip
    """Copy some rows with their nodes numbered by `place`; `facts` receives first and last seen of these."""
    for i in range(rows.size):
        if i + AHEAD < rows.size:
            ahead = np.int64(rows[i + AHEAD])
            prefetch(place, np.int64(row_a[ahead]))
            if row_b[ahead] != NONE:
                prefetch(place, np.int64(row_b[ahead]))
        row = rows[i]
        first[i] = row_first[row]
        tag[i] = row_tag[row]
        a[i] = place[row_a[row]]
        rank_a[i] = ranks[a[i]]
        facts[a[i], FIRST] = min(facts[a[i], FIRST], row_first[row])
        facts[a[i], LAST] = max(facts[a[i], LAST], row_last[row])
        if row_b[row] == NONE:
            b[i] = NONE
            rank_b[i] = NO_TYPE
            continue
        b[i] = place[row_b[row]]
        rank_b[i] = ranks[b[i]]
        facts[b[i], FIRST] = min(facts[b[i], FIRST], row_first[row])
        facts[b[i], LAST] = max(facts[b[i], LAST], row_last[row])


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

    Returns
    -------
    The first number that is free afterwards.
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


@compiled
def scatter(array: Any, nodes: U32, values: Any) -> None:
    """Write values to the places of some nodes; equal ones are not written, so that mapped pages stay clean."""
    for i in range(nodes.size):
        if i + AHEAD < nodes.size:
            prefetch(array, np.int64(nodes[i + AHEAD]))
        if array[nodes[i]] != values[i]:
            array[nodes[i]] = values[i]


@compiled
def scatter_dates(facts: I64, nodes: U32, part: I64) -> None:
    """Write first and last seen of some nodes to their places in `facts`; equal ones are not written."""
    for i in range(nodes.size):
        place = nodes[i]
        if i + AHEAD < nodes.size:
            prefetch(facts, np.int64(nodes[i + AHEAD]) * 4)
        if facts[place, FIRST] != part[i, FIRST]:
            facts[place, FIRST] = part[i, FIRST]
        if facts[place, LAST] != part[i, LAST]:
            facts[place, LAST] = part[i, LAST]
