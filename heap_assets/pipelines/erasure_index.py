"""Indexes of values beside the lake's files, made between erasures, so that an erasure opens few files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from heap_assets.pipelines.erasure_walk import IN_MEMORY, Shapes, indexed_files
from heap_assets.privacy import People, ValueIndexes, privacy_key
from heap_assets.project import Project
from heap_assets.storage import SCRATCH, ObjectInfo, Store


def index_values(project: Project) -> int:
    """Index every file that has changed since, and delete indexes of what is not there any more; returns how many.

    Writers are not slowed by it. Rows that were set aside have no index: an erasure reads them.

    Raises DamagedFileError if a file of the lake cannot be read.
    """
    store = project.lake.store
    indexes = ValueIndexes(store, privacy_key(store, project.settings.privacy.key_bytes), project.rules_of_settings)
    files = indexed_files(store, Shapes(project, People({})), indexes)
    written = 0
    for name, (info, shape) in files.items():
        if indexes.has(name):
            continue
        try:
            with _opened(store, info) as source:
                current = store.head(info.key)
                if current is not None and current.etag == info.etag:
                    indexes.write(info, shape, source)
                    written += 1
        except FileNotFoundError:  # deleted since
            continue
    indexes.prune(files)
    return written


@contextmanager
def _opened(store: Store, info: ObjectInfo) -> Iterator[bytes | BinaryIO]:
    """Give the bytes of a file; of a large one the open file, which stays the same when the object is replaced."""
    if info.size < IN_MEMORY:
        yield store.read_stored(info.key)
        return
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as folder:
        store.check(info.key)
        with store.fetched(info.key, Path(folder, "object")).open("rb") as file:
            yield file
