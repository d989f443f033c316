"""Files that appear whole, with the time they are said to be written at."""

import os
from datetime import datetime
from pathlib import Path


def put(path: Path, content: bytes, written: datetime | None = None) -> None:
    """Write a file whole; a reader sees the old one or the new one, and `written` as its time if given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished_name(path)
    unfinished.write_bytes(content)
    if written:
        os.utime(unfinished, (written.timestamp(), written.timestamp()))
    unfinished.replace(path)


def unfinished_name(path: Path) -> Path:
    """Return the name under which a file is made before it takes its place."""
    return path.with_name(f".{path.name}.part")
