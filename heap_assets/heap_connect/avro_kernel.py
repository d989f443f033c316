"""The compiled loop that takes Avro records apart; see avro_compiled for what goes in and comes out."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from heap_assets.heap_connect.text_kernel import NOT_UTF8, byte, find_or_add, first_bytes, is_text, word

BOOLEAN, NUMBER, DOUBLE, TEXT, FIXED, ENUM, NUMBERED = range(7)
"""`NUMBERED` is text given as its number among the texts seen before; 0 is null."""
NEVER_NULL = -1

_OVERRUN, _BAD_LENGTH, _BAD_BRANCH, _NOT_UTF8, _BAD_NUMBER = -1, -2, -3, NOT_UTF8, -5
FAULTS = {
    _OVERRUN: "it ends inside a record",
    _BAD_LENGTH: "a length in it makes no sense",
    _BAD_BRANCH: "it chooses a type that the schema does not have",
    _NOT_UTF8: "a string in it is not UTF-8",
    _BAD_NUMBER: "a number in it is too long",
}


def _read_varint(at: int, end: int) -> Any:
    if at < end and byte(at) < 0x80:
        short = byte(at)
        return (short >> 1) ^ -(short & 1), at + 1
    value = np.uint64(0)
    shift = np.uint64(0)
    while at < end:
        next_bits = np.uint64(byte(at))
        at += 1
        value |= (next_bits & np.uint64(0x7F)) << shift
        if next_bits < np.uint64(0x80):
            return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), at
        shift += np.uint64(7)
        if shift > np.uint64(63):
            return np.int64(0), np.int64(_BAD_NUMBER)
    return np.int64(0), np.int64(_OVERRUN)


_varint: Any = numba.njit(cache=True, nogil=True, inline="always")(_read_varint)


def _decode_records(
    data: int,
    at: int,
    end: int,
    rows: int,
    row: int,
    kinds: Any,
    null_branches: Any,
    sizes: Any,
    places: Any,
    words: Any,
    valid: Any,
    numbers: Any,
    slots: Any,
    lengths: Any,
    filled: int,
    ends: int,
    arena: int,
    count: int,
) -> Any:
    """Decode `rows` records from address `at` to `end` into row `row` and on; return where it stopped, or a fault.

    Field f goes to `numbers[places[f]]` if it is NUMBERED (`slots` and what follows are the table of its texts), and
    to `words[places[f]]` if it is anything else; `data` is where views count from. After SLOTS_FULL the same records
    may be decoded again.
    """
    for r in range(row, row + rows):
        for f in range(len(kinds)):
            kind, place = kinds[f], places[f]
            if null_branches[f] >= 0:
                branch, at = _varint(at, end)
                if at < 0:
                    return at
                if branch == null_branches[f]:
                    if kind == NUMBERED:
                        numbers[place, r] = 0
                        continue
                    valid[place, r] = 0
                    words[place, r, 0] = np.uint64(0)
                    words[place, r, 1] = np.uint64(0)
                    continue
                if branch != 1 - null_branches[f]:
                    return _BAD_BRANCH
            if kind == NUMBERED:
                length, at = _varint(at, end)
                if at < 0:
                    return at
                if length < 0:
                    return _BAD_LENGTH
                if length > end - at:
                    return _OVERRUN
                taken = filled + 8 * place
                number = find_or_add(at, length, slots[place], lengths[place], taken, ends, arena, count)
                if number < 0:
                    return number
                numbers[place, r] = number
                at += length
            elif kind in (TEXT, FIXED):
                if kind == FIXED:
                    length = sizes[f]
                else:
                    length, at = _varint(at, end)
                    if at < 0:
                        return at
                if length < 0:
                    return _BAD_LENGTH
                if length > end - at:
                    return _OVERRUN
                if kind == TEXT and sizes[f] == 0 and not is_text(at, length):
                    return _NOT_UTF8
                # A view: the length, then all of up to 12 bytes, or the first 4 and where the rest is.
                if length >= 4:
                    words[place, r, 0] = np.uint64(length) | word(at) << np.uint64(32)
                else:
                    words[place, r, 0] = np.uint64(length) | first_bytes(at, length) << np.uint64(32)
                if length > 12:
                    words[place, r, 1] = np.uint64(at - data) << np.uint64(32)
                elif length == 12:
                    words[place, r, 1] = word(at + 4)
                elif length > 4:
                    words[place, r, 1] = first_bytes(at + 4, length - 4)
                else:
                    words[place, r, 1] = np.uint64(0)
                at += length
            elif kind in (NUMBER, ENUM):
                number, at = _varint(at, end)
                if at < 0:
                    return at
                if kind == ENUM and (number < 0 or number >= sizes[f]):
                    return _BAD_BRANCH
                words[place, r, 0] = np.uint64(number)
            elif kind == DOUBLE:
                if end - at < 8:
                    return _OVERRUN
                words[place, r, 0] = word(at)
                at += 8
            else:
                if at >= end:
                    return _OVERRUN
                if byte(at) > 1:
                    return _BAD_BRANCH
                words[place, r, 0] = np.uint64(byte(at))
                at += 1
    return at


decode: Any = numba.njit(cache=True, nogil=True)(_decode_records)
