"""Sends planned rows: bounded concurrency, intents before calls, retries, isolation of bad rows, outcome per row."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import orjson
import polars as pl

from heap_assets.activation.engine.canonical import EXACT, json_values
from heap_assets.activation.engine.destination import Destination, Response, Row
from heap_assets.activation.engine.difference import VALUE
from heap_assets.activation.engine.hashing import EMPTY
from heap_assets.activation.engine.http_client import RetryingClient, RunStats, RunStopped, Transport, reason_of
from heap_assets.activation.engine.lease import Lease, LeaseLostError
from heap_assets.activation.engine.log import FIELD, INTENT_SCHEMA, OUTCOME_SCHEMA, Log
from heap_assets.activation.engine.rate_limit import Limiter
from heap_assets.activation.engine.spec import SyncSpec
from heap_assets.redaction import redact

_OMITTED: Any = object()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one row."""

    status: str
    http_status: int | None = None
    reason: str | None = None
    attempt: int = 1


def with_facts(rows: pl.DataFrame, facts: Mapping[str, Any]) -> pl.DataFrame:
    """Add the columns of an intent; failures are counted on only if the same values failed before."""
    same = pl.col("failed_hash").eq_missing(pl.col("row_hash"))
    return rows.with_columns(
        pl.when(same).then(pl.col("failures").fill_null(0)).otherwise(0).cast(pl.UInt32).alias("failures"),
        *(pl.lit(value, INTENT_SCHEMA[name]).alias(name) for name, value in facts.items()),
    )


def rows_of(batch: pl.DataFrame, destination: Destination, fence: int) -> Iterator[Row]:
    """Yield the rows of a batch as destinations take them."""
    names = [c.removeprefix(VALUE) for c in batch.columns if c.startswith(VALUE) and FIELD + c[2:] in batch.columns]
    extras = [c for c in (*destination.required, *destination.optional, "row_hash") if c in batch.columns]
    columns = [_to_send(batch[VALUE + name], batch[FIELD + name]) for name in names]
    beside = zip(*(batch[c].to_list() for c in extras), strict=True)
    keys = batch["key"].to_list()
    persons = batch["person"].to_list() if "person" in batch.columns else keys
    values = zip(*columns, strict=True) if columns else iter([()] * len(keys))
    for key, person, sent, extra in zip(keys, persons, values, beside, strict=True):
        mapped = {name: value for name, value in zip(names, sent, strict=True) if value is not _OMITTED}
        yield Row(key, person, mapped, {"fence": fence, **dict(zip(extras, extra, strict=True))})


def _to_send(values: pl.Series, sent: pl.Series) -> list[Any]:
    """Return the values of a column as sent; those that are not part of the call are `_OMITTED`."""
    small = values.dtype == pl.Int64 and max(-_bound(values.min()), _bound(values.max())) <= EXACT
    listed = values.to_list() if small else json_values(values)
    if sent.null_count() == 0 and sent.min() != EMPTY:
        return listed
    return [
        _OMITTED if mark is None else None if mark == EMPTY else value
        for value, mark in zip(listed, sent.to_list(), strict=True)
    ]


def _repeated(value: pl.Series, count: int) -> pl.Series:
    """Repeat a single value; `new_from_index` would run a query."""
    return value.extend_constant(value[0], count - 1)


def _bound(value: Any) -> int:
    return 0 if value is None else int(value)


def outcome_frame(name: str, outcomes: Sequence[Outcome]) -> pl.DataFrame:
    """Return the outcome segment of a batch."""
    count = len(outcomes)
    first = outcomes[0]
    distinct = [first] if all(outcome is first for outcome in outcomes) else outcomes
    columns: dict[str, list[Any]] = {
        "status": [o.status for o in distinct],
        "http_status": [o.http_status for o in distinct],
        "reason": [o.reason for o in distinct],
        "attempt": [o.attempt for o in distinct],
    }
    series = [pl.Series(c, values, OUTCOME_SCHEMA[c]) for c, values in columns.items()]
    if len(distinct) < count:
        series = [_repeated(s, count) for s in series]
    batch = _repeated(pl.Series("batch", [name]), count)
    at = _repeated(pl.Series("answered_at", [datetime.now(UTC)], OUTCOME_SCHEMA["answered_at"]), count)
    return pl.DataFrame([batch, pl.Series("row", np.arange(count, dtype=np.uint32)), *series, at])


def intent_frame(name: str, part: pl.DataFrame) -> pl.DataFrame:
    """Return the intent segment of some rows that :func:`with_facts` has prepared."""
    rows = len(part)
    facts = {"batch": pl.Series("batch", [name]), "at": pl.Series("at", [datetime.now(UTC)], INTENT_SCHEMA["at"])}
    columns = [_repeated(facts[c], rows) if c in facts else part[c] for c in INTENT_SCHEMA if c != "row"]
    numbers = pl.Series("row", np.arange(rows, dtype=np.uint32))
    return pl.DataFrame([numbers, *columns, *(part[c] for c in part.columns if c.startswith(FIELD))])


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

    `progress`: called after every batch, from worker threads, one at a time.
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
        self._caller = RetryingClient(spec.retry, self._limiter, transport, lease)
        self._order = random.Random()  # noqa: S311  the order of a batch is not a secret
        self._progress = progress
        self._lock = self._caller.lock
        self._failure: BaseException | None = None
        self._planned = 0
        self._heavy: frozenset[str] = frozenset()

    def run(self, rows: pl.DataFrame) -> RunStats:
        """Send all rows. Whatever happens, what was acknowledged is in the log when this returns or raises."""
        self._planned = len(rows)
        self._started = self.transport.clock.now()
        batches = self._batches(with_facts(rows, self._facts))
        workers = [
            threading.Thread(target=self._work, args=(batches,), name=f"deliver-{n}", daemon=True)
            for n in range(max(1, min(self.spec.concurrency, -(-len(rows) // self._batch_rows))))
        ]
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        except BaseException:  # the run is interrupted: nothing may be sent after the lease is gone
            self._caller.stop("interrupted")
            for worker in workers:
                if worker.is_alive():  # one that has not begun sends nothing any more
                    worker.join()
            raise
        if self._failure is not None:
            raise self._failure
        return self._caller.stats

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
            message = redact(error, _personal([row]), longest=_LONGEST_REASON)
            return _Item(row, b"", position, f"cannot be written as a request: {type(error).__name__}: {message}")

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
        outcomes: dict[int, Outcome] = {}
        try:
            self._send_group(group, outcomes, shuffled=False)
        except RunStopped as stop:
            self._caller.stop(stop.reason)
            status = "unknown" if stop.arrived else "aborted"
            for item in group:
                outcomes.setdefault(item.position, Outcome(status, stop.http_status, stop.reason))
        self.log.append(name, "outcome", outcome_frame(name, [outcomes[p] for p in positions]))
        self._count(outcomes)

    def _send_group(self, group: list[_Item], outcomes: dict[int, Outcome], *, shuffled: bool) -> None:
        """Send a group and split it until every row has an outcome."""
        group = self._sendable(group, outcomes)
        if not group:
            return
        rows = [item.row for item in group]
        heavy = Counter(row.person for row in rows if row.person in self._heavy)
        request = self.destination.request([item.element for item in group], rows)
        response, attempt = self._caller.call(request, len(rows), heavy)
        refused = self._refused(response, rows)
        for index, reason in refused.items():
            outcomes[group[index].position] = Outcome("rejected", response.status, reason, attempt)
        remaining = [item for index, item in enumerate(group) if index not in refused]
        if response.accepted:
            accepted = Outcome(self.destination.accepted, response.status, None, attempt)
            outcomes |= {item.position: accepted for item in remaining}
            return
        if len(group) > 1:  # whether a refused batch was applied in part, nobody says (heap.md 1.3)
            unknown = Outcome("unknown", response.status, "refused together with others", attempt)
            outcomes |= {item.position: unknown for item in remaining}
        if refused:
            self._stop_if_broken(outcomes)
            self._send_group(remaining, outcomes, shuffled=shuffled)
        elif len(group) == 1:
            reason = redact(reason_of(response), _personal(rows), longest=_LONGEST_REASON)
            outcomes[group[0].position] = Outcome("rejected", response.status, reason, attempt)
            self._stop_if_broken(outcomes)
        else:
            if not shuffled:  # bad rows often stand together; a random order makes their share visible early
                self._order.shuffle(group)
            middle = len(group) // 2
            self._send_group(group[:middle], outcomes, shuffled=True)
            self._send_group(group[middle:], outcomes, shuffled=True)

    def _sendable(self, group: list[_Item], outcomes: dict[int, Outcome]) -> list[_Item]:
        """Return the items of a group that a request can hold; the others are rejected without a call."""
        most = self.destination.limits.row_bytes
        sendable = []
        for item in group:
            reason = item.unwritable
            if reason is None and most is not None and len(item.element) > most:
                reason = f"row is larger than {most} bytes"
            if reason is None:
                sendable.append(item)
            else:
                outcomes[item.position] = Outcome("rejected", None, reason, 0)
        return sendable

    def _refused(self, response: Response, rows: Sequence[Row]) -> dict[int, str]:
        """Return the rows that an answer names as refused, with what may be kept of its reasons.

        Raises RunStopped if the destination's own code fails over the answer: which rows were taken is not known then.
        """
        try:
            reasons = self.destination.rejections(response, rows) or {}
            reasons = {index: str(reason) for index, reason in reasons.items() if 0 <= index < len(rows)}
        except Exception as error:
            what = f"HTTP {response.status}, whose text {self.destination.kind} cannot read ({type(error).__name__})"
            raise RunStopped(what, arrived=True, http_status=response.status) from error
        personal = _personal(rows) if reasons else ()
        shown = {text: redact(text, personal, longest=_LONGEST_REASON) for text in set(reasons.values())}
        return {index: shown[text] for index, text in reasons.items()}

    def _stop_if_broken(self, outcomes: dict[int, Outcome]) -> None:
        with self._lock:
            total = self._caller.stats.outcomes + Counter(outcome.status for outcome in outcomes.values())
        bad = total["rejected"]
        if bad >= _FEWEST_BAD and bad > self.spec.broken_share * (bad + total[self.destination.accepted]):
            raise RunStopped(
                f"{bad} of {bad + total[self.destination.accepted]} rows were refused: the mapping is probably broken",
                arrived=False,
            )

    def _count(self, outcomes: dict[int, Outcome]) -> None:
        with self._lock:
            self._caller.stats.outcomes.update(outcome.status for outcome in outcomes.values())
            if self._progress is not None:
                done = self._caller.stats.outcomes
                seconds = self.transport.clock.now() - self._started
                accepted, requests = done[self.destination.accepted], self._caller.stats.requests
                self._progress(Progress(self._planned, accepted, done["rejected"], requests, seconds))


def _personal(rows: Sequence[Row]) -> set[str]:
    """Return the keys and values of rows: a destination's reason may repeat those of any row of its call."""
    keys = {row.key for row in rows} | {str(row.person) for row in rows}
    return keys | {str(value) for row in rows for value in (*row.values.values(), *row.extra.values())}
