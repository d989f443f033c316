"""Delivery of changed rows as they come: the steps of a run for a few keys at a time, with the ledger kept in memory.

Between two calls nothing is held: each takes the sync's lease, so that a run and a live sender never both send. Whoever
finds that another lease was taken since reads the ledger anew. The log is written before and after each call as by a
run; the stored ledger, the changelog and the record of what was sent follow once a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import cast

import polars as pl

from heap_assets.activation.engine.accounts import at_account
from heap_assets.activation.engine.addressing import Addressed
from heap_assets.activation.engine.destination import Destination
from heap_assets.activation.engine.difference import known_keys, respelled
from heap_assets.activation.engine.hashing import salt
from heap_assets.activation.engine.http_client import RunStats, Transport, accepted_rows
from heap_assets.activation.engine.lease import LIVE, Lease
from heap_assets.activation.engine.live_guard import LiveGuard
from heap_assets.activation.engine.log import Log, Snapshot, fold, folded
from heap_assets.activation.engine.maintenance import forgotten
from heap_assets.activation.engine.planning import build_plan, planned
from heap_assets.activation.engine.report import Status, SyncReport
from heap_assets.activation.engine.sender import Sender
from heap_assets.activation.engine.spec import Guard, SyncSpec
from heap_assets.activation.engine.tables import Changelog, mark_killed, usual_runs, write_run, write_set_aside
from heap_assets.http_client import AllowedHosts
from heap_assets.storage import Store

_SAVED_SECONDS = 60.0
_STOPPED = "live sending stops"
_UNGUARDED = Guard(removed=1.0, changed=1.0, takeover=1.0)
_ADDED = ("planned", "added", "changed", "unchanged", "empty", "withdrawn", "removed", "held", "invalid", "no_consent")
"""Figures of a plan that add up over the calls of a minute."""


@dataclass
class LiveSender:
    """Sends changed rows of one sync.

    Parameters
    ----------
    store
        Of the lake.
    day
        Of the profiles that the rows are newer than: the day that the ledger has for them.
    """

    spec: SyncSpec
    destination: Destination
    store: Store
    day: date
    run_id: str
    allowed: AllowedHosts
    clock: Callable[[], float] = time.monotonic
    _fence: int = -1
    _is_loaded: bool = False
    _under_way: Sender | None = None
    _is_stopped: bool = False
    _state: Snapshot = field(default_factory=lambda: Snapshot(pl.DataFrame()))
    _entries: list[pl.DataFrame] = field(default_factory=list)
    _aside: list[pl.DataFrame] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._salt = salt(self.store, self.spec.salt)
        self.spec = at_account(self.store, self.spec, self.destination)
        self._guard = LiveGuard(self.store, self.spec.folder, self.spec.guard, self._salt)
        self._unguarded = replace(self.spec, guard=_UNGUARDED)
        self._transport = Transport(allowed=self.allowed)
        self._saved_at, self._since = self.clock(), datetime.now(UTC)
        self._totals = self._blank(Status.SUCCEEDED)

    def _blank(self, status: Status, reason: str | None = None) -> SyncReport:
        return SyncReport(self.spec.name, self.destination.kind, self.run_id, self.day, status, reason)

    def stop(self) -> None:
        """Let no further call begin, now or later: one that waits for a destination that is away waits no more."""
        self._is_stopped = True
        if self._under_way is not None:
            self._under_way.stop(_STOPPED)

    def close(self) -> None:
        """Store the ledger and what else is kept, if somebody else is not sending."""
        if self._entries or self._aside:
            with Lease(self.store, self.spec.folder, self.run_id, self.spec.lease_ttl) as lease:
                if lease.fence == self._fence + 1:
                    self._save(Log(self.store, self.spec.folder, lease.fence), lease.fence)
                    self._fence = lease.fence
        self._transport.close()

    def send(self, rows: pl.LazyFrame | Addressed, keys: pl.Series) -> SyncReport:
        """Bring the destination up to date with rows.

        Parameters
        ----------
        keys
            All keys that the people of the rows have, or had before: a key without a row is withdrawn, all others are
            left alone.

        Raises
        ------
        LeaseHeldError
            If a run is sending.
        """
        if (refusal := self.destination.precondition_error()) is not None:
            return self._blank(Status.REFUSED, refusal)
        margin = 2 * self.spec.retry.timeout
        with Lease(self.store, self.spec.folder, self.run_id, self.spec.lease_ttl, margin=margin) as lease:
            log = Log(self.store, self.spec.folder, lease.fence)
            with self._sender(log, lease) as sender:
                others_sent = lease.fence != self._fence + 1 or lease.previous is not None
                if others_sent or not self._is_loaded:
                    self._load(log, lease, sender)
                self._fence = lease.fence
                if sender.stats.stopped:
                    return self._blank(Status.STOPPED, sender.stats.stopped)
                report = self._plan_and_send(log, sender, rows, keys)
            if self.clock() - self._saved_at >= _SAVED_SECONDS:
                self._save(log, lease.fence)
            return report

    def _sender(self, log: Log, lease: Lease) -> Sender:
        mapping = self.spec.mapping_version(self.destination.target)
        sender = Sender(
            *(self.spec, self.destination, log, lease, self._transport),
            run_id=self.run_id,
            day=self.day,
            mapping=mapping,
        )
        self._under_way = sender
        if self._is_stopped:  # looked at last: whoever stops looks at what is under way last
            sender.stop(_STOPPED)
        return sender

    def _load(self, log: Log, lease: Lease, sender: Sender) -> None:
        """Read the ledger, and go on with what others left."""
        if lease.previous is not None:
            mark_killed(self.store, self.spec.folder, lease.previous_fence)
        before = log.ledger()
        sender.resume()
        self._state = fold(log, before)
        names = [name for name in log.segments() if name not in before.folded]
        self._entries, self._aside = ([log.read(names)] if names else []), []
        self._is_loaded = True
        runs = usual_runs(self.store, self.spec.folder)
        self._guard.load(self._entries, cast("datetime | None", runs["finished_at"].max()))
        history = runs.filter(pl.col("known") > 0)
        self._guard.usual = float((history["changed"] / history["known"]).median() or 0.0)  # type: ignore[arg-type]

    def _plan_and_send(self, log: Log, sender: Sender, rows: pl.LazyFrame | Addressed, keys: pl.Series) -> SyncReport:
        wanted_keys = keys.drop_nulls().unique().to_frame("key")
        of_keys = self._state.frame.join(wanted_keys, on="key", how="semi")
        plan = build_plan(
            *(self._unguarded, self.destination, rows, replace(self._state, frame=of_keys), self.store, self._salt),
            day=self.day,
            fence=self._fence,
            force=False,
            forgotten=forgotten(self.store, self.spec.name),
        )
        report = replace(planned(self._blank(Status.SUCCEEDED), plan, self._salt), known=known_keys(self._state.frame))
        if concern := self._guard.concern(plan.changes.send, report.known):
            return replace(report, status=Status.NEEDS_CONFIRMATION, reason=concern, concerns=(concern,))
        if len(plan.set_aside):
            self._aside.append(plan.set_aside.frame().with_columns(run_id=pl.lit(self.run_id)))
        stats = self._send(sender, plan.changes.send)
        self._take(log, of_keys)
        return self._finished(report, stats)

    def _send(self, sender: Sender, rows: pl.DataFrame) -> RunStats:
        if not len(rows):
            return sender.stats
        first = respelled(rows)[0]
        if len(first):
            sender.run(first)
            rows = rows.join(first, on="key", how="anti", maintain_order="left")
        return sender.run(rows) if len(rows) else sender.stats

    def _take(self, log: Log, of_keys: pl.DataFrame) -> None:
        """Fold what this call wrote into the ledger in memory."""
        names = log.own_segments()
        if not names:
            return
        entries = log.read(names)
        self._entries.append(entries)
        self._guard.count(entries)
        part = folded(replace(self._state, frame=of_keys), names, [entries])
        untouched = self._state.frame.join(part.frame.select("key"), on="key", how="anti")
        self._state = replace(part, frame=pl.concat([untouched, part.frame], how="diagonal_relaxed"))

    def _finished(self, report: SyncReport, stats: RunStats) -> SyncReport:
        outcomes = stats.outcomes
        unnamed = stats.unnamed.total()
        imperfect = outcomes["rejected"] or unnamed or outcomes["unknown"] or report.invalid
        status = Status.STOPPED if stats.stopped else Status.PARTIAL if imperfect else Status.SUCCEEDED
        report = replace(
            report,
            status=status,
            reason=stats.stopped,
            sent=max(accepted_rows(outcomes) - unnamed, 0),
            rejected=outcomes["rejected"] + unnamed,
            unknown=outcomes["unknown"],
            aborted=outcomes["aborted"],
            requests=stats.requests,
            retried=stats.retried,
            throttled=stats.throttled,
        )
        names = (*_ADDED, "sent", "rejected", "unknown", "aborted", "requests", "retried", "throttled")
        sums = {name: getattr(self._totals, name) + getattr(report, name) for name in names}
        self._totals = replace(report, **sums)
        return report

    def _save(self, log: Log, fence: int) -> None:
        """Store the ledger, the changelog, what was set aside, and the record of the last minute."""
        self._state = log.save(replace(self._state, frame=self._state.frame.sort("key")), self.spec.compact_after)
        started = self._since
        if self._entries:
            changelog = Changelog(self.spec, self._salt)
            for entries in self._entries:
                changelog.add(entries)
            changelog.write(self.store, started, fence)
        if self._aside:
            write_set_aside(self.store, pl.concat(self._aside).lazy(), self.spec.folder, started, fence)
        seconds = (datetime.now(UTC) - started).total_seconds()
        write_run(self.store, self.spec.folder, replace(self._totals, seconds=seconds), fence, started, self.day)
        self._guard.save()
        self._entries, self._aside = [], []
        self._totals = self._blank(Status.SUCCEEDED)
        self._saved_at, self._since = self.clock(), datetime.now(UTC)


def live_run_id(name: str) -> str:
    """Return the id under which a live sender holds leases and records what it sent."""
    return f"{LIVE}{name}"
