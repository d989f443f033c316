"""Reading heap_assets.yaml with the kinds of sync that there are."""

from __future__ import annotations

from pathlib import Path

from heap_assets import config
from heap_assets.activation import sync_kinds
from heap_assets.config import Settings


def load_settings(path: Path | None = None) -> Settings:
    """Read and validate the settings file, the one in use unless given.

    Raises
    ------
    SettingsError
        One message naming the key, its value and what was expected.
    """
    return config.load_settings(sync_kinds(), path)


def parse_settings(text: str, path: Path) -> Settings:
    """Validate the text of a settings file that lies (or would lie) at `path`."""
    return config.parse_settings(text, path, sync_kinds())
