"""The compiled loop that takes Avro records apart; see avro_compiled for what goes in and comes out."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from heap_assets.heap_connect.text_kernel import NOT_UTF8, byte, find_or_add, first_bytes, is_text, keep, word

BOOLEAN, NUMBER, DOUBLE, TEXT, FIXED, ENUM, NUMBERED, TIME = range(8)
"""`NUMBERED` is text given as its number among the texts seen before; 0 is null. `TIME` is text read as a time."""
NEVER_NULL = -1
OTHER_TIME = -7
"""A time is spelled in another way than Heap's usual one."""

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


_NO_TIME = np.int64(-(2**63))
_MONTH_ENDS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def _read_digits(at: int, count: int) -> Any:
    """Read a number of so many digits; less than 0 if they are none."""
    value = np.int64(0)
    for i in range(count):
        digit = byte(at + i) - 48
        if digit < 0 or digit > 9:
            return np.int64(-1)
        value = value * 10 + digit
    return value


_digits: Any = numba.njit(cache=True, nogil=True, inline="always")(_read_digits)


def _read_time(at: int, length: int) -> Any:
    """Read `2026-03-01 12:30:59`, with up to six digits of a fraction, as microseconds since 1970 in UTC.

    Whatever is spelled otherwise, or is no time, is for those who know more spellings.
    """
    if length < 19 or length > 26 or length == 20:
        return _NO_TIME
    if byte(at + 4) != 45 or byte(at + 7) != 45 or byte(at + 10) != 32 or byte(at + 13) != 58 or byte(at + 16) != 58:
        return _NO_TIME
    year, month, day = _digits(at, 4), _digits(at + 5, 2), _digits(at + 8, 2)
    hour, minute, second = _digits(at + 11, 2), _digits(at + 14, 2), _digits(at + 17, 2)
    if year < 1 or month < 1 or month > 12 or day < 1 or day > _MONTH_ENDS[month - 1]:
        return _NO_TIME
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if month == 2 and day == 29 and not leap:
        return _NO_TIME
    if hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 59:
        return _NO_TIME
    fraction = np.int64(0)
    if length > 19:
        fraction = _digits(at + 20, length - 20)
        if byte(at + 19) != 46 or fraction < 0:
            return _NO_TIME
        for _ in range(26 - length):
            fraction *= 10
    # Days since 1970 in years that begin in March, so that a leap day is the last (Hinnant, days_from_civil).
    shifted = year - 1 if month <= 2 else year
    era = shifted // 400
    of_era = shifted - era * 400
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    days = era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
    return (((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + fraction


_time: Any = numba.njit(cache=True, nogil=True)(_read_time)


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
    views: Any,
    longs: Any,
    valid: Any,
    numbers: Any,
    slots: Any,
    lengths: Any,
    filled: int,
    ends: int,
    arena: int,
    count: int,
    once_ends: int,
    once_arena: int,
    once_count: int,
) -> Any:
    """Decode `rows` records from address `at` to `end` into row `row` and on; return where it stopped, or a fault.

    Field f goes to `numbers[places[f]]` if it is NUMBERED (`slots` and what follows are the table of its texts;
    `once_ends` and what follows are the list for columns without slots), to `views[places[f]]` if it is TEXT or FIXED,
    else to `longs[places[f]]`; `data` is where views count from. After SLOTS_FULL the same records may be decoded
    again.
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
                    valid[f, r] = 0
                    if kind in (TEXT, FIXED):
                        views[place, r, 0] = np.uint64(0)
                        views[place, r, 1] = np.uint64(0)
                    else:
                        longs[place, r] = 0
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
                if lengths[place] > 0:
                    taken = filled + 8 * place
                    number = find_or_add(at, length, slots[place], lengths[place], taken, ends, arena, count)
                else:
                    number = keep(at, length, once_ends, once_arena, once_count)
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
                    views[place, r, 0] = np.uint64(length) | word(at) << np.uint64(32)
                else:
                    views[place, r, 0] = np.uint64(length) | first_bytes(at, length) << np.uint64(32)
                if length > 12:
                    views[place, r, 1] = np.uint64(at - data) << np.uint64(32)
                elif length == 12:
                    views[place, r, 1] = word(at + 4)
                elif length > 4:
                    views[place, r, 1] = first_bytes(at + 4, length - 4)
                else:
                    views[place, r, 1] = np.uint64(0)
                at += length
            elif kind == TIME:
                length, at = _varint(at, end)
                if at < 0:
                    return at
                if length < 0:
                    return _BAD_LENGTH
                if length > end - at:
                    return _OVERRUN
                moment = _time(at, length)
                if moment == _NO_TIME:
                    return OTHER_TIME
                longs[place, r] = moment
                at += length
            elif kind in (NUMBER, ENUM):
                number, at = _varint(at, end)
                if at < 0:
                    return at
                if kind == ENUM and (number < 0 or number >= sizes[f]):
                    return _BAD_BRANCH
                longs[place, r] = number
            elif kind == DOUBLE:
                if end - at < 8:
                    return _OVERRUN
                longs[place, r] = np.int64(word(at))
                at += 8
            else:
                if at >= end:
                    return _OVERRUN
                if byte(at) > 1:
                    return _BAD_BRANCH
                longs[place, r] = byte(at)
                at += 1
    return at


_decode: Any = numba.njit(cache=True, nogil=True)(_decode_records)


def _decode_blocks(
    data: int,
    edges: Any,
    counts: Any,
    block: int,
    row: int,
    kinds: Any,
    null_branches: Any,
    sizes: Any,
    places: Any,
    views: Any,
    longs: Any,
    valid: Any,
    numbers: Any,
    slots: Any,
    lengths: Any,
    filled: int,
    ends: int,
    arena: int,
    count: int,
    once_ends: int,
    once_arena: int,
    once_count: int,
) -> Any:
    """Decode blocks from number `block` on into row `row` and on.

    Block b has `counts[b]` records and lies from `data + edges[b]` to `data + edges[b + 1]`. Returns how many blocks
    are done, the next row, and a fault or how many bytes are left over in the next block; 0 at the end.
    """
    for b in range(block, len(counts)):
        end = data + edges[b + 1]
        stopped = _decode(
            data,
            data + edges[b],
            end,
            counts[b],
            row,
            kinds,
            null_branches,
            sizes,
            places,
            views,
            longs,
            valid,
            numbers,
            slots,
            lengths,
            filled,
            ends,
            arena,
            count,
            once_ends,
            once_arena,
            once_count,
        )
        if stopped != end:
            return b, row, stopped if stopped < 0 else end - stopped
        row += counts[b]
    return len(counts), row, 0


decode: Any = numba.njit(cache=True, nogil=True)(_decode_blocks)
