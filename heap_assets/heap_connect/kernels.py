"""The compiled loops, fetched from Numba's cache on a thread of its own: while the first files are on their way."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from heap_assets.heap_connect.avro_kernel import decode
from heap_assets.heap_connect.parquet_kernel import find_same, number_anew, place, write_pages
from heap_assets.heap_connect.text_kernel import PADDING, move_slots
from heap_assets.heap_connect.text_table import TextList, TextTable

_begun = threading.Lock()


def prepare() -> None:
    """Begin to fetch the loops that landing needs; returns at once, and does so once in a process."""
    if _begun.acquire(blocking=False):
        threading.Thread(target=_call_all, name="kernels").start()


def _call_all() -> None:
    """Call each with the types of its arguments, and nothing to do."""
    table, once = TextTable(1), TextList()
    longs, numbers, room = np.zeros(1, np.int64), np.zeros(1, np.uint32), np.zeros(PADDING, np.uint8)
    nothing: Any = longs[:0]
    views, none = np.zeros((0, 0, 2), np.uint64), np.zeros((0, 0), np.int64)
    into = (views, none, none.astype(np.uint8), none.astype(np.uint32))
    where = (*table.lookup, *table.addresses, *once.addresses)
    decode(room.ctypes.data, longs, nothing, 0, 0, nothing, nothing, nothing, nothing, *into, *where)
    move_slots(table.slots, table.slots.copy())
    find_same(longs, numbers, table.slots, 1, numbers)
    given = numbers[:0]
    given.flags.writeable = False  # as what Polars holds is
    place(given, numbers, numbers, numbers)
    number_anew(numbers[:0], numbers, np.zeros(1, np.int32), numbers, numbers, room)
    write_pages(numbers, 0, longs, numbers, room.ctypes.data, numbers, 0, 1, room.ctypes.data)
