"""Compiled loops that give identifiers dense ids: an open-addressing hash table keyed by 128-bit hashes.

Keys are 120 of the 128 bits. Slots hold the upper half of the first hash and the number of the node plus one; that half
alone decides where a search begins, so a table is rehashed in place, and two tables are in the same order. The lower
bits of the first hash are kept beside the place of the text, the second hash in the facts.
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
_LOW_BITS: Final = np.int64((1 << PLACE_SHIFT) - 1)


@compiled
def mixed(hash_1: int, rank: int) -> Any:
    """Return the key of a value of a type."""
    return np.uint64(hash_1) ^ (np.uint64(rank + 1) * np.uint64(0x9E3779B97F4A7C15))


@compiled
def encode(
    hash_1: U64, hash_2: U64, lengths: U32, ranks: U8, first: I64, last: I64, slots: U64, size: int, facts: I64,
    node_ranks: U8, count: int, ids: U32, fresh: U32,
) -> int:  # fmt: skip
    """Give each (type, value) its dense id, and widen its first and last seen.

    Rows are processed in groups: all memory of a group is prefetched before any is used, so that waits overlap.

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

    Returns the number of nodes afterwards. Rows of NO_TYPE get NONE.
    """
    start = count
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
            entry = slots[slot]
            while entry != 0 and entry >> _HALF != upper:
                slot += 1
                entry = slots[slot]
            at[i] = slot
            if entry != 0:
                prefetch(facts, np.int64((entry & _LOW) - np.uint64(1)) * 4)
        for i in range(rows):
            row = begin + i
            if ranks[row] == NO_TYPE:
                ids[row] = NONE
                continue
            slot = at[i]
            low_bits = np.int64(keys[i]) & _LOW_BITS
            while True:
                entry = slots[slot]
                if entry == 0:
                    node = np.int64(count)
                    count += 1
                    slots[slot] = (keys[i] >> _HALF) << _HALF | np.uint64(count)
                    node_ranks[node] = ranks[row]
                    facts[node, KEY] = np.int64(hash_2[row])
                    facts[node, FIRST] = first[row]
                    facts[node, LAST] = last[row]
                    text = facts[node, PLACE]
                    facts[node, PLACE] = text | low_bits
                    facts[count, PLACE] = text + (np.int64(lengths[row]) << PLACE_SHIFT)
                    fresh[node - start] = row
                    break
                node = np.int64(entry & _LOW) - 1
                if (
                    entry >> _HALF == keys[i] >> _HALF
                    and facts[node, KEY] == np.int64(hash_2[row])
                    and facts[node, PLACE] & _LOW_BITS == low_bits
                ):
                    if first[row] < facts[node, FIRST]:
                        facts[node, FIRST] = first[row]
                    if last[row] > facts[node, LAST]:
                        facts[node, LAST] = last[row]
                    break
                slot += 1
            ids[row] = node
    return count


@compiled
def prefault(memory: I64 | U64, begin: int, end: int) -> None:
    """Write numbers of a range back unchanged, so that the system maps their pages before they are needed.

    The first write to a page waits for the system, so another thread does it ahead. That thread may meet the writer: a
    number that changes meanwhile is left alone.
    """
    for at in range(begin, end, 256):
        swapped(memory, np.int64(at), memory[at], memory[at])


@compiled
def rehash(slots: U64, size: int, new_size: int) -> None:
    """Rehash a table in place from `size` to `new_size`; entries move upwards, from the last on.

    An entry finds only moved ones above its new place. One that would have to move down, because its slots were
    crowded, is inserted last.
    """
    end = size
    while slots[end] != 0:
        end += 1
    waiting = [np.uint64(0) for _ in range(0)]
    for at in range(end - 1, -1, -1):
        entry = slots[at]
        if entry == 0:
            continue
        slots[at] = 0
        slot = np.int64(((entry >> _HALF) * np.uint64(new_size)) >> _HALF)
        if slot < at:
            waiting.append(entry)
            continue
        while slots[slot] != 0:
            slot += 1
        slots[slot] = entry
    for entry in waiting:
        slot = np.int64(((entry >> _HALF) * np.uint64(new_size)) >> _HALF)
        while slots[slot] != 0:
            slot += 1
        slots[slot] = entry


@compiled
def look_up(
    slots: U64, size: int, facts: I64, in_slots: U64, in_size: int, in_facts: I64, home: U32, begin: int, end: int
) -> None:
    """Find the nodes of one graph in another, `in_`; both tables are in the same order, so memory is read forwards.

    `home` comes filled with NONE and receives the other node of each node. Threads share the table: this one takes the
    slots from `begin` up to `end`, and those beyond `size` if that is the end.
    """
    at = begin
    while at < end or (end == size and slots[at] != 0):
        entry = slots[at]
        at += 1
        if entry == 0:
            continue
        node = np.int64(entry & _LOW) - 1
        slot = np.int64(((entry >> _HALF) * np.uint64(in_size)) >> _HALF)
        while in_slots[slot] != 0:
            other = np.int64(in_slots[slot] & _LOW) - 1
            if (
                in_slots[slot] >> _HALF == entry >> _HALF
                and in_facts[other, KEY] == facts[node, KEY]
                and (in_facts[other, PLACE] ^ facts[node, PLACE]) & _LOW_BITS == 0
            ):
                home[node] = other
                break
            slot += 1


@compiled
def insert(slots: U64, size: int, fresh: U8, home: U32, in_slots: U64, in_size: int) -> None:
    """Insert the fresh nodes of one graph into the table of another, under the numbers of `home`."""
    at = 0
    while at < size or slots[at] != 0:
        entry = slots[at]
        at += 1
        if entry == 0:
            continue
        node = np.int64(entry & _LOW) - 1
        if fresh[node]:
            slot = np.int64(((entry >> _HALF) * np.uint64(in_size)) >> _HALF)
            while in_slots[slot] != 0:
                slot += 1
            in_slots[slot] = (entry >> _HALF) << _HALF | np.uint64(home[node] + 1)
