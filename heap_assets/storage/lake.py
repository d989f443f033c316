"""Tables as Parquet files, `<asset key>/<partition>.parquet`, each knowing the inputs it was built from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

import polars as pl

from heap_assets.errors import DamagedFileError, MissingInputError, StaleWriterError
from heap_assets.storage import state_keys
from heap_assets.storage.parts import FOOTER, Parts, is_marker, named_parts, parts_of, unnamed_parts
from heap_assets.storage.scans import scan_named, scan_together
from heap_assets.storage.store import FileWriter, ObjectInfo, Store, write_parquet

_SUFFIX = ".parquet"
UNPARTITIONED = "all"

AssetPath = str | Sequence[str]
"""`heap/events/signup` or `["heap", "events", "signup"]`."""


class Status(StrEnum):
    """The outcome of a write."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Inputs:
    """The inputs that a partition was built from, each with its version.

    Attributes
    ----------
    versions
        Input id (`heap/users@2026-11-01`, `dump 1234`, `settings`) to its version. Equal versions mean an equal result.
    observed
        Ids of all inputs that the writer knew of. A writer that does not know those of the stored file is stale and
        is refused.
    """

    versions: Mapping[str, str]
    observed: frozenset[str] = frozenset()

    @property
    def digest(self) -> str:
        """A hash of the versions: what downstream calls the version of the partition."""
        canonical = json.dumps(dict(sorted(self.versions.items())), separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Partition:
    """One stored partition; `version` changes if and only if the file was written anew."""

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
    """The outcome of a write: its status and the stored partition."""

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
        """Return the version of each stored partition of an asset by its key; one listing, no reads."""
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
        """Return the newest day of an asset that is not after `up_to`: a snapshot table's state on that day."""
        days = [key for key in self.partitions(asset) if key <= str(up_to)]
        return date.fromisoformat(days[-1]) if days else None

    def find(self, asset: AssetPath, partition: str | None = None) -> Partition | None:
        """Describe a stored partition, or None if it was never built."""
        info = self.store.head(self.key(asset, partition))
        return None if info is None else self._describe(asset, partition, info)

    def _describe(self, asset: AssetPath, partition: str | None, info: ObjectInfo) -> Partition:
        uri = self.uri(asset, partition)
        try:
            footer = json.loads(pl.read_parquet_metadata(uri, storage_options=self.store.storage_options)[FOOTER])
            if parts := footer.get("parts"):
                rows, size = parts["rows"], info.size + sum(part.size for part in parts_of(self.store, info.key))
            else:
                rows, size = self.store.scan_unchecked(info.key).select(pl.len()).collect().item(), info.size
            return Partition(
                asset=_path(asset),
                key=partition or UNPARTITIONED,
                rows=rows,
                version=info.etag,
                bytes=size,
                written_at=datetime.fromisoformat(footer["written_at"]),
                inputs=Inputs(footer["versions"], frozenset(footer["seen"])),  # `seen`: the stored format
                notes=footer["notes"],
            )
        except (pl.exceptions.PolarsError, KeyError, TypeError, ValueError) as error:
            raise DamagedFileError(
                f"{uri} cannot be read as a partition of this lake ({type(error).__name__}): if it is damaged, delete "
                "it and materialize the partition again"
            ) from error

    def scan(
        self, asset: AssetPath, partitions: str | Iterable[str] | None = None, *, schema: pl.Schema | None = None
    ) -> pl.LazyFrame:
        """Scan one partition, or several as one frame.

        `schema`: columns of the result: absent ones are null, others left out. Without it the widest schema of the
        partitions is taken (a column of equal name must then have equal type).

        Raises
        ------
        MissingInputError
            If one of the partitions was never built: a missing file is not an empty one.
        DamagedFileError
            If one is not what was written.
        """
        keys = [partitions or UNPARTITIONED] if partitions is None or isinstance(partitions, str) else list(partitions)
        frames = self.scans(asset, keys, schema=schema)
        if not frames:
            return pl.LazyFrame(schema=schema)
        return frames[0] if len(frames) == 1 else pl.concat(frames, how="diagonal" if schema is None else "vertical")

    def scans(
        self, asset: AssetPath, partitions: Iterable[str], *, schema: pl.Schema | None = None
    ) -> list[pl.LazyFrame]:
        """Scan partitions as few frames: one for all of those whose equally named columns have equal types.

        A plan may then read any number of partitions. `schema` and errors are those of :meth:`scan`; so is the order
        of rows, but those of types that are not the first partition's come after the others.
        """
        keys = [self.key(asset, key) for key in partitions]
        self._require(keys)
        frames = [self.store.scan_stored(key) for key in keys] if len(keys) == 1 else []
        if not frames or is_marker(frames[0].collect_schema()):
            frames = scan_together(self.store, keys)
        return frames if schema is None else [conform(frame, schema) for frame in frames]

    def scan_tables(
        self, tables: Mapping[str, tuple[AssetPath, Iterable[str]]], columns: Collection[str], named: str
    ) -> list[pl.LazyFrame]:
        """Scan columns of partitions of several tables as few frames; column `named` says which table a row is of.

        `tables`: name of a table to its asset and partitions. Frames and errors are those of :meth:`scans`.
        """
        names = {self.key(asset, key): name for name, (asset, partitions) in tables.items() for key in partitions}
        self._require(names)
        return scan_named(self.store, names, columns, named)

    def _require(self, keys: Iterable[str]) -> None:
        """Raise MissingInputError unless all of these objects are there."""
        missing = [key.removesuffix(_SUFFIX).rpartition("/") for key in keys if not self.store.exists(key)]
        if missing:
            raise MissingInputError(
                f"{missing[0][0]} has no partition {', '.join(key for _, _, key in missing[:5])}"
                f"{f' and {len(missing) - 5} more' if len(missing) > 5 else ''}: materialize it first"
            )

    def write(
        self,
        asset: AssetPath,
        partition: str | None,
        frame: pl.LazyFrame | pl.DataFrame | FileWriter | Parts,
        inputs: Inputs | None = None,
        *,
        notes: Mapping[str, Any] | None = None,
    ) -> Written:
        """Stream a frame into a partition, whole or not at all; equal inputs write nothing.

        Without `inputs` the partition is always written. With them, of several writers at once each compares with
        the file that it replaces: none of them overwrites one that knows more inputs. Of :class:`Parts`, which are
        stored already, only the marker is written.

        Raises
        ------
        StaleWriterError
            If the stored partition was built from inputs that this writer does not know.
        DamagedFileError
            If the stored partition cannot be read.
        """
        if inputs is not None and (current := self._current(asset, partition, inputs)[0]) is not None:
            return Written(Status.UNCHANGED, current)
        footer = {
            "versions": dict(inputs.versions) if inputs else {},
            "seen": sorted(inputs.observed) if inputs else [],
            "notes": dict(notes or {}),
            "written_at": datetime.now(UTC).isoformat(),
        }
        if isinstance(frame, Parts):
            footer |= frame.facts
            frame = frame.marker
        key, metadata = self.key(asset, partition), {FOOTER: json.dumps(footer, default=str)}
        if inputs is None:
            self.store.sink(key, frame, metadata)
        else:
            with self.store.staging(key) as path:
                write_parquet(path, frame, metadata)
                while True:  # until no other writer was quicker
                    current, info = self._current(asset, partition, inputs)
                    if current is not None:
                        return Written(Status.UNCHANGED, current)
                    if self.store.replace(key, path, info):
                        break
        written = self.find(asset, partition)
        if written is None:
            raise MissingInputError(f"{self.uri(asset, partition)} vanished while it was written")
        return Written(Status.WRITTEN, written)

    def _current(
        self, asset: AssetPath, partition: str | None, inputs: Inputs
    ) -> tuple[Partition | None, ObjectInfo | None]:
        """Return the stored partition if it is what `inputs` give, and the object to replace if it is not.

        Raises StaleWriterError if it was built from inputs that the writer does not know.
        """
        info = self.store.head(self.key(asset, partition))
        try:
            existing = self._describe(asset, partition, info) if info else None
        except FileNotFoundError:  # deleted since
            existing = None
        if existing is None:
            return None, None
        if unknown := existing.inputs.observed - inputs.observed:
            raise StaleWriterError(
                f"{_path(asset)} {partition or ''} in the lake was built from {len(unknown)} inputs that this run does "
                f"not know (such as {min(unknown).replace('@', ' of ')}): it is kept; run again to build from them all"
            )
        if existing.inputs.versions != dict(inputs.versions):
            return None, info
        self.store.check(self.key(asset, partition))
        return existing, info

    def delete(self, asset: AssetPath, partition: str | None = None) -> None:
        """Remove a partition, and its parts after it."""
        self.store.delete(self.key(asset, partition))
        for info in self.store.list(f"{state_keys.PARTS}/{_path(asset)}/{partition or UNPARTITIONED}"):
            self.store.delete(info.key)

    def discard_parts(self, folder: str) -> None:
        """Remove what a run has written below its folder of :func:`parts_folder`, unless the partition has it."""
        infos = self.store.list(folder)
        if not {info.key for info in infos} & named_parts(self.store):
            for info in infos:
                self.store.delete(info.key)

    def tidy_parts(self) -> int:
        """Remove parts that no partition has, of runs that have written nothing for a day; return how many."""
        keys = [*unnamed_parts(self.store, datetime.now(UTC))]
        for key in keys:
            self.store.delete(key)
        return len(keys)


def conform(frame: pl.LazyFrame, schema: pl.Schema) -> pl.LazyFrame:
    """Give a frame exactly the columns of `schema`: absent ones as nulls, the others left out, types cast strictly."""
    present = frame.collect_schema()
    return frame.select(
        (pl.col(name) if name in present else pl.lit(None)).cast(dtype).alias(name) for name, dtype in schema.items()
    )


def _path(asset: AssetPath) -> str:
    return asset if isinstance(asset, str) else "/".join(asset)
