"""The first run of a sync against a vendor's own host: shown, not sent, until a person says so."""

from __future__ import annotations

import ipaddress
import json
from datetime import date
from urllib.parse import urlsplit

from heap_assets.config import sync as kinds
from heap_assets.pipelines.delivery_destinations import ledger_folder
from heap_assets.pipelines.delivery_tables import Forwarding
from heap_assets.project import Project
from heap_assets.storage import state_keys

_SHOWN = state_keys.FIRST_RUNS


def waits_for_confirmation(project: Project, name: str) -> bool:
    """Say whether nothing was ever sent by a sync and its destination is not on this machine: then it asks first.

    A custom destination is the deployment's own code and is not asked about.
    """
    sync = project.settings.sync[name]
    if isinstance(sync, kinds.Custom) or _is_here(_address(project, name)):
        return False
    return not has_run(project, name)


def ledger_folders(project: Project, name: str) -> list[str]:
    """Return the folders of all ledgers of a sync at the account that it writes to now."""
    sync = project.settings.sync[name]
    if isinstance(sync, kinds.SegmentTrack):
        tables = Forwarding(project, name, sync).tables
        return [ledger_folder(project, name, table) for table in tables] or [name]
    return [ledger_folder(project, name)]


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
    return project.lake.store.exists(_key(project, name))


def remember_shown(project: Project, name: str, day: date) -> None:
    """Write down that the dry run of the first day has been shown."""
    project.lake.store.write(_key(project, name), json.dumps({"day": str(day)}).encode())


def _key(project: Project, name: str) -> str:
    return f"{_SHOWN}/{ledger_folders(project, name)[0]}.json"


def _address(project: Project, name: str) -> str | None:
    sync = project.settings.sync[name]
    if isinstance(sync, kinds.Webhook):
        return sync.url.get_secret_value()
    return project.settings.heap.base_url if sync.vendor == "heap" else getattr(sync, "url", None)


def _is_here(url: str | None) -> bool:
    host = (urlsplit(url).hostname or "") if url else ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
