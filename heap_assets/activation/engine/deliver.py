"""One run of one sync, from rows to report."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, cast

import polars as pl

from heap_assets.activation.engine.accounts import at_account
from heap_assets.activation.engine.addressing import Addressed
from heap_assets.activation.engine.batch import LEAVES
from heap_assets.activation.engine.destination import Destination
from heap_assets.activation.engine.event_keys import KeyedEvents, carried_over, record_key
from heap_assets.activation.engine.hashing import hashed_keys, salt
from heap_assets.activation.engine.http_client import RunStats, Transport, accepted_rows
from heap_assets.activation.engine.inquiry import first_requests
from heap_assets.activation.engine.lease import Lease, next_fence
from heap_assets.activation.engine.log import FIELD, Log, Stored, field_names
from heap_assets.activation.engine.maintenance import forgotten, refuse
from heap_assets.activation.engine.parts import Division, Evaluated, LedgerParts, divisible, division_of
from heap_assets.activation.engine.planning import (
    TWIN,
    Comparison,
    SyncPlan,
    as_addressed,
    most_frequent,
    planned,
)
from heap_assets.activation.engine.prepare import Unprepared, known_by, prepared, unprepared
from heap_assets.activation.engine.report import Progress, Status, SyncReport
from heap_assets.activation.engine.sender import Sender
from heap_assets.activation.engine.spec import Mode, SyncSpec
from heap_assets.activation.engine.spill import Spill
from heap_assets.activation.engine.tables import (
    MEDIAN_OF,
    Changelog,
    mark_killed,
    runs,
    write_run,
    write_set_aside,
)
from heap_assets.activation.engine.two_way import save_settled
from heap_assets.errors import HeapAssetsError
from heap_assets.http_client import ANYWHERE, AllowedHosts
from heap_assets.storage import SCRATCH, Store

_log = logging.getLogger("heap_assets.delivery")
_REFUSED: Final = {"key": pl.String(), "reason": pl.String()}
_SAMPLE = 10
_FIRST = 3
"""Requests that a dry run shows."""


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
    allowed: AllowedHosts = ANYWHERE,
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
    allowed
        Hosts that may be called; of a `transport` that is given, it says that itself.

    A run that the destination stopped returns a report too: its status and reason say so.

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
    if (refusal := destination.precondition_error()) is not None:
        return replace(blank, status=Status.REFUSED, reason=refusal)
    key = salt(store, spec.salt)
    spec = at_account(store, spec, destination)
    with Lease(store, spec.folder, run_id, spec.lease_ttl, margin=2 * spec.retry.timeout) as lease:
        wire = transport or Transport(allowed=allowed)
        try:
            run = _Run(spec, destination, store, blank, key, lease, wire, progress)
            return run.go(rows, confirmed=confirmed, force=force)
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
    """Return what :func:`deliver` would do, without a lease, a call or a write.

    The report has counts, concerns, new property names and the first requests with their values hashed; the rows to
    send have hashed key, op and field names.
    """
    key = salt(store, spec.salt, keep=False)
    spec = at_account(store, spec, destination, claim=False)
    log = Log(store, spec.folder)
    refusal = destination.precondition_error()
    blank = SyncReport(spec.name, destination.kind, "dry run", day, Status.PLANNED, refusal)
    fence = next_fence(store, spec.folder)
    addressed, refused = as_addressed(rows), forgotten(store, spec.name)
    with TemporaryDirectory(prefix=SCRATCH) as folder:
        scratch = Path(folder)
        compared = _Compared.of(spec, destination, addressed, log, log.stored(scratch), scratch)
        current: pl.DataFrame | None = None
        if addressed.keyed is not None and addressed.keyed.former is not None:
            current = compared.ledger.read()
            carried = carried_over(current, addressed.keyed, refused, key)
            refused = pl.concat([refused, pl.Series(sorted(carried.forgotten), dtype=pl.String)])
            current = pl.concat([current, carried.ledger])
        comparison = Comparison(spec, destination, addressed, store, key, day, fence, force, refused, scratch=scratch)
        plan = compared.plan(comparison, current)
        requests = first_requests(destination, next(plan.rows.slices(_FIRST), plan.changes.send.clear()), fence, key)
        report = replace(planned(blank, plan, key), first_requests=tuple(requests))
        return report, pl.concat(_shown(frame, key) for frame in [plan.changes.send.clear(), *plan.rows.frames()])


def _shown(sent: pl.DataFrame, key: bytes) -> pl.DataFrame:
    """Return of rows to send their hashed keys, ops and the names of their fields."""
    fields = [pl.when(pl.col(f).is_not_null()).then(pl.lit(f.removeprefix(FIELD))) for f in field_names(sent)]
    names = pl.concat_list(fields).list.drop_nulls() if fields else pl.lit(None, pl.List(pl.String))
    return sent.select(hashed_keys(sent["key"], key), "op", fields=names)


@dataclass(frozen=True)
class _Compared:
    """The rows of a run and the ledger, both divided in the same way."""

    values: Unprepared
    rows: Spill
    ledger: LedgerParts
    scratch: Path

    @classmethod
    def of(
        cls, spec: SyncSpec, destination: Destination, addressed: Addressed, log: Log, stored: Stored, scratch: Path
    ) -> _Compared:
        values = unprepared(spec, destination, addressed.rows)
        carries = addressed.keyed is not None and addressed.keyed.former is not None
        at_once = carries or addressed.read_back is not None or not divisible(destination)
        evaluated = Evaluated.of(values.rows, scratch, at_once=at_once)
        division = Division()
        if not at_once:
            division = division_of(destination, max(evaluated.count, stored.count), evaluated.empty.width)
        spilled = evaluated.spilled(scratch / "rows", division, known_by(destination))
        ledger = LedgerParts(stored, division, scratch)
        if names := [name for name in log.segments() if name not in stored.folded]:
            ledger.fold(names, log.parts(names))
        return cls(values, spilled, ledger, scratch)

    def plan(self, comparison: Comparison, current: pl.DataFrame | None) -> SyncPlan:
        """Plan the rows; `current`: what the ledger says, if that is not what is stored."""
        if self.ledger.division.parts > 1:
            return comparison.in_parts(self.rows, self.values, self.ledger, self.scratch)
        rows = prepared(comparison.destination, self.values, self.rows.read(), comparison.salt)
        return comparison.at_once(rows, self.ledger.read() if current is None else current)


class _Refusals:
    """Rows that were refused: the first of them, and how many for each reason."""

    def __init__(self) -> None:
        self.first = pl.DataFrame(schema=_REFUSED)
        self._counts: list[pl.DataFrame] = []

    def add(self, entries: pl.DataFrame) -> None:
        refused = entries.filter(pl.col("status").is_in(["rejected", "invalid"])).select(*_REFUSED)
        if len(refused):
            self.first = pl.concat([self.first, refused]).head(_SAMPLE)
            self._counts.append(refused.group_by("reason").len())

    def by_reason(self) -> dict[str, int]:
        """Return the twenty most frequent reasons."""
        counts = pl.concat(self._counts).group_by("reason").agg(pl.col("len").sum())
        return most_frequent(counts)


@dataclass
class _Run:
    """The steps of one run under a lease."""

    spec: SyncSpec
    destination: Destination
    store: Store
    blank: SyncReport
    key: bytes
    lease: Lease
    wire: Transport
    progress: Callable[[Progress], None] | None

    def __post_init__(self) -> None:
        self.day = self.blank.day
        self.log = Log(self.store, self.spec.folder, self.lease.fence)
        self.started = datetime.now(UTC)
        self.clock = time.monotonic()
        history = runs(self.store, self.spec.folder, last=MEDIAN_OF)
        self.newest_day = cast("date | None", history["newest_day"].max())

    def go(self, rows: pl.LazyFrame | Addressed, *, confirmed: bool, force: bool) -> SyncReport:
        if self.lease.previous is not None:
            mark_killed(self.store, self.spec.folder, self.lease.previous_fence)
        if self.destination.mode is Mode.UPSERT and not force and self.newest_day and self.day < self.newest_day:
            reason = f"{self.newest_day} was delivered already; --force sends the older day"
            return self._recorded(replace(self.blank, status=Status.SUPERSEDED, reason=reason))
        running = replace(self.blank, status="running")  # type: ignore[arg-type]
        write_run(self.store, self.spec.folder, running, self.lease.fence, self.started, self.newest_day)
        try:
            with self._sender() as sender, TemporaryDirectory(prefix=SCRATCH) as folder:
                scratch = Path(folder)
                return self._plan_and_send(sender, rows, confirmed=confirmed, force=force, scratch=scratch)
        except BaseException as error:
            reason = str(error) if isinstance(error, HeapAssetsError) else type(error).__name__
            self._recorded(replace(self.blank, status=Status.STOPPED, reason=reason))
            raise

    def _plan_and_send(
        self, sender: Sender, rows: pl.LazyFrame | Addressed, *, confirmed: bool, force: bool, scratch: Path
    ) -> SyncReport:
        stored = self.log.stored(scratch)
        still_open = sender.resume()
        if sender.stats.stopped:
            ledger = LedgerParts(stored, division_of(self.destination, stored.count), scratch)
            return self._recorded(self._finished(self.blank, sender.stats, self._saved(ledger, scratch)))
        addressed = as_addressed(rows)
        compared = _Compared.of(self.spec, self.destination, addressed, self.log, stored, scratch)
        ledger = compared.ledger
        current: pl.DataFrame | None = None
        if addressed.keyed is not None:
            ledger, current, still_open = self._carry_over(addressed.keyed, ledger, still_open, scratch)
        comparison = Comparison(
            *(self.spec, self.destination, addressed, self.store, self.key, self.day, self.lease.fence, force),
            forgotten(self.store, self.spec.name),
            still_open,
            scratch,
        )
        plan = replace(compared, ledger=ledger).plan(comparison, current)
        report = replace(planned(self.blank, plan, self.key), recovered=plan.recovered)
        if len(plan.set_aside):
            set_aside = plan.set_aside.lazy(self.blank.run_id)
            write_set_aside(self.store, set_aside, self.spec.folder, self.started, self.lease.fence)
        if plan.concerns and not confirmed:
            self._saved(ledger, scratch)
            return self._recorded(replace(report, status=Status.NEEDS_CONFIRMATION, reason="; ".join(plan.concerns)))
        if plan.changes.new_names and report.known and report.planned:
            names_list = ", ".join(plan.changes.new_names)
            _log.warning(
                "sync %s sends properties for the first time, which may create them: %s", self.spec.name, names_list
            )
        if plan.merge is not None:
            save_settled(self.store, self.spec.folder, plan.merge.settled)
        stats = self._send(sender, plan)
        del plan, comparison, compared  # the log is folded in the memory that these took
        return self._recorded(self._finished(report, stats, self._saved(ledger, scratch)))

    def _carry_over(
        self, keyed: KeyedEvents, ledger: LedgerParts, still_open: pl.Series, scratch: Path
    ) -> tuple[LedgerParts, pl.DataFrame | None, pl.Series]:
        """Give the ledger the keys that events have now, beside those they had; former releases still know these.

        While the destination works on events under their former keys, they are the ledger's for this run only.
        """
        if keyed.former is None:
            record_key(self.store, self.spec.folder, keyed.key)
            return ledger, None, still_open
        carried = carried_over(ledger.read(), keyed, forgotten(self.store, self.spec.name), self.key)
        refuse(self.store, self.spec.name, carried.forgotten)
        rows = pl.concat([ledger.read(), carried.ledger]).sort("key")
        if len(still_open):
            now = keyed.former.filter(pl.col("former").is_in(still_open.implode())).collect()["key"]
            return ledger, rows, pl.concat([still_open, now])
        self._saved(ledger, scratch)
        state = self.log.save(ledger.state(rows), compact_after=-1)
        record_key(self.store, self.spec.folder, keyed.key)
        return LedgerParts(Stored.of(state), ledger.division, scratch), None, still_open

    def _sender(self) -> Sender:
        return Sender(
            self.spec,
            self.destination,
            self.log,
            self.lease,
            self.wire,
            run_id=self.blank.run_id,
            day=self.day,
            mapping=self.spec.mapping_version(self.destination.target),
            progress=self.progress,
        )

    def _send(self, sender: Sender, plan: SyncPlan) -> RunStats:
        if not len(plan.rows):
            return sender.stats
        if not plan.respelt:
            return sender.run(plan.rows)
        twin = pl.col(TWIN).fill_null(value=False)
        before = twin & (pl.col("op") == LEAVES)
        stats = sender.run(withdrawn := plan.rows.filter(before))
        left = twin if accepted_rows(stats.outcomes) < len(withdrawn) else before
        within = plan.rows.filter(~left)
        return sender.run(within) if len(within) else stats

    def _saved(self, ledger: LedgerParts, scratch: Path) -> _Refusals:
        """Fold everything new into the ledger and the changelog; returns what of this run was refused."""
        names = [name for name in self.log.segments() if name not in ledger.stored.folded]
        refusals = _Refusals()
        if names:
            changelog = Changelog(self.spec, self.key, scratch if ledger.division.parts > 1 else None)

            def parts() -> Iterator[pl.DataFrame]:
                for entries in self.log.parts(names):
                    changelog.add(entries)
                    refusals.add(entries.filter(pl.col("run_id") == self.blank.run_id))
                    yield entries

            ledger.fold(names, parts())
            changelog.write(self.store, self.started, self.lease.fence)
            ledger.save(self.log, self.spec.compact_after)
        return refusals

    def _finished(self, report: SyncReport, stats: RunStats, refusals: _Refusals) -> SyncReport:
        outcomes = stats.outcomes
        unnamed = stats.unnamed.total()
        accepted = max(accepted_rows(outcomes) - unnamed, 0)
        sample: tuple[tuple[str, str], ...] = ()
        by_reason: dict[str, int] = {}
        if len(first := refusals.first):
            sample = tuple(zip(hashed_keys(first["key"], self.key).to_list(), first["reason"].to_list(), strict=True))
            by_reason = refusals.by_reason()
        report = replace(
            report,
            **{name: getattr(report, name) + outcomes[name] for name in ("invalid", "no_match", "deferred")},
        )
        imperfect = (
            outcomes["rejected"] or unnamed or outcomes["unknown"] or report.invalid or report.waiting or report.lost
        )
        status = Status.STOPPED if stats.stopped else Status.PARTIAL if imperfect else Status.SUCCEEDED
        return replace(
            report,
            status=status,
            reason=stats.stopped,
            sent=accepted,
            rejected=outcomes["rejected"] + unnamed,
            unknown=outcomes["unknown"],
            aborted=report.planned - sum(count for status, count in outcomes.items() if status != "aborted"),
            resumed=stats.resumed,
            requests=stats.requests,
            retried=stats.retried,
            throttled=stats.throttled,
            rejections=dict(Counter(by_reason) + stats.unnamed),
            sample=sample,
        )

    def _recorded(self, report: SyncReport) -> SyncReport:
        report = replace(report, seconds=time.monotonic() - self.clock)
        complete = report.status in (Status.SUCCEEDED, Status.PARTIAL)
        newest = max((d for d in (self.newest_day, self.day if complete else None) if d is not None), default=None)
        write_run(self.store, self.spec.folder, report, self.lease.fence, self.started, newest)
        return report
