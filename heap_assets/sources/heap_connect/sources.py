"""Where dumps come from: a bucket that Heap Connect fills, or a folder laid out like one."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

from heap_assets.errors import SourceError
from heap_assets.sources.heap_connect.avro import AvroBatch, read_batches
from heap_assets.sources.heap_connect.avro_container import Limits, read_header
from heap_assets.sources.heap_connect.s3_client import explained

MANIFEST_FOLDER = "manifests/"
HEADER_BYTES = 256 << 10
_LOG = logging.getLogger(__name__)
_MANIFEST = re.compile(r"manifests/sync_([^/]*)\.json")
_NUMBER = re.compile(r"[0-9]{1,19}")
_LARGEST = 2**63 - 1
_COPY_BYTES = 1 << 20
UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""Of a file that cannot be looked at, or whose time of modification is none."""
_CLOSEST = timedelta(minutes=30)
"""Half of the fastest cadence that Heap offers (heap.md 2)."""
_S3_URI = re.compile(r"^s3[an]?://([^/]+)/(.+)$")


@dataclass(frozen=True)
class SourceObject:
    """One file of a source: `key` within the bucket, `size` in bytes; `etag` changes when the content does."""

    key: str
    size: int
    etag: str
    last_modified: datetime


@dataclass(frozen=True)
class ManifestFile:
    """A sync manifest as listed, not read. `dump_id` is an integer and orders dumps."""

    key: str
    dump_id: int
    etag: str
    last_modified: datetime


class DumpSource(Protocol):
    """What landing needs of a source. Addresses are keys, or `s3://bucket/key` as manifests spell them."""

    def manifests(self) -> list[ManifestFile]:
        """List the sync manifests, sorted by dump id; nothing is read."""

    def list(self, prefix: str) -> list[SourceObject]:
        """List the files whose key starts with `prefix`."""

    def stat(self, uri: str) -> SourceObject:
        """Describe one file; SourceError if there is none."""

    def read(self, uri: str, limit: int | None = None) -> bytes:
        """Return a file's bytes, or the first `limit` of them; SourceError if there is none."""

    def fetch(self, uri: str, target: Path, etag: str) -> Path:
        """Make a file readable locally and return where: `target`, or the file itself if it is local already.

        SourceError if the file is not, or no longer, the one of that ETag.
        """

    def decode(self, path: Path, uri: str, limits: Limits) -> Iterator[AvroBatch]:
        """Yield the rows of a fetched file in batches."""

    def header(self, uri: str) -> tuple[dict[str, object], str]:
        """Return a file's columns with their types, and its codec or format, without reading all of it."""

    def describe(self) -> str:
        """Name the source for people."""


class AvroFiles(ABC):
    """What sources of Avro files have in common."""

    def decode(self, path: Path, uri: str, limits: Limits) -> Iterator[AvroBatch]:
        return read_batches(path, name=uri, limits=limits)

    def header(self, uri: str) -> tuple[dict[str, object], str]:
        """ValueError or SourceError if it is no Avro file, or cannot be read."""
        with tempfile.TemporaryDirectory(prefix="heap-assets-") as scratch:
            path = Path(scratch) / "header"
            path.write_bytes(self.read(uri, HEADER_BYTES))
            header = read_header(path)
        return {field["name"]: field["type"] for field in header.schema["fields"]}, header.codec

    @abstractmethod
    def read(self, uri: str, limit: int | None = None) -> bytes: ...


def manifests_among(objects: Iterator[SourceObject] | list[SourceObject]) -> list[ManifestFile]:
    """Pick the sync manifests out of a listing of `manifests/`.

    Only `manifests/sync_<digits>.json` counts (heap.md 2.2): no folder markers, copies or `property_definitions.json`.
    Two keys with one number (`sync_7.json`, `sync_07.json`) are one dump; the one written last counts. A number beyond
    64 bits is logged and left out.
    """
    newest: dict[int, ManifestFile] = {}
    for file in objects:
        match = _MANIFEST.fullmatch(file.key)
        if match is None:
            continue
        if _NUMBER.fullmatch(match[1]) is None or int(match[1]) > _LARGEST:
            _log_skipped_manifest(file.key)
            continue
        manifest = ManifestFile(file.key, int(match[1]), file.etag, file.last_modified)
        other = newest.get(manifest.dump_id)
        if other is None or (other.last_modified, other.key) < (manifest.last_modified, manifest.key):
            newest[manifest.dump_id] = manifest
    return _dated([newest[dump_id] for dump_id in sorted(newest)])


def _dated(manifests: list[ManifestFile]) -> list[ManifestFile]:
    """Date dumps that were uploaded together, as in a copied bucket, to the end of the day before the upload.

    Heap delivers a dump an hour at most. Times closer together are those of a copy, and the day of a dump must not
    depend on the hour of the copy; the order of such dumps is their number.
    """
    copied = {
        manifest.dump_id
        for pair in pairwise(manifests)
        if abs(pair[1].last_modified - pair[0].last_modified) < _CLOSEST
        for manifest in pair
    }

    def day_before(moment: datetime) -> datetime:
        return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(microseconds=1)

    return [replace(m, last_modified=day_before(m.last_modified)) if m.dump_id in copied else m for m in manifests]


@lru_cache(maxsize=1000)
def _log_skipped_manifest(key: str) -> None:
    """Log a manifest that has no dump number, once a process."""
    _LOG.warning("%s is left out: what follows sync_ is no dump number", ascii(key))


def key_of(uri: str) -> str:
    """Return the key of a file address: `s3://bucket/key` and bare keys are both accepted."""
    match = _S3_URI.match(uri)
    return match[2] if match else uri


class FolderSource(AvroFiles):
    """A local folder with the bucket's layout; a file's modification time stands for S3's LastModified.

    Manifests name files as `s3://<bucket>/<key>`: whatever the bucket, the file is `<folder>/<key>`.
    """

    def __init__(self, path: Path | str) -> None:
        self.root = Path(path).absolute()

    def describe(self) -> str:
        return f"folder {self.root}"

    def manifests(self) -> list[ManifestFile]:
        with _explained(f"listing {self.describe()}"):
            exists = self.root.is_dir()
        if not exists:
            raise SourceError(f"source folder {self.root} does not exist: check heap.source.path")
        return manifests_among(self.list(MANIFEST_FOLDER))

    def list(self, prefix: str) -> list[SourceObject]:
        folder = self.root / prefix.rpartition("/")[0]
        with _explained(f"listing {prefix} in {self.describe()}"):
            if not folder.is_dir():
                return []
            os.scandir(folder).close()  # `rglob` takes a folder that cannot be read for an empty one
            files = [self._object_or_none(path) for path in folder.rglob("*")]
        return sorted((file for file in files if file and file.key.startswith(prefix)), key=lambda file: file.key)

    def stat(self, uri: str) -> SourceObject:
        with _explained(f"{uri!a} in {self.describe()}"):
            return self._object(self._existing(uri))

    def read(self, uri: str, limit: int | None = None) -> bytes:
        with _explained(f"{uri!a} in {self.describe()}"), self._described(uri).open("rb") as file:
            # Python allocates all that it is asked to read, whatever the size of the file.
            return file.read() if limit is None else file.read(min(limit, os.fstat(file.fileno()).st_size + 1))

    def fetch(self, uri: str, target: Path, etag: str) -> Path:
        with _explained(f"{uri!a} in {self.describe()}"):
            path = self._existing(uri)
            if self._object(path).etag != etag:
                raise SourceError(f"{uri} has changed since it was listed; it is read again next time")
            return path

    def _described(self, uri: str) -> Path:
        path = self._existing(uri)
        self._object(path)
        return path

    def _existing(self, uri: str) -> Path:
        key = key_of(uri)
        for candidate in (key, unquote(key)):
            path = (self.root / candidate).resolve()
            if not path.is_relative_to(self.root.resolve()):
                raise SourceError(f"{uri} points outside the source folder {self.root}: it is not read")
            if path.is_file():
                return path
        raise SourceError(f"{uri} does not exist in {self.describe()}")

    def _object_or_none(self, path: Path) -> SourceObject | None:
        """Describe a file; None for folders, dangling links, and files deleted since they were listed.

        One that cannot be looked at is listed nevertheless: who reads it says why, and nothing else stops.
        """
        try:
            return self._object(path) if path.is_file() and _is_unicode(path) else None
        except FileNotFoundError:
            return None
        except (OSError, SourceError):
            return SourceObject(self._key(path), 0, "", UNKNOWN_TIME)

    def _object(self, path: Path) -> SourceObject:
        stat = path.stat()
        try:
            modified = datetime.fromtimestamp(stat.st_mtime_ns / 1e9, tz=UTC)
        except (OverflowError, ValueError) as error:
            raise SourceError(f"{self._key(path)}: its time of modification is none of the years 1 to 9999") from error
        return SourceObject(self._key(path), stat.st_size, f"{stat.st_mtime_ns:x}-{stat.st_size:x}", modified)

    def _key(self, path: Path) -> str:
        return path.relative_to(self.root if path.is_relative_to(self.root) else self.root.resolve()).as_posix()


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    """Turn errors of the file system, also of impossible paths (NUL, loops of links, too long), into a SourceError."""
    try:
        yield
    except OSError as error:
        raise SourceError(f"{doing}: {error.strerror or type(error).__name__}") from error
    except (RuntimeError, ValueError) as error:
        raise SourceError(f"{doing} is not an address of a file") from error


def _is_unicode(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


class S3Source(AvroFiles):
    """A bucket, read through a boto3 client of the caller's (:func:`heap_assets.sources.heap_connect.s3_client`).

    `prefix`: folder within the bucket below which `manifests/` lies; Heap itself always uses the bucket's root.
    """

    def __init__(self, client: Any, bucket: str, prefix: str = "") -> None:
        self.client = client
        self.bucket = bucket
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def describe(self) -> str:
        return f"bucket {self.bucket}"

    def manifests(self) -> list[ManifestFile]:
        return manifests_among(self.list(f"{MANIFEST_FOLDER}sync_"))

    def list(self, prefix: str) -> list[SourceObject]:
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix + prefix, PaginationConfig={"PageSize": 1000}
        )
        with explained(f"listing {prefix} in {self.describe()}"):
            items = [item for page in pages for item in page.get("Contents", [])]
        return [_s3_object(item["Key"].removeprefix(self.prefix), item["Size"], item) for item in items]

    def stat(self, uri: str) -> SourceObject:
        bucket, key = self._address(uri)
        with explained(f"{uri} in {self.describe()}"):
            head = self.client.head_object(Bucket=bucket, Key=key)
        return _s3_object(key_of(uri), head["ContentLength"], head)

    def read(self, uri: str, limit: int | None = None) -> bytes:
        bucket, key = self._address(uri)
        with explained(f"{uri} in {self.describe()}"):
            span = {} if limit is None else {"Range": f"bytes=0-{limit - 1}"}
            return bytes(self.client.get_object(Bucket=bucket, Key=key, **span)["Body"].read())

    def fetch(self, uri: str, target: Path, etag: str) -> Path:
        bucket, key = self._address(uri)
        with explained(f"{uri} in {self.describe()}"), target.open("wb") as file:
            body = self.client.get_object(Bucket=bucket, Key=key, IfMatch=f'"{etag}"')["Body"]
            shutil.copyfileobj(body, file, _COPY_BYTES)
        return target

    def _address(self, uri: str) -> tuple[str, str]:
        match = _S3_URI.match(uri)
        if match is None:
            return self.bucket, self.prefix + uri
        # A copy of a bucket keeps manifests that name the original one; the files of a dump are read where
        # its manifest was read.
        key = match[2]
        return self.bucket, key if key.startswith(self.prefix) else self.prefix + key


def _s3_object(key: str, size: int, response: dict[str, Any]) -> SourceObject:
    return SourceObject(key, size, response["ETag"].strip('"'), response["LastModified"].astimezone(UTC))
