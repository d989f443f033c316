"""Names of folders for any file system, files that several commands change at once, and leftovers of killed ones."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock, Timeout

from heap_assets.errors import ConflictError

_LONGEST = 150
_PATIENCE_SECONDS = 60.0


def folder_name(name: str, reserved: Collection[str] = ()) -> str:
    """Spell a name as one folder: letters, digits, `_`, `-`, `.` and `~` stay, other bytes of its UTF-8 become `%XX`.

    The first character is spelled `%XX`, too, where the name would otherwise be `.`, `..`, one of `reserved`, or hidden
    (`.tmp-`). What is longer than 150 characters then is cut there and ends in `%` and a hash of the whole name. A lone
    surrogate counts as the three bytes it would have in UTF-8. Different names have different folders.

    >>> folder_name("sign_up"), folder_name("Sign Up/2"), folder_name("..")
    ('sign_up', 'Sign%20Up%2F2', '%2E.')
    """
    data = name.encode("utf-8", "surrogatepass")
    quoted_name = quote(data, safe="")
    if quoted_name in {"", ".", "..", *reserved} or quoted_name.startswith(".tmp-"):
        quoted_name = f"%{data[0]:02X}{quoted_name[1:]}" if data else "%"
    if len(quoted_name) > _LONGEST:
        quoted_name = f"{quoted_name[:_LONGEST]}%{hashlib.sha256(data).hexdigest()[:16]}"
    return quoted_name


def update_file(path: Path, change: Callable[[bytes | None], bytes]) -> None:
    """Read, change and replace a file whole, one process of this machine at a time.

    `change`: gets the file's bytes, None if there is none. If it raises, the file stays as it is.

    Raises ConflictError if another process holds the file's lock for a minute.
    """
    path = path.resolve()
    # Among temporary files, so that no lock file lies beside what people keep under version control.
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:24]
    lock = FileLock(Path(tempfile.gettempdir(), f"heap-assets-{name}.lock"), mode=0o666, poll_interval=0.01)
    try:
        lock.acquire(timeout=_PATIENCE_SECONDS)
    except Timeout as error:
        raise ConflictError(f"{path} is being changed by another process: try again when it is done") from error
    try:
        changed = change(path.read_bytes() if path.exists() else None)
        staging = path.with_name(f".{path.name}.new")
        try:
            staging.write_bytes(changed)
            staging.replace(path)
        finally:
            staging.unlink(missing_ok=True)
    finally:
        lock.release()


PREFIX = ".tmp-"
SCRATCH = "heap-assets-"
"""Prefix of folders for one process's use, below the machine's folder of temporary files."""

LOCK = ".tmp-lock"
"""Prefix of the files that writers lock: these stay."""
_SILENT_SECONDS = 3600.0
"""A file that was not written to for so long has no writer any more."""

_OBSTORE = re.compile(r"#\d+$")
"""How obstore names an unfinished upload, beside the object that it was to become."""


def remove_leftovers(root: Path, silent_seconds: float = _SILENT_SECONDS) -> list[Path]:
    """Delete unfinished files below `root` that nobody has written to for so long, and return them.

    None of them was ever visible as an object.
    """
    before = time.time() - silent_seconds
    files = [Path(folder, name) for folder, _, names in os.walk(root) for name in names]
    unfinished = [
        p for p in files if (p.name.startswith(PREFIX) and not p.name.startswith(LOCK)) or _OBSTORE.search(p.name)
    ]
    return [path for path in unfinished if _is_silent(path, before) and _removed(path)]


def remove_scratch_folders(silent_seconds: float = _SILENT_SECONDS) -> list[Path]:
    """Delete this user's scratch folders in which nobody has written for so long, and return them."""
    before = time.time() - silent_seconds
    folders = [path for path in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*") if path.is_dir() and _is_own(path)]
    abandoned = [path for path in folders if all(_is_silent(p, before) for p in (path, *path.rglob("*")))]
    for path in abandoned:
        shutil.rmtree(path, ignore_errors=True)
    return abandoned


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
