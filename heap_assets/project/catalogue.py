"""The catalogue of a deployment: the file beside its settings, and what the lake keeps where that cannot be written."""

from __future__ import annotations

import os
from collections.abc import Mapping
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
    return parse_catalogue(catalogue_files(settings, lake))


def catalogue_files(settings: Settings, lake: Lake) -> dict[str, bytes]:
    """Return the texts that make the catalogue, by where they lie: equal texts are an equal catalogue."""
    path = settings.catalogue
    files = {str(path): path.read_bytes()} if path.exists() else {}
    if not is_writable(path) and lake.store.exists(CATALOGUE_KEY):
        files[lake.store.uri(CATALOGUE_KEY)] = lake.store.read(CATALOGUE_KEY)
    return files


def parse_catalogue(files: Mapping[str, bytes]) -> Catalogue:
    """Read what :func:`catalogue_files` returns; SettingsError names the key of a mistake."""
    catalogue = Catalogue()
    for where, text in files.items():
        catalogue = catalogue.merged(Catalogue.parse(text, where))
    return catalogue


def is_writable(path: Path) -> bool:
    """Return whether a file can be written: it and its folder, or the folder alone where there is no file yet."""
    return os.access(path.parent, os.W_OK) and (not path.exists() or os.access(path, os.W_OK))
