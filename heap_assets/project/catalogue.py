"""The catalogue of a deployment: the file beside its settings, and what the lake keeps where that cannot be written."""

from __future__ import annotations

import os
from pathlib import Path

from heap_assets.config import Settings
from heap_assets.sources.heap_connect import Catalogue
from heap_assets.storage import Lake, state_keys

CATALOGUE_KEY = f"{state_keys.CATALOGUE}/heap_catalogue.yaml"
"""Where the lake keeps the catalogue of a deployment that may not write beside its settings."""


def load_catalogue(settings: Settings, lake: Lake) -> Catalogue:
    """Return the known tables and columns: those of the file, and what the lake keeps where the file cannot be written.

    The lake is asked only where the file is read-only, so that loading needs no network elsewhere.
    """
    catalogue = Catalogue.load(settings.catalogue)
    if is_writable(settings.catalogue) or not lake.store.exists(CATALOGUE_KEY):
        return catalogue
    return catalogue.merged(Catalogue.parse(lake.store.read(CATALOGUE_KEY), lake.store.uri(CATALOGUE_KEY)))


def catalogue_bytes(settings: Settings, lake: Lake) -> tuple[bytes, ...]:
    """Return what :func:`load_catalogue` reads, unread: equal bytes are an equal catalogue."""
    path = settings.catalogue
    files = [path.read_bytes()] if path.exists() else []
    if not is_writable(path) and lake.store.exists(CATALOGUE_KEY):
        files.append(lake.store.read(CATALOGUE_KEY))
    return tuple(files)


def is_writable(path: Path) -> bool:
    """Return whether a file can be written: it and its folder, or the folder alone where there is no file yet."""
    return os.access(path.parent, os.W_OK) and (not path.exists() or os.access(path, os.W_OK))
