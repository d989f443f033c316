"""What running services say of themselves, each in an object of its own: for checks, which run in other processes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from heap_assets.storage import Store, state_keys

LIVE: Final = f"{state_keys.INBOX}/live"


def write_status(store: Store, service: str, at: datetime, facts: Mapping[str, Any]) -> None:
    """Say how a service does; counts and names only."""
    store.write(f"{LIVE}/{service}.json", json.dumps({"at": at.isoformat(), **facts}).encode())


def remove_status(store: Store, service: str) -> None:
    """Say nothing any more: the service ended by itself."""
    store.delete(f"{LIVE}/{service}.json")
