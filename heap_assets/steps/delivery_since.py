"""Since when a sync of events sends them: what its settings say, else the day on which it first ran."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time

from heap_assets import clock
from heap_assets.lake import state_keys
from heap_assets.platform import Platform


def since_of(platform: Platform, name: str) -> datetime | None:
    """Return the moment before which events are left alone, None if there is none."""
    chosen = getattr(platform.settings.sync[name], "since", None)
    if chosen == "beginning":
        return None
    if not isinstance(chosen, date):
        chosen = enabled_on(platform, name) or clock.today()
    return datetime.combine(chosen, time.min, UTC)


def enabled_on(platform: Platform, name: str) -> date | None:
    """Return the day on which a sync first ran, None if it never did."""
    store = platform.lake.store
    if not store.exists(_key(name)):
        return None
    return date.fromisoformat(json.loads(store.read(_key(name)))["enabled_on"])


def remember_enabled(platform: Platform, name: str) -> date:
    """Write down that a sync runs from today on, unless that is known; returns the day that is known."""
    document = json.dumps({"enabled_on": clock.today().isoformat()})
    platform.lake.store.create(_key(name), document.encode())
    return enabled_on(platform, name) or clock.today()


def _key(name: str) -> str:
    return f"{state_keys.SYNC}/{name}/enabled.json"
