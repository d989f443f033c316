"""The delivery of a sync on a day: rows of the lake to the destination that the settings name, if the gate is open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import date, datetime
from functools import partial
from typing import Any

import polars as pl

from heap_assets.activation import (
    Connector,
    Destination,
    Mode,
    Progress,
    Rows,
    Status,
    SyncReport,
    SyncSpec,
    connector_of,
    deliver,
    dry_run,
    full_resend,
    retry_rejected,
)
from heap_assets.errors import DeliveryError
from heap_assets.pipelines.sync_gate import SentDay, gated_tables, remember_day, sent_days, sync_gate
from heap_assets.pipelines.sync_preflight import refusal as preflight_refusal
from heap_assets.project import Project
from heap_assets.storage import Store
from heap_assets.tables import heap_asset

_DELIVERED = (Status.SUCCEEDED, Status.PARTIAL)
_WORST_FIRST = (
    *(Status.STOPPED, Status.REFUSED, Status.NEEDS_CONFIRMATION, Status.BLOCKED, Status.PARTIAL, Status.SUPERSEDED),
    *(Status.PLANNED, Status.SUCCEEDED),
)
_NOT_ADDED = ("sync", "destination", "run_id", "day", "status", "reason", "full_resend_reason")
_SAMPLE = 10


@dataclass(frozen=True)
class RunOptions:
    """Options of one run."""

    confirmed: bool = False
    """Send although the guard asks for confirmation."""
    force: bool = False
    """Send although a newer day was delivered already."""
    full_resend: bool = False
    """Send every known key again."""
    retry_rejected: bool = False
    """Try rejected rows at once, however often they failed."""
    rejected_since: datetime | None = None
    """Retry only rows that were rejected at this time (UTC) or later."""


@dataclass(frozen=True)
class SyncBatch:
    """The rows for one ledger on one day, read lazily.

    `version` is that of the table's partition under the sync's choices, for a sync that forwards event tables.
    """

    table: str
    spec: SyncSpec
    destination: Destination
    rows: Callable[[], Rows]
    version: str = ""


@dataclass(frozen=True)
class Delivery:
    """The outcome of sending one day of a sync, or of its dry run."""

    day: date
    report: SyncReport
    """The report of the whole sync, added up over `tables`."""
    tables: Mapping[str, SyncReport] = field(default_factory=dict)
    """Event table to its own report, for a sync that forwards event tables."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Table to the reason why its gate is shut."""
    confirmed: int = 0
    """Rows sent earlier that Heap's export shows by now (`heap_identify`)."""
    unchanged_tables: int = 0
    """Event tables whose current version was delivered before; they were not read."""

    @property
    def arrived(self) -> bool:
        """Whether the day has been delivered."""
        return self.report.status in (*_DELIVERED, Status.SUPERSEDED)


def send(
    project: Project,
    name: str,
    day: date,
    run_id: str,
    options: RunOptions | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Delivery:
    """Bring the destination of a sync up to date with a day; nothing is sent while its gate is shut."""
    run_options = options or RunOptions()
    check_options(project, name, run_options)
    store, connector = project.lake.store, connector_of(project, name)
    shut = sync_gate(project, name, day)
    if shut:
        reason = "checks did not pass: " + "; ".join(shut)
        return Delivery(day, SyncReport(name, connector.kind(), run_id, day, Status.BLOCKED, reason))
    if (refusal := preflight_refusal(connector)) is not None:
        return Delivery(day, SyncReport(name, connector.kind(), run_id, day, Status.REFUSED, refusal))
    connector.remember_enabled()
    confirmed = connector.before_sending(run_id)
    left_out = gated_tables(project, name, day)
    reports: dict[str, SyncReport] = {}
    unchanged = 0
    for batch in _batches(connector, day, left_out):
        is_forwarded = batch.table and run_options == RunOptions()
        if is_forwarded and sent_days(connector, batch.table).get(str(day)) == SentDay(batch.version):
            unchanged += 1
            continue
        _maintain(store, batch, run_id, run_options)
        # a destination that refuses says so before its rows are put together
        refused = batch.destination.precondition_error() is not None
        report = deliver(
            batch.spec,
            batch.destination,
            pl.LazyFrame(schema={"key": pl.String}) if refused else batch.rows(),
            store,
            day,
            run_id,
            confirmed=run_options.confirmed,
            force=run_options.force,
            progress=progress,
            allowed=project.allowed_hosts,
        )
        reports[batch.table] = report
        if report.status is Status.STOPPED:
            break
        if batch.table and report.status in _DELIVERED:
            unfinished = report.rejected + report.unknown + report.waiting
            if project.settings.sync[name].before_consent == "send":
                unfinished += report.no_consent  # their people may consent yet
            remember_day(connector, batch.table, day, SentDay(batch.version, unfinished))
    combined = combined_report(name, connector.kind(), run_id, day, reports, left_out)
    return Delivery(day, combined, reports if "" not in reports else {}, left_out, confirmed, unchanged)


def plan(project: Project, name: str, day: date, *, force: bool = False) -> tuple[Delivery, pl.DataFrame]:
    """Return what :func:`send` would do: its reports, and the rows with hashed keys and field names. Writes nothing."""
    left_out = gated_tables(project, name, day)
    reports: dict[str, SyncReport] = {}
    rows = []
    for batch in _batches(connector_of(project, name), day, left_out):
        report, planned = dry_run(batch.spec, batch.destination, batch.rows(), project.lake.store, day, force=force)
        reports[batch.table] = report
        rows.append(planned.with_columns(table=pl.lit(batch.table)) if batch.table else planned)
    kind = project.settings.sync[name].kind
    report = combined_report(name, kind, "dry run", day, reports, left_out, Status.PLANNED)
    shut = sync_gate(project, name, day)
    if shut:
        report = replace(report, reason=f"the gate is shut: {'; '.join(shut)}")
    planned = pl.concat(rows, how="diagonal_relaxed") if rows else pl.DataFrame(schema={"key_hash": pl.String})
    return Delivery(day, report, reports if "" not in reports else {}, left_out), planned


def check_options(project: Project, name: str, options: RunOptions) -> None:
    """Raise DeliveryError for options that do not fit a sync: a full resend of events, which are sent once."""
    if options.full_resend and connector_of(project, name).mode is Mode.INSERT:
        raise DeliveryError(f"sync {name} sends events, each once: there is no full resend of them")


def _batches(connector: Connector[Any], day: date, left_out: Mapping[str, str]) -> Iterator[SyncBatch]:
    for table in connector.ledger_tables:
        if table in left_out:
            continue
        partition = connector.deployment.lake.versions(heap_asset(table))[str(day)] if table else ""
        yield SyncBatch(
            table,
            connector.spec(table, day),
            connector.destination(table),
            partial(connector.rows_to_send, day, table),
            connector.version(table, partition),
        )


def _maintain(store: Store, batch: SyncBatch, run_id: str, options: RunOptions) -> None:
    if options.full_resend:
        full_resend(store, batch.spec, run_id)
    if options.retry_rejected:
        retry_rejected(store, batch.spec, run_id, options.rejected_since)


def combined_report(
    name: str,
    kind: str,
    run_id: str,
    day: date,
    reports: Mapping[str, SyncReport],
    left_out: Mapping[str, str],
    status: Status = Status.SUCCEEDED,
) -> SyncReport:
    """Aggregate the reports of a sync's event tables; a sync without them has one report, which is returned.

    Its status is the worst of them; a table that was left out makes the whole `partial`, all of them `blocked`.
    """
    if "" in reports:
        return reports[""]
    all_reports = list(reports.values())
    worst = min((r.status for r in all_reports), key=_WORST_FIRST.index, default=status)
    if left_out and worst is Status.SUCCEEDED:
        worst = Status.PARTIAL if all_reports else Status.BLOCKED
    reasons = [f"{table}: {r.reason}" for table, r in reports.items() if r.reason]
    reasons += [f"{table} left out: {reason}" for table, reason in left_out.items()]
    facts: dict[str, Any] = {"reason": "; ".join(reasons) or None}
    for field_name in (report_field.name for report_field in fields(SyncReport) if report_field.name not in _NOT_ADDED):
        facts[field_name] = _added(field_name, [getattr(report, field_name) for report in all_reports])
    return SyncReport(name, kind, run_id, day, worst, **{k: v for k, v in facts.items() if v is not None})


def _added(name: str, values: list[Any]) -> Any:
    if not values:
        return None
    if isinstance(values[0], dict):
        counts: Counter[str] = Counter()
        for value in values:
            counts.update(value)
        return dict(counts)
    if isinstance(values[0], tuple):
        distinct = tuple(dict.fromkeys(item for value in values for item in value))
        return distinct[: _SAMPLE if name == "sample" else None]
    return sum(values)
