"""Sends planned rows: bounded concurrency, intents before calls, retries, isolation of bad rows, outcome per row."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import orjson
import polars as pl

from heap_assets.destinations.answers import PASSING, STOPPING, advice, reason_of, retry_after
from heap_assets.destinations.base import Destination, Response, Row
from heap_assets.destinations.batches import Outcome, intent_frame, outcome_frame, rows_of, with_facts
from heap_assets.destinations.lease import Lease, LeaseLostError
from heap_assets.destinations.limiter import Limiter, backoff
from heap_assets.destinations.log import Log
from heap_assets.destinations.redaction import redacted
from heap_assets.destinations.spec import SyncSpec
from heap_assets.destinations.transport import Transport, Unanswered

_FEWEST_BAD = 20


@dataclass(frozen=True)
class Progress:
    """How far a run is. `planned` counts rows; `seconds` since the first call."""

    planned: int
    acknowledged: int
    rejected: int
    requests: int
    seconds: float


@dataclass
class Tally:
    """What happened so far, in numbers."""

    requests: int = 0
    retried: int = 0
    throttled: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    stopped: str | None = None


@dataclass(slots=True)
class _Item:
    row: Row
    element: bytes
    position: int


class _Stop(Exception):
    """The run must end; rows of this call are `unknown` if they may have arrived."""

    def __init__(self, reason: str, *, arrived: bool, http_status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.arrived = arrived
        self.http_status = http_status


class Sender:
    """Sends the rows of one plan.

    Parameters
    ----------
    progress
        Called after every batch, from worker threads, one at a time.
    """

    def __init__(
        self,
        spec: SyncSpec,
        destination: Destination,
        log: Log,
        lease: Lease,
        transport: Transport,
        *,
        run_id: str,
        day: date,
        mapping: str,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.spec, self.destination, self.log, self.lease, self.transport = spec, destination, log, lease, transport
        self.tally = Tally()
        self._facts = {"day": day, "mapping": mapping, "run_id": run_id, "fence": log.fence}
        self._limiter = Limiter(destination.limits.rates, spec.rate_share, transport.clock)
        self._jitter = random.Random()  # noqa: S311  jitter is not a secret
        self._progress = progress
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._planned = 0
        self._heavy: frozenset[str] = frozenset()

    def run(self, rows: pl.DataFrame) -> Tally:
        """Send all rows. Whatever happens, what was acknowledged is in the log when this returns or raises."""
        self._planned = len(rows)
        self._started = self.transport.clock.now()
        batches = self._batches(with_facts(rows, self._facts))
        workers = [
            threading.Thread(target=self._work, args=(batches,), name=f"deliver-{n}", daemon=True)
            for n in range(max(1, min(self.spec.concurrency, -(-len(rows) // self._batch_rows))))
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if self._failure is not None:
            raise self._failure
        return self.tally

    @property
    def _batch_rows(self) -> int:
        return self._limiter.batch_rows(self.destination.limits.batch_rows)

    def _batches(self, rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Cut rows into batches none of which holds more rows of one person than a window allows."""
        person = "person" if "person" in rows.columns else "key"
        most = self._limiter.most_per_key()
        rounds = [rows]
        if most is not None and len(rows):
            numbered = rows.with_columns(_round=pl.int_range(pl.len()).over(person) // most)
            counts = rows.group_by(person).len().filter(pl.col("len") > most)
            self._heavy = frozenset(counts[person].drop_nulls().to_list())
            rounds = [part.drop("_round") for part in numbered.partition_by("_round", maintain_order=True)]
        for part in rounds:
            yield from part.iter_slices(self._batch_rows)

    def _work(self, batches: Iterator[pl.DataFrame]) -> None:
        try:
            while not self._stop.is_set():
                with self._lock:
                    batch = next(batches, None)
                if batch is None:
                    return
                self._deliver(batch)
        except BaseException as error:  # raised again by run()
            with self._lock:
                self._failure = self._failure or error
            self._stop.set()
            self._limiter.close()

    def _deliver(self, batch: pl.DataFrame) -> None:
        items = [
            _Item(row, orjson.dumps(self.destination.element(row)), n)
            for n, row in enumerate(rows_of(batch, self.destination, self.log.fence))
        ]
        for group in self._grouped(items):
            if self._stop.is_set():
                return
            self._deliver_group(batch, group)

    def _grouped(self, items: Sequence[_Item]) -> Iterator[list[_Item]]:
        """Cut a batch so that every request stays below the byte limit."""
        most = self.destination.limits.batch_bytes
        group: list[_Item] = []
        size = 0
        for item in items:
            if group and most is not None and size + len(item.element) + 1 > most:
                yield group
                group, size = [], 0
            group.append(item)
            size += len(item.element) + 1
        if group:
            yield group

    def _deliver_group(self, batch: pl.DataFrame, group: list[_Item]) -> None:
        try:
            self.lease.check()
        except LeaseLostError as error:
            self._halt(str(error))
            return
        name = self.log.batch()
        positions = [item.position for item in group]
        self.log.append(name, "intent", intent_frame(name, batch[positions] if len(group) < len(batch) else batch))
        found: dict[int, Outcome] = {}
        try:
            self._settle(group, found, shuffled=False)
        except _Stop as stop:
            self._halt(stop.reason)
            status = "unknown" if stop.arrived else "aborted"
            for item in group:
                found.setdefault(item.position, Outcome(status, stop.http_status, stop.reason))
        self.log.append(name, "outcome", outcome_frame(name, [found[p] for p in positions]))
        self._count(found)

    def _settle(self, group: list[_Item], found: dict[int, Outcome], *, shuffled: bool) -> None:
        """Send a group and split it until every row has an outcome."""
        oversized = self.destination.limits.row_bytes
        if oversized is not None and (big := [i for i in group if len(i.element) > oversized]):
            found |= {i.position: Outcome("rejected", None, f"row is larger than {oversized} bytes", 0) for i in big}
            group = [i for i in group if len(i.element) <= oversized]
        if not group:
            return
        response, attempt = self._call(group)
        refused = self.destination.rejections(response, [item.row for item in group]) or {}
        for index, reason in refused.items():
            text = redacted(reason, group[index].row)
            found[group[index].position] = Outcome("rejected", response.status, text, attempt)
        rest = [item for index, item in enumerate(group) if index not in refused]
        if response.accepted:
            found |= {
                item.position: Outcome(self.destination.accepted, response.status, None, attempt) for item in rest
            }
        elif refused:
            self._stop_if_broken(found)
            self._settle(rest, found, shuffled=shuffled)
        elif len(group) == 1:
            reason = redacted(reason_of(response), group[0].row)
            found[group[0].position] = Outcome("rejected", response.status, reason, attempt)
            self._stop_if_broken(found)
        else:
            if not shuffled:  # bad rows often stand together; a random order makes their share visible early
                self._jitter.shuffle(group)
            middle = len(group) // 2
            self._settle(group[:middle], found, shuffled=True)
            self._settle(group[middle:], found, shuffled=True)

    def _stop_if_broken(self, found: dict[int, Outcome]) -> None:
        with self._lock:
            total = self.tally.outcomes + Counter(outcome.status for outcome in found.values())
        bad = total["rejected"]
        if bad >= _FEWEST_BAD and bad > self.spec.broken_share * (bad + total[self.destination.accepted]):
            raise _Stop(
                f"{bad} of {bad + total[self.destination.accepted]} rows were refused: the mapping is probably broken",
                arrived=False,
            )

    def _call(self, group: Sequence[_Item]) -> tuple[Response, int]:
        """Call until there is an answer that settles something.

        Raises
        ------
        _Stop
            For 401, 403, 404 and their like, after all attempts, or after nothing but 429 for too long.
        """
        rows = [item.row for item in group]
        request = self.destination.request([item.element for item in group], rows)
        heavy = Counter(row.person for row in rows if row.person in self._heavy)
        patience, attempt, waits, arrived = self.spec.retry, 0, 0, False
        throttled_since: float | None = None
        while True:
            self._check_lease(arrived=arrived)
            answer = self._answer(request, len(group), heavy)
            wait = backoff(waits, patience.first_wait, patience.longest_wait, self._jitter)
            waits += 1
            if isinstance(answer, Response) and answer.status == 429:
                throttled_since = throttled_since if throttled_since is not None else self.transport.clock.now()
                if self.transport.clock.now() - throttled_since > patience.throttled_for:
                    raise _Stop(
                        f"nothing but HTTP 429 for {patience.throttled_for:.0f} s", arrived=arrived, http_status=429
                    )
                self.tally.throttled += 1
                self._limiter.pause(min(retry_after(answer) or wait, patience.longest_retry_after))
                continue
            throttled_since = None
            if isinstance(answer, Response):
                if answer.status in STOPPING or 300 <= answer.status < 400:
                    raise _Stop(
                        f"HTTP {answer.status}: {advice(answer.status)}", arrived=arrived, http_status=answer.status
                    )
                if answer.status < 500 and answer.status not in PASSING:
                    return answer, attempt + 1
                arrived, what = True, f"HTTP {answer.status}"
                wait = max(wait, min(retry_after(answer) or 0.0, patience.longest_retry_after))
            else:
                arrived, what = arrived or answer.arrived, answer.what
            attempt += 1
            if attempt >= patience.attempts:
                raise _Stop(f"{what}, {attempt} times in a row: the destination is down", arrived=arrived)
            with self._lock:
                self.tally.retried += 1
            self._wait(wait, arrived=arrived)

    def _answer(self, request: Any, rows: int, heavy: Counter[str]) -> Response | Unanswered:
        with self._limiter.permission(rows, heavy):
            if self._stop.is_set():
                raise _Stop(self.tally.stopped or "the run stopped", arrived=False)
            with self._lock:
                self.tally.requests += 1
            return self.transport.send(request, self.spec.retry.timeout)

    def _wait(self, seconds: float, *, arrived: bool) -> None:
        until = self.transport.clock.now() + seconds
        while (left := until - self.transport.clock.now()) > 0:
            if self._stop.is_set():
                raise _Stop(self.tally.stopped or "the run stopped", arrived=arrived)
            self.transport.clock.wait(min(left, 0.5))

    def _check_lease(self, *, arrived: bool) -> None:
        try:
            self.lease.check()
        except LeaseLostError as error:
            raise _Stop(str(error), arrived=arrived) from error

    def _halt(self, reason: str) -> None:
        with self._lock:
            self.tally.stopped = self.tally.stopped or reason
        self._stop.set()
        self._limiter.close()

    def _count(self, found: dict[int, Outcome]) -> None:
        with self._lock:
            self.tally.outcomes.update(outcome.status for outcome in found.values())
            if self._progress is not None:
                done = self.tally.outcomes
                seconds = self.transport.clock.now() - self._started
                self._progress(
                    Progress(
                        self._planned, done[self.destination.accepted], done["rejected"], self.tally.requests, seconds
                    )
                )
