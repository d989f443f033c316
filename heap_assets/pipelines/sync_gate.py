"""When a sync may send: the gate of its inputs' check results, the days that are due, and the first run's confirmation.

The gate blocks a sync unless the required checks of its inputs passed on their current versions.
"""

from __future__ import annotations

import ipaddress
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from croniter import croniter  # type: ignore[import-untyped]

from heap_assets import clock
from heap_assets.activation import Connector, Requirement, connector_of, runs
from heap_assets.pipelines.readiness import unbuilt_days
from heap_assets.pipelines.suites import required_checks
from heap_assets.profiles import SET_ASIDE
from heap_assets.project import Project
from heap_assets.quality import result_store
from heap_assets.storage import Store, state_keys
from heap_assets.tables import PROFILES, USERS, heap_asset, is_inbox_table, warehouse_asset


def sync_gate(project: Project, name: str, day: date) -> list[str]:
    """Return why nothing at all may be sent of a day; empty if the gate is open.

    A sync that forwards event tables has a gate for each of them instead, see :func:`gated_tables`.
    """
    if project.settings.sync[name].by_table:
        return []
    reasons = (_reasons(project, requirement) for requirement in connector_of(project, name).requirements(day))
    return [*dict.fromkeys(reason for some in reasons for reason in some)]


def _reasons(project: Project, requirement: Requirement | str) -> list[str]:
    if isinstance(requirement, str):
        return [requirement]
    if requirement.asset != PROFILES:
        return table_gate(project, requirement.asset, requirement.day)
    traits = _traits_gate(project, requirement.day, requirement.columns)
    return [*profiles_gate(project, requirement.day), *traits]


def _traits_gate(project: Project, day: str, columns: Iterable[str]) -> list[str]:
    """Return the reasons why columns of profiles are null: traits that could not be made would be cleared if sent.

    An audience depends on the traits that its conditions are on.
    """
    profiles = project.lake.find(PROFILES, day)
    set_aside = profiles.notes.get(SET_ASIDE) if profiles else None
    if not set_aside:
        return []
    needed = {column: {column} for column in columns}
    for audience in project.audiences:
        if audience.name in needed:
            needed[audience.name] |= {trait for trait, _ in audience.traits}
    traits_sent = {trait for traits in needed.values() for trait in traits}
    return [f"{PROFILES} {day}: {why}" for trait, why in sorted(set_aside.items()) if trait in traits_sent]


def gated_tables(project: Project, name: str, day: date) -> dict[str, str]:
    """Return the tables of a sync that forwards event tables whose gate is shut on a day, with the reason."""
    if not project.settings.sync[name].by_table:
        return {}
    unbuilt, connector = unbuilt_days(project), connector_of(project, name)
    unasked = [reason for one in connector.consent_requirements() for reason in _reasons(project, one)]
    shut = {table: [*_table_reasons(project, heap_asset(table), day, unbuilt), *unasked] for table in connector.tables}
    return {table: "; ".join(reasons) for table, reasons in shut.items() if reasons}


def _table_reasons(project: Project, asset: str, day: date, unbuilt: Mapping[str, set[date]]) -> list[str]:
    """Return why a table may not be sent; after a full resync it waits until all of its days are rebuilt."""
    rebuilding = [f"{asset} rebuilds {len(unbuilt[asset])} days"] if asset in unbuilt else []
    return [*rebuilding, *table_gate(project, asset, day)]


def table_gate(project: Project, asset: str, day: date | str) -> list[str]:
    """Return why nothing may be sent from a partition of a table; empty if its blocking checks passed on it."""
    return result_store.gate(project.lake, asset, str(day), required_checks(project, asset))


def profiles_gate(project: Project, day: date | str) -> list[str]:
    """Return why nothing may be sent from a day's profiles.

    Their own blocking checks count, and those of every snapshot that gave them identifiers or traits, on the version
    that the profiles were built from: an emptied CRM table makes valid profiles that withdraw values. Event tables do
    not count: one bad table must not stop everybody's properties.
    """
    return [*table_gate(project, PROFILES, day), *_snapshot_gates(project, day)]


def _snapshot_gates(project: Project, day: date | str) -> Iterator[str]:
    lake = project.lake
    profiles = lake.find(PROFILES, str(day))
    if profiles is None:
        return
    for source, version in profiles.inputs.versions.items():
        asset, _, partition = source.partition("@")
        if not partition or asset not in feeding_snapshots(project):
            continue
        required = required_checks(project, asset)
        current = result_store.partition_version(lake, asset, partition)
        if required and current is not None and current != version:
            yield f"{PROFILES} {day} was built from an older {asset} {partition}: materialize {PROFILES} again"
        elif current is None:
            yield f"{asset} {partition}, which {PROFILES} {day} was built from, is gone"
        else:
            yield from result_store.gate(lake, asset, partition, required)


def feeding_snapshots(project: Project) -> set[str]:
    """Return the snapshot tables that give profiles identifiers or traits."""
    traits = {
        source.partition(".")[0] for trait in project.settings.profiles.traits.values() for source in trait.sources
    }
    feeding = {warehouse_asset(table) for table in traits if table != "users"} | {USERS}
    identifying = {a for a, table in project.snapshot_sources.items() if table.mappings and not is_inbox_table(a)}
    return feeding | identifying


_log = logging.getLogger("heap_assets.delivery")

_LATE_DAYS = 31
"""Days back within which events of Heap that landed late are sent; older days need a backfill."""


@dataclass(frozen=True)
class SentDay:
    """What was last delivered of a day of a table: its version, and the rows without an answer or rejected."""

    version: str
    unfinished: int = 0


def due_days(project: Project, name: str) -> list[date]:
    """Return the days that a scheduled run sends: the newest one, and of Heap's events all that are new."""
    if project.settings.sync[name].by_table:
        return _due_days_of_tables(project, connector_of(project, name))
    newest = newest_day(project, name)
    return [] if newest is None else [newest]


def is_first_of_hour(cron: str, tick: datetime) -> bool:
    """Return whether no earlier tick of a schedule is in the same hour.

    The first one runs whatever is new, so that held and refused rows get their turn.
    """
    before: datetime = croniter(cron, tick).get_prev(datetime)
    return tick - before >= timedelta(hours=1) or before.hour != tick.hour


def has_news(project: Project, name: str, day: date) -> bool:
    """Return whether something that a sync reads by day was written since it last ran, and may be sent.

    Schedules that tick more often than hourly ask it, so that a minute with nothing new starts no run. Of Heap's
    events the due days say so already.
    """
    if project.settings.sync[name].by_table:
        return True
    connector, lake = connector_of(project, name), project.lake
    last = runs(lake.store, connector.ledger_folder(), last=1)
    if not last.height:
        return True
    infos = [lake.store.head(lake.key(asset, str(day))) for asset in connector.read_by_day()]
    written = max((info.last_modified for info in infos if info is not None), default=None)
    return written is not None and written >= last["started_at"][0] and not sync_gate(project, name, day)


def newest_day(project: Project, name: str) -> date | None:
    """Return the newest day for which all inputs that a sync reads by day are built; None if there is none."""
    past = [day for day in built_days(project, name) if day <= str(clock.today())]
    return date.fromisoformat(max(past)) if past else None


def built_days(project: Project, name: str) -> set[str]:
    """Return the days for which all inputs that a sync reads by day are built, of Heap's events at least one table."""
    connector, lake = connector_of(project, name), project.lake
    if project.settings.sync[name].by_table:
        return {day for table in connector.tables for day in lake.partitions(heap_asset(table))}
    return set.intersection(*(set(lake.partitions(asset)) for asset in connector.read_by_day()))


def _due_days_of_tables(project: Project, connector: Connector[Any]) -> list[date]:
    """Return days with a table that changed and may be sent; the newest one even if it may not, to report it."""
    since = connector.since()
    oldest = max(clock.today() - timedelta(days=_LATE_DAYS), since.date() if since else date.min)
    due: dict[str, list[str]] = {}
    for table in connector.tables:
        sent = sent_days(connector, table)
        for day, partition in project.lake.versions(heap_asset(table)).items():
            in_time = str(oldest) <= day <= str(clock.today())
            if in_time and SentDay(connector.version(table, partition)) != sent.get(day):
                due.setdefault(day, []).append(table)
    return sorted(
        date.fromisoformat(day)
        for day, tables in due.items()
        if day == max(due) or any(not table_gate(project, heap_asset(table), day) for table in tables)
    )


def sent_days(connector: Connector[Any], table: str) -> dict[str, SentDay]:
    """Return day to what was last delivered of it, of one event table that is forwarded."""
    prefix = f"{state_keys.SYNC}/{connector.ledger_folder(table)}/days/"
    store = connector.deployment.lake.store
    stored = {info.key.removeprefix(prefix): _sent_day(store, info.key) for info in store.list(prefix)}
    return {day: sent for day, sent in stored.items() if sent is not None}


def _sent_day(store: Store, key: str) -> SentDay | None:
    try:
        return SentDay(**json.loads(store.read(key)))
    except (ValueError, TypeError):
        _log.warning("%s is damaged: the day is due again, and what was sent of it is not sent twice", store.uri(key))
        return None


def remember_day(connector: Connector[Any], table: str, day: date, sent: SentDay) -> None:
    """Store what was delivered of a table's day, so that a later change is noticed."""
    key = f"{state_keys.SYNC}/{connector.ledger_folder(table)}/days/{day}"
    connector.deployment.lake.store.write(key, json.dumps(asdict(sent)).encode())


def waits_for_confirmation(project: Project, name: str) -> bool:
    """Return whether a sync must be confirmed first: it never sent anything, and its destination is on another machine.

    False for a destination whose address only its own code knows.
    """
    address = project.settings.sync[name].called_url(project.settings.heap)
    return address is not None and not _is_this_machine(address) and not has_run(project, name)


def ledger_folders(project: Project, name: str) -> list[str]:
    """Return the folders of all ledgers of a sync at the account that it writes to now."""
    connector = connector_of(project, name)
    return [connector.ledger_folder(table) for table in connector.ledger_tables] or [name]


def has_run(project: Project, name: str) -> bool:
    """Return whether a sync ever ran against the account that it writes to now; dry runs do not count."""
    return any(project.lake.store.list(f"{state_keys.SYNC}/{folder}/runs/") for folder in ledger_folders(project, name))


def confirmation_hint(name: str) -> str:
    """Return how to confirm a run: by command, and in the UI."""
    return (
        f"to send it: `heap-assets sync confirm {name}`, or materialize sync/{name} with `confirm: true` "
        "in the launchpad (shift-click on Materialize)"
    )


def was_shown(project: Project, name: str) -> bool:
    """Return whether the dry run of the first day has been shown, so that it is not repeated each hour."""
    return project.lake.store.exists(_shown_key(project, name))


def remember_shown(project: Project, name: str, day: date) -> None:
    """Store that the dry run of the first day has been shown."""
    project.lake.store.write(_shown_key(project, name), json.dumps({"day": str(day)}).encode())


def _shown_key(project: Project, name: str) -> str:
    return f"{state_keys.FIRST_RUNS}/{ledger_folders(project, name)[0]}.json"


def _is_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
