"""Segments: append-only files in which messages are on disk before they are answered, until they are in the lake.

An open segment is `<writer>-<number>.open` in the spool: records one after the other, each its length and CRC-32 (four
bytes each, little-endian) and the JSON of what one call brought. A record is there whole or not at all: reading stops
at the first that is not. Its writer holds a lock on it, so that another service takes over what a killed one left.

A segment that is closed goes into the lake as one Parquet part a table and day (:mod:`parts`), and then is deleted.
Killed in between, the same parts are written again under the same names.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson

from heap_assets.errors import HeapAssetsError
from heap_assets.sources.inbox.messages import Message
from heap_assets.sources.inbox.parts import land_parts
from heap_assets.storage import Store

_HEAD: Final = struct.Struct("<II")
_OPEN: Final = ".open"
_LARGEST: Final = 1 << 30


class SpoolError(HeapAssetsError):
    """A message could not be kept: the disk is full, or failed. Nobody was told that it was."""


@dataclass(frozen=True)
class Arrival:
    """What one call brought."""

    source: str
    received: datetime
    messages: Sequence[Message]

    @property
    def facts(self) -> dict[str, Any]:
        """What a record of a segment holds."""
        return {"source": self.source, "received_at": self.received.isoformat(), "messages": self.messages}

    def record(self) -> bytes:
        """Return the arrival as a record of a segment, without its head."""
        return orjson.dumps(self.facts)


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a segment up to the first that is not whole."""
    with path.open("rb") as file:
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            length, checksum = _HEAD.unpack(head)
            data = file.read(length) if length <= _LARGEST else b""
            if len(data) != length or zlib.crc32(data) != checksum:
                return
            yield orjson.loads(data)


@dataclass
class _Open:
    """A segment that is written to."""

    path: Path
    descriptor: int
    size: int = 0
    since: float = field(default_factory=time.monotonic)


class SegmentWriter:
    """Writes segments in one spool folder; one at a time is open.

    Parameters
    ----------
    store
        Of the lake.
    spool
        Folder of open segments, on a disk that stays.
    roll_seconds, roll_bytes
        When the open segment is due to be closed.
    """

    def __init__(self, store: Store, spool: Path, roll_seconds: float, roll_bytes: int) -> None:
        self._store = store
        self._spool = spool
        self._roll_seconds, self._roll_bytes = roll_seconds, roll_bytes
        self._writer = uuid.uuid4().hex[:12]
        self._number = 0
        self._open: _Open | None = None
        self._closed: list[Path] = []
        self._locks: dict[Path, int] = {}
        self._turn = threading.Lock()

    @property
    def name(self) -> str:
        """What tells this writer from others."""
        return self._writer

    def append(self, records: Sequence[bytes]) -> None:
        """Write records and wait until they are on disk.

        Raises
        ------
        SpoolError
            If they are not: then none of them is in the segment.
        """
        data = b"".join(_HEAD.pack(len(record), zlib.crc32(record)) + record for record in records)
        with self._turn:
            try:
                segment = self._open or self._begin()
                _write_all(segment.descriptor, data)
                os.fdatasync(segment.descriptor)
                segment.size += len(data)
            except OSError as error:
                self._cut()
                raise SpoolError(f"{self._spool}: {os.strerror(error.errno or 0)}") from error

    @property
    def due(self) -> bool:
        """Whether what was written should go into the lake now."""
        segment = self._open
        if segment is None or not segment.size:
            return bool(self._closed)
        old = time.monotonic() - segment.since >= self._roll_seconds
        return old or segment.size >= self._roll_bytes or bool(self._closed)

    def close_segment(self) -> None:
        """Close the open segment, if there is something in it; the next record begins another."""
        with self._turn:
            segment = self._open
            if segment is not None and segment.size:
                self._open = None
                self._closed.append(segment.path)

    def land(self, land: Callable[[Store, Path], int] | None = None) -> int:
        """Bring closed segments into the lake; returns how many messages. May run beside :meth:`append`."""
        landed = 0
        while self._closed:
            path = self._closed[0]
            landed += (land or land_segment)(self._store, path)
            path.unlink(missing_ok=True)
            self._release(path)
            self._closed.pop(0)
        return landed

    def take_over(self) -> int:
        """Close the segments that killed writers left in the spool; returns how many. :meth:`land` lands them."""
        count = 0
        for path in sorted(self._spool.glob(f"*{_OPEN}")) if self._spool.is_dir() else []:
            if path in self._locks:
                continue
            descriptor = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)  # its writer is alive
                continue
            self._locks[path] = descriptor
            self._closed.append(path)
            count += 1
        return count

    @property
    def waiting_bytes(self) -> int:
        """Bytes that are on this disk and not yet in the lake."""
        size = 0
        for path in self._spool.glob(f"*{_OPEN}") if self._spool.is_dir() else []:
            with contextlib.suppress(FileNotFoundError):
                size += path.stat().st_size
        return size

    def _begin(self) -> _Open:
        self._spool.mkdir(parents=True, exist_ok=True)
        self._number += 1
        path = self._spool / f"{self._writer}-{self._number:08d}{_OPEN}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._locks[path] = descriptor
        sync_folder(self._spool)
        self._open = _Open(path, descriptor)
        return self._open

    def _cut(self) -> None:
        """Take back what a failed write left, and begin another segment: after a failed fsync this one is not trusted.

        What was written before is on disk, and is landed.
        """
        segment, self._open = self._open, None
        if segment is None:
            return
        with contextlib.suppress(OSError):
            os.ftruncate(segment.descriptor, segment.size)
        self._closed.append(segment.path)

    def _release(self, path: Path) -> None:
        descriptor = self._locks.pop(path, None)
        if descriptor is not None:
            os.close(descriptor)


def land_segment(store: Store, path: Path) -> int:
    """Write the parts of a closed segment into the lake; returns how many messages it has."""
    return land_parts(store, path.name.removesuffix(_OPEN), read_records(path))


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
