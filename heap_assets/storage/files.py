"""A file outside the lake that several commands may change at once, such as the catalogue beside the settings."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from heap_assets.errors import ConflictError

_PATIENCE_SECONDS = 60.0


def update_file(path: Path, change: Callable[[bytes | None], bytes]) -> None:
    """Read, change and replace a file whole, one process of this machine at a time.

    Parameters
    ----------
    change
        Gets the file's bytes, None if there is none. If it raises, the file stays as it is.

    Raises
    ------
    ConflictError
        If another process holds the file's lock for a minute.
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
