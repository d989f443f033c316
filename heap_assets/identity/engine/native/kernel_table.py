"""Compiled loops that give identifiers dense ids: an open-addressing table keyed by 128-bit hashes.

A node is found by 120 of the 128 bits. Slots hold the upper half of the first hash and the number of the node plus one;
that half alone says where a search begins, so a table grows where it lies, and two tables are in the same order. The
lower bits of the first hash are kept beside the place of the text, the second hash in the facts.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from heap_assets.identity.engine.native.intrinsics import prefetch, swapped
from heap_assets.identity.engine.native.kernel import (
    FIRST,
    I64,
    KEY,
    LAST,
    NO_TYPE,
    NONE,
    PLACE,
    PLACE_SHIFT,
    U8,
    U32,
    U64,
    compiled,
)

_HALF: Final = np.uint64(32)
_LOW: Final = np.uint64(0xFFFFFFFF)
_REST: Final = np.int64((1 << PLACE_SHIFT) - 1)


@compiled
def mixed(hash_1: int, rank: int) -> Any:
    """Make the same value of two types two keys."""
    return np.uint64(hash_1) ^ (np.uint64(rank + 1) * np.uint64(0x9E3779B97F4A7C15))


@compiled
def encode(
    hash_1: U64, hash_2: U64, lengths: U32, ranks: U8, first: I64, last: I64, slots: U64, size: int, facts: I64,
    node_ranks: U8, known: int, ids: U32, fresh: U32,
) -> int:  # fmt: skip
    """Give each (type, value) its dense id, and widen its first and last seen.

    Rows go in groups: all memory that a group will need is asked for before any is used, so that waits overlap.

    Parameters
    ----------
    lengths
        Bytes of each value.
    slots, size
        Open-addressing table; searches begin below `size` and may run beyond it.
    facts
        One row per node and one more: where the next node's text will begin.
    fresh
        Receives the rows whose node is new.

    Returns
    -------
    How many nodes are known afterwards. Rows of NO_TYPE get NONE.
    """
    start = known
    group = 64
    keys, at = np.empty(group, np.uint64), np.empty(group, np.int64)
    for begin in range(0, hash_1.size, group):
        rows = min(group, hash_1.size - begin)
        for i in range(rows):
            keys[i] = mixed(hash_1[begin + i], ranks[begin + i])
            at[i] = ((keys[i] >> _HALF) * np.uint64(size)) >> _HALF
            prefetch(slots, at[i])
        for i in range(rows):
            slot, upper = at[i], keys[i] >> _HALF
            held = slots[slot]
            while held != 0 and held >> _HALF != upper:
                slot += 1
                held = slots[slot]
            at[i] = slot
            if held != 0:
                prefetch(facts, np.int64((held & _LOW) - np.uint64(1)) * 4)
        for i in range(rows):
            row = begin + i
            if ranks[row] == NO_TYPE:
                ids[row] = NONE
                continue
            slot = at[i]
            rest = np.int64(keys[i]) & _REST
            while True:
                held = slots[slot]
                if held == 0:
                    node = np.int64(known)
                    known += 1
                    slots[slot] = (keys[i] >> _HALF) << _HALF | np.uint64(known)
                    node_ranks[node] = ranks[row]
                    facts[node, KEY] = np.int64(hash_2[row])
                    facts[node, FIRST] = first[row]
                    facts[node, LAST] = last[row]
                    text = facts[node, PLACE]
                    facts[node, PLACE] = text | rest
                    facts[known, PLACE] = text + (np.int64(lengths[row]) << PLACE_SHIFT)
                    fresh[node - start] = row
                    break
                node = np.int64(held & _LOW) - 1
                if (
                    held >> _HALF == keys[i] >> _HALF
                    and facts[node, KEY] == np.int64(hash_2[row])
                    and facts[node, PLACE] & _REST == rest
                ):
                    if first[row] < facts[node, FIRST]:
                        facts[node, FIRST] = first[row]
                    if last[row] > facts[node, LAST]:
                        facts[node, LAST] = last[row]
                    break
                slot += 1
            ids[row] = node
    return known


@compiled
def touch(memory: I64 | U64, begin: int, end: int) -> None:
    """Write a range of numbers as they are, so that their memory is there before it is needed.

    The first write to a page waits for the system; this is done by a thread that has the time. Another thread may be
    writing there: a number that changes meanwhile is left alone.
    """
    for at in range(begin, end, 256):
        swapped(memory, np.int64(at), memory[at], memory[at])


@compiled
def spread(slots: U64, size: int, new_size: int) -> None:
    """Let searches in a table begin below `new_size` instead of `size`; entries move upwards, from the last on.

    An entry finds only moved ones above its new place. One so crowded that it would have to move down waits to the end.
    """
    end = size
    while slots[end] != 0:
        end += 1
    waiting = [np.uint64(0) for _ in range(0)]
    for at in range(end - 1, -1, -1):
        held = slots[at]
        if held == 0:
            continue
        slots[at] = 0
        slot = np.int64(((held >> _HALF) * np.uint64(new_size)) >> _HALF)
        if slot < at:
            waiting.append(held)
            continue
        while slots[slot] != 0:
            slot += 1
        slots[slot] = held
    for held in waiting:
        slot = np.int64(((held >> _HALF) * np.uint64(new_size)) >> _HALF)
        while slots[slot] != 0:
            slot += 1
        slots[slot] = held


@compiled
def look_up(
    slots: U64, size: int, facts: I64, in_slots: U64, in_size: int, in_facts: I64, found: U32, begin: int, end: int
) -> None:
    """Find the nodes of one graph in another, `in_`; both tables are in the same order, so memory is read forwards.

    `found` comes filled with NONE and has an entry for each node. Threads share the table: this one takes the slots
    from `begin` up to `end`, and what lies beyond `size` if that is the end.
    """
    at = begin
    while at < end or (end == size and slots[at] != 0):
        held = slots[at]
        at += 1
        if held == 0:
            continue
        node = np.int64(held & _LOW) - 1
        slot = np.int64(((held >> _HALF) * np.uint64(in_size)) >> _HALF)
        while in_slots[slot] != 0:
            other = np.int64(in_slots[slot] & _LOW) - 1
            if (
                in_slots[slot] >> _HALF == held >> _HALF
                and in_facts[other, KEY] == facts[node, KEY]
                and (in_facts[other, PLACE] ^ facts[node, PLACE]) & _REST == 0
            ):
                found[node] = other
                break
            slot += 1


@compiled
def put(slots: U64, size: int, fresh: U8, home: U32, in_slots: U64, in_size: int) -> None:
    """Enter the fresh nodes of one graph into the table of another, under the numbers of `home`."""
    at = 0
    while at < size or slots[at] != 0:
        held = slots[at]
        at += 1
        if held == 0:
            continue
        node = np.int64(held & _LOW) - 1
        if fresh[node]:
            slot = np.int64(((held >> _HALF) * np.uint64(in_size)) >> _HALF)
            while in_slots[slot] != 0:
                slot += 1
            in_slots[slot] = (held >> _HALF) << _HALF | np.uint64(home[node] + 1)
