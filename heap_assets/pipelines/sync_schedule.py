"""When a sync sends: the days that are due, what was sent of them, and whether the first run has to be confirmed."""

from __future__ import annotations

import ipaddress
import json
import logging
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any
from urllib.parse import urlsplit

from heap_assets import clock
from heap_assets.activation import Connector, connector_of
from heap_assets.pipelines.sync_gate import table_gate
from heap_assets.project import Project
from heap_assets.storage import Store, state_keys
from heap_assets.tables import heap_asset

_log = logging.getLogger("heap_assets.delivery")

_LATE_DAYS = 31
"""How far back events of Heap are looked for that landed late; older days are sent by a backfill."""


@dataclass(frozen=True)
class SentDay:
    """What was last delivered of a day of a table: its version, and rows that are still to be answered or taken."""

    version: str
    unfinished: int = 0


def due_days(project: Project, name: str) -> list[date]:
    """Return the days that a scheduled run sends: the newest there is, and of Heap's events all that are new."""
    if project.settings.sync[name].by_table:
        return _due_days_of_tables(project, connector_of(project, name))
    newest = newest_day(project, name)
    return [] if newest is None else [newest]


def newest_day(project: Project, name: str) -> date | None:
    """Return the newest day on which everything that a sync reads by day is there; None if there is none."""
    past = [day for day in built_days(project, name) if day <= str(clock.today())]
    return date.fromisoformat(max(past)) if past else None


def built_days(project: Project, name: str) -> set[str]:
    """Return the days of which everything that a sync reads by day is there, of Heap's events at least one table."""
    connector, lake = connector_of(project, name), project.lake
    if project.settings.sync[name].by_table:
        return {day for table in connector.tables for day in lake.partitions(heap_asset(table))}
    return set.intersection(*(set(lake.partitions(asset)) for asset in connector.read_by_day()))


def _due_days_of_tables(project: Project, connector: Connector[Any]) -> list[date]:
    """Return days with a table that changed and may be sent; the newest one also if it may not, so that it is told."""
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
    """Write down what was delivered of a table's day, so that one that changes later shows."""
    key = f"{state_keys.SYNC}/{connector.ledger_folder(table)}/days/{day}"
    connector.deployment.lake.store.write(key, json.dumps(asdict(sent)).encode())


def waits_for_confirmation(project: Project, name: str) -> bool:
    """Say whether nothing was ever sent by a sync and its destination is not on this machine: then it asks first.

    A destination whose address only its own code knows is not asked about.
    """
    address = project.settings.sync[name].called_url(project.settings.heap)
    return address is not None and not _is_this_machine(address) and not has_run(project, name)


def ledger_folders(project: Project, name: str) -> list[str]:
    """Return the folders of all ledgers of a sync at the account that it writes to now."""
    connector = connector_of(project, name)
    return [connector.ledger_folder(table) for table in connector.ledger_tables] or [name]


def has_run(project: Project, name: str) -> bool:
    """Say whether a sync ever ran against the account that it writes to now; a dry run is none."""
    return any(project.lake.store.list(f"{state_keys.SYNC}/{folder}/runs/") for folder in ledger_folders(project, name))


def how_to_confirm(name: str) -> str:
    """Return the command and the button that send what a run asks about."""
    return (
        f"to send it: `heap-assets sync confirm {name}`, or materialize sync/{name} with `confirm: true` "
        "in the launchpad (shift-click on Materialize)"
    )


def was_shown(project: Project, name: str) -> bool:
    """Say whether what the first run would send has been shown, so that it need not be shown each hour."""
    return project.lake.store.exists(_shown_key(project, name))


def remember_shown(project: Project, name: str, day: date) -> None:
    """Write down that the dry run of the first day has been shown."""
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
