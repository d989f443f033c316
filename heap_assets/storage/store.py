"""One interface to a folder, an S3 prefix and a GCS prefix: atomic writes, create-if-absent, compare-and-replace.

Every write is atomic on each backend: local files are renamed into place, object stores publish an object when its
upload completes. Nothing half-written is ever visible to a reader.

What is read in order to be changed goes through :meth:`Store.update` or :meth:`Store.replace`: an object store compares
the object's ETag (or generation) itself; in a folder the comparison and the rename happen under a file lock.
"""

from __future__ import annotations

import mmap
import os
import random
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from zlib import crc32

import obstore
import polars as pl
from filelock import FileLock, Timeout
from obstore.exceptions import AlreadyExistsError, NotFoundError, PreconditionError
from obstore.store import LocalStore, MemoryStore, from_url

from heap_assets.errors import ConflictError, DamagedFileError, SettingsError
from heap_assets.storage.checksums import UNSEALED, are_whole, is_whole, seal
from heap_assets.storage.files import LOCK, PREFIX, SCRATCH, remove_leftovers

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_REMOTE = ("s3://", "gs://")
FAST = 1  # of zstd: a third faster to write than 3, for files 3 % larger
_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.005
_LOCKS = 16
"""Of a folder: with one for all, processes that write different objects would wait for each other's disk."""
_SMALLEST_PARQUET = 12
_LONGEST_UPLOAD = "30m"
_ONE_REQUEST_BYTES = 1 << 30
"""Larger objects are uploaded in parts, which no object store lets us make conditional."""


@dataclass(frozen=True)
class ObjectInfo:
    """One stored object: `key` relative to the store, `size` in bytes, `etag` changes with every write.

    `generation` is the object store's own number of this version, where it has one.
    """

    key: str
    size: int
    last_modified: datetime
    etag: str
    generation: str | None = field(default=None, compare=False)


FileWriter = Callable[[Path, Mapping[str, str]], None]
"""Writes a Parquet file to a path, with key-value metadata in its footer: for writers that are faster than Polars."""


class Store:
    """Objects below one URL: a local folder, `s3://bucket/prefix` or `gs://bucket/prefix`.

    Parameters
    ----------
    url
        Folder path or object-store URL.
    options
        Object-store options as Polars and obstore spell them (`aws_region`, `aws_endpoint_url`, ...).
        Both libraries share one Rust implementation, hence one dictionary.
    """

    def __init__(self, url: str, options: Mapping[str, str] | None = None, *, lock: Path | None = None) -> None:
        self.options = dict(options or {})
        self.is_local = not url.startswith(_REMOTE)
        self._opened: ObjectStore | None = None
        if self.is_local:
            if "://" in url and not url.startswith("file://"):
                raise SettingsError(f"lake URL {url!r} is not a folder, s3:// or gs:// address")
            self.root = Path(url.removeprefix("file://")).absolute()
            if self.root.exists() and not self.root.is_dir():
                raise SettingsError(f"lake URL {url!r} is a file; expected a folder, s3:// or gs:// address")
            self.url = str(self.root)
            self._lock = lock or self.root / LOCK
        else:
            self.url = url.rstrip("/")
            self._opened = self._remote()

    @property
    def _objects(self) -> ObjectStore:
        """The store to read from, empty while there is no folder."""
        if self._opened is None:
            if not self.root.is_dir():
                return MemoryStore()
            self._opened = LocalStore(prefix=self.root, automatic_cleanup=False)
        return self._opened

    @property
    def _writable(self) -> ObjectStore:
        """The store to write to: the folder is made now, so that commands that only read leave no trace."""
        if self.is_local:
            self.root.mkdir(parents=True, exist_ok=True)
        return self._objects

    def _remote(self) -> ObjectStore:
        """Open an object store; a panic of its library, as of a wrong option, becomes a SettingsError."""
        try:
            store: ObjectStore = from_url(self.url, **self.object_store_options)  # type: ignore[call-overload]
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            options = ", ".join(self.options) or "none"
            raise SettingsError(f"{self.url} cannot be opened with these options: {options} ({error})") from None
        return store

    def child(self, prefix: str) -> Store:
        """Return the store of everything below `prefix`."""
        lock = self._lock if self.is_local else None
        return Store(f"{self.url}/{prefix.strip('/')}", self.options, lock=lock)

    def uri(self, key: str) -> str:
        """Return the address that Polars opens, given :attr:`options` as `storage_options`."""
        return f"{self.url}/{key}"

    def local_path(self, key: str) -> Path | None:
        """Return the file of an object; None if it lies in an object store."""
        return self.root / key if self.is_local else None

    @property
    def storage_options(self) -> dict[str, str] | None:
        """Options for Polars' readers; None for a local folder."""
        return (self.options | ({"allow_http": "true"} if self._is_plain_http else {})) or None

    @property
    def object_store_options(self) -> dict[str, object]:
        """Options for obstore, which takes those of its HTTP client separately."""
        return {**self.options, **({"client_options": {"allow_http": True}} if self._is_plain_http else {})}

    @property
    def _is_plain_http(self) -> bool:
        """Whether the endpoint is spelled with http://, which both libraries refuse unless an option allows it."""
        return self.options.get("aws_endpoint_url", "").startswith("http://")

    def read(self, key: str) -> bytes:
        """Return an object's bytes; FileNotFoundError if there is none."""
        try:
            return obstore.get(self._objects, key).bytes().to_bytes()
        except (NotFoundError, FileNotFoundError) as error:
            raise FileNotFoundError(self.uri(key)) from error

    def fetched(self, key: str, path: Path) -> Path:
        """Return a file with an object's bytes: its own in a folder, else a copy at `path`.

        Raises FileNotFoundError if there is none.
        """
        own = self.local_path(key)
        if own is not None:
            return own
        try:
            with path.open("wb") as file:
                for chunk in obstore.get(self._objects, key).stream():
                    file.write(chunk)
        except (NotFoundError, FileNotFoundError) as error:
            raise FileNotFoundError(self.uri(key)) from error
        return path

    def head(self, key: str) -> ObjectInfo | None:
        """Describe an object without reading it; None if there is none."""
        try:
            return _info(obstore.head(self._objects, key))
        except (NotFoundError, FileNotFoundError):
            return None

    def exists(self, key: str) -> bool:
        return self.head(key) is not None

    def write(self, key: str, data: bytes) -> None:
        """Replace an object whole."""
        obstore.put(self._writable, key, data)

    def put(self, key: str, path: Path) -> None:
        """Replace an object whole with a file's content, in parts if it is large."""
        obstore.put(self._writable, key, path)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object only if there is none; False if somebody else was first."""
        try:
            obstore.put(self._writable, key, data, mode="create")
        except (AlreadyExistsError, PreconditionError):
            return False
        return True

    def update(self, key: str, change: Callable[[bytes | None], bytes | None]) -> None:
        """Read an object, change it and write it, with nobody else's write in between.

        `change`: gets the object's bytes, None if there is none, and returns what to write, None for nothing. It is
        called again with what somebody else has written meanwhile, and may see its own change in it.

        Raises ConflictError if others keep writing, or hold its lock, for a minute.
        """
        if self.is_local:
            path = self.root / key
            with self._locked(key):
                changed = change(path.read_bytes() if path.is_file() else None)
                if changed is not None:
                    with self.staged(key) as staged:
                        staged.write_bytes(changed)
            return
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            data, info = self._read_with_info(key)
            changed = change(data)
            if changed is None or self._put_if(key, changed, info):
                return
            if time.monotonic() > deadline:
                raise ConflictError(f"{self.uri(key)} was changed by others again and again: try again later")
            time.sleep(random.uniform(0, 0.2))  # noqa: S311  so that those who collided do not collide again

    def replace(self, key: str, path: Path, expected: ObjectInfo | None) -> bool:
        """Replace an object with a file from :meth:`staging` if it is still the one `expected` (None: there is none).

        False, and nothing happens, if somebody else has written or deleted it since. Objects of over 1 GiB on an object
        store are compared right before their upload only.
        """
        if self.is_local:
            with self._locked(key):
                if not _is_same(self.head(key), expected):
                    return False
                os.replace(path, self.root / key)  # noqa: PTH105  os.replace is the documented atomic call
            return True
        size = path.stat().st_size
        if size > _ONE_REQUEST_BYTES:
            if not _is_same(self.head(key), expected):
                return False
            self.put(key, path)
            return True
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
            return self._put_if(key, data, expected)

    def etag_of(self, path: Path) -> str | None:
        """Return the ETag that a file from :meth:`staging` will have as an object; None if the store gives its own."""
        info = self.head(path.relative_to(self.root).as_posix()) if self.is_local else None
        return None if info is None else info.etag

    @property
    def is_missing(self) -> bool:
        """Whether there is no folder, or nothing in it, as in a place where a disk would be mounted.

        Always false of an object store, which answers for itself.
        """
        if not self.is_local:
            return False
        return not self.root.is_dir() or all(path.name.startswith(LOCK) for path in self.root.iterdir())

    def tidy(self) -> int:
        """Remove files that killed writers left in a folder; return how many.

        In an object store, parts of uploads that never completed are removed by the bucket's own lifecycle rule.
        """
        return len(remove_leftovers(self.root)) if self.is_local else 0

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if it is gone already."""
        try:
            obstore.delete(self._objects, key)
        except (NotFoundError, FileNotFoundError):
            return

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """Return all objects whose key starts with the folder `prefix`, sorted by key.

        Files that a killed writer left behind (`.tmp-*`) are not objects.
        """
        batches = obstore.list(self._objects, prefix.strip("/") or None)
        objects = [_info(meta) for batch in batches for meta in cast("list[obstore.ObjectMeta]", batch)]
        return sorted((o for o in objects if f"/{PREFIX}" not in f"/{o.key}" and "#" not in o.key), key=lambda o: o.key)

    @contextmanager
    def staged(self, key: str) -> Iterator[Path]:
        """Give a local path to fill; on success it becomes the object `key` at once, on error nothing does."""
        with self.staging(key) as path:
            yield path
            if self.is_local:
                os.replace(path, self.root / key)  # noqa: PTH105  os.replace is the documented atomic call
            else:
                self.put(key, path)

    @contextmanager
    def staging(self, key: str) -> Iterator[Path]:
        """Give a local path for what may become the object `key` by :meth:`replace`; it is gone afterwards."""
        if self.is_local:
            target = self.root / key
            target.parent.mkdir(parents=True, exist_ok=True)
            path = target.with_name(f"{PREFIX}{uuid.uuid4().hex}-{target.name}")
            try:
                yield path
            finally:
                path.unlink(missing_ok=True)
            return
        folder = Path(tempfile.mkdtemp(prefix=SCRATCH))
        try:
            yield folder / "object"
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sink(
        self,
        key: str,
        frame: pl.LazyFrame | pl.DataFrame | FileWriter,
        metadata: Mapping[str, str] | None = None,
        group_rows: int | None = None,
    ) -> None:
        """Stream a frame into the Parquet object `key`, published whole; `metadata` goes into the file's footer.

        `group_rows`: rows of a row group, of which a reader holds several at once.
        """
        with self.staged(key) as path:
            write_parquet(path, frame, metadata or {}, group_rows)

    def scan(self, key: str) -> pl.LazyFrame:
        """Scan one Parquet object lazily; FileNotFoundError now rather than at collect."""
        if not self.exists(key):
            raise FileNotFoundError(self.uri(key))
        return self.scan_stored(key)

    def scan_stored(self, key: str) -> pl.LazyFrame:
        """Scan a Parquet object that is known to be there; DamagedFileError as of :meth:`check`."""
        self.check(key)
        return self.scan_unchecked(key)

    def check(self, key: str) -> None:
        """Make sure that a Parquet file of a folder is what was written; object stores keep checksums themselves.

        Raises DamagedFileError if it is not.
        """
        path = self.local_path(key)
        if path is not None and not is_whole(path):
            raise self._damaged(key)

    def read_stored(self, key: str) -> bytes:
        """Return the bytes of a Parquet object; DamagedFileError as of :meth:`check`."""
        path = self.local_path(key)
        if path is None:
            return self.read(key)
        data = path.read_bytes()
        if not are_whole(data):
            raise self._damaged(key)
        return data

    def _damaged(self, key: str) -> DamagedFileError:
        return DamagedFileError(
            f"{self.uri(key)} is damaged: its checksum is that of other bytes. Restore it from a backup, or have "
            "it made again: a partition by deleting and materializing it, what landed by `heap-assets reset`"
        )

    def scan_unchecked(self, key: str) -> pl.LazyFrame:
        """Scan a Parquet object that is known to be there, for its footer alone: its checksum is not computed."""
        return pl.scan_parquet(self.uri(key), storage_options=self.storage_options, glob=False)

    def is_whole(self, key: str) -> bool:
        """Whether a Parquet object is there and undamaged."""
        info, path = self.head(key), self.local_path(key)
        return info is not None and info.size >= _SMALLEST_PARQUET and (path is None or is_whole(path))

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Hold the lock of an object, which it shares with few others; a process that dies lets go of it."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        # of the path below the folder of locks: processes may have mounted the same folder in different places
        path = (self.root / key).relative_to(self._lock.parent).as_posix()
        file = self._lock.with_name(f"{self._lock.name}-{crc32(path.encode()) % _LOCKS:x}")
        lock = FileLock(file, poll_interval=_POLL_SECONDS)
        try:
            lock.acquire(timeout=_PATIENCE_SECONDS)
        except Timeout as error:
            raise ConflictError(
                f"{file} has been held by another process for {_PATIENCE_SECONDS:.0f} s: end that process"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _read_with_info(self, key: str) -> tuple[bytes | None, ObjectInfo | None]:
        try:
            response = obstore.get(self._objects, key)
            return response.bytes().to_bytes(), _info(response.meta)
        except (NotFoundError, FileNotFoundError):
            return None, None

    def _put_if(self, key: str, data: bytes | mmap.mmap, expected: ObjectInfo | None) -> bool:
        mode: Any = "create"
        if expected is not None:
            mode = {"e_tag": expected.etag} | ({"version": expected.generation} if expected.generation else {})
        try:
            obstore.put(self._uploads, key, data, mode=mode, use_multipart=False)
        except (AlreadyExistsError, PreconditionError, NotFoundError, FileNotFoundError):
            return False
        return True

    @cached_property
    def _uploads(self) -> ObjectStore:
        """The same objects, reached by a client that waits for uploads of any size."""
        options = self.object_store_options
        chosen = cast("dict[str, object]", options.get("client_options", {}))
        # Google's own address is https; a key that names another one says itself how it is reached.
        patient = {"timeout": _LONGEST_UPLOAD, "allow_http": self.url.startswith("gs://"), **chosen}
        return cast("ObjectStore", from_url(self.url, **{**options, "client_options": patient}))  # type: ignore[call-overload]


def _is_same(current: ObjectInfo | None, expected: ObjectInfo | None) -> bool:
    return (current and current.etag) == (expected and expected.etag)


def write_parquet(
    path: Path,
    frame: pl.LazyFrame | pl.DataFrame | FileWriter,
    metadata: Mapping[str, str],
    group_rows: int | None = None,
) -> None:
    """Write a frame into a Parquet file by streaming or by `writer`, with `metadata` and a checksum in the footer."""
    metadata = {**metadata, **UNSEALED}
    if isinstance(frame, pl.LazyFrame | pl.DataFrame):
        frame.lazy().sink_parquet(
            path, metadata=dict(metadata), compression_level=FAST, row_group_size=group_rows, engine="streaming"
        )
    else:
        frame(path, metadata)
    seal(path)


def _info(meta: obstore.ObjectMeta) -> ObjectInfo:
    return ObjectInfo(meta["path"], meta["size"], meta["last_modified"], meta["e_tag"] or "", meta["version"])
