"""Decompression of Avro blocks that never takes more memory than allowed, whatever a block says of its size."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Mapping
from typing import Protocol

import cramjam
import pyarrow as pa

Bytes = bytes | memoryview

_XZ_MEMORY = 256 << 20  # of its dictionary: the strongest preset asks for 65 MB
_ZSTD_PIECE = 1 << 20
_CHECKSUM = 4  # some writers of deflate leave part of zlib's behind the stream
_MOST_SNAPPY = 64  # times the bytes that come out of one: three stand for 64 at most


class TooLargeError(ValueError):
    """A block that becomes larger than is allowed."""


def decompressed(codec: str, data: bytes, limit: int) -> Bytes:
    """Return a block's bytes as they were written.

    Parameters
    ----------
    limit
        So many bytes may come out.

    Raises
    ------
    TooLargeError
        If more came out, or would.
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


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _bounded(begin: Callable[[], _Decompressor], behind: int = 0) -> Callable[[bytes, int], bytes]:
    def decompress(data: bytes, limit: int) -> bytes:
        stream = begin()
        plain = stream.decompress(data, limit + 1)
        if len(plain) <= limit and (not stream.eof or len(stream.unused_data) > behind):
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
