"""Files fetched ahead of those who read them: while one is decoded, the next are on their way."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from heap_assets.sources.heap_connect.records import SourceFile
from heap_assets.sources.heap_connect.sources import DumpSource

_AHEAD = 4
_AT_ONCE = 2


class Downloads:
    """Local copies of a source's files in a folder, never more than a few that nobody has asked for.

    Parameters
    ----------
    files
        In the order in which they will be asked for.
    """

    def __init__(self, source: DumpSource, files: Sequence[SourceFile], folder: Path) -> None:
        self._source = source
        self._waiting = list(enumerate(files))[::-1]
        self._folder = folder
        self._under_way: dict[str, Future[Path]] = {}
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fetch")
        for _ in range(_AHEAD):
            self._begin_next()

    def __enter__(self) -> Downloads:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def take(self, file: SourceFile) -> Path:
        """Return where a file can be read; each is asked for once.

        Raises
        ------
        SourceError
            If it is not, or no longer, what was listed.
        """
        fetched = self._under_way.pop(file.uri)
        self._begin_next()
        return fetched.result()

    def done_with(self, path: Path) -> bool:
        """Remove a local copy; False if it is none but the source's own file."""
        if path.parent != self._folder:
            return False
        path.unlink()
        return True

    def _begin_next(self) -> None:
        if self._waiting:
            number, file = self._waiting.pop()
            target = self._folder / f"{number}.avro"
            self._under_way[file.uri] = self._pool.submit(self._source.fetch, file.uri, target, file.etag)
