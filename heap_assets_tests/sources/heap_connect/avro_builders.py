"""Avro files put together byte by byte: what no well-behaved writer writes."""

from __future__ import annotations

import bz2
import json
import lzma
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cramjam

SYNC = bytes(range(16))
NULLABLE_TEXT = ["null", "string"]


def long(number: int) -> bytes:
    left, encoded = (number << 1) ^ (number >> 63), bytearray()
    while left > 0x7F:
        encoded.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*encoded, left])


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return long(len(data)) + data


def record(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": "top", "fields": [{"name": n, "type": k} for n, k in fields.items()]}


def snappy(data: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(data)) + struct.pack(">I", zlib.crc32(data))


def deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


COMPRESS: Mapping[str, Callable[[bytes], bytes]] = {
    "null": bytes,
    "deflate": deflate,
    "snappy": snappy,
    "zstandard": lambda data: bytes(cramjam.zstd.compress(data)),
    "bzip2": bz2.compress,
    "xz": lambda data: lzma.compress(data, preset=0),
}


def avro_file(path: Path, schema: Any, blocks: Sequence[tuple[int, bytes]], codec: str = "null") -> Path:
    """Write blocks of (rows as declared, bytes as stored) behind a header; `schema` may be JSON text."""
    spelled = schema if isinstance(schema, str | bytes) else json.dumps(schema)
    entries = (b"avro.schema", spelled), (b"avro.codec", codec)
    head = b"Obj\x01" + long(len(entries)) + b"".join(text(key) + text(value) for key, value in entries) + long(0)
    body = b"".join(long(rows) + text(data) + SYNC for rows, data in blocks)
    path.write_bytes(head + SYNC + body)
    return path
