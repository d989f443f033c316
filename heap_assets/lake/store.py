"""One interface to a folder, an S3 prefix and a GCS prefix: atomic writes, create-if-absent, listing.

Every write is atomic on each backend: local files are renamed into place, object stores publish an object when its
upload completes. Nothing half-written is ever visible to a reader.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

import obstore
import polars as pl
from obstore.exceptions import AlreadyExistsError, NotFoundError, PreconditionError
from obstore.store import LocalStore, from_url

from heap_assets.errors import SettingsError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_REMOTE = ("s3://", "gs://")
_FAST = 1  # of zstd: a third faster to write than 3, for files 3 % larger


@dataclass(frozen=True)
class ObjectInfo:
    """One stored object: `key` relative to the store, `size` in bytes, `etag` changes with every write."""

    key: str
    size: int
    last_modified: datetime
    etag: str


FileWriter = Callable[[Path, Mapping[str, str]], None]
"""Writes a Parquet file to a path, with what is given in its footer: for those who do it faster than Polars."""


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

    def __init__(self, url: str, options: Mapping[str, str] | None = None) -> None:
        self.options = dict(options or {})
        self.is_local = not url.startswith(_REMOTE)
        self._objects: ObjectStore
        if self.is_local:
            if "://" in url and not url.startswith("file://"):
                raise SettingsError(f"lake URL {url!r} is not a folder, s3:// or gs:// address")
            self.root = Path(url.removeprefix("file://")).absolute()
            self.root.mkdir(parents=True, exist_ok=True)
            self.url = str(self.root)
            self._objects = LocalStore(prefix=self.root, automatic_cleanup=False)
        else:
            self.url = url.rstrip("/")
            self._objects = from_url(self.url, **self.object_store_options)  # type: ignore[call-overload]

    def child(self, prefix: str) -> Store:
        """Return the store of everything below `prefix`."""
        return Store(f"{self.url}/{prefix.strip('/')}", self.options)

    def uri(self, key: str) -> str:
        """Return the address that Polars opens, given :attr:`options` as `storage_options`."""
        return f"{self.url}/{key}"

    @property
    def storage_options(self) -> dict[str, str] | None:
        """Options for Polars' readers; None for a local folder."""
        return (self.options | ({"allow_http": "true"} if self._is_plain_http else {})) or None

    @property
    def object_store_options(self) -> dict[str, object]:
        """Options for obstore, whose client takes its own apart."""
        return {**self.options, **({"client_options": {"allow_http": True}} if self._is_plain_http else {})}

    @property
    def _is_plain_http(self) -> bool:
        """An endpoint spelled with http:// is meant so; both libraries refuse it unless told."""
        return self.options.get("aws_endpoint_url", "").startswith("http://")

    def read(self, key: str) -> bytes:
        """Return an object's bytes; FileNotFoundError if there is none."""
        try:
            return obstore.get(self._objects, key).bytes().to_bytes()
        except (NotFoundError, FileNotFoundError) as error:
            raise FileNotFoundError(self.uri(key)) from error

    def head(self, key: str) -> ObjectInfo | None:
        """Return what is known of an object without reading it, or None."""
        try:
            return _info(obstore.head(self._objects, key))
        except (NotFoundError, FileNotFoundError):
            return None

    def exists(self, key: str) -> bool:
        return self.head(key) is not None

    def write(self, key: str, data: bytes) -> None:
        """Replace an object whole."""
        obstore.put(self._objects, key, data)

    def put(self, key: str, path: Path) -> None:
        """Replace an object whole with a file's content, in parts if it is large."""
        obstore.put(self._objects, key, path)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object only if there is none; False if somebody else was first."""
        try:
            obstore.put(self._objects, key, data, mode="create")
        except (AlreadyExistsError, PreconditionError):
            return False
        return True

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
        found = [
            _info(meta)
            for batch in obstore.list(self._objects, prefix.strip("/") or None)
            for meta in cast("list[obstore.ObjectMeta]", batch)
        ]
        return sorted((o for o in found if "/.tmp-" not in f"/{o.key}" and "#" not in o.key), key=lambda o: o.key)

    @contextmanager
    def staged(self, key: str) -> Iterator[Path]:
        """Give a local path to fill; on success it becomes the object `key` at once, on error nothing does."""
        if self.is_local:
            target = self.root / key
            target.parent.mkdir(parents=True, exist_ok=True)
            staging = target.with_name(f".tmp-{uuid.uuid4().hex}-{target.name}")
            try:
                yield staging
                os.replace(staging, target)  # noqa: PTH105  os.replace is the documented atomic call
            finally:
                staging.unlink(missing_ok=True)
            return
        folder = Path(tempfile.mkdtemp(prefix="heap-assets-"))
        try:
            staging = folder / "object"
            yield staging
            obstore.put(self._objects, key, staging)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sink(
        self, key: str, frame: pl.LazyFrame | pl.DataFrame | FileWriter, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Stream a frame into the Parquet object `key`, published whole; `metadata` goes into the file's footer."""
        with self.staged(key) as path:
            if not isinstance(frame, pl.LazyFrame | pl.DataFrame):
                frame(path, dict(metadata or {}))
                return
            write_frame(path, frame, metadata or {})

    def scan(self, key: str) -> pl.LazyFrame:
        """Scan one Parquet object lazily; FileNotFoundError now rather than at collect."""
        if not self.exists(key):
            raise FileNotFoundError(self.uri(key))
        return pl.scan_parquet(self.uri(key), storage_options=self.storage_options, glob=False)


def write_frame(path: Path, frame: pl.LazyFrame | pl.DataFrame, metadata: Mapping[str, str]) -> None:
    """Stream a frame into a Parquet file; `metadata` goes into its footer."""
    frame.lazy().sink_parquet(path, metadata=dict(metadata), compression_level=_FAST, engine="streaming")


def _info(meta: obstore.ObjectMeta) -> ObjectInfo:
    return ObjectInfo(meta["path"], meta["size"], meta["last_modified"], meta["e_tag"] or "")
