"""Files fetched and work done ahead on threads, handed over in order and in bounded amounts."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

from heap_assets.sources.heap_connect.records import SourceFile
from heap_assets.sources.heap_connect.sources import DumpSource

Source = TypeVar("Source")
Item = TypeVar("Item")

_POLL_SECONDS = 0.1
_WAITING = 3  # so that work goes on while what was handed over is written


@dataclass
class _Lane(Generic[Item]):
    """One source's results on their way: items, then None, or the error that ended them."""

    items: queue.Queue[Item | BaseException | None] = field(default_factory=lambda: queue.Queue(_WAITING))


def in_turn(sources: Sequence[Source], produce: Callable[[Source], Iterator[Item]]) -> Iterator[tuple[Source, Item]]:
    """Yield what `produce` makes of each source in order, on this thread."""
    for source in sources:
        for item in produce(source):
            yield source, item


def ahead(
    sources: Sequence[Source], produce: Callable[[Source], Iterator[Item]], workers: int
) -> Iterator[tuple[Source, Item]]:
    """Yield what `produce` makes of each source, source by source in order, while the next ones are under way.

    Never more than a few items of each of `workers` sources wait. An error is raised where its item would have come;
    whoever stops early stops the threads.
    """
    stop = threading.Event()
    lanes: list[_Lane[Item]] = [_Lane() for _ in sources]

    def run(index: int) -> None:
        lane = lanes[index]
        try:
            for item in produce(sources[index]):
                if not _put(lane, item, stop):
                    return
            _put(lane, None, stop)
        except BaseException as error:
            _put(lane, error, stop)

    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="decode") as pool:
        try:
            started = min(workers, len(sources))
            for index in range(started):
                pool.submit(run, index)
            for index, source in enumerate(sources):
                while (item := lanes[index].items.get()) is not None:
                    if isinstance(item, BaseException):
                        raise item
                    yield source, item
                if started < len(sources):
                    pool.submit(run, started)
                    started += 1
        finally:
            stop.set()


def _put(lane: _Lane[Item], item: Item | BaseException | None, stop: threading.Event) -> bool:
    while not stop.is_set():
        try:
            lane.items.put(item, timeout=_POLL_SECONDS)
        except queue.Full:
            continue
        return True
    return False


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
