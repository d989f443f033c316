"""Indexes of values beside the lake's files, made between erasures, so that an erasure opens few files."""

from __future__ import annotations

from heap_assets.pipelines.erasure_walk import Shapes, indexed_files
from heap_assets.privacy import People, ValueIndexes, privacy_key
from heap_assets.project import Project


def index_values(project: Project) -> int:
    """Index every file that has changed since, and delete indexes of what is not there any more; returns how many.

    Writers are not slowed by it. Large files and rows that were set aside have no index: an erasure reads them.

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
            content = store.read_stored(info.key)
        except FileNotFoundError:  # deleted since
            continue
        current = store.head(info.key)
        if current is not None and current.etag == info.etag:
            indexes.write(info, shape, content)
            written += 1
    indexes.prune(files)
    return written
