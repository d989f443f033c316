"""The container format of Avro files: header and blocks, without decoding rows (Avro specification 1.11).

Nothing that a file declares is trusted: lengths are checked against the size of the file, sizes against the limits, and
decompression never takes more memory than allowed.
"""

from __future__ import annotations

import bz2
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import cramjam
import pyarrow as pa

Bytes = bytes | memoryview

_XZ_MEMORY = 256 << 20  # of its dictionary: the strongest preset asks for 65 MB
_ZSTD_PIECE = 1 << 20
_CHECKSUM = 4  # some writers of deflate leave part of zlib's checksum after the stream
_MOST_SNAPPY = 64  # its highest ratio: three bytes encode 64 at most


class TooLargeError(ValueError):
    """A block that becomes larger than is allowed."""


def decompressed(codec: str, data: bytes, limit: int) -> Bytes:
    """Return a block's bytes as they were written.

    `limit`: most bytes of the result.

    Raises
    ------
    TooLargeError
        If the result is larger, or would be.
    ValueError
        If the block is damaged, cut short, or followed by other bytes.
    """
    try:
        plain = _DECOMPRESSORS[codec](data, limit)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, cramjam.DecompressionError, pa.ArrowException) as error:
        raise ValueError(f"not {codec}") from error
    if len(plain) > limit:
        raise TooLargeError
    return plain


def _bounded(decompressor: Callable[[], Any], trailing: int = 0) -> Callable[[bytes, int], bytes]:
    """Return a function that decompresses at most `limit` bytes; so many `trailing` ones may follow the stream."""

    def decompress(data: bytes, limit: int) -> bytes:
        stream = decompressor()
        plain: bytes = stream.decompress(data, limit + 1)
        if len(plain) <= limit and (not stream.eof or len(stream.unused_data) > trailing):
            raise ValueError("cut short, or followed by other bytes")
        return plain

    return decompress


def _snappy(data: bytes, limit: int) -> memoryview:
    packed, checksum = memoryview(data)[:-4], data[-4:]
    size = cramjam.snappy.decompress_raw_len(packed)
    if size > _MOST_SNAPPY * len(packed):
        raise ValueError("length")
    if size > limit:
        raise TooLargeError
    plain = memoryview(cramjam.snappy.decompress_raw(packed))
    if zlib.crc32(plain) != int.from_bytes(checksum, "big"):
        raise ValueError("checksum")
    return plain


def _zstandard(data: bytes, limit: int) -> bytes:
    plain = bytearray()
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
        while piece := stream.read(_ZSTD_PIECE):
            plain += piece
            if len(plain) > limit:
                raise TooLargeError
    return bytes(plain)


_DECOMPRESSORS: Mapping[str, Callable[[bytes, int], Bytes]] = {
    "null": lambda data, _: data,
    "deflate": _bounded(lambda: zlib.decompressobj(-zlib.MAX_WBITS), _CHECKSUM),
    "snappy": _snappy,
    "zstandard": _zstandard,
    "bzip2": _bounded(bz2.BZ2Decompressor),
    "xz": _bounded(lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY)),
}


MAGIC = b"Obj\x01"
CODECS = ("null", "deflate", "snappy", "zstandard", "bzip2", "xz")
_SYNC_SIZE = 16
_HEADER_LIMIT = 16 << 20
_MOST_ENTRIES = 10_000
_LARGE = 16 << 20
_READ_BYTES = 1 << 20
_SLACK_BYTES = 1 << 16  # what cannot be compressed becomes larger: by a sixth, with snappy


@dataclass(frozen=True)
class Limits:
    """Limits of one Avro file once it is decompressed.

    Attributes
    ----------
    block_bytes
        Of one block: about as much memory is needed to decode it.
    file_bytes
        Of all blocks of one file.
    """

    block_bytes: int = 256 << 20
    file_bytes: int = 32 << 30

    @property
    def block_reason(self) -> str:
        """Why a block is refused that is larger."""
        return f"it becomes larger than {self.block_bytes >> 20:,} MB (heap.limits.block_mb)"


@dataclass(frozen=True)
class AvroHeader:
    """The writer's schema, the codec, the sync marker and the offset of the first block."""

    schema: Any
    codec: str
    sync: bytes
    blocks_at: int


@dataclass(frozen=True)
class StoredBlock:
    """A block as stored: its number from 0, its rows as declared, its bytes compressed."""

    number: int
    rows: int
    data: bytes


class BlockError(ValueError):
    """A block, counted from 0, that cannot be read; the message says why and quotes no value."""

    def __init__(self, block: int, reason: str) -> None:
        super().__init__(reason)
        self.block = block
        self.reason = reason


def read_header(path: Path) -> AvroHeader:
    """Read a file's header.

    Raises ValueError with the reason if it is no Avro file, is cut short, or uses an unsupported codec.
    """
    with path.open("rb") as file:
        return _header(file)


def stored_blocks(path: Path, header: AvroHeader, limits: Limits) -> Iterator[StoredBlock]:
    """Yield a file's blocks one after the other.

    Raises BlockError, naming the first that is cut short, does not end with the file's sync marker, or is larger than a
    block within the limits can be: that one is refused before it is read.
    """
    most = limits.block_bytes
    if header.codec != "null":
        most += most // 4 + _SLACK_BYTES
    with path.open("rb", buffering=_READ_BYTES) as file:
        assert isinstance(file, BufferedReader)
        file.seek(header.blocks_at)
        for number in count():
            if not file.peek(1):
                return
            yield _block(file, header.sync, number, limits, most)  # no reference stays here: a block may be large


def encoded_long(number: int) -> bytes:
    """Encode a number as Avro does: zigzag, seven bits a byte, the lowest first."""
    zigzag = (number << 1) ^ (number >> 63)
    encoded = bytearray()
    while zigzag > 0x7F:
        encoded.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    encoded.append(zigzag)
    return bytes(encoded)


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
    except RecursionError as error:
        raise ValueError("the schema in the Avro header is nested too deeply") from error
    except (EOFError, KeyError, ValueError, OverflowError) as error:
        raise ValueError("the Avro header is cut short or damaged") from error
    codec = metadata.get("avro.codec", b"null").decode(errors="replace")
    if codec not in CODECS:
        raise ValueError(f"codec {codec[:40]!r} is not one of {', '.join(CODECS)}")
    return AvroHeader(schema, codec, sync, file.tell())


def _block(file: BinaryIO, sync: bytes, number: int, limits: Limits, most: int) -> StoredBlock:
    try:
        rows = _varint(file)
        size = _varint(file)
        if size < 0:
            raise BlockError(number, "its length makes no sense: the file is damaged here")
        if size > most:
            _must_hold(file, size)
            raise BlockError(number, limits.block_reason)
        data = _exactly(file, size)
        end = _exactly(file, _SYNC_SIZE)
    except EOFError as error:
        raise BlockError(number, "the file ends inside it: it was cut short, or is damaged here") from error
    except OverflowError as error:
        raise BlockError(number, "its length makes no sense: the file is damaged here") from error
    if end != sync:
        raise BlockError(number, "it does not end with the file's sync marker: the file is damaged here")
    return StoredBlock(number, rows, data)


def _metadata(file: BinaryIO) -> dict[str, bytes]:
    entries: dict[str, bytes] = {}
    while (count := _varint(file)) != 0:
        if count < 0:
            _varint(file)
        if len(entries) + abs(count) > _MOST_ENTRIES:
            raise ValueError("too many entries")
        for _ in range(abs(count)):
            key = _sized(file).decode()
            entries[key] = _sized(file)
            if file.tell() > _HEADER_LIMIT:
                raise ValueError("header too large")
    return entries


def _sized(file: BinaryIO) -> bytes:
    size = _varint(file)
    if not 0 <= size <= _HEADER_LIMIT:
        raise ValueError("length out of range")
    return _exactly(file, size)


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            raise EOFError
        value |= (byte[0] & 0x7F) << shift
        if not byte[0] & 0x80:
            return (value >> 1) ^ -(value & 1)
    raise OverflowError("number out of range")


def _exactly(file: BinaryIO, size: int) -> bytes:
    if size > _LARGE:
        _must_hold(file, size)  # a damaged length must not allocate what the file does not hold
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _must_hold(file: BinaryIO, size: int) -> None:
    position = file.tell()
    if size > file.seek(0, 2) - position:
        raise EOFError
    file.seek(position)
