"""The compiled loop that takes Avro records apart; see avro_compiled for what goes in and comes out."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

BOOLEAN, NUMBER, DOUBLE, TEXT, FIXED, ENUM = range(6)
NEVER_NULL = -1
PADDING = 16
"""Bytes that must follow the data, because strings are read eight bytes at a time."""

_OVERRUN, _BAD_LENGTH, _BAD_BRANCH, _NOT_UTF8, _BAD_NUMBER = -1, -2, -3, -4, -5
FAULTS = {
    _OVERRUN: "it ends inside a record",
    _BAD_LENGTH: "a length in it makes no sense",
    _BAD_BRANCH: "it chooses a type that the schema does not have",
    _NOT_UTF8: "a string in it is not UTF-8",
    _BAD_NUMBER: "a number in it is too long",
}
_HIGH_BITS = np.uint64(0x8080808080808080)


def _compile_word(typing: Any, data: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        address = builder.gep(array.data, [arguments[1]])
        word = builder.load(builder.bitcast(address, ir.IntType(64).as_pointer()))
        word.align = 1
        return word

    return types.uint64(data, at), generate


_word: Any = intrinsic(_compile_word)
"""Eight bytes at any place as one little-endian number."""


def _read_varint(data: Any, at: int, end: int) -> Any:
    if at < end and data[at] < 0x80:
        short = np.int64(data[at])
        return (short >> 1) ^ -(short & 1), at + 1
    value = np.uint64(0)
    shift = np.uint64(0)
    while at < end:
        byte = np.uint64(data[at])
        at += 1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), at
        shift += np.uint64(7)
        if shift > np.uint64(63):
            return np.int64(0), np.int64(_BAD_NUMBER)
    return np.int64(0), np.int64(_OVERRUN)


_varint: Any = numba.njit(cache=True, nogil=True, inline="always")(_read_varint)


def _check_utf8(data: Any, at: int, end: int) -> bool:
    while at < end:
        byte = data[at]
        if byte < 0x80:
            at += 1
            continue
        if 0xC2 <= byte <= 0xDF:
            more = 1
        elif 0xE0 <= byte <= 0xEF:
            more = 2
        elif 0xF0 <= byte <= 0xF4:
            more = 3
        else:
            return False
        if at + more >= end:
            return False
        second = data[at + 1]
        if second < 0x80 or second > 0xBF:
            return False
        if (byte == 0xE0 and second < 0xA0) or (byte == 0xED and second > 0x9F):
            return False
        if (byte == 0xF0 and second < 0x90) or (byte == 0xF4 and second > 0x8F):
            return False
        for i in range(2, more + 1):
            if data[at + i] < 0x80 or data[at + i] > 0xBF:
                return False
        at += more + 1
    return True


_is_utf8: Any = numba.njit(cache=True, nogil=True)(_check_utf8)


def _check_text(data: Any, at: int, length: int) -> Any:
    seen = np.uint64(0)
    whole = length & ~7
    for i in range(at, at + whole, 8):
        seen |= _word(data, i)
    if length & 7:
        mask = (np.uint64(1) << np.uint64(8 * (length & 7))) - np.uint64(1)
        seen |= _word(data, at + whole) & mask
    return (seen & _HIGH_BITS) == np.uint64(0) or _is_utf8(data, at, at + length)


_is_text: Any = numba.njit(cache=True, nogil=True, inline="always")(_check_text)


def _decode_records(
    data: Any,
    at: int,
    end: int,
    rows: int,
    row: int,
    kinds: Any,
    null_branches: Any,
    sizes: Any,
    words: Any,
    valid: Any,
) -> Any:
    """Decode `rows` records from data[at:end] into row `row` and on; return where it stopped, or a fault."""
    for r in range(row, row + rows):
        for f in range(len(kinds)):
            if null_branches[f] >= 0:
                branch, at = _varint(data, at, end)
                if at < 0:
                    return at
                if branch == null_branches[f]:
                    valid[f, r] = 0
                    words[f, r, 0] = np.uint64(0)
                    words[f, r, 1] = np.uint64(0)
                    continue
                if branch != 1 - null_branches[f]:
                    return _BAD_BRANCH
            kind = kinds[f]
            if kind in (TEXT, FIXED):
                if kind == FIXED:
                    length = sizes[f]
                else:
                    length, at = _varint(data, at, end)
                    if at < 0:
                        return at
                if length < 0:
                    return _BAD_LENGTH
                if length > end - at:
                    return _OVERRUN
                if kind == TEXT and sizes[f] == 0 and not _is_text(data, at, length):
                    return _NOT_UTF8
                # A view: the length, then all of up to 12 bytes, or the first 4 and where the rest is.
                first = _word(data, at)
                if length >= 4:
                    words[f, r, 0] = np.uint64(length) | first << np.uint64(32)
                else:
                    mask = (np.uint64(1) << np.uint64(8 * length)) - np.uint64(1)
                    words[f, r, 0] = np.uint64(length) | (first & mask) << np.uint64(32)
                if length > 12:
                    words[f, r, 1] = np.uint64(at) << np.uint64(32)
                elif length == 12:
                    words[f, r, 1] = _word(data, at + 4)
                elif length > 4:
                    mask = (np.uint64(1) << np.uint64(8 * (length - 4))) - np.uint64(1)
                    words[f, r, 1] = _word(data, at + 4) & mask
                else:
                    words[f, r, 1] = np.uint64(0)
                at += length
            elif kind in (NUMBER, ENUM):
                number, at = _varint(data, at, end)
                if at < 0:
                    return at
                if kind == ENUM and (number < 0 or number >= sizes[f]):
                    return _BAD_BRANCH
                words[f, r, 0] = np.uint64(number)
            elif kind == DOUBLE:
                if end - at < 8:
                    return _OVERRUN
                words[f, r, 0] = _word(data, at)
                at += 8
            else:
                if at >= end:
                    return _OVERRUN
                if data[at] > 1:
                    return _BAD_BRANCH
                words[f, r, 0] = data[at]
                at += 1
    return at


decode: Any = numba.njit(cache=True, nogil=True)(_decode_records)
