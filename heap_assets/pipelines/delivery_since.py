"""Since when a sync of events sends them: what its settings say, else the day on which it first ran."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time

from heap_assets import clock
from heap_assets.errors import DamagedFileError
from heap_assets.pipelines.delivery_destinations import ledger_folder
from heap_assets.project import Project
from heap_assets.storage import state_keys


def since_of(project: Project, name: str) -> datetime | None:
    """Return the moment before which events are left alone, None if there is none."""
    chosen = getattr(project.settings.sync[name], "since", None)
    if chosen == "beginning":
        return None
    if not isinstance(chosen, date):
        chosen = enabled_on(project, name) or clock.today()
    return datetime.combine(chosen, time.min, UTC)


def enabled_on(project: Project, name: str) -> date | None:
    """Return the day on which a sync first ran for the account that it writes to now, None if it never did."""
    key = _key(ledger_folder(project, name))
    try:
        return date.fromisoformat(json.loads(project.lake.store.read(key))["enabled_on"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFileError(
            f"{project.lake.store.uri(key)} is damaged: write the day on which the sync first ran as "
            f"sync.{name}.since, or delete the file, and events from today on are sent"
        ) from error


def remember_enabled(project: Project, name: str) -> None:
    """Write down that a sync runs from today on, unless that is known.

    The day is that of the account which is written to now: what happened before is no news to another one either.
    """
    document = json.dumps({"enabled_on": clock.today().isoformat()})
    project.lake.store.create(_key(ledger_folder(project, name, claim=True)), document.encode())


def _key(folder: str) -> str:
    return f"{state_keys.SYNC}/{folder}/enabled.json"
