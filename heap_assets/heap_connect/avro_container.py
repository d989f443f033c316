"""The outside of an Avro file: its header and its blocks, without decoding rows (Avro specification 1.11)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b"Obj\x01"
CODECS = ("null", "deflate", "snappy", "zstandard", "bzip2", "xz")
_SYNC_SIZE = 16
_HEADER_LIMIT = 64 << 20
_LARGE = 16 << 20


@dataclass(frozen=True)
class AvroHeader:
    """What a file says of itself: the writer's schema, the codec, and where the first block begins."""

    schema: Any
    codec: str
    sync: bytes
    blocks_at: int


def read_header(path: Path) -> AvroHeader:
    """Read a file's header.

    Raises
    ------
    ValueError
        With the reason, if it is no Avro file, is cut short, or uses a codec that nobody here reads.
    """
    with path.open("rb") as file:
        return _header(file)


def _header(file: BinaryIO) -> AvroHeader:
    magic = file.read(4)
    if not magic:
        raise ValueError("the file is empty")
    if magic != MAGIC:
        raise ValueError("not an Avro file (it does not begin with Obj1)")
    try:
        metadata = _metadata(file)
        sync = _exactly(file, _SYNC_SIZE)
        schema = json.loads(metadata["avro.schema"])
    except (EOFError, KeyError, ValueError, OverflowError) as error:
        raise ValueError("the Avro header is cut short or damaged") from error
    codec = metadata.get("avro.codec", b"null").decode(errors="replace")
    if codec not in CODECS:
        raise ValueError(f"codec {codec!r} is not one of {', '.join(CODECS)}")
    return AvroHeader(schema, codec, sync, file.tell())


class BlockError(ValueError):
    """A block, counted from 0, that cannot be read; the message says why and quotes no value."""

    def __init__(self, block: int, reason: str) -> None:
        super().__init__(reason)
        self.block = block
        self.reason = reason


def read_block(file: BinaryIO, header: AvroHeader, number: int) -> tuple[int, bytes] | None:
    """Return the next block's number of rows and its bytes as stored; None at the end of the file.

    Raises
    ------
    BlockError
        If it is cut short, or does not end with the file's sync marker.
    """
    first = file.read(1)
    if not first:
        return None
    try:
        count = _varint(file, first)
        size = _varint(file)
        if size < 0:
            raise BlockError(number, "its length makes no sense: the file is damaged here")
        data = _exactly(file, size)
        sync = _exactly(file, _SYNC_SIZE)
    except EOFError as error:
        raise BlockError(number, "the file ends inside it: it was cut short, or is damaged here") from error
    except OverflowError as error:
        raise BlockError(number, "its length makes no sense: the file is damaged here") from error
    if sync != header.sync:
        raise BlockError(number, "it does not end with the file's sync marker: the file is damaged here")
    return count, data


def _metadata(file: BinaryIO) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    while (count := _varint(file)) != 0:
        if count < 0:
            _varint(file)
        for _ in range(abs(count)):
            key = _sized(file).decode()
            found[key] = _sized(file)
    return found


def _sized(file: BinaryIO) -> bytes:
    size = _varint(file)
    if not 0 <= size <= _HEADER_LIMIT:
        raise ValueError("length out of range")
    return _exactly(file, size)


def _varint(file: BinaryIO, first: bytes | None = None) -> int:
    value = shift = 0
    byte = first or file.read(1)
    while True:
        if not byte:
            raise EOFError
        value |= (byte[0] & 0x7F) << shift
        if not byte[0] & 0x80:
            return (value >> 1) ^ -(value & 1)
        shift += 7
        if shift > 63:
            raise OverflowError("number out of range")
        byte = file.read(1)


def _exactly(file: BinaryIO, size: int) -> bytes:
    if size > _LARGE:
        here = file.tell()
        if size > file.seek(0, 2) - here:  # a damaged length must not allocate what the file does not hold
            raise EOFError
        file.seek(here)
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return data
