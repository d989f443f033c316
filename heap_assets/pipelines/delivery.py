"""What a sync sends on a day: rows of the lake, to the destination that the settings name, if the gate is open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime

import polars as pl

from heap_assets.activation import (
    Destination,
    Mode,
    Progress,
    Status,
    SyncReport,
    SyncSpec,
    confirm_identified,
    deliver,
    dry_run,
    full_resend,
    retry_rejected,
)
from heap_assets.config import sync as kinds
from heap_assets.errors import DeliveryError
from heap_assets.pipelines.delivery_destinations import destination_of, spec_of
from heap_assets.pipelines.delivery_due import SentDay, known_days, remember_day
from heap_assets.pipelines.delivery_gate import left_out_tables, sync_gate
from heap_assets.pipelines.delivery_merge import merged
from heap_assets.pipelines.delivery_rows import Rows, newest, newest_users, rows_of
from heap_assets.pipelines.delivery_since import remember_enabled
from heap_assets.pipelines.delivery_tables import Forwarding
from heap_assets.project import Project
from heap_assets.storage import state_keys
from heap_assets.tables import GRAPH, MIGRATIONS, PROFILES, USERS, heap_asset, warehouse_asset

_DELIVERED = (Status.SUCCEEDED, Status.PARTIAL)


@dataclass(frozen=True)
class Choices:
    """What a person may choose for one run.

    Attributes
    ----------
    confirmed
        Send although the guard asks.
    force
        Send although a newer day was delivered already.
    full_resend
        Send every known key again.
    retry_rejected
        Try rejected rows at once, however often they failed.
    rejected_since
        Of those, only the ones that were refused then or later.
    """

    confirmed: bool = False
    force: bool = False
    full_resend: bool = False
    retry_rejected: bool = False
    rejected_since: datetime | None = None

    @property
    def anything(self) -> bool:
        """Whether anything was chosen at all."""
        return self != Choices()


@dataclass(frozen=True)
class Shipment:
    """What goes to one ledger on one day; nothing of it is read before it is asked for."""

    table: str
    spec: SyncSpec
    destination: Destination
    rows: Callable[[], Rows]
    version: str = ""


@dataclass(frozen=True)
class Delivery:
    """What became of a day.

    Attributes
    ----------
    report
        One for the whole sync.
    tables
        Of `segment_track`: a report for each table that was sent.
    left_out
        Table to why its gate is shut; the others went on.
    confirmed
        Of `heap_identify`: joins that Heap's export shows by now.
    unchanged_tables
        Of `segment_track`: tables of which this very version was delivered before; they were not read.
    """

    day: date
    report: SyncReport
    tables: Mapping[str, SyncReport] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    confirmed: int = 0
    unchanged_tables: int = 0

    @property
    def arrived(self) -> bool:
        """Whether the day is with the destination."""
        return self.report.status in (*_DELIVERED, Status.SUPERSEDED)


def send(
    project: Project,
    name: str,
    day: date,
    run_id: str,
    choices: Choices | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Delivery:
    """Bring the destination of a sync up to date with a day; nothing is sent while its gate is shut."""
    chosen = choices or Choices()
    check_choices(project, name, chosen)
    sync, store = project.settings.sync[name], project.lake.store
    shut = sync_gate(project, name, day)
    if shut:
        return Delivery(day, _blocked(project, name, day, run_id, shut))
    remember_enabled(project, name)
    confirmed = _confirm(project, name, run_id) if isinstance(sync, kinds.HeapIdentify) and sync.enabled else 0
    left_out = left_out_tables(project, name, day)
    reports: dict[str, SyncReport] = {}
    unchanged = 0
    for shipment in _shipments(project, name, day, left_out):
        if shipment.table and not chosen.anything and _is_done(project, name, shipment, day):
            unchanged += 1
            continue
        _upkeep(project, shipment, run_id, chosen)
        # a destination that refuses says so before its rows are put together
        refused = shipment.destination.refusal() is not None
        report = deliver(
            shipment.spec,
            shipment.destination,
            _nothing() if refused else shipment.rows(),
            store,
            day,
            run_id,
            confirmed=chosen.confirmed,
            force=chosen.force,
            progress=progress,
        )
        reports[shipment.table] = report
        if report.status is Status.STOPPED:
            break
        if shipment.table and report.status in _DELIVERED:
            unfinished = report.rejected + report.unknown + report.waiting
            remember_day(project, name, shipment.table, day, SentDay(shipment.version, unfinished))
    whole = merged(name, project.settings.sync[name].kind, run_id, day, reports, left_out)
    return Delivery(day, whole, reports if "" not in reports else {}, left_out, confirmed, unchanged)


def plan(project: Project, name: str, day: date, *, force: bool = False) -> tuple[Delivery, pl.DataFrame]:
    """Say what :func:`send` would do: its reports, and the rows with hashed keys and field names. Writes nothing."""
    left_out = left_out_tables(project, name, day)
    reports: dict[str, SyncReport] = {}
    rows = []
    for shipment in _shipments(project, name, day, left_out):
        report, planned = dry_run(
            shipment.spec, shipment.destination, shipment.rows(), project.lake.store, day, force=force
        )
        reports[shipment.table] = report
        rows.append(planned.with_columns(table=pl.lit(shipment.table)) if shipment.table else planned)
    report = merged(name, project.settings.sync[name].kind, "dry run", day, reports, left_out, Status.PLANNED)
    shut = sync_gate(project, name, day)
    if shut:
        report = replace(report, reason=f"the gate is shut: {'; '.join(shut)}")
    planned = pl.concat(rows, how="diagonal_relaxed") if rows else pl.DataFrame(schema={"key_hash": pl.String})
    return Delivery(day, report, reports if "" not in reports else {}, left_out), planned


def check_choices(project: Project, name: str, choices: Choices) -> None:
    """Refuse what makes no sense for a sync before anything is done.

    Raises
    ------
    DeliveryError
        For a full resend of events, which are sent once.
    """
    if choices.full_resend and mode_of(project, name) is Mode.INSERT:
        raise DeliveryError(f"sync {name} sends events, each once: there is no full resend of them")


def inputs_of(project: Project, name: str) -> list[str]:
    """Return the assets that a sync reads."""
    sync = project.settings.sync[name]
    match sync:
        case kinds.SegmentTrack():
            tables = [heap_asset(table) for table in Forwarding(project, name, sync).tables]
            return [*tables, USERS, MIGRATIONS, GRAPH, PROFILES]
        case kinds.SegmentReidentify():
            return [MIGRATIONS, USERS]
        case kinds.HeapIdentify():
            return [PROFILES, GRAPH, USERS, MIGRATIONS]
        case kinds.HeapEvents():
            return [warehouse_asset(sync.source), PROFILES, GRAPH, USERS]
        case kinds.SegmentGroup(member_trait=str()):
            return [warehouse_asset(sync.source), PROFILES]
    own = PROFILES if sync.source == PROFILES else warehouse_asset(sync.source)
    return [own, USERS] if sync.kind in ("heap_user_properties", "segment_identify") else [own]


def ledgers(project: Project, name: str) -> list[SyncSpec]:
    """Return the specs of all ledgers that a sync keeps: one, or one per table of `segment_track`."""
    sync = project.settings.sync[name]
    if not isinstance(sync, kinds.SegmentTrack):
        return [spec_of(project, name)]
    return [spec_of(project, name, table=table) for table in Forwarding(project, name, sync).tables]


def mode_of(project: Project, name: str) -> Mode:
    """Return whether a sync keeps keys up to date or sends each row once."""
    sync = project.settings.sync[name]
    if isinstance(sync, kinds.Custom):
        return destination_of(project, name).mode
    return Mode(sync.mode)


def _shipments(project: Project, name: str, day: date, left_out: Mapping[str, str]) -> Iterator[Shipment]:
    sync = project.settings.sync[name]
    if not isinstance(sync, kinds.SegmentTrack):
        yield Shipment("", spec_of(project, name), destination_of(project, name), lambda: rows_of(project, name, day))
        return
    forwarding = Forwarding(project, name, sync)
    for table in forwarding.tables:
        if table not in left_out:
            yield _shipment_of_table(project, forwarding, table, day)


def _shipment_of_table(project: Project, forwarding: Forwarding, table: str, day: date) -> Shipment:
    name = forwarding.name
    version = forwarding.version(project.lake.versions(heap_asset(table))[str(day)])
    return Shipment(
        table,
        spec_of(project, name, table=table, properties=forwarding.properties(table, day)),
        destination_of(project, name, table=table),
        lambda: forwarding.rows(table, day),
        version,
    )


def _is_done(project: Project, name: str, shipment: Shipment, day: date) -> bool:
    return known_days(project, name, shipment.table).get(str(day)) == SentDay(shipment.version)


def _upkeep(project: Project, shipment: Shipment, run_id: str, choices: Choices) -> None:
    store = project.lake.store
    if choices.full_resend:
        full_resend(store, shipment.spec, run_id)
    if choices.retry_rejected:
        retry_rejected(store, shipment.spec, run_id, choices.rejected_since)


def _confirm(project: Project, name: str, run_id: str) -> int:
    store, spec = project.lake.store, spec_of(project, name)
    if not store.list(f"{state_keys.SYNC}/{spec.folder}/log"):
        return 0
    return confirm_identified(store, spec, newest(project, MIGRATIONS), newest_users(project), run_id)


def _blocked(project: Project, name: str, day: date, run_id: str, shut: list[str]) -> SyncReport:
    reason = "checks did not pass: " + "; ".join(shut)
    return SyncReport(name, project.settings.sync[name].kind, run_id, day, Status.BLOCKED, reason)


def _nothing() -> pl.LazyFrame:
    return pl.LazyFrame(schema={"key": pl.String})
