"""Compiled loops that write columns of identity/graph as they stand in a Parquet file."""

from __future__ import annotations

import numpy as np

from heap_assets.identity.kernel import AHEAD, I64, U8, U32, U64, compiled
from heap_assets.identity.kernel_text import digits
from heap_assets.identity.native import load8, prefetch, store

ID_BYTES = 36
"""A profile id as a page has it: how many digits there are, in four bytes, then the digits."""


@compiled
def write_texts(begins: I64, offsets: I64, data: U8, page: U8, at: int) -> int:
    """Write values, each after its length in four bytes, from `at` on; returns where they end.

    `begins` says where they are in `data`, differences of `offsets` how long they are. Eight bytes are written at a
    time: the page has room for as many beyond the end.
    """
    for row in range(begins.size):
        if row + AHEAD < begins.size:
            prefetch(data, begins[row + AHEAD])
            prefetch(data, begins[row + AHEAD] + offsets[row + AHEAD + 1] - offsets[row + AHEAD] - 1)
        size = offsets[row + 1] - offsets[row]
        store(page, at, np.uint32(size))
        at += 4
        for part in range(0, size, 8):
            store(page, at + part, load8(data, begins[row] + part))
        at += size
    return at


@compiled
def write_ids(numbers: U32, high: U64, low: U64, page: U8) -> None:
    """Write ids one after the other, each after its length."""
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    for row in range(numbers.size):
        if row + AHEAD < numbers.size:
            prefetch(high, np.int64(numbers[row + AHEAD]))
            prefetch(low, np.int64(numbers[row + AHEAD]))
        number, at = numbers[row], row * ID_BYTES
        store(page, at, np.uint32(32))
        store(page, at + 4, digits(high[number] >> half))
        store(page, at + 12, digits(high[number] & mask))
        store(page, at + 20, digits(low[number] >> half))
        store(page, at + 28, digits(low[number] & mask))


@compiled
def write_runs(places: U32, starts: I64, width: int, page: U8, at: int) -> int:
    """Write the numbers 0, 1, …, each as often as its run is long, as runs of `width` bytes (Parquet's RLE)."""
    for i in range(places.size):
        if i + AHEAD < places.size:
            prefetch(starts, np.int64(places[i + AHEAD]))
        head = (starts[places[i] + 1] - starts[places[i]]) << 1
        while head > 0x7F:
            page[at] = head & 0x7F | 0x80
            head >>= 7
            at += 1
        page[at] = head
        store(page, at + 1, np.uint32(i))
        at += 1 + width
    return at


@compiled
def pack(values: U8, width: int, page: U8) -> None:
    """Write small numbers with `width` bits each, the lowest first, in whole groups of eight."""
    at = 0
    bits, held = np.uint64(0), np.uint64(0)
    for row in range((values.size + 7) // 8 * 8):
        value = np.uint64(values[row]) if row < values.size else np.uint64(0)
        bits |= value << held
        held += np.uint64(width)
        while held >= np.uint64(8):
            page[at] = bits & np.uint64(0xFF)
            at += 1
            bits >>= np.uint64(8)
            held -= np.uint64(8)
