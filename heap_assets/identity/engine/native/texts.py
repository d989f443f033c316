"""Text of identifiers as one array of bytes with offsets, and the compiled loops over it."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from heap_assets.identity.engine.native.intrinsics import big_endian, copy_words, load8, prefetch
from heap_assets.identity.engine.native.kernel import (
    AHEAD,
    FIRST,
    I64,
    LAST,
    NO_TYPE,
    NONE,
    PADDING,
    PLACE,
    PLACE_SHIFT,
    U8,
    U32,
    U64,
    compiled,
)


@compiled
def _text_before(x: int, y: int, facts: I64, data: U8) -> Any:
    """Compare two nodes' values as UTF-8 bytes."""
    at_x, at_y = facts[x, PLACE] >> PLACE_SHIFT, facts[y, PLACE] >> PLACE_SHIFT
    size_x = (facts[x + 1, PLACE] >> PLACE_SHIFT) - at_x
    size_y = (facts[y + 1, PLACE] >> PLACE_SHIFT) - at_y
    for i in range(min(size_x, size_y)):
        if data[at_x + i] != data[at_y + i]:
            return data[at_x + i] < data[at_y + i]
    return size_x < size_y


# Clusters are laid out as runs by several threads, each for a range of clusters; the run after the last cluster holds
# the nodes of none, the one after that removed nodes. `starts` has three entries more than there are clusters.


@compiled
def count_runs(labels: U32, ranks: U8, starts: I64, begin: int, end: int) -> None:
    """Count the nodes of cluster c in `starts[c + 1]`, which comes as zeros."""
    no_profile, no_type = starts.size - 3, starts.size - 2
    for node in range(labels.size):
        ahead = node + AHEAD
        if ahead < labels.size and begin <= labels[ahead] < end and labels[ahead] != NONE:
            prefetch(starts, np.int64(labels[ahead]) + 1)
        place = no_type if ranks[node] == NO_TYPE else no_profile if labels[node] == NONE else labels[node]
        if begin <= place < end:
            starts[place + 1] += 1


@compiled
def fill_runs(
    labels: U32, ranks: U8, shared: U8, facts: I64, data: U8, ends: I64, keys: U64, nodes: U32,
    begin: int, end: int,
) -> None:  # fmt: skip
    """Write nodes into the runs of their clusters; `ends` comes as where runs start, and leaves as where they end.

    Each node has a sort key: 7 bits rank, 1 bit shared, then the first seven bytes of the value. So a run is sorted in
    place, and text is read only where keys are equal.
    """
    no_profile = ends.size - 2
    for node in range(labels.size):
        ahead = node + AHEAD
        if ahead < labels.size and begin <= labels[ahead] < end and labels[ahead] != NONE:
            prefetch(ends, np.int64(labels[ahead]))
        rank = ranks[node]
        if rank == NO_TYPE:
            continue
        place = no_profile if labels[node] == NONE else labels[node]
        if place < begin or place >= end:
            continue
        text_at = facts[node, PLACE] >> PLACE_SHIFT
        left = (facts[node + 1, PLACE] >> PLACE_SHIFT) - text_at
        text = np.uint64(0)
        if left > 0:
            text = big_endian(load8(data, text_at)) >> np.uint64(8)
            if left < 7:
                text &= ~np.uint64(0) << np.uint64(8 * (7 - left))
        at = ends[place]
        ends[place] = at + 1
        keys[at] = np.uint64(rank) << np.uint64(57) | np.uint64(shared[node]) << np.uint64(56) | text
        nodes[at] = node


@compiled
def sort_runs(starts: I64, keys: U64, nodes: U32, facts: I64, data: U8, begin: int, end: int) -> None:
    """Sort the nodes of a range of clusters by type and value."""
    for place in range(begin, end):
        if starts[place + 1] - starts[place] > 1:
            at, stop = starts[place], starts[place + 1]
            _sort_run(keys[at:stop], nodes[at:stop], facts, data)


@compiled
def _before(key_x: int, node_x: int, key_y: int, node_y: int, facts: I64, data: U8) -> Any:
    # the bit of shared values is no part of the order
    x = key_x & ~(np.uint64(1) << np.uint64(56))
    y = key_y & ~(np.uint64(1) << np.uint64(56))
    if x != y:
        return x < y
    return _text_before(node_x, node_y, facts, data)


@compiled
def _sort_run(keys: U64, nodes: U32, facts: I64, data: U8) -> None:
    """Sort a run in place: insertion for the usual few, heap sort for a giant."""
    n = nodes.size
    if n <= 24:
        for i in range(1, n):
            key, node = keys[i], nodes[i]
            j = i - 1
            while j >= 0 and _before(key, node, keys[j], nodes[j], facts, data):
                keys[j + 1] = keys[j]
                nodes[j + 1] = nodes[j]
                j -= 1
            keys[j + 1] = key
            nodes[j + 1] = node
        return
    for start in range(n // 2 - 1, -1, -1):
        _sift(keys, nodes, start, n, facts, data)
    for end in range(n - 1, 0, -1):
        keys[0], keys[end] = keys[end], keys[0]
        nodes[0], nodes[end] = nodes[end], nodes[0]
        _sift(keys, nodes, 0, end, facts, data)


@compiled
def _sift(keys: U64, nodes: U32, start: int, end: int, facts: I64, data: U8) -> None:
    root = start
    while 2 * root + 1 < end:
        child = 2 * root + 1
        if child + 1 < end and _before(keys[child], nodes[child], keys[child + 1], nodes[child + 1], facts, data):
            child += 1
        if not _before(keys[root], nodes[root], keys[child], nodes[child], facts, data):
            return
        keys[root], keys[child] = keys[child], keys[root]
        nodes[root], nodes[child] = nodes[child], nodes[root]
        root = child


@compiled
def representatives(starts: I64, keys: U64, nodes: U32, facts: I64, best: U32, begin: int, end: int) -> None:
    """Find the strongest, then earliest, then smallest node of a range of runs (rule 7); NONE for an empty run."""
    for place in range(begin, end):
        best[place] = NONE
        first, stop = starts[place], starts[place + 1]
        if first == stop:
            continue
        best[place] = nodes[first]
        if stop - first == 1 or keys[first + 1] >> np.uint64(57) != keys[first] >> np.uint64(57):
            continue
        earliest = facts[nodes[first], FIRST]
        for at in range(first + 1, stop):
            if keys[at] >> np.uint64(57) != keys[first] >> np.uint64(57):
                break
            if facts[nodes[at], FIRST] < earliest:
                best[place] = nodes[at]
                earliest = facts[nodes[at], FIRST]


@compiled
def take_facts(facts: I64, nodes: U32, first: I64, last: I64, begins: I64, offsets: I64) -> None:
    """Copy the times of some nodes and where their text begins; `offsets` come as zeros, one more than nodes.

    One pass: a node's facts are one line of the cache, which four passes would fetch four times.
    """
    for row in range(nodes.size):
        if row + AHEAD < nodes.size:
            prefetch(facts, np.int64(nodes[row + AHEAD]) * 4)
        node = np.int64(nodes[row])
        first[row], last[row] = facts[node, FIRST], facts[node, LAST]
        begins[row] = facts[node, PLACE] >> PLACE_SHIFT
        offsets[row + 1] = offsets[row] + (facts[node + 1, PLACE] >> PLACE_SHIFT) - begins[row]


@compiled
def take_text(begins: I64, data: U8, offsets: I64, out: U8) -> None:
    """Copy the values that begin at some places to `offsets`; `out` has eight more bytes at its end."""
    for row in range(begins.size):
        if row + AHEAD < begins.size:
            prefetch(data, begins[row + AHEAD])
            prefetch(data, begins[row + AHEAD] + offsets[row + AHEAD + 1] - offsets[row + AHEAD] - 1)
        copy_words(out, offsets[row], data, begins[row], offsets[row + 1] - offsets[row])


class Texts:
    """Values of nodes 0, 1, 2, …, UTF-8, one after the other.

    Attributes
    ----------
    facts
        One row per node and one more; column PLACE has the offset of its text.
    data
        The bytes, with padding.
    """

    def __init__(self, facts: I64, data: U8) -> None:
        self.facts = facts
        self.data = data

    @property
    def size(self) -> int:
        """Bytes of text, without the padding."""
        return int(self.facts[-1, PLACE] >> PLACE_SHIFT)

    def take(self, nodes: U32) -> pl.Series:
        """Return the values of some nodes."""
        return text_series(*self.gathered(nodes))

    def gathered(self, nodes: U32) -> tuple[I64, U8]:
        """Return the values of some nodes as offsets and bytes, padded (PADDING)."""
        _, _, offsets, out = self.with_times(nodes)
        return offsets, out

    def with_times(self, nodes: U32) -> tuple[I64, I64, I64, U8]:
        """Return when some nodes were seen first and last (µs), and their values as offsets and bytes, padded."""
        first, last, begins = np.empty((3, nodes.size), np.int64)
        offsets = np.zeros(nodes.size + 1, np.int64)
        take_facts(self.facts, nodes, first, last, begins, offsets)
        out = np.empty(int(offsets[-1]) + PADDING, np.uint8)
        take_text(begins, self.data, offsets, out)
        return first, last, offsets, out


def hexadecimal(high: U64, low: U64) -> U8:
    """Return the 32 hexadecimal digits of each id, concatenated."""
    ids = np.stack([high, low], axis=1).astype(">u8").view(np.uint8)
    return np.frombuffer(binascii.hexlify(ids.data), np.uint8)


def dictionary(codes: U8, names: Sequence[str]) -> pa.Array:
    """Return an Arrow array of names, each given by its place among `names`.

    Put together from buffers: the first `pa.array` of a process imports pandas where that is installed, which takes
    as long as hashing half a million ids.
    """
    numbers = pa.Array.from_buffers(pa.int8(), codes.size, [None, pa.py_buffer(codes)])
    values = [name.encode() for name in names]
    ends = np.cumsum([0, *map(len, values)], dtype=np.int32)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(values))]
    return pa.DictionaryArray.from_arrays(numbers, pa.Array.from_buffers(pa.string(), len(values), buffers))


def flat(values: pl.Series) -> U8:
    """Return the concatenated bytes of a column of strings, without a copy of Arrow's buffer."""
    array = values.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, data = array.buffers()
    if data is None:
        return np.empty(0, np.uint8)
    ends = np.frombuffer(offsets, np.int64)
    return np.frombuffer(data, np.uint8)[ends[array.offset] : ends[array.offset + len(array)]]


def text_series(offsets: I64, data: U8, valid: U8 | None = None) -> pl.Series:
    """Make a String series of flat text; where `valid` is 0, null."""
    bitmap = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    array = pa.Array.from_buffers(
        pa.large_string(), offsets.size - 1, [bitmap, pa.py_buffer(offsets), pa.py_buffer(data)]
    )
    return pl.Series(array, dtype=pl.String)
