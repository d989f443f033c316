"""Files that killed processes left behind: nobody reads them, but they take room."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = ".tmp-"
SCRATCH = "heap-assets-"
"""Prefix of folders for one process's use, below the machine's folder of temporary files."""

LOCK = ".tmp-lock"
_SILENT_SECONDS = 3600.0
"""A file that nobody has written to for so long has no writer: those who write, write all the time."""

_OBSTORE = re.compile(r"#\d+$")  # obstore's own, beside the object that was to be


def remove_leftovers(root: Path, silent_seconds: float = _SILENT_SECONDS) -> list[Path]:
    """Delete files below `root` that a dead writer left, and return them; a writer at work loses nothing.

    Nothing happens to what was written to within `silent_seconds`, and none of it was ever visible as an object.
    """
    before = time.time() - silent_seconds
    return [path for path in _partial_files(root) if _is_silent(path, before) and _removed(path)]


def remove_scratch_folders(silent_seconds: float = _SILENT_SECONDS) -> list[Path]:
    """Delete this user's scratch folders in which nobody has written for so long, and return them."""
    before = time.time() - silent_seconds
    folders = [path for path in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*") if path.is_dir() and _is_own(path)]
    gone = [path for path in folders if all(_is_silent(p, before) for p in (path, *path.rglob("*")))]
    for path in gone:
        shutil.rmtree(path, ignore_errors=True)
    return gone


def _partial_files(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        for name in names:
            if (name.startswith(PREFIX) and name != LOCK) or _OBSTORE.search(name):
                yield Path(folder, name)


def _is_own(path: Path) -> bool:
    return not hasattr(os, "getuid") or path.stat().st_uid == os.getuid()


def _is_silent(path: Path, before: float) -> bool:
    try:
        return path.lstat().st_mtime < before
    except FileNotFoundError:
        return True


def _removed(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True
