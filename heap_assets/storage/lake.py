"""Tables as Parquet files, `<asset key>/<partition>.parquet`, each knowing the inputs it was built from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

import polars as pl

from heap_assets.errors import DamagedFileError, MissingInputError, StaleWriterError
from heap_assets.storage.store import FileWriter, ObjectInfo, Store, write_parquet

_FOOTER = "heap_assets"
_SUFFIX = ".parquet"
UNPARTITIONED = "all"

AssetPath = str | Sequence[str]
"""`heap/events/signup` or `["heap", "events", "signup"]`."""


class Status(StrEnum):
    """What became of a write."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Inputs:
    """What a partition is a function of.

    Attributes
    ----------
    versions
        Input id (`heap/users@2026-11-01`, `dump 1234`, `settings`) to its version. Equal versions mean an equal result.
    seen
        Ids that the writer knew of. A writer that has not seen what the file in place has seen is stale and is refused.
    """

    versions: Mapping[str, str]
    seen: frozenset[str] = frozenset()

    @property
    def digest(self) -> str:
        """A hash of the versions: what downstream calls the version of the partition."""
        canonical = json.dumps(dict(sorted(self.versions.items())), separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Partition:
    """One stored partition.

    `version` changes if and only if the file was written anew; `inputs` are those it was built from.
    """

    asset: str
    key: str
    rows: int
    version: str
    bytes: int
    written_at: datetime
    inputs: Inputs
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """The outcome of a write: its status and the partition as it now stands."""

    status: Status
    partition: Partition


class Lake:
    """All tables of the platform below one URL."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @classmethod
    def open(cls, url: str, options: Mapping[str, str] | None = None) -> Lake:
        return cls(Store(url, options))

    def key(self, asset: AssetPath, partition: str | None = None) -> str:
        """Return the object key of a partition."""
        return f"{_path(asset)}/{partition or UNPARTITIONED}{_SUFFIX}"

    def uri(self, asset: AssetPath, partition: str | None = None) -> str:
        return self.store.uri(self.key(asset, partition))

    def versions(self, asset: AssetPath) -> dict[str, str]:
        """Return partition key to version of everything stored of an asset, by one listing and no reads."""
        prefix = _path(asset) + "/"
        return {
            info.key.removeprefix(prefix).removesuffix(_SUFFIX): info.etag
            for info in self.store.list(prefix)
            if info.key.endswith(_SUFFIX) and "/" not in info.key.removeprefix(prefix)
        }

    def partitions(self, asset: AssetPath) -> list[str]:
        """Return the stored partition keys of an asset, sorted."""
        return sorted(self.versions(asset))

    def newest_partition(self, asset: AssetPath, up_to: date) -> date | None:
        """Return the newest day of an asset that is not after `up_to`: how a snapshot table stands then."""
        days = [key for key in self.partitions(asset) if key <= str(up_to)]
        return date.fromisoformat(days[-1]) if days else None

    def find(self, asset: AssetPath, partition: str | None = None) -> Partition | None:
        """Describe a stored partition, or None if it was never built."""
        info = self.store.head(self.key(asset, partition))
        return None if info is None else self._described(asset, partition, info)

    def _described(self, asset: AssetPath, partition: str | None, info: ObjectInfo) -> Partition:
        uri = self.uri(asset, partition)
        try:
            footer = json.loads(pl.read_parquet_metadata(uri, storage_options=self.store.storage_options)[_FOOTER])
            return Partition(
                asset=_path(asset),
                key=partition or UNPARTITIONED,
                rows=self._scan(uri).select(pl.len()).collect().item(),
                version=info.etag,
                bytes=info.size,
                written_at=datetime.fromisoformat(footer["written_at"]),
                inputs=Inputs(footer["versions"], frozenset(footer["seen"])),
                notes=footer["notes"],
            )
        except (pl.exceptions.ComputeError, KeyError, TypeError, ValueError) as error:
            raise DamagedFileError(
                f"{uri} cannot be read as a partition of this lake ({type(error).__name__}): if it is damaged, delete "
                "it and materialize the partition again"
            ) from error

    def scan(
        self, asset: AssetPath, partitions: str | Iterable[str] | None = None, *, schema: pl.Schema | None = None
    ) -> pl.LazyFrame:
        """Scan one partition, or several as one frame.

        Parameters
        ----------
        schema
            Columns of the result: absent ones are null, others left out. Without it the widest schema of the
            partitions is taken (a column of equal name must then have equal type).

        Raises
        ------
        MissingInputError
            If one of the partitions was never built: a missing file is not an empty one.
        """
        keys = [partitions or UNPARTITIONED] if partitions is None or isinstance(partitions, str) else list(partitions)
        missing = [key for key in keys if not self.store.exists(self.key(asset, key))]
        if missing:
            raise MissingInputError(
                f"{_path(asset)} has no partition {', '.join(missing[:5])}"
                f"{f' and {len(missing) - 5} more' if len(missing) > 5 else ''}: materialize it first"
            )
        frames = [self._scan(self.uri(asset, key)) for key in keys]
        if schema is not None:
            frames = [conform(frame, schema) for frame in frames]
        if not frames:
            return pl.LazyFrame(schema=schema)
        return frames[0] if len(frames) == 1 else pl.concat(frames, how="diagonal" if schema is None else "vertical")

    def write(
        self,
        asset: AssetPath,
        partition: str | None,
        frame: pl.LazyFrame | pl.DataFrame | FileWriter,
        inputs: Inputs | None = None,
        *,
        notes: Mapping[str, Any] | None = None,
    ) -> Written:
        """Stream a frame into a partition, whole or not at all; equal inputs write nothing.

        Without `inputs` the partition is always written. With them, of several writers at once each compares with
        the file that it replaces: none of them overwrites one that has seen more.

        Raises
        ------
        StaleWriterError
            If the file in place was built by somebody who has seen more inputs.
        DamagedFileError
            If the file in place cannot be read.
        """
        if inputs is not None and (standing := self._standing(asset, partition, inputs)[0]) is not None:
            return Written(Status.UNCHANGED, standing)
        footer = {
            "versions": dict(inputs.versions) if inputs else {},
            "seen": sorted(inputs.seen) if inputs else [],
            "notes": dict(notes or {}),
            "written_at": datetime.now(UTC).isoformat(),
        }
        key, metadata = self.key(asset, partition), {_FOOTER: json.dumps(footer, default=str)}
        if inputs is None:
            self.store.sink(key, frame, metadata)
        elif (standing := self._replace(asset, partition, frame, metadata, inputs)) is not None:
            return Written(Status.UNCHANGED, standing)
        written = self.find(asset, partition)
        if written is None:
            raise MissingInputError(f"{self.uri(asset, partition)} vanished while it was written")
        return Written(Status.WRITTEN, written)

    def _replace(
        self,
        asset: AssetPath,
        partition: str | None,
        frame: pl.LazyFrame | pl.DataFrame | FileWriter,
        metadata: Mapping[str, str],
        inputs: Inputs,
    ) -> Partition | None:
        """Put a frame in place of what stands, unless another writer was quicker: then hold that against it as well.

        Returns the partition of one who wrote the same meanwhile.
        """
        key = self.key(asset, partition)
        with self.store.staging(key) as path:
            write_parquet(path, frame, metadata)
            while True:
                standing, info = self._standing(asset, partition, inputs)
                if standing is not None:
                    return standing
                if self.store.replace(key, path, info):
                    return None

    def _standing(
        self, asset: AssetPath, partition: str | None, inputs: Inputs
    ) -> tuple[Partition | None, ObjectInfo | None]:
        """Return the partition in place if it already is what `inputs` give, and the object to replace if it is not.

        Raises
        ------
        StaleWriterError
            If it was built by somebody who has seen more.
        """
        info = self.store.head(self.key(asset, partition))
        try:
            existing = self._described(asset, partition, info) if info else None
        except FileNotFoundError:  # deleted since
            existing = None
        if existing is None:
            return None, None
        if existing.inputs.versions == dict(inputs.versions) and existing.inputs.seen <= inputs.seen:
            return existing, info
        if unseen := existing.inputs.seen - inputs.seen:
            raise StaleWriterError(
                f"{_path(asset)} {partition or ''} in place has seen {len(unseen)} inputs that this run has not "
                f"(such as {min(unseen)}): it is kept; run again to build from all of them"
            )
        return None, info

    def delete(self, asset: AssetPath, partition: str | None = None) -> None:
        """Remove a partition."""
        self.store.delete(self.key(asset, partition))

    def _scan(self, uri: str) -> pl.LazyFrame:
        return pl.scan_parquet(uri, storage_options=self.store.storage_options, glob=False)


def conform(frame: pl.LazyFrame, schema: pl.Schema) -> pl.LazyFrame:
    """Give a frame exactly the columns of `schema`: absent ones as nulls, the others left out, types cast strictly."""
    present = frame.collect_schema()
    return frame.select(
        (pl.col(name) if name in present else pl.lit(None)).cast(dtype).alias(name) for name, dtype in schema.items()
    )


def _path(asset: AssetPath) -> str:
    return asset if isinstance(asset, str) else "/".join(asset)
