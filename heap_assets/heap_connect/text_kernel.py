"""Compiled loops over text in bytes: is it UTF-8, and which number does it have among those seen before.

Everything here goes by addresses. Arrays handed from one compiled function to another are counted by Numba with atomic
operations, which cost several times what the loops themselves do.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

PADDING = 16
"""Bytes that must follow the data, because strings are read eight bytes at a time."""
NOT_UTF8, SLOTS_FULL = -4, -6

_HIGH_BITS = np.uint64(0x8080808080808080)
_ODD_1, _ODD_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_LOW_HALF = np.uint64(0xFFFFFFFF)
_HALF, _MIX = np.uint64(32), np.uint64(29)
_LENGTH_BITS = np.uint64(28)  # of 64; an arena is never longer than the other 36 can say
_LENGTH = np.uint64((1 << 28) - 1)
_LONGEST = (1 << 28) - 1


def _pointer(builder: Any, address: Any, bits: int) -> Any:
    return builder.inttoptr(address, ir.IntType(bits).as_pointer())


def _compile_word(typing: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found = builder.load(_pointer(builder, arguments[0], 64))
        found.align = 1
        return found

    return types.uint64(types.int64), generate


def _compile_byte(typing: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.zext(builder.load(_pointer(builder, arguments[0], 8)), ir.IntType(64))

    return types.int64(types.int64), generate


def _compile_put_word(typing: Any, address: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[1], _pointer(builder, arguments[0], 64)).align = 1
        return context.get_dummy_value()

    return types.void(types.int64, types.uint64), generate


word: Any = intrinsic(_compile_word)
"""The eight bytes at an address as one little-endian number."""
byte: Any = intrinsic(_compile_byte)
put_word: Any = intrinsic(_compile_put_word)


def _first_bytes(at: int, count: int) -> Any:
    return word(at) & ((np.uint64(1) << np.uint64(8 * count)) - np.uint64(1))


first_bytes: Any = numba.njit(cache=True, nogil=True, inline="always")(_first_bytes)
"""Fewer than eight bytes as one number."""


def _check_utf8(at: int, end: int) -> bool:
    while at < end:
        first = byte(at)
        if first < 0x80:
            at += 1
            continue
        if 0xC2 <= first <= 0xDF:
            more = 1
        elif 0xE0 <= first <= 0xEF:
            more = 2
        elif 0xF0 <= first <= 0xF4:
            more = 3
        else:
            return False
        if at + more >= end:
            return False
        second = byte(at + 1)
        if second < 0x80 or second > 0xBF:
            return False
        if (first == 0xE0 and second < 0xA0) or (first == 0xED and second > 0x9F):
            return False
        if (first == 0xF0 and second < 0x90) or (first == 0xF4 and second > 0x8F):
            return False
        for i in range(2, more + 1):
            if byte(at + i) < 0x80 or byte(at + i) > 0xBF:
                return False
        at += more + 1
    return True


_is_utf8: Any = numba.njit(cache=True, nogil=True)(_check_utf8)


def _check_text(at: int, length: int) -> Any:
    seen = np.uint64(0)
    whole = length & ~7
    for i in range(at, at + whole, 8):
        seen |= word(i)
    if length & 7:
        seen |= first_bytes(at + whole, length & 7)
    return (seen & _HIGH_BITS) == np.uint64(0) or _is_utf8(at, at + length)


is_text: Any = numba.njit(cache=True, nogil=True, inline="always")(_check_text)


def _compare(at: int, there: int, length: int) -> bool:
    whole = length & ~7
    for i in range(0, whole, 8):
        if word(at + i) != word(there + i):
            return False
    rest = length & 7
    return rest == 0 or first_bytes(at + whole, rest) == first_bytes(there + whole, rest)


equal: Any = numba.njit(cache=True, nogil=True)(_compare)


def _hash_text(at: int, length: int) -> Any:
    whole = length & ~7
    mixed = np.uint64(length) * _ODD_1
    for i in range(at, at + whole, 8):
        mixed = (mixed ^ word(i)) * _ODD_2
        mixed ^= mixed >> _MIX
    if length & 7:
        mixed = (mixed ^ first_bytes(at + whole, length & 7)) * _ODD_2
        mixed ^= mixed >> _MIX
    return (mixed * _ODD_1) >> _HALF


hash_text: Any = numba.njit(cache=True, nogil=True, inline="always")(_hash_text)
"""32 bits that equal texts share."""


def _keep(at: int, length: int, ends: int, arena: int, count: int) -> Any:
    """Give the text at an address the next number, if it is text. Number n ends at ends[n] of the arena."""
    if not is_text(at, length):
        return np.int64(NOT_UTF8)
    number = np.int64(word(count)) + 1
    start = np.int64(word(ends + 8 * number - 8))
    for i in range(0, length, 8):  # up to seven bytes too many: the next text is written over them
        put_word(arena + start + i, word(at + i))
    put_word(ends + 8 * number, np.uint64(start + length))
    put_word(count, np.uint64(number))
    return number


keep: Any = numba.njit(cache=True, nogil=True)(_keep)


def _find_or_add(at: int, length: int, slots: int, size: int, filled: int, ends: int, arena: int, count: int) -> Any:
    """Return the number of the text at an address; one not seen before gets the next number, if it is text.

    All are addresses but `length` and `size`. A column looks in its `size` slots, of which `filled` are taken. A slot
    is two words: 32 bits of the text's hash and its number; where it begins in the arena and its length.
    """
    tag = np.uint64(0)
    slot = np.int64(0)
    looked_up = length <= _LONGEST  # longer ones have no room in a slot
    if looked_up:
        tag = hash_text(at, length)
        last = size - 1
        slot = np.int64(tag) & last
        while True:
            held = word(slots + 16 * slot)
            if held == np.uint64(0):
                break
            if held >> _HALF == tag:
                place = word(slots + 16 * slot + 8)
                if np.int64(place & _LENGTH) == length and equal(at, arena + np.int64(place >> _LENGTH_BITS), length):
                    return np.int64(held & _LOW_HALF)
            slot = (slot + 1) & last
        if 2 * np.int64(word(filled)) >= size:
            return np.int64(SLOTS_FULL)
    number = keep(at, length, ends, arena, count)
    if looked_up and number > 0:
        start = word(ends + 8 * number - 8)
        put_word(slots + 16 * slot, tag << _HALF | np.uint64(number))
        put_word(slots + 16 * slot + 8, start << _LENGTH_BITS | np.uint64(length))
        put_word(filled, word(filled) + np.uint64(1))
    return number


find_or_add: Any = numba.njit(cache=True, nogil=True)(_find_or_add)


def _move_slots(old: Any, new: Any) -> None:
    last = np.int64(len(new) - 1)
    for i in range(len(old)):
        held = old[i, 0]
        if held != np.uint64(0):
            slot = np.int64(held >> _HALF) & last
            while new[slot, 0] != np.uint64(0):
                slot = (slot + 1) & last
            new[slot, 0] = held
            new[slot, 1] = old[i, 1]


move_slots: Any = numba.njit(cache=True, nogil=True)(_move_slots)
"""Fill a larger table of slots from a smaller one."""
