"""Prefetching on threads: files and decoded batches, in order and in bounded amounts."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from heap_assets.sources.heap_connect.records import SourceFile
from heap_assets.sources.heap_connect.sources import DumpSource

Source = TypeVar("Source")
Item = TypeVar("Item")

_POLL_SECONDS = 0.1
_QUEUED = 3  # so that work goes on while the caller writes an item


def ordered_prefetch(
    sources: Sequence[Source], produce: Callable[[Source], Iterator[Item]], workers: int
) -> Iterator[Item]:
    """Yield the items that `produce` gives of each source, source by source in order; the next ones are prefetched.

    Never more than a few items of each of `workers` sources wait. An error is raised where its item would have come;
    closing the iterator stops the threads.
    """
    stop = threading.Event()
    # of each source its items, then None, or the error that ended them
    queues: list[queue.Queue[Item | BaseException | None]] = [queue.Queue(_QUEUED) for _ in sources]

    def put(index: int, item: Item | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                queues[index].put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def run(index: int) -> None:
        try:
            for item in produce(sources[index]):
                if not put(index, item):
                    return
            put(index, None)
        except BaseException as error:
            put(index, error)

    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="decode") as pool:
        try:
            started = min(workers, len(sources))
            for index in range(started):
                pool.submit(run, index)
            for items in queues:
                while (item := items.get()) is not None:
                    if isinstance(item, BaseException):
                        raise item
                    yield item
                if started < len(sources):
                    pool.submit(run, started)
                    started += 1
        finally:
            stop.set()


_AHEAD = 4
_AT_ONCE = 2


class Downloads:
    """Local copies of a source's files in a folder; only a few are fetched before they are asked for.

    `files`: in the order in which they will be asked for. A single one is fetched by whoever asks: starting a thread
    takes longer than landing some rows.
    """

    def __init__(self, source: DumpSource, files: Sequence[SourceFile], folder: Path) -> None:
        self._source = source
        self._waiting = list(enumerate(files))[::-1]
        self._folder = folder
        self._under_way: dict[str, Future[Path]] = {}
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fetch") if len(files) > 1 else None
        if self._pool:
            for _ in range(_AHEAD):
                self._begin_next(self._pool)

    def __enter__(self) -> Downloads:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _at: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def take(self, file: SourceFile) -> Path:
        """Return where a file can be read, once each; SourceError if it is not, or no longer, as listed."""
        if self._pool is None:
            number, file = self._waiting.pop()
            return self._source.fetch(file.uri, self._target(number), file.etag)
        fetched = self._under_way.pop(file.uri)
        self._begin_next(self._pool)
        return fetched.result()

    def discard(self, path: Path) -> bool:
        """Remove a local copy; False if it is none but the source's own file."""
        if path.parent != self._folder:
            return False
        path.unlink()
        return True

    def _begin_next(self, pool: ThreadPoolExecutor) -> None:
        if self._waiting:
            number, file = self._waiting.pop()
            self._under_way[file.uri] = pool.submit(self._source.fetch, file.uri, self._target(number), file.etag)

    def _target(self, number: int) -> Path:
        return self._folder / f"{number}.avro"
