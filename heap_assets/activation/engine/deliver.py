"""One run of one sync, from rows to report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import cast

import polars as pl

from heap_assets.activation.engine.accounts import at_account
from heap_assets.activation.engine.addressing import Addressed
from heap_assets.activation.engine.destination import Destination
from heap_assets.activation.engine.difference import Plan
from heap_assets.activation.engine.hashing import hashed_keys, salt
from heap_assets.activation.engine.http_client import Tally, Transport
from heap_assets.activation.engine.lease import Lease
from heap_assets.activation.engine.log import Log, Snapshot, fold, folded
from heap_assets.activation.engine.planning import MEDIAN_OF, consider, counted, planned
from heap_assets.activation.engine.report import Status, SyncReport
from heap_assets.activation.engine.sender import Progress, Sender
from heap_assets.activation.engine.spec import Mode, SyncSpec
from heap_assets.activation.engine.tables import (
    mark_killed,
    runs,
    write_changelog,
    write_run,
    write_running,
    write_set_aside,
)
from heap_assets.errors import HeapAssetsError
from heap_assets.storage import Store, state_keys

_SAMPLE = 10


def deliver(
    spec: SyncSpec,
    destination: Destination,
    rows: pl.LazyFrame | Addressed,
    store: Store,
    day: date,
    run_id: str,
    *,
    confirmed: bool = False,
    force: bool = False,
    blocked_by: Sequence[str] = (),
    progress: Callable[[Progress], None] | None = None,
    transport: Transport | None = None,
) -> SyncReport:
    """Bring a destination up to date with the rows of a day.

    Parameters
    ----------
    rows
        `key` String (the destination's key), optional `profile_id`, the destination's required columns, and the mapped
        columns; or profiles with their addresses, which also say what may be withdrawn.
    day
        Partition day of the rows. An upsert never goes back behind a newer day.
    confirmed
        Send even if the guard has concerns.
    force
        Send even if a newer day was delivered; the report lists the (hashed) keys.
    blocked_by
        Blocking checks of the input that failed, are missing or are older than it; with any, nothing is sent.
    progress
        Called after every batch.

    Returns
    -------
    SyncReport
        Also for a run that the destination stopped: its status and reason say so.

    Raises
    ------
    LeaseHeldError
        If another run is sending.
    SettingsError
        If the mapping names a column that is not there or a property the destination cannot take.
    """
    blank = SyncReport(spec.name, destination.kind, run_id, day, Status.SUCCEEDED)
    if blocked_by:
        return replace(blank, status=Status.BLOCKED, reason="checks did not pass: " + ", ".join(blocked_by))
    if (refusal := destination.refusal()) is not None:
        return replace(blank, status=Status.REFUSED, reason=refusal)
    key = salt(store, spec.salt)
    spec = at_account(store, spec, destination)
    with Lease(store, spec.folder, run_id, spec.lease_ttl, margin=2 * spec.retry.timeout) as lease:
        wire = transport or Transport()
        try:
            run = _Run(spec, destination, store, day, blank, key, lease)
            return run.go(rows, wire, confirmed=confirmed, force=force, progress=progress)
        finally:
            if transport is None:
                wire.close()


def dry_run(
    spec: SyncSpec,
    destination: Destination,
    rows: pl.LazyFrame | Addressed,
    store: Store,
    day: date,
    *,
    force: bool = False,
) -> tuple[SyncReport, pl.DataFrame]:
    """Show what :func:`deliver` would do, without a lease, a call or a write.

    Returns
    -------
    SyncReport, DataFrame
        Counts, concerns and new property names; and per row to send: hashed key, op and the names of its fields.
    """
    key = salt(store, spec.salt, keep=False)
    spec = at_account(store, spec, destination, claim=False)
    log = Log(store, spec.folder)
    blank = SyncReport(spec.name, destination.kind, "dry run", day, Status.PLANNED, destination.refusal())
    seen = consider(
        spec,
        destination,
        rows,
        fold(log, log.ledger()),
        store,
        key,
        day=day,
        fence=_next_fence(store, spec),
        force=force,
    )
    fields = [pl.when(pl.col(f).is_not_null()).then(pl.lit(f[2:])) for f in seen.plan.send.columns if f[:2] == "p:"]
    names = pl.concat_list(fields).list.drop_nulls() if fields else pl.lit(None, pl.List(pl.String))
    rows_to_send = seen.plan.send.select(hashed_keys(seen.plan.send["key"], key), "op", fields=names)
    return planned(blank, seen, key), rows_to_send


class _Run:
    """The steps of one run under a lease."""

    def __init__(
        self,
        spec: SyncSpec,
        destination: Destination,
        store: Store,
        day: date,
        blank: SyncReport,
        key: bytes,
        lease: Lease,
    ) -> None:
        self.spec, self.destination, self.store, self.day, self.key, self.lease = (
            spec,
            destination,
            store,
            day,
            key,
            lease,
        )
        self.blank = blank
        self.log = Log(store, spec.folder, lease.fence)
        self.started = datetime.now(UTC)
        self.clock = time.monotonic()
        history = runs(store, spec.folder, last=MEDIAN_OF)
        self.newest_day = cast("date | None", history["newest_day"].max())

    def go(
        self,
        rows: pl.LazyFrame | Addressed,
        wire: Transport,
        *,
        confirmed: bool,
        force: bool,
        progress: Callable[[Progress], None] | None,
    ) -> SyncReport:
        if self.lease.previous is not None:
            mark_killed(self.store, self.spec.folder, self.lease.previous_fence)
        if self.destination.mode is Mode.UPSERT and not force and self.newest_day and self.day < self.newest_day:
            reason = f"{self.newest_day} was delivered already; --force sends the older day"
            return self._recorded(replace(self.blank, status=Status.SUPERSEDED, reason=reason))
        write_running(self.store, self.spec.folder, self.blank, self.lease.fence, self.started, self.newest_day)
        try:
            return self._planned_and_sent(rows, wire, confirmed=confirmed, force=force, progress=progress)
        except BaseException as error:
            reason = str(error) if isinstance(error, HeapAssetsError) else type(error).__name__
            self._recorded(replace(self.blank, status=Status.STOPPED, reason=reason))
            raise

    def _planned_and_sent(
        self,
        rows: pl.LazyFrame | Addressed,
        wire: Transport,
        *,
        confirmed: bool,
        force: bool,
        progress: Callable[[Progress], None] | None,
    ) -> SyncReport:
        before = self.log.ledger()
        state = fold(self.log, before)
        seen = consider(
            self.spec,
            self.destination,
            rows,
            state,
            self.store,
            self.key,
            day=self.day,
            fence=self.lease.fence,
            force=force,
        )
        report = replace(planned(self.blank, seen, self.key), recovered=int((state.frame["status"] == "unknown").sum()))
        write_set_aside(
            self.store,
            seen.set_aside.with_columns(run_id=pl.lit(self.blank.run_id)),
            self.spec.folder,
            self.started,
            self.lease.fence,
        )
        if seen.concerns and not confirmed:
            self._saved(before)
            return self._recorded(replace(report, status=Status.NEEDS_CONFIRMATION, reason="; ".join(seen.concerns)))
        tally = self._send(seen.plan, wire, progress)
        entries = self._saved(before)
        return self._recorded(self._finished(report, tally, entries))

    def _send(self, plan: Plan, wire: Transport, progress: Callable[[Progress], None] | None) -> Tally:
        if not len(plan.send):
            return Tally()
        sender = Sender(
            self.spec,
            self.destination,
            self.log,
            self.lease,
            wire,
            run_id=self.blank.run_id,
            day=self.day,
            mapping=self.spec.mapping_version(self.destination.target),
            progress=progress,
        )
        return sender.run(plan.send)

    def _saved(self, before: Snapshot) -> pl.DataFrame:
        """Fold everything new into the ledger and the changelog; returns the new entries."""
        names = [name for name in self.log.segments() if name not in before.folded]
        if not names:
            return pl.DataFrame(schema={"run_id": pl.String, "status": pl.String})
        entries = self.log.read(names)
        write_changelog(self.store, self.spec, entries, self.key, self.started, self.lease.fence)
        self.log.save(folded(before, names, entries), self.spec.compact_after)
        return entries

    def _finished(self, report: SyncReport, tally: Tally, entries: pl.DataFrame) -> SyncReport:
        found = tally.outcomes
        refused = entries.filter(pl.col("run_id") == report.run_id, pl.col("status") == "rejected")
        sample: tuple[tuple[str, str], ...] = ()
        by_reason: dict[str, int] = {}
        if len(refused):
            first = refused.head(_SAMPLE)
            sample = tuple(zip(hashed_keys(first["key"], self.key).to_list(), first["reason"].to_list(), strict=True))
            by_reason = counted(refused["reason"])
        imperfect = found["rejected"] or found["unknown"] or report.invalid or report.waiting
        status = Status.STOPPED if tally.stopped else Status.PARTIAL if imperfect else Status.SUCCEEDED
        return replace(
            report,
            status=status,
            reason=tally.stopped,
            sent=found[self.destination.accepted],
            rejected=found["rejected"],
            unknown=found["unknown"],
            aborted=report.planned - found[self.destination.accepted] - found["rejected"] - found["unknown"],
            requests=tally.requests,
            retried=tally.retried,
            throttled=tally.throttled,
            rejections=by_reason,
            sample=sample,
        )

    def _recorded(self, report: SyncReport) -> SyncReport:
        report = replace(report, seconds=time.monotonic() - self.clock)
        complete = report.status in (Status.SUCCEEDED, Status.PARTIAL)
        newest = max((d for d in (self.newest_day, self.day if complete else None) if d is not None), default=None)
        write_run(self.store, self.spec.folder, report, self.lease.fence, self.started, newest)
        return report


def _next_fence(store: Store, spec: SyncSpec) -> int:
    held = store.list(f"{state_keys.SYNC}/{spec.folder}/lease")
    return int(held[-1].key.rsplit("/", 1)[-1].removesuffix(".json")) + 1 if held else 1
