"""A checksum in the footer of each Parquet file: without one, readers return wrong values for most flipped bits.

It is written into the place of zeros that the file's metadata has, and covers all bytes but its own. Files of earlier
releases have none and count as whole.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Final

import polars as pl

_NAME: Final = "heap_assets_crc32"
UNSEALED: Final[Mapping[str, str]] = {_NAME: "0" * 8}
"""What a file has in its metadata until :func:`seal` was called."""

_PLACE: Final = re.compile(rb"(?s)(?:(?:heap_ass.{9}|.{8}ets_crc32)\x18\x08(?=[0-9a-f]{8})|heap_assets_crc32..)(.{8})")
"""The name and eight digits as Thrift's compact protocol writes them, one of the three damaged or none."""
_MAGIC: Final = b"PAR1"
_TAIL: Final = 8  # length of the footer, and the magic bytes
_NEAR: Final = 1 << 12
_CHUNK: Final = 1 << 20


def seal(path: Path) -> None:
    """Write its checksum into a Parquet file that has UNSEALED in its metadata."""
    with path.open("r+b") as file:
        _seal(file)


def is_whole(path: Path) -> bool:
    """Whether a Parquet file is what was written; a version of a file is read once in a process."""
    stat = path.stat()
    return _is_whole_file(path, (stat.st_ino, stat.st_mtime_ns, stat.st_size))


def are_whole(data: bytes) -> bool:
    """Whether the bytes of a Parquet file are what was written."""
    return _is_whole(io.BytesIO(data))


def to_parquet(frame: pl.DataFrame | pl.LazyFrame, metadata: Mapping[str, str] | None = None, **options: Any) -> bytes:
    """Return a small table as the bytes of a Parquet file; `options` as those of Polars."""
    buffer = io.BytesIO()
    sealed = {**(metadata or {}), **UNSEALED}
    if isinstance(frame, pl.DataFrame):
        frame.write_parquet(buffer, metadata=sealed, **options)
    else:
        frame.sink_parquet(buffer, metadata=sealed, **options)
    _seal(buffer)
    return buffer.getvalue()


def from_parquet(data: bytes) -> pl.DataFrame:
    """Read what :func:`to_parquet` wrote.

    Raises ValueError if it is damaged.
    """
    if not _is_whole(io.BytesIO(data)):
        raise ValueError("it is no Parquet file, or its checksum is that of other bytes")
    try:
        return pl.read_parquet(io.BytesIO(data))
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"it cannot be read as Parquet ({type(error).__name__})") from None


def _seal(file: BinaryIO) -> None:
    position = _position(file)
    if not position:
        raise ValueError("the file was written without a place for its checksum")
    checksum = _checksum(file, position)
    file.seek(position)
    file.write(checksum)


@lru_cache(maxsize=1 << 14)
def _is_whole_file(path: Path, version: tuple[int, int, int]) -> bool:
    del version  # only so that a file that was written anew is read anew
    with path.open("rb") as file:
        return _is_whole(file)


def _is_whole(file: BinaryIO) -> bool:
    position = _position(file)
    if not position:
        return position is not None
    file.seek(position)
    written = file.read(8)
    return written == _checksum(file, position)


def _position(file: BinaryIO) -> int | None:
    """Return where the checksum is; 0 if the file has none, None if it does not end as Parquet does."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(size - _TAIL, 0))
    tail = file.read()
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or length + _TAIL > size:
        return None
    start = file.seek(max(0, size - _TAIL - max(length, _NEAR)))  # also if it is the length that is damaged
    matches = list(_PLACE.finditer(file.read()))
    return start + matches[-1].start(1) if matches else 0


def _checksum(file: BinaryIO, position: int) -> bytes:
    crc, remaining = 0, position
    file.seek(0)
    while remaining and (chunk := file.read(min(remaining, _CHUNK))):
        crc, remaining = zlib.crc32(chunk, crc), remaining - len(chunk)
    file.seek(position + 8)
    while chunk := file.read(_CHUNK):
        crc = zlib.crc32(chunk, crc)
    return f"{crc:08x}".encode()
