"""Where compiled loops are kept: beside the package, or where this user can write if the package is read-only."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

import numba
from numba.core.caching import UserProvidedCacheLocator

_BESIDE: Final = Path(__file__).parent / "__pycache__"


def choose_cache() -> Path | None:
    """Make Numba keep machine code where this process can write, and return the folder; None if there is none.

    Of those that can be written, `NUMBA_CACHE_DIR` wins, then the package's own `__pycache__`, then the user's cache
    folder, then one for this user alone in the folder for temporary files. What `heap-assets warm` has compiled beside
    a package that is read-only now is copied: Numba itself does not read a cache that it cannot write.
    """
    if numba.config.CACHE_DIR:
        chosen = _of_this_package(Path(numba.config.CACHE_DIR))
        if _is_writable(chosen):
            return chosen
        numba.config.CACHE_DIR = ""
    if _is_writable(_BESIDE):
        return _BESIDE
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    for folder in (home / "heap_assets", Path(tempfile.gettempdir()) / f"heap_assets-{os.getuid()}"):
        if _is_writable(folder) and folder.stat().st_uid == os.getuid():  # machine code of others is not run
            numba.config.CACHE_DIR = str(folder)
            _copy_compiled(_of_this_package(folder))
            return _of_this_package(folder)
    return None


def _of_this_package(folder: Path) -> Path:
    subfolder: str = UserProvidedCacheLocator.get_suitable_cache_subpath(__file__)
    return folder / subfolder


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _copy_compiled(target: Path) -> None:
    target.mkdir(mode=0o700, exist_ok=True)
    for file in sorted(_BESIDE.glob("*.nb[ci]")):
        if not (target / file.name).exists():
            partial = target / f".tmp-{os.getpid()}-{file.name}"
            shutil.copyfile(file, partial)
            partial.replace(target / file.name)
