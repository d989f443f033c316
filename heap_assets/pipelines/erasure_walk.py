"""The walk of an erasure over the lake: each object once, by what the register of places says of it.

An object is replaced only if it is the one that was read; what others have written meanwhile is read again. The
journal has an entry before an object is replaced, so that a killed walk goes on.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property

import polars as pl

from heap_assets import clock
from heap_assets.errors import ConflictError
from heap_assets.privacy import (
    Entry,
    Erased,
    Eraser,
    Journal,
    People,
    Place,
    Shape,
    ValueIndexes,
    place_of,
    privacy_key,
)
from heap_assets.project import Project, mapping_of, owner_column
from heap_assets.sources.heap_connect import LandedPart, landed_parts, rewrite_part
from heap_assets.storage import (
    FAST,
    FOOTER,
    ObjectInfo,
    Store,
    footer_of,
    markers,
    named_parts,
    parts_of,
    renamed,
    state_keys,
    table_of_part,
    to_parquet,
    write_parquet,
)
from heap_assets.tables import GRAPH, MIGRATIONS, heap_asset, inbox_asset, is_warehouse_table

_log = logging.getLogger("heap_assets.privacy")

_SETTLED_AFTER = timedelta(hours=6)
"""So long a landed file that no record lists, or a part that no partition has, may be one that is just being made."""
_CHECKSUM = "heap_assets_crc32"
_ARROW = "ARROW:schema"
_AT_ONCE = 4
"""Files that are read at once: reading one alone does not keep all cores busy."""
_MOST_ATTEMPTS = 20
IN_MEMORY = 32 << 20
"""Bytes of a file that is read whole."""


@dataclass
class Walk:
    """One pass over the lake.

    Attributes
    ----------
    clean
        Version by key of all objects that hold nothing of the people.
    rewritten
        Number of objects that this pass replaced.
    unsettled
        Objects that hold something and cannot be changed yet, with the reason.
    """

    clean: dict[str, str] = field(default_factory=dict)
    rewritten: int = 0
    unsettled: dict[str, str] = field(default_factory=dict)


class LakeWalk:
    """Erases people from every object of the lake except ledgers."""

    def __init__(self, project: Project, people: People, journal: Journal) -> None:
        self.project = project
        self.store = project.lake.store
        self.people = people
        self.journal = journal
        self.shapes = Shapes(project, people)
        self.eraser = Eraser(people, project.rules_of_settings)
        key = privacy_key(self.store, project.settings.privacy.key_bytes)
        self.indexes = ValueIndexes(self.store, key, project.rules_of_settings)
        self.words = self.indexes.words_of_people(people, self.eraser.texts)

    def run(self, clean: Mapping[str, str] | None = None) -> Walk:
        """Walk over all objects but those whose version `clean` has; returns what is clean now."""
        walk = Walk(dict(clean or {}))
        _ = self.shapes.of_any_day  # reads the graph, which the walk rewrites
        for landed in landed_parts(self.project.landing):
            self._landed(landed, walk)
        for key in sorted(markers(self.store)):
            self._parts(key, walk)
        listed = self._listed()
        changed = [
            (info, place_of(info.key))
            for info in self.store.list()
            if walk.clean.get(info.key) != info.etag and info.key not in listed
        ]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            of_rows = [(info, place) for info, place in changed if place.how == "rows"]
            list(pool.map(lambda one: self._rows(one[0], one[1], walk), of_rows))
        # caches last: whether they are stale is told by what was found elsewhere
        for info, place in sorted(changed, key=lambda one: one[1].how == "cache"):
            if place.how in ("landed", "parts"):
                self._unlisted(info, place, walk)
            elif place.how == "spool":
                if self.eraser.texts.blanked_bytes(self.store.read(info.key))[1]:
                    walk.unsettled[info.key] = "it is just being taken in: it is in a table soon"
            elif place.how == "text":
                self._text(info, place, walk)
            elif place.how == "cache" and self._is_stale(info):
                self.store.delete(info.key)
                walk.rewritten += 1
        return walk

    def finish(self) -> None:
        """Delete the files in whose place others stand, and indexes of old versions: nothing reads them."""
        listed = self._listed()
        for entry in self.journal.entries():
            if entry.replaced_by and entry.key not in listed:
                self.store.delete(entry.key)
        self.store.tidy()  # what writers left that were killed may hold anybody
        self.indexes.prune(indexed_files(self.store, self.shapes, self.indexes))  # those of old versions tell of them

    def _listed(self) -> set[str]:
        """Return the files that a record or a marker lists: they are erased from together with it."""
        return {landed.part.key for landed in landed_parts(self.project.landing)} | named_parts(self.store)

    def _parts(self, key: str, walk: Walk) -> None:
        """Erase from a partition of several files: others are written beside its parts, then its marker names them."""
        shape = self.shapes.of(key)
        for _ in range(_MOST_ATTEMPTS):
            current = self.store.head(key)
            parts = [] if current is None else parts_of(self.store, key)
            names = {info.key: name for info in parts if (name := self._rewritten_part(info, shape, walk))}
            if not names:
                return
            keys = [names.get(info.key, info.key) for info in parts]
            rows = sum(int(self.store.scan_unchecked(part).select(pl.len()).collect().item()) for part in keys)
            facts = json.dumps(renamed(footer_of(self.store, key), names, rows))
            with self.store.staging(key) as path:
                write_parquet(path, self.store.scan_stored(key), {**self._metadata(key), FOOTER: facts})
                if self.store.replace(key, path, current):
                    walk.rewritten += 1
                    return
        raise ConflictError(f"{self.store.uri(key)} was changed by others again and again: run the erasure again")

    def _rewritten_part(self, info: ObjectInfo, shape: Shape, walk: Walk) -> str | None:
        """Write a part without the people beside it, and return its key; None if nothing of it has to go."""
        if walk.clean.get(info.key) == info.etag or (erased := self._erased(info, shape, walk)) is None:
            return None
        new = self._name_beside(info)
        self.journal.add(Entry(info.key, info.etag, place_of(info.key).name, erased.rows, erased.cells, new))
        self.store.sink(new, erased.frame)
        return new

    def _name_beside(self, info: ObjectInfo) -> str:
        stem = info.key.rpartition(".")[0].split("~")[0]
        return f"{stem}~{hashlib.sha256(f'{self.journal.root}{info.etag}'.encode()).hexdigest()[:12]}.parquet"

    def _landed(self, landed: LandedPart, walk: Walk) -> None:
        key = landed.part.key
        info = self.store.head(key)
        if info is None or walk.clean.get(key) == info.etag:
            return
        erased = self._erased(info, self.shapes.of_table(heap_asset(landed.table), ""), walk)
        if erased is None:
            return
        new = self._name_beside(info)
        self.journal.add(Entry(key, info.etag, "landed rows", erased.rows, erased.cells, new))
        rewrite_part(self.project.landing, landed, erased.frame.collect(engine="streaming"), new)
        walk.rewritten += 1

    def _erased(self, info: ObjectInfo, shape: Shape, walk: Walk) -> Erased | None:
        """Return a stored table without the people; None, and the walk has it as clean, if nothing of it has to go."""
        may_hold = self.indexes.may_hold(info, shape, self.words)
        if may_hold is False:
            walk.clean[info.key] = info.etag
            return None
        rows: pl.LazyFrame | pl.DataFrame | None = None
        if info.size < IN_MEMORY:  # read once; a large file is streamed, once for each thing that is counted
            content = self.store.read_stored(info.key)
            if may_hold or self.eraser.file_touches(content, shape):
                rows = pl.read_parquet(io.BytesIO(content))
        else:
            stored = self.store.scan_stored(info.key)
            rows = stored if may_hold or self.eraser.touches(stored, shape) else None
        erased = None if rows is None else self.eraser.erased(rows, shape)
        if erased is not None and (erased.rows or erased.cells):
            return erased
        walk.clean[info.key] = info.etag
        return None

    def _unlisted(self, info: ObjectInfo, place: Place, walk: Walk) -> None:
        """Treat a file that no record or marker lists: what a killed writer left, or one that is just being made."""
        if not info.key.endswith(".parquet"):
            self._text(info, place, walk)
        elif any(entry.key == info.key and entry.replaced_by for entry in self.journal.entries()):
            walk.clean[info.key] = info.etag  # deleted at the end
        elif clock.now() - info.last_modified > _SETTLED_AFTER:
            if place.how == "parts":
                self.store.delete(info.key)  # nothing reads it, and a job that goes on finds that it is gone
                walk.rewritten += 1
            else:
                self._rows(info, place, walk)
        elif self.eraser.touches(self.store.scan_stored(info.key), self.shapes.of(info.key)):
            walk.unsettled[info.key] = "it is just being written, or its writer was killed"
        else:
            walk.clean[info.key] = info.etag

    def _rows(self, info: ObjectInfo, place: Place, walk: Walk) -> None:
        key, shape, current = info.key, self.shapes.of(info.key), self.store.head(info.key)
        for _ in range(_MOST_ATTEMPTS):
            erased = None if current is None else self._erased(current, shape, walk)
            if current is None or erased is None:
                return
            with self.store.staging(key) as path:
                if current.size < IN_MEMORY:
                    path.write_bytes(to_parquet(erased.frame.collect(), self._metadata(key), compression_level=FAST))
                else:
                    write_parquet(path, erased.frame, self._metadata(key))
                etag = self.store.etag_of(path)
                self.journal.add(Entry(key, current.etag, place.name, erased.rows, erased.cells))
                if self.store.replace(key, path, current):
                    walk.rewritten += 1
                    if erased.is_clean and etag:  # the rows that were searched are those that stand there now
                        walk.clean[key] = etag
                    return
            current = self.store.head(key)
        raise ConflictError(f"{self.store.uri(key)} was changed by others again and again: run the erasure again")

    def _text(self, info: ObjectInfo, place: Place, walk: Walk) -> None:
        counted: dict[str, int] = {}

        def blanked(data: bytes | None) -> bytes | None:
            if data is None:
                return None
            changed, requests = self.eraser.texts.blanked_bytes(data)
            counted.clear()
            counted.update({request: requests.count(request) for request in requests})
            if not requests:
                return None
            self.journal.add(Entry(info.key, hashlib.sha256(data).hexdigest(), place.name, {}, counted))
            return changed

        self.store.update(info.key, blanked)
        walk.rewritten += bool(counted)
        if not counted and (read := self.store.head(info.key)):
            walk.clean[info.key] = read.etag

    def _metadata(self, key: str) -> dict[str, str]:
        stored = pl.read_parquet_metadata(self.store.uri(key), storage_options=self.store.storage_options)
        return {name: value for name, value in stored.items() if name not in (_ARROW, _CHECKSUM)}

    def _is_stale(self, info: ObjectInfo) -> bool:
        """Whether a cache may hold the people: identity's if anything did, an index of keys if its table did."""
        touched = [entry for entry in self.journal.entries() if entry]
        folder = info.key.partition("/_seen/")[0]
        return any(entry.key.startswith(f"{folder}/") for entry in touched) if "/_seen/" in info.key else bool(touched)


class Shapes:
    """How the rows of each object of a lake name people."""

    def __init__(self, project: Project, people: People) -> None:
        self.project = project
        self.people = people

    def of(self, key: str) -> Shape:
        """Return the shape of an object."""
        parts, place = key.split("/"), place_of(key)
        if place.name == "landed rows set aside" or place.how == "landed":
            table = self._table_of_folder.get("/".join(parts[:2]), parts[1])
            shape = self.of_table(heap_asset(table), "")
            return replace(shape, set_aside=place.how == "rows")
        if partition := table_of_part(key):
            return self.of_table(*partition)
        folder, _, name = key.rpartition("/")
        return self.of_table(folder, name.removesuffix(".parquet"))

    def of_table(self, asset: str, day: str) -> Shape:
        """Return the shape of a day of a table; of no day: of rows of any."""
        return _shape(self.project, self.people, asset, day, lambda: self.of_any_day)

    @cached_property
    def of_any_day(self) -> Mapping[str, str]:
        """Requests by profile, of all days."""
        return _profiles_of_any_day(self.project, self.people)

    @cached_property
    def _table_of_folder(self) -> dict[str, str]:
        return {"/".join(landed.part.key.split("/")[:2]): landed.table for landed in landed_parts(self.project.landing)}


def indexed_files(store: Store, shapes: Shapes, indexes: ValueIndexes) -> dict[str, tuple[ObjectInfo, Shape]]:
    """Return the files that an index is worth having of, with their shapes, by the key of the index."""
    files = {}
    for info in store.list():
        if info.key.endswith(".parquet") and place_of(info.key).how in ("rows", "landed", "parts"):
            shape = shapes.of(info.key)
            if not shape.set_aside:
                files[indexes.name(info, shape)] = info, shape
    return files


def shape_of(project: Project, people: People, key: str) -> Shape:
    """Return how the rows of a partition of a table name people."""
    folder, _, name = key.rpartition("/")
    return Shapes(project, people).of_table(folder, name.removesuffix(".parquet"))


def _shape(
    project: Project, people: People, asset: str, day: str, of_any_day: Callable[[], Mapping[str, str]]
) -> Shape:
    if asset == MIGRATIONS:
        return Shape(project.sources.get(asset), any_names=True)
    asset = asset_of_folder(asset)
    if (table := mapping_of(project, asset)) is not None:
        return Shape(table, owner_column(project, asset))
    if is_warehouse_table(asset):
        return Shape()
    return Shape(profiles=people.profiles.get(day) or of_any_day())


def asset_of_key(key: str) -> str:
    """Return the table whose rows an object has."""
    table = table_of_part(key)
    return table[0] if table else asset_of_folder(key.rpartition("/")[0])


def asset_of_folder(folder: str) -> str:
    """Return the table whose rows a folder has; that of the inbox for parts of messages."""
    return inbox_asset(folder.split("/")[2]) if folder.startswith(f"{state_keys.INBOX}/days/") else folder


def _profiles_of_any_day(project: Project, people: People) -> Mapping[str, str]:
    """Return the profiles of all days but those that are another person's on the newest: for rows of no graph's day."""
    days = sorted(people.profiles)
    every = {profile: one for day in days for profile, one in people.profiles[day].items()}
    newest = project.lake.newest_partition(GRAPH, clock.today())
    if newest is None or not every:
        return every
    graph = project.lake.scan(GRAPH, str(newest)).filter(pl.col("profile_id").is_in(list(every)))
    today = set(graph.select(pl.col("profile_id").unique()).collect()["profile_id"])
    own = people.profiles.get(str(newest), {})
    return {profile: one for profile, one in every.items() if profile not in today or profile in own}
