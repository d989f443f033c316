"""The checks of a sync: its settings against the deployment, and the results of its run on a day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import polars as pl

from heap_assets import clock
from heap_assets.activation import Log, Status, connector_of, newest_users
from heap_assets.config import SyncSettings
from heap_assets.errors import SettingsError, did_you_mean
from heap_assets.pipelines.consent import consent_result
from heap_assets.pipelines.delivery import Delivery
from heap_assets.pipelines.suites import thresholds
from heap_assets.project import Project, table_columns
from heap_assets.quality import (
    API_VERSION_LIVES,
    CONSENTED,
    DELIVERED,
    NOTHING_LOST,
    Check,
    CheckResult,
    StoredResult,
    Thresholds,
    api_version_check,
    api_version_lives,
    checks_for_sync,
    consent_check,
    nothing_lost,
    nothing_lost_check,
    record_check,
    sync_results,
)
from heap_assets.sources.warehouse import Shape, WarehouseError
from heap_assets.tables import is_inbox_table, is_model, sync_asset

ONE_ROW_PER_KEY = "one_row_per_key"
_TWICE = ("two profiles have this key", "two rows have this key")


def sync_checks(project: Project, name: str) -> list[Check]:
    """Return the checks of one sync; its own `max_rejected` overrides `checks.sync_rejected`."""
    sync, asset = project.settings.sync[name], sync_asset(name)
    not_meant = set() if sync.writes_heap_users else {"no_ghost_users"}
    checks = [check for check in checks_for_sync(asset, _thresholds(project, sync)) if check.name not in not_meant]
    twice = Check(
        asset,
        ONE_ROW_PER_KEY,
        "No two rows of the day write to one key of the destination.",
        remedy="neither is sent: `heap-assets explain` says why two profiles have one identity.",
    )
    lasting = [api_version_check(asset)] if sync.api_end is not None else []
    once = [nothing_lost_check(asset)] if connector_of(project, name).dedupe.kind != "natural" else []
    consented = [consent_check(asset, sync.purpose)] if sync.purpose else []
    return [*checks, twice, *once, *consented, *lasting]


def results_of(project: Project, name: str, delivery: Delivery) -> dict[str, CheckResult]:
    """Return the check results of a delivery."""
    sync, report = project.settings.sync[name], delivery.report
    left_out = "; ".join(f"{table}: {reason}" for table, reason in delivery.left_out.items())
    tables: dict[str, pl.LazyFrame] = {}
    if sync.writes_heap_users:
        tables["ledger"], tables["users"] = sent_and_exported(project, name)
    stopped = f"left out {left_out}" if left_out and delivery.arrived else None
    until = connector_of(project, name).populating_until
    results = sync_results(report, _thresholds(project, sync), stopped=stopped, populating_until=until, **tables)
    clashes = sum(report.invalid_reasons.get(reason, 0) for reason in _TWICE)
    results[ONE_ROW_PER_KEY] = CheckResult(clashes == 0, {"rows_with_a_key_twice": clashes})
    if connector_of(project, name).dedupe.kind != "natural":
        results[NOTHING_LOST] = nothing_lost(report.lost)
    if sync.api_end is not None:
        results[API_VERSION_LIVES] = api_version_lives(sync.api_end, clock.today())
    if report.status in (Status.BLOCKED, Status.REFUSED):
        return {DELIVERED: results[DELIVERED]}
    ledgers = [*delivery.tables] if sync.by_table else [""]
    if sync.purpose and ledgers:
        results[CONSENTED] = consent_result(project, name, delivery.day, report.run_id, ledgers)
    return results


def sent_and_exported(project: Project, name: str) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    """Return the keys that the destination of a sync has acknowledged, and the users that Heap exports."""
    ledger = Log(project.lake.store, connector_of(project, name).ledger_folder()).ledger().frame
    return ledger.lazy().filter(pl.col("status") == "acknowledged").select("key"), newest_users(project)


def superseded_result(newer_day: str) -> Mapping[str, CheckResult]:
    """Return the result of a day that a newer one of the same run has superseded."""
    return {DELIVERED: CheckResult(passed=True, notes={"superseded_by": newer_day})}


def undelivered_result(reason: str) -> Mapping[str, CheckResult]:
    """Return the result of a day whose delivery ended with an error."""
    return {DELIVERED: CheckResult(passed=False, notes={"reason": reason})}


def record_results(
    project: Project, name: str, day: str, results: Mapping[str, CheckResult], run_id: str
) -> list[tuple[Check, StoredResult]]:
    """Store the results of a delivery that no run of Dagster made; returns them with their checks."""

    def _record(check: Check) -> StoredResult:
        return record_check(project.lake.store, check, results[check.name], partition=day, version=None, run_id=run_id)

    return [(check, _record(check)) for check in sync_checks(project, name) if check.name in results]


def _thresholds(project: Project, sync: SyncSettings) -> Thresholds:
    common = thresholds(project)
    return common if sync.max_rejected is None else replace(common, sync_rejected=sync.max_rejected)


def check_syncs(project: Project) -> None:
    """Check what syncs name against the warehouse, the catalogue and tracking plans.

    Raises SettingsError, naming the key of the first mistake.
    """
    tables = project.settings.source_tables
    for name, sync in project.settings.sync.items():
        if sync.purpose and sync.is_of_events and sync.before_consent == "leave":
            _check_times(project, name, sync)
        if sync.source in tables and not is_model(sync.source):
            _check_columns(project, name, sync, tables[sync.source].relation)
        connector_of(project, name).check()


def _check_times(project: Project, name: str, sync: SyncSettings) -> None:
    """Refuse a sync of events that cannot tell whether its people had consented when they happened."""
    otherwise = f"or set sync.{name}.before_consent: send"
    for number, source in enumerate(project.settings.privacy.consent.sources):
        if source.at is None and (source.purpose is not None or sync.purpose in source.columns):
            raise SettingsError(
                f"sync.{name}.purpose: privacy.consent.sources[{number}] does not say when people consented: name the "
                f"column with the time of the answer as its `at`, {otherwise}"
            )
    table = project.settings.sync_tables.get(sync.source)
    if table is not None and table.created_at is None and getattr(sync, "timestamp_column", None) is None:
        raise SettingsError(
            f"sync.{name}.purpose: events of {sync.source} have no time to compare with that of their people's "
            f"consent: name timestamp_column, {otherwise}"
        )


def unknown_destinations(project: Project, *, make: bool = False) -> dict[str, str]:
    """Return the syncs whose destination is not installed, with the reason; other syncs are not affected.

    With `make` the destination of each is created too, which runs code of its package.
    """
    reasons = {name: connector_of(project, name).unavailable(make=make) for name in project.settings.sync}
    return {name: f"sync.{name}: {reason}" for name, reason in reasons.items() if reason is not None}


def _check_columns(project: Project, name: str, sync: SyncSettings, relation: str) -> None:
    if project.settings.inbox is not None and is_inbox_table(sync.source):
        columns = table_columns(project.settings.inbox, project.settings.functions, sync.source)
        for key, column in sync.named_columns():
            if column not in columns:
                raise SettingsError(
                    f"sync.{name}.{key} is {column!r}, but {sync.source} has no such column. "
                    f"Columns: {', '.join(columns)}.{did_you_mean(column, columns)}"
                )
        return
    existing = project.warehouse_of(sync.source).columns(relation)
    shape = Shape.of(existing, project.mapped_columns(sync.source), relation)
    for key, column in sync.named_columns():
        try:
            shape = shape.spelling(column, relation)
        except WarehouseError as error:
            raise SettingsError(f"sync.{name}.{key} is {column!r}: {error}") from error
