"""Batches of rows on several child processes; a batch that fails is tried row by row, and the guilty row is named."""

from __future__ import annotations

import itertools
import logging
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson

from heap_assets import machine
from heap_assets.functions.bundle import Bundle
from heap_assets.functions.limits import SECONDS_A_ROW, Limits
from heap_assets.functions.process import (
    BatchFailedError,
    ChildDiedError,
    ChildKilledError,
    ChildProcess,
    FunctionFailedError,
)

_log = logging.getLogger("heap_assets.functions")

RESULT, DROPPED, SPLIT, REJECTED = 0, 1, 2, 3
_SHARE: Final = 16
_TRIES: Final = 3
"""Of a row whose process died by itself."""
_TRIES_OF_KILLED: Final = 50
"""Of a row whose process was killed: the system may be short of memory for a while, but it is not the row's fault."""


@dataclass(frozen=True)
class Batch:
    """Rows as JSON texts of objects, and the position of the first among all rows of the call."""

    first: int
    rows: Sequence[str]


@dataclass
class Results:
    """What became of a batch: per row `(kind, value, place)`, and what `console.log` wrote with the row's position.

    kind `RESULT`: an object; `DROPPED`: the reason; `SPLIT`: a list of objects; `REJECTED`: the reason, and where.
    Where all rows became one object each, `outcomes` has these as lines of JSON.
    """

    first: int
    outcomes: list[tuple[int, Any, str]] | bytes
    log: list[tuple[int, str]] = field(default_factory=list)
    log_left_off: int = 0

    @property
    def rows(self) -> list[tuple[int, Any, str]]:
        """What became of each row; lines of JSON are parsed anew at each call."""
        if isinstance(self.outcomes, list):
            return self.outcomes
        return [(RESULT, value, "") for value in orjson.loads(b"[%b]" % self.outcomes.replace(b"\n", b","))]

    def __len__(self) -> int:
        return len(self.outcomes) if isinstance(self.outcomes, list) else self.outcomes.count(b"\n") + 1


class Pool(AbstractContextManager["Pool"]):
    """Runs one function. Results come in the order of the batches, whatever the number of workers.

    `context` is what the function gets as its second argument; `now`, in milliseconds since 1970, is the time that it
    sees. `random()` depends on `seed` and on the row's position alone.
    """

    def __init__(
        self,
        code: Bundle,
        limits: Limits | None = None,
        *,
        workers: int | None = None,
        entry: str = "default",
        mode: Literal["row", "batch"] = "row",
        now: int = 0,
        seed: int = 0,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        self.code, self.limits = code, limits or Limits()
        self._meta = {
            "entry": entry,
            "mode": mode,
            "now": now,
            "seed": seed,
            "context": dict(context or {}),
            "row_bytes": self.limits.row_bytes if mode == "row" else self.limits.output_bytes,
            "output_bytes": self.limits.output_bytes,
            "depth": self.limits.depth,
        }
        self._mode = mode
        self._workers = max(workers or machine.cores(), 1)
        self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="function")
        self._idle: list[ChildProcess] = []
        self._all: list[ChildProcess] = []
        # of a pool that is not closed by `with`: its processes end with it
        weakref.finalize(self, _end, self._all)
        self._lock = threading.Lock()
        self._stuck = 0

    @property
    def pids(self) -> list[int]:
        """The processes that live now."""
        with self._lock:
            return [child.pid for child in self._all if child.is_alive]

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        _end(self._all)

    def run(self, batches: Iterable[Batch]) -> Iterator[Results]:
        """Yield the results of batches in their order; twice as many as there are workers are under way.

        Raises
        ------
        FunctionFailedError
            The file has a mistake of syntax or no such function, or too many rows ran into limits.
        """
        under_way: list[Future[Results]] = []
        for batch in batches:
            under_way.append(self._threads.submit(self._batch, batch))
            if len(under_way) >= 2 * self._workers:
                yield under_way.pop(0).result()
        while under_way:
            yield under_way.pop(0).result()

    def _batch(self, batch: Batch) -> Results:
        try:
            return self._call(batch)
        except BatchFailedError as error:
            _log.warning("a batch of %d rows failed (%s): its rows are tried singly", len(batch.rows), error.reason)
            if self._mode == "batch":
                return self._singly(batch)
        singles = [self._singly(Batch(batch.first + index, [row])) for index, row in enumerate(batch.rows)]
        return Results(
            batch.first,
            [row for single in singles for row in single.rows],
            [line for single in singles for line in single.log],
            sum(single.log_left_off for single in singles),
        )

    def _singly(self, batch: Batch) -> Results:
        """Return the result of a single row; rejected if it fails, or if its process dies each time."""
        for attempt in itertools.count(1):
            try:
                return self._call(batch)
            except BatchFailedError as error:
                tries = _TRIES_OF_KILLED if isinstance(error, ChildKilledError) else _TRIES
                if isinstance(error, ChildDiedError) and attempt < tries:
                    continue
                with self._lock:
                    self._stuck += 1
                if self._stuck > self.limits.most_stuck:
                    raise FunctionFailedError(
                        f"{self.code.file}: more than {self.limits.most_stuck} rows ran into its limits, the last one "
                        f"because {error.reason}. The function is broken, or its limits are too low"
                    ) from error
                return Results(batch.first, [(REJECTED, error.reason, self._place(error.at))])
        raise AssertionError

    def _call(self, batch: Batch) -> Results:
        rows = 1 if self._mode == "batch" else len(batch.rows)
        # a single row has its own limit; a batch no less than its rows would have together in a usual function
        seconds = self.limits.cpu_seconds + SECONDS_A_ROW * (len(batch.rows) if len(batch.rows) > 1 else 0)
        meta = {**self._meta, "first": batch.first, "cpu_seconds": seconds}
        child = self._take()
        try:
            answer = child.run(meta, f"[{','.join(batch.rows)}]")
        finally:
            if child.is_alive:
                with self._lock:
                    self._idle.append(child)
        try:
            head, _, objects = answer.partition(b"\n")
            results = orjson.loads(head)
            if "failed" in results:
                raise self._failure(results["failed"], results["at"], results["phase"])
            log = [(int(position), str(line)) for position, line in results["log"]]
            read = Results(batch.first, objects, log, int(results["left_off"]))
            if "rows" in results:
                read.outcomes = [
                    (int(row[0]), row[1], self._place(row[2]) if row[0] == REJECTED else "") for row in results["rows"]
                ]
                if not all(RESULT <= kind <= REJECTED for kind, _, _ in read.outcomes):
                    raise BatchFailedError("its results are not those of its rows")
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise BatchFailedError("its results cannot be read") from error
        if len(read) != rows:
            raise BatchFailedError("its results are not those of its rows")
        return read

    def _failure(self, message: str, stack: str, phase: str) -> Exception:
        """Return what is wrong with the file itself as an error of the call, everything else as one of the batch."""
        reason = _SPOKEN.get(message, message)
        if phase == "load":
            return FunctionFailedError(f"{self._place(stack) or self.code.file}: {reason}")
        return BatchFailedError(reason, stack)

    def _place(self, stack: str) -> str:
        return str(self.code.place(stack) or "")

    def _take(self) -> ChildProcess:
        with self._lock:
            while self._idle:
                child = self._idle.pop()
                if child.is_alive:
                    return child
                child.end()
        child = ChildProcess(self.code, self.limits)
        with self._lock:
            self._all[:] = [*(each for each in self._all if each.is_alive), child]
        return child


def _end(children: list[ChildProcess]) -> None:
    for child in children:
        child.end()


_SPOKEN: Final = {
    "InternalError: interrupted": "it used up its processor time",
    "InternalError: out of memory": "it used up its memory",
    "null": "it threw null, or used up its memory",
}


def batches_of(rows: Iterable[str], limits: Limits) -> Iterator[Batch]:
    """Cut rows into batches: of at most `limits.batch` rows, and of a sixteenth of the function's memory."""
    first, size = 0, 0
    part: list[str] = []
    for row in rows:
        if part and (len(part) >= limits.batch or size + len(row) > limits.memory_bytes // _SHARE):
            yield Batch(first, part)
            first, part, size = first + len(part), [], 0
        part.append(row)
        size += len(row)
    if part:
        yield Batch(first, part)
