"""Landing of one dump: its report, the days it touched, check results; and the dumps of the first start."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from heap_assets import clock
from heap_assets.pipelines.suites import thresholds
from heap_assets.project import Project
from heap_assets.quality import (
    CATALOGUE,
    QUOTA,
    TABLES_LANDED,
    CheckResult,
    catalogue_result,
    landing_result,
    quota_result,
)
from heap_assets.sources.heap_connect import DumpReport, Missing, Quota, QuotaStatus, TableState, landed_columns, quota
from heap_assets.storage import state_keys
from heap_assets.tables import DUMPS

_log = logging.getLogger("heap_assets")


@dataclass(frozen=True)
class Landed:
    """The outcome of landing one dump: days to build again with their tables (none after today), and check results."""

    report: DumpReport
    days: Mapping[date, frozenset[str]]
    results: Mapping[str, CheckResult]


def land(project: Project, dump_id: int) -> Landed:
    """Land what a dump still has to land; tables that fail are in the report and in its check result.

    After the days have been reported for building, call `project.landing.confirm(dump_id, report.touched)`.
    """
    report = project.landing.land(project.source(), dump_id, confirm_later=True)
    # the report is the dump's table in the lake: `select * from heap_connect.dumps`
    project.lake.write(DUMPS, str(dump_id), project.landing.reports(dump_id))
    results = {
        TABLES_LANDED: landing_result(report),
        CATALOGUE: _catalogue_result(project, report),
        QUOTA: quota_result(month_quota(project), thresholds(project).quota),
    }
    return Landed(report, _days(report, project.settings.first_day), results)


def month_quota(project: Project) -> Quota:
    """Return the month's use of `heap.quota`, or of the plan's rows."""
    settings = project.settings.heap.quota
    return quota(
        project.landing,
        project.settings.heap.plan,
        clock.now(),
        rows_a_month=settings.rows_a_month,
        count_free_days=settings.count_free_days,
    )


def stopped_by_quota(project: Project) -> Quota | None:
    """Return the quota if no further dump may land this month, else None."""
    if not project.settings.heap.quota.stop:
        return None
    month = month_quota(project)
    return month if month.status is QuotaStatus.REACHED else None


def days_with_early_rows(project: Project, since: date) -> dict[date, frozenset[str]]:
    """Return the days after `since` until today for which dumps brought rows ahead of time, with their tables.

    Heap's rows may be up to 48 hours ahead of the clock (design.md, Time); they wait in landing for their day.
    """
    ahead = [since + timedelta(days=n) for n in range(1, (clock.today() - since).days + 1)]
    if not ahead:
        return {}
    tables = {name: set(project.landing.days(name)) for name in project.event_tables}
    tables_by_day = {day: frozenset(name for name, days in tables.items() if day in days) for day in ahead}
    return {day: names for day, names in tables_by_day.items() if names}


def _days(report: DumpReport, start: date) -> dict[date, frozenset[str]]:
    """Return the days to rebuild; the dump's own day always, so that quiet tables get their empty partition."""
    days: dict[date, set[str]] = {report.day: set()}
    for table, touched in report.touched.items():
        for day in touched:
            days.setdefault(day, set()).add(table)
    return {day: frozenset(tables) for day, tables in days.items() if start <= day <= clock.today()}


def _catalogue_result(project: Project, report: DumpReport) -> CheckResult:
    """Check the dump's tables and columns against the catalogue, except what is accepted automatically."""
    choice = project.settings.heap.tables.accept
    missing = project.catalogue.missing(project.landing)
    first = first_dumps(project) if choice == "first" and missing else None
    if choice == "always" or (first is not None and not first.complete and report.dump_id in first.dumps):
        return catalogue_result([], {})
    landed = {table.table for table in report.landed}
    return catalogue_result(
        [name for name in missing.tables if name in landed],
        {name: columns for name, columns in missing.columns.items() if name in landed},
    )


_KEY = f"{state_keys.CATALOGUE}/first_dumps.json"

Tables = Mapping[str, Iterable[str]]


@dataclass(frozen=True)
class FirstDumps:
    """The dumps that the source listed when a deployment started with an empty catalogue.

    `offered` has table to the columns that were accepted once: one that is removed by hand stays out. `complete` says
    that all of these dumps have landed whole, so that nothing new can come of them.
    """

    dumps: frozenset[int]
    offered: Mapping[str, frozenset[str]]
    complete: bool = False

    def unaccepted(self, missing: Missing) -> Missing:
        """Return what of `missing` was never accepted."""
        columns = {
            table: tuple(name for name in names if name not in self.offered.get(table, ()))
            for table, names in missing.columns.items()
        }
        return Missing(
            {name: names for name, names in missing.tables.items() if name not in self.offered},
            {table: names for table, names in columns.items() if names},
            missing.other_types,
        )


def first_dumps(project: Project) -> FirstDumps | None:
    """Return the dumps of the first start; None if nothing was accepted automatically then, or it is damaged."""
    try:
        return _parsed(project, project.lake.store.read(_KEY))
    except FileNotFoundError:
        return None


def remember(project: Project, dumps: Collection[int], offered: Tables) -> None:
    """Add dumps, and the tables and columns that their manifests list, to the record of the first start.

    Merged with what another process, started at the same time, has stored.
    """

    def _with_these(data: bytes | None) -> bytes:
        first = _parsed(project, data) if data is not None else None
        offered_before = first.offered if first else {}
        columns = {
            name: frozenset(offered.get(name, ())) | offered_before.get(name, frozenset())
            for name in {*offered, *offered_before}
        }
        return _written(FirstDumps(frozenset(dumps) | (first.dumps if first else frozenset()), columns))

    project.lake.store.update(_KEY, _with_these)


def unaccepted_of_first_dumps(project: Project) -> Missing | None:
    """Return the landed tables and columns of the first dumps that were never accepted; None once all dumps landed."""
    first = first_dumps(project)
    if first is None or first.complete:
        return None
    return first.unaccepted(project.catalogue.compare(landed_columns(project.landing, first.dumps)))


def remember_accepted(project: Project, accepted: Tables) -> None:
    """Store what was accepted of the first dumps, and whether all of them have landed whole."""
    landed = _all_landed(project)

    def _updated_record(data: bytes | None) -> bytes | None:
        first = _parsed(project, data) if data is not None else None
        if first is None:
            return None
        offered = dict(first.offered)
        for name, columns in accepted.items():
            offered[name] = offered.get(name, frozenset()) | frozenset(columns)
        return _written(FirstDumps(first.dumps, offered, complete=first.dumps <= landed))

    project.lake.store.update(_KEY, _updated_record)


def _all_landed(project: Project) -> frozenset[int]:
    """Return the dumps of which every selected table has landed."""
    takes = project.landing.config.tables.takes_table
    return frozenset(
        record.dump_id
        for record in project.landing.records().values()
        if record.failure is None
        and not any(takes(name) for name in record.outstanding or ())
        and all(table.state is not TableState.FAILED for name, table in record.tables.items() if takes(name))
    )


def _parsed(project: Project, data: bytes) -> FirstDumps | None:
    try:
        document = json.loads(data)
        offered = {name: frozenset(columns) for name, columns in document["offered"].items()}
        return FirstDumps(frozenset(document["dumps"]), offered, document["complete"])
    except (ValueError, KeyError, TypeError, AttributeError):
        where = project.lake.store.uri(_KEY)
        _log.warning("%s is damaged: nothing more is accepted by itself, `heap-assets catalogue accept` does it", where)
        return None


def _written(first: FirstDumps) -> bytes:
    document = {
        "dumps": sorted(first.dumps),
        "offered": {name: sorted(columns) for name, columns in sorted(first.offered.items())},
        "complete": first.complete,
    }
    return json.dumps(document).encode()
