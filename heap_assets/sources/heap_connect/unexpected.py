"""What may be said of an error that nobody expected: its kind and where it happened, no value of the data."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import polars as pl

from heap_assets.sources.heap_connect.records import Failure

UNEXPECTED = (Exception, pl.exceptions.PanicException)
"""Errors that end one table and stop no other: not those by which a process is asked to end."""

_PACKAGE = Path(__file__).parents[2]


def failure_of(error: BaseException) -> Failure:
    """Describe an error without its message, which may quote a value."""
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return Failure(f"landing stopped with {name}{_detail(error)}{_place(error)}; the table is tried again")


def _detail(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return " (memory ran out)"
    if isinstance(error, OSError) and error.errno:
        return f" ({os.strerror(error.errno)})"
    return ""


def _place(error: BaseException) -> str:
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _PACKAGE in Path(frame.filename).parents:
            return f" at {Path(frame.filename).relative_to(_PACKAGE).as_posix()}:{frame.lineno}"
    return ""
