"""Sends planned rows: bounded concurrency, intents before calls, isolation of bad rows, an outcome for every row."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial

import orjson
import polars as pl

from heap_assets.activation.engine.batch import (
    LEAVES,
    Item,
    Outcome,
    grouped,
    intent_frame,
    outcome_frame,
    rows_of,
    with_facts,
)
from heap_assets.activation.engine.destination import Destination, Row
from heap_assets.activation.engine.driving import Drive, Judged, StillWorking
from heap_assets.activation.engine.exchange import Exchange
from heap_assets.activation.engine.http_client import (
    LONGEST_REASON,
    AnswerLost,
    RetryingClient,
    RunStats,
    RunStopped,
    Transport,
    accepted_rows,
    personal,
)
from heap_assets.activation.engine.lease import Lease, LeaseLostError
from heap_assets.activation.engine.log import Log
from heap_assets.activation.engine.pending import Pending, PendingBatches
from heap_assets.activation.engine.quota import Quotas, Windows
from heap_assets.activation.engine.rate_limit import Limiter, RealClock
from heap_assets.activation.engine.report import Progress
from heap_assets.activation.engine.rounds import in_rounds
from heap_assets.activation.engine.spec import Mode, SyncSpec
from heap_assets.activation.engine.spill import PlannedRows
from heap_assets.activation.engine.workers import Workers
from heap_assets.redaction import redact

_FEWEST_BAD = 20


@dataclass
class _Batch:
    """One intent segment on its way to outcomes.

    `open`: positions of rows whose exchange goes on in a later run. `exchanges`: those that are remembered and done.
    """

    name: str
    intents: pl.DataFrame
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    exchanges: list[str] = field(default_factory=list)
    begun: int = 0
    resumed: bool = False


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
        limits = destination.limits
        self._limiter = Limiter(
            limits.rates, spec.rate_share, transport.clock, in_flight=limits.in_flight, shared_by=limits.shared_by
        )
        self._quotas = Quotas(log.store, destination.account, limits, spec.rate_share)
        by_clock = bool(limits.shared_by) and isinstance(transport.clock, RealClock)
        self._windows = Windows(log.store, limits.shared_by) if by_clock else None
        if self._windows is not None:
            self._limiter.count(self._windows.load())
        self._client = RetryingClient(destination, spec.retry, self._limiter, transport, lease, self._quotas)
        self._workers = Workers(self._client, spec.concurrency)
        self._pending = PendingBatches(log.store, spec.folder)
        self._order = random.Random()  # noqa: S311  the order of a batch is not a secret
        self._progress = progress
        self._lock = self._client.lock
        self._planned = 0
        self._heavy: frozenset[str] = frozenset()
        self._started = transport.clock.now()

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self._quotas.close()
        if self._windows is not None:
            self._windows.save(self._limiter.counted())

    def resume(self) -> pl.Series:
        """Go on with the batches that earlier runs left; returns the keys of those that are still open."""
        left = [pending for pending in self._pending.all() if not self._is_answered(pending)]
        self._workers.carry_out((partial(self._resume, pending) for pending in left), len(left))
        still = [pending.intents["key"] for pending in self._pending.all()]
        return pl.concat([pl.Series("key", [], pl.String), *still])

    def run(self, rows: pl.DataFrame | PlannedRows) -> RunStats:
        """Send all rows. Whatever happens, what was acknowledged is in the log when this returns or raises."""
        planned = PlannedRows.of(rows) if isinstance(rows, pl.DataFrame) else rows
        self._planned = len(planned)
        self._started = self.transport.clock.now()
        leave = pl.col("op") == LEAVES
        sets = self.destination.mode is Mode.SET and not self.destination.replaces
        for part in (planned.filter(leave), planned.filter(~leave)) if sets else (planned,):
            tasks = (partial(self._deliver, batch) for batch in self._batches(part))
            self._workers.carry_out(tasks, -(-len(part) // self._batch_rows))
        return self.stats

    def stop(self, reason: str) -> None:
        """Let no further call begin; may be called from any thread."""
        self._client.stop(reason)

    @property
    def stats(self) -> RunStats:
        """Counts of everything that was done so far."""
        return self._client.stats

    @property
    def _batch_rows(self) -> int:
        if self.destination.replaces:
            return max(self._planned, 1)
        return self._limiter.batch_rows(self.destination.batch_rows(self._planned))

    def _batches(self, rows: PlannedRows) -> Iterator[pl.DataFrame]:
        """Cut rows into batches none of which holds more rows of one person than a window allows."""
        rounds = [rows]
        if (most := self._limiter.most_per_key()) is not None:
            rounds, heavy = in_rounds(rows, most)
            self._heavy = frozenset(heavy)
        for part in rounds:
            yield from part.map(partial(with_facts, facts=self._facts)).slices(self._batch_rows)

    def _deliver(self, batch: pl.DataFrame) -> None:
        rows = rows_of(batch, self.destination, self.log.fence)
        items = [self._item(row, position) for position, row in enumerate(rows)]
        most = None if self.destination.replaces else self.destination.limits.batch_bytes
        for group in grouped(items, most):
            if self._client.stopped:
                return
            self._deliver_group(batch, group)

    def _item(self, row: Row, position: int) -> Item:
        try:
            return Item(row, orjson.dumps(self.destination.element(row)), position)
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:  # one row's value stops one row
            message = redact(error, personal([row]), longest=LONGEST_REASON)
            return Item(row, b"", position, f"cannot be written as a request: {type(error).__name__}: {message}")

    def _deliver_group(self, batch: pl.DataFrame, group: list[Item]) -> None:
        try:
            self.lease.check()
        except LeaseLostError as error:
            self._client.stop(str(error))
            return
        part = batch[[item.position for item in group]] if len(group) < len(batch) else batch
        for place, item in enumerate(group):
            item.position = place
        delivery = _Batch(self.log.batch(), part)
        self.log.append(delivery.name, "intent", intent_frame(delivery.name, part))
        self._with_outcomes(delivery, lambda: self._send_group(delivery, group, shuffled=False))

    def _with_outcomes(self, batch: _Batch, send: Callable[[], None]) -> None:
        """Send, and write down what became of the rows, whatever that was."""
        try:
            send()
        except RunStopped as stop:
            self._client.stop(stop.reason)
            status = "unknown" if stop.arrived else "aborted"
            for position in set(range(len(batch.intents))) - batch.open:
                batch.outcomes.setdefault(position, Outcome(status, stop.http_status, stop.reason))
        outcomes = {p: batch.outcomes[p] for p in range(len(batch.intents)) if p not in batch.open}
        if outcomes:
            self.log.append(batch.name, "outcome", outcome_frame(batch.name, outcomes))
        for exchange in batch.exchanges:
            self._pending.close(exchange)
        if batch.resumed:
            with self._lock:
                self.stats.resumed += accepted_rows(Counter(o.status for o in batch.outcomes.values()))
        else:
            self._count(batch)

    def _send_group(self, batch: _Batch, group: list[Item], *, shuffled: bool) -> None:
        """Send a group and split it until every row has an outcome."""
        group = self._sendable(batch, group)
        if not group:
            return
        rows = [item.row for item in group]
        judged = self._driven(batch, group, self.destination.exchange([item.element for item in group], rows))
        if judged is None:
            return
        remaining = self._judged(batch, group, judged)
        if not remaining:
            return
        if len(remaining) < len(group):
            self._stop_if_broken(batch)
            self._send_group(batch, remaining, shuffled=shuffled)
        elif len(group) == 1:
            reason = judged.verdict.reason or f"HTTP {judged.http_status}"
            batch.outcomes[group[0].position] = Outcome("rejected", judged.http_status, reason, judged.attempt)
            self._stop_if_broken(batch)
        elif self.destination.replaces:  # a part of the set would take the place of all of it
            reason = judged.verdict.reason or f"HTTP {judged.http_status}"
            raise RunStopped(f"the set was refused: {reason}", arrived=False, http_status=judged.http_status)
        else:
            if not shuffled:  # bad rows often stand together; a random order makes their share visible early
                self._order.shuffle(group)
            middle = len(group) // 2
            self._send_group(batch, group[:middle], shuffled=True)
            self._send_group(batch, group[middle:], shuffled=True)

    def _driven(self, batch: _Batch, group: list[Item], exchange: Exchange) -> Judged | None:
        """Return the verdict of an exchange; None if there is none yet, or never will be."""
        remembered = f"{batch.name}.{batch.begun}"
        batch.begun += 1
        positions = [item.position for item in group]
        ids = [item.row.remote_id for item in group]
        beside = (pl.Series("row", positions, pl.UInt32), pl.Series("remote_id", ids, pl.String))
        heavy = Counter(item.row.person for item in group if item.row.person in self._heavy)
        drive = Drive(
            self.destination,
            self._client,
            [item.row for item in group],
            heavy,
            lambda state: self._pending.remember(
                remembered, intent_frame(batch.name, batch.intents[positions]).with_columns(*beside), state
            ),
            self.spec.retry.patience,
        )
        try:
            judged = drive.through(exchange)
        except (RunStopped, AnswerLost, StillWorking) as end:
            if drive.remembered or batch.resumed:
                batch.open.update(positions)
                batch.outcomes = {p: o for p, o in batch.outcomes.items() if p not in batch.open}
            elif not isinstance(end, RunStopped):
                reason = f"{end}: not sent again, it could count twice" if str(end) else "the destination took too long"
                batch.outcomes |= dict.fromkeys(positions, Outcome("unknown", None, reason))
            if isinstance(end, RunStopped):
                raise
            return None
        if drive.remembered:
            batch.exchanges.append(remembered)
        return judged

    def _judged(self, batch: _Batch, group: list[Item], judged: Judged) -> list[Item]:
        """Note what a verdict says of each row; returns the rows that have to be sent once more.

        Raises RunStopped if the verdict says so.
        """
        verdict, status, attempt = judged.verdict, judged.http_status, judged.attempt
        with self._lock:
            self.stats.unnamed.update(verdict.unnamed)
        for index, row in verdict.rows.items():
            outcome = Outcome(row.status, status, row.reason, attempt, row.until, row.remote_id)
            batch.outcomes[group[index].position] = outcome
        remaining = [item for index, item in enumerate(group) if index not in verdict.rows]
        outcome, repeatable = Outcome(self.destination.accepted, status, None, attempt), False
        if verdict.rest != "applied":
            reason = "refused together with others" if len(group) > 1 else verdict.reason
            outcome = Outcome("unknown" if verdict.rest == "unknown" else "aborted", status, reason, attempt)
            harmless = verdict.rest == "not_applied" or self.destination.dedupe.kind != "none" or len(group) == 1
            repeatable = harmless and not batch.resumed
        batch.outcomes |= dict.fromkeys((item.position for item in remaining), outcome)
        if verdict.stop is not None:
            raise RunStopped(verdict.stop, arrived=False, http_status=status)
        return remaining if repeatable else []

    def _sendable(self, batch: _Batch, group: list[Item]) -> list[Item]:
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
                batch.outcomes[item.position] = Outcome("rejected", None, reason, 0)
        return sendable

    def _resume(self, pending: Pending) -> None:
        """Go on with a batch under the lease of this run."""
        facts = {"run_id": self._facts["run_id"], "fence": self.log.fence, "at": datetime.now(UTC)}
        name = self.log.batch()
        now = [pl.lit(value, pending.intents.schema[column]).alias(column) for column, value in facts.items()]
        intents = pending.intents.with_columns(pl.lit(name).alias("batch"), row=pl.int_range(pl.len(), dtype=pl.UInt32))
        intents = intents.with_columns(now)
        batch = _Batch(name, intents, resumed=True)
        batch.open = set(intents.filter(pl.col("key") == "")["row"])  # forgotten people
        self.log.append(name, "intent", intents.filter(pl.col("key") != "").drop("remote_id"))
        self._pending.remember(f"{name}.0", intents, pending.state)
        self._pending.close(pending.batch)
        rows = pending.rows(sets=self.destination.mode is Mode.SET)
        items = [Item(row, b"", place) for place, row in enumerate(rows)]

        def go_on() -> None:
            judged = self._driven(batch, items, self.destination.resume(pending.state, rows))
            if judged is not None:
                batch.exchanges.append(f"{name}.0")
                self._judged(batch, items, judged)

        self._with_outcomes(batch, go_on)

    def _is_answered(self, pending: Pending) -> bool:
        """Whether the outcome of a pending batch is in the log: then its run was killed before it could remove it."""
        if not set(pending.intents["row"]) <= self.log.answered(pending.batch.partition(".")[0]):
            return False
        self._pending.close(pending.batch)
        return True

    def _stop_if_broken(self, batch: _Batch) -> None:
        with self._lock:
            total = self.stats.outcomes + Counter(outcome.status for outcome in batch.outcomes.values())
        bad, good = total["rejected"] + total["invalid"], accepted_rows(total)
        if bad >= _FEWEST_BAD and bad > self.spec.broken_share * (bad + good):
            raise RunStopped(
                f"{bad} of {bad + good} rows were refused: the mapping is probably broken",
                arrived=False,
            )

    def _count(self, batch: _Batch) -> None:
        with self._lock:
            outcomes = self.stats.outcomes
            outcomes.update(outcome.status for outcome in batch.outcomes.values())
            outcomes["unknown"] += len(batch.open)
            if self._progress is not None:
                seconds = self.transport.clock.now() - self._started
                accepted, requests = accepted_rows(outcomes), self.stats.requests
                self._progress(Progress(self._planned, accepted, outcomes["rejected"], requests, seconds))
