"""Sends planned rows: bounded concurrency, intents before calls, retries, isolation of bad rows, outcome per row."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import orjson
import polars as pl

from heap_assets.activation.engine.batches import Outcome, intent_frame, outcome_frame, rows_of, with_facts
from heap_assets.activation.engine.destination import Destination, Response, Row
from heap_assets.activation.engine.http_client import Caller, RunStopped, Tally
from heap_assets.activation.engine.http_status import reason_of
from heap_assets.activation.engine.lease import Lease, LeaseLostError
from heap_assets.activation.engine.log import Log
from heap_assets.activation.engine.rate_limit import Limiter
from heap_assets.activation.engine.spec import SyncSpec
from heap_assets.activation.engine.transport import Transport
from heap_assets.redaction import redact

_FEWEST_BAD = 20
_LONGEST_REASON = 200


@dataclass(frozen=True)
class Progress:
    """How far a run is. `planned` counts rows; `seconds` since the first call."""

    planned: int
    acknowledged: int
    rejected: int
    requests: int
    seconds: float


@dataclass(slots=True)
class _Item:
    row: Row
    element: bytes
    position: int
    unwritable: str | None = None


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
        self._facts = {"day": day, "mapping": mapping, "run_id": run_id, "fence": log.fence}
        self._limiter = Limiter(destination.limits.rates, spec.rate_share, transport.clock)
        self._caller = Caller(spec.retry, self._limiter, transport, lease)
        self._order = random.Random()  # noqa: S311  the order of a batch is not a secret
        self._progress = progress
        self._lock = self._caller.lock
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
        try:
            for worker in workers:
                worker.join()
        except BaseException:  # the run is interrupted: nothing may be sent after the lease is gone
            self._caller.stop("interrupted")
            for worker in workers:
                worker.join()
            raise
        if self._failure is not None:
            raise self._failure
        return self._caller.tally

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
            while not self._caller.stopped:
                with self._lock:
                    batch = next(batches, None)
                if batch is None:
                    return
                self._deliver(batch)
        except BaseException as error:  # raised again by run()
            with self._lock:
                self._failure = self._failure or error
            self._caller.stop()

    def _deliver(self, batch: pl.DataFrame) -> None:
        rows = rows_of(batch, self.destination, self.log.fence)
        items = [self._item(row, position) for position, row in enumerate(rows)]
        for group in self._grouped(items):
            if self._caller.stopped:
                return
            self._deliver_group(batch, group)

    def _item(self, row: Row, position: int) -> _Item:
        try:
            return _Item(row, orjson.dumps(self.destination.element(row)), position)
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:  # one row's value stops one row
            said = redact(error, _personal([row]), longest=_LONGEST_REASON)
            return _Item(row, b"", position, f"cannot be written as a request: {type(error).__name__}: {said}")

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
            self._caller.stop(str(error))
            return
        name = self.log.batch()
        positions = [item.position for item in group]
        self.log.append(name, "intent", intent_frame(name, batch[positions] if len(group) < len(batch) else batch))
        found: dict[int, Outcome] = {}
        try:
            self._settle(group, found, shuffled=False)
        except RunStopped as stop:
            self._caller.stop(stop.reason)
            status = "unknown" if stop.arrived else "aborted"
            for item in group:
                found.setdefault(item.position, Outcome(status, stop.http_status, stop.reason))
        self.log.append(name, "outcome", outcome_frame(name, [found[p] for p in positions]))
        self._count(found)

    def _settle(self, group: list[_Item], found: dict[int, Outcome], *, shuffled: bool) -> None:
        """Send a group and split it until every row has an outcome."""
        group = self._sendable(group, found)
        if not group:
            return
        rows = [item.row for item in group]
        heavy = Counter(row.person for row in rows if row.person in self._heavy)
        request = self.destination.request([item.element for item in group], rows)
        response, attempt = self._caller.call(request, len(rows), heavy)
        refused = self._refused(response, rows)
        for index, reason in refused.items():
            found[group[index].position] = Outcome("rejected", response.status, reason, attempt)
        rest = [item for index, item in enumerate(group) if index not in refused]
        if response.accepted:
            taken = Outcome(self.destination.accepted, response.status, None, attempt)
            found |= {item.position: taken for item in rest}
            return
        if len(group) > 1:  # whether a refused batch was applied in part, nobody says (heap.md 1.3)
            together = Outcome("unknown", response.status, "refused together with others", attempt)
            found |= {item.position: together for item in rest}
        if refused:
            self._stop_if_broken(found)
            self._settle(rest, found, shuffled=shuffled)
        elif len(group) == 1:
            reason = redact(reason_of(response), _personal(rows), longest=_LONGEST_REASON)
            found[group[0].position] = Outcome("rejected", response.status, reason, attempt)
            self._stop_if_broken(found)
        else:
            if not shuffled:  # bad rows often stand together; a random order makes their share visible early
                self._order.shuffle(group)
            middle = len(group) // 2
            self._settle(group[:middle], found, shuffled=True)
            self._settle(group[middle:], found, shuffled=True)

    def _sendable(self, group: list[_Item], found: dict[int, Outcome]) -> list[_Item]:
        """Return the items of a group that a request can hold; the others are rejected without a call."""
        most = self.destination.limits.row_bytes
        kept = []
        for item in group:
            reason = item.unwritable
            if reason is None and most is not None and len(item.element) > most:
                reason = f"row is larger than {most} bytes"
            if reason is None:
                kept.append(item)
            else:
                found[item.position] = Outcome("rejected", None, reason, 0)
        return kept

    def _refused(self, response: Response, rows: Sequence[Row]) -> dict[int, str]:
        """Return the rows that an answer names as refused, with what may be kept of its reasons.

        Raises
        ------
        RunStopped
            If the destination's own code fails over the answer: which rows were taken is not known then.
        """
        try:
            named = self.destination.rejections(response, rows) or {}
            named = {index: str(reason) for index, reason in named.items() if 0 <= index < len(rows)}
        except Exception as error:
            what = f"HTTP {response.status}, whose text {self.destination.kind} cannot read ({type(error).__name__})"
            raise RunStopped(what, arrived=True, http_status=response.status) from error
        personal = _personal(rows) if named else ()
        shown = {text: redact(text, personal, longest=_LONGEST_REASON) for text in set(named.values())}
        return {index: shown[text] for index, text in named.items()}

    def _stop_if_broken(self, found: dict[int, Outcome]) -> None:
        with self._lock:
            total = self._caller.tally.outcomes + Counter(outcome.status for outcome in found.values())
        bad = total["rejected"]
        if bad >= _FEWEST_BAD and bad > self.spec.broken_share * (bad + total[self.destination.accepted]):
            raise RunStopped(
                f"{bad} of {bad + total[self.destination.accepted]} rows were refused: the mapping is probably broken",
                arrived=False,
            )

    def _count(self, found: dict[int, Outcome]) -> None:
        with self._lock:
            self._caller.tally.outcomes.update(outcome.status for outcome in found.values())
            if self._progress is not None:
                done = self._caller.tally.outcomes
                seconds = self.transport.clock.now() - self._started
                self._progress(
                    Progress(
                        self._planned,
                        done[self.destination.accepted],
                        done["rejected"],
                        self._caller.tally.requests,
                        seconds,
                    )
                )


def _personal(rows: Sequence[Row]) -> set[str]:
    """Return the keys and values of rows: a destination's reason may repeat those of any row of its call."""
    told = {row.key for row in rows} | {str(row.person) for row in rows}
    return told | {str(value) for row in rows for value in (*row.values.values(), *row.extra.values())}
