"""The outside of an Avro file: its header and its blocks, without decoding rows (Avro specification 1.11)."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cramjam

MAGIC = b"Obj\x01"
CODECS = ("null", "deflate", "snappy", "zstandard", "bzip2", "xz")
_SYNC_SIZE = 16
_HEADER_LIMIT = 64 << 20


@dataclass(frozen=True)
class AvroHeader:
    """What a file says of itself: the writer's schema, the codec, and where the first block begins."""

    schema: Any
    codec: str
    sync: bytes
    blocks_at: int


@dataclass(frozen=True)
class BadBlock:
    """A block that cannot be read, counted from 0, and why."""

    block: int
    reason: str


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
    except (EOFError, KeyError, ValueError) as error:
        raise ValueError("the Avro header is cut short or damaged") from error
    codec = metadata.get("avro.codec", b"null").decode(errors="replace")
    if codec not in CODECS:
        raise ValueError(f"codec {codec!r} is not one of {', '.join(CODECS)}")
    return AvroHeader(schema, codec, sync, file.tell())


def first_bad_block(path: Path) -> BadBlock | None:
    """Walk a file's blocks and name the first that is cut short, out of step or does not decompress; None if none."""
    with path.open("rb") as file:
        try:
            header = _header(file)
        except ValueError as error:
            return BadBlock(0, str(error))
        block = 0
        while first := file.read(1):
            try:
                _varint(file, first)
                size = _varint(file)
                if size < 0 or size > path.stat().st_size:
                    return BadBlock(block, "its length makes no sense: the file is damaged here")
                data = _exactly(file, size)
                sync = _exactly(file, _SYNC_SIZE)
            except EOFError:
                return BadBlock(block, "the file ends inside it: it was cut short")
            if sync != header.sync:
                return BadBlock(block, "it does not end with the file's sync marker: the file is damaged here")
            if not _decompresses(data, header.codec):
                return BadBlock(block, f"it does not decompress as {header.codec}, or its checksum is wrong")
            block += 1
    return None


def _decompresses(data: bytes, codec: str) -> bool:
    try:
        if codec == "snappy":
            plain = bytes(cramjam.snappy.decompress_raw(data[:-4]))
            return zlib.crc32(plain) == int.from_bytes(data[-4:], "big")
        if codec == "deflate":
            zlib.decompress(data, -15)
        elif codec == "zstandard":
            cramjam.zstd.decompress(data)
        elif codec == "bzip2":
            cramjam.bzip2.decompress(data)
    except (zlib.error, cramjam.DecompressionError):
        return False
    return True


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
            raise ValueError("number out of range")
        byte = file.read(1)


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return data
