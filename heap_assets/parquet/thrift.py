"""As much of Thrift's compact protocol as a Parquet footer needs, written only (Parquet specification)."""

from __future__ import annotations

from collections.abc import Iterable

TRUE, FALSE, I16, I32, I64, BINARY, LIST, STRUCT = 1, 2, 4, 5, 6, 8, 9, 12
_LONG_LIST = 15

Field = tuple[int, int, bytes]
"""Number, type and spelled value; a boolean is all type."""


def varint(value: int) -> bytes:
    """Spell a number that is not negative, seven bits a byte."""
    spelled = bytearray()
    while value > 0x7F:
        spelled.append(value & 0x7F | 0x80)
        value >>= 7
    spelled.append(value)
    return bytes(spelled)


def struct(fields: Iterable[Field]) -> bytes:
    """Spell a struct; fields come in the order of their numbers."""
    spelled, last = bytearray(), 0
    for number, kind, value in fields:
        spelled.append((number - last) << 4 | kind)
        spelled += value
        last = number
    spelled.append(0)
    return bytes(spelled)


def i16(number: int, value: int) -> Field:
    return number, I16, varint(value << 1)


def i32(number: int, value: int) -> Field:
    return number, I32, varint(value << 1)


def i64(number: int, value: int) -> Field:
    return number, I64, varint(value << 1)


def flag(number: int, value: object) -> Field:
    return number, TRUE if value else FALSE, b""


def binary(number: int, value: bytes) -> Field:
    return number, BINARY, sized(value)


def nested(number: int, fields: Iterable[Field]) -> Field:
    return number, STRUCT, struct(fields)


def listed(number: int, kind: int, values: Iterable[bytes]) -> Field:
    """Spell a list of values that are spelled already."""
    items = list(values)
    head = bytes([len(items) << 4 | kind]) if len(items) < _LONG_LIST else bytes([0xF0 | kind]) + varint(len(items))
    return number, LIST, head + b"".join(items)


def sized(value: bytes) -> bytes:
    return varint(len(value)) + value
