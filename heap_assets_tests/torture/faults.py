"""Faults at a chosen call: of every read and write of a lake and of a folder of dumps, the n-th one fails or kills."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import signal
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import polars as pl
from obstore.exceptions import GenericError

from heap_assets.sources.heap_connect import FolderSource
from heap_assets.storage import Store

_STORE = ("read", "head", "write", "put", "create", "delete", "list", "update", "replace", "scan", "sink")
_SOURCE = ("manifests", "list", "stat", "read", "fetch")
SECRET = "ann.secret@example.com"


def _kill() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process goes nowhere")


def _raising(make: Callable[[], BaseException]) -> Callable[[], NoReturn]:
    def _raise() -> NoReturn:
        raise make()

    return _raise


KINDS: dict[str, Callable[[], NoReturn]] = {
    "SIGKILL": _kill,
    "ENOSPC": _raising(lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
    "EIO": _raising(lambda: OSError(errno.EIO, os.strerror(errno.EIO))),
    "store error": _raising(lambda: GenericError(f"Generic S3 error: 503 for {SECRET}")),
    "exception": _raising(lambda: RuntimeError(SECRET)),
    "out of memory": _raising(MemoryError),
    "panic": _raising(lambda: pl.exceptions.PanicException(SECRET)),
}
LOST_ANSWER = "lost answer"
"""The call is carried out, and its caller is told that it failed."""

FILE_SIZE = "file size"
"""No file may grow beyond so many KiB: writes fail wherever they are made."""


class Faults:
    """Counts calls of this process from :meth:`install` on, and lets one of them fail.

    Parameters
    ----------
    kind
        One of :data:`KINDS`, :data:`LOST_ANSWER`, :data:`FILE_SIZE`, or None to count only.
    at
        The number of the call, from 1; of :data:`FILE_SIZE` the KiB.
    """

    def __init__(self, kind: str | None = None, at: int = 0) -> None:
        self.kind, self.at = kind, at
        self.calls = 0
        self._numbers = itertools.count(1)

    def install(self, more: Iterable[tuple[Any, Sequence[str]]] = ()) -> None:
        """Let calls be counted: of the lake, of the dumps, and of `more` owners and their functions."""
        if self.kind == FILE_SIZE:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.at << 10, self.at << 10))
        own = ((Store, _STORE), (FolderSource, _SOURCE), (Path, ("replace",)), (os, ("replace",)))
        for owner, names in (*own, *more):
            for name in names:
                setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def _call(*arguments: Any, **options: Any) -> Any:
            number = self.calls = next(self._numbers)
            if number == self.at and self.kind in KINDS:
                KINDS[self.kind]()
            answer = function(*arguments, **options)
            if number == self.at and self.kind == LOST_ANSWER:
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            return answer

        return _call
