"""Daily quotas of an account, counted in the lake: all syncs and processes that write to it draw from one number; and
what its rates count from one process to the next.

`_quotas/<hash of account and quota>/<day>.json` holds how many units of the day are spoken for. A run takes a block of
them ahead, so that few calls wait for the store, and gives back what it did not use; a killed one loses its block.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from time import time as seconds_now
from zoneinfo import ZoneInfo

from heap_assets import clock
from heap_assets.activation.engine.limits import Limits, Quota
from heap_assets.activation.engine.rate_limit import Counted
from heap_assets.errors import DeliveryError
from heap_assets.storage import Store, state_keys

_BLOCKS = 200
"""A block is so many-th a part of a day."""


class QuotaUsedUpError(DeliveryError):
    """The day's calls are used up; the message says until when."""


@dataclass
class _Block:
    """Units that this run has taken of a day."""

    day: str = ""
    left: int = 0


class Quotas:
    """The daily quotas of one account, for the workers of one run. `share`: share of each that is used."""

    def __init__(self, store: Store, account: str, limits: Limits, share: float) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._quotas = [(quota, max(1, int(quota.calls * share)), _Block()) for quota in limits.quotas]
        self._account = limits.shared_by or account

    def take(self, rows: int, label: str = "") -> None:
        """Count one call of a label with so many rows. Raises QuotaUsedUpError if it would be one too many."""
        with self._lock:
            for quota, allowed, block in self._quotas:
                if quota.label not in ("", label):
                    continue
                units = rows if quota.per_row else 1
                day = _now(quota).date().isoformat()
                if block.day != day:
                    block.day, block.left = day, 0
                if block.left < units:
                    block.left += self._reserved(quota, day, allowed, units - block.left)
                block.left -= units

    def close(self) -> None:
        """Give back what was taken and not used."""
        with self._lock:
            for quota, _, block in self._quotas:
                if block.left:
                    self._change(quota, block.day, -block.left)
                    block.left = 0

    def _reserved(self, quota: Quota, day: str, allowed: int, needed: int) -> int:
        """Take a block that has room for what is needed; returns its units."""
        used = self._used(self._key(quota, day))
        block = min(max(needed, allowed // _BLOCKS, 1), allowed - used)
        # others may have taken theirs between the look and the change: then what is needed is given back
        if block >= needed and self._change(quota, day, block) <= allowed:
            return block
        if block >= needed:
            self._change(quota, day, -block)
        midnight = datetime.combine(_now(quota).date() + timedelta(days=1), time(), ZoneInfo(quota.zone))
        unit = quota.unit or ("rows" if quota.per_row else "calls")
        raise QuotaUsedUpError(f"the day's {allowed:,} {unit} are used up until {midnight:%Y-%m-%d %H:%M} {quota.zone}")

    def _change(self, quota: Quota, day: str, units: int) -> int:
        total = 0

        def changed(data: bytes | None) -> bytes:
            nonlocal total
            total = max(0, _units(data) + units)
            return json.dumps({"used": total}).encode()

        self._store.update(self._key(quota, day), changed)
        return total

    def _used(self, key: str) -> int:
        folder = key.rpartition("/")[0]
        for info in self._store.list(folder):
            if info.key < key:  # days that are over
                self._store.delete(info.key)
        return _units(self._store.read(key)) if self._store.exists(key) else 0

    def _key(self, quota: Quota, day: str) -> str:
        facts = f"{self._account}|{quota.zone}|{quota.per_row}" + (f"|{quota.label}" if quota.label else "")
        return f"{state_keys.QUOTAS}/{hashlib.sha256(facts.encode()).hexdigest()[:16]}/{day}.json"


class Windows:
    """What a run has used of the rates of an account, for the run of another process that begins soon after it.

    `_quotas/<hash of account>/windows.json`. A killed run leaves nothing.
    """

    def __init__(self, store: Store, account: str) -> None:
        self._store = store
        self._key = f"{state_keys.QUOTAS}/{hashlib.sha256(account.encode()).hexdigest()[:16]}/windows.json"

    def load(self) -> Counted:
        """Return what still counts."""
        if not self._store.exists(self._key):
            return {}
        try:
            stored = json.loads(self._store.read(self._key))
            past = max(0.0, seconds_now() - float(stored["at"]))
            return {
                str(name): [(float(seconds) - past, int(units)) for seconds, units in counted if seconds > past]
                for name, counted in stored["counted"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError):  # damaged: the destination says when it is too much
            return {}

    def save(self, counted: Counted) -> None:
        """Keep what counts now."""
        if counted:
            self._store.write(self._key, json.dumps({"at": seconds_now(), "counted": counted}).encode())


def _now(quota: Quota) -> datetime:
    return clock.now().astimezone(ZoneInfo(quota.zone))


def _units(data: bytes | None) -> int:
    return int(json.loads(data)["used"]) if data else 0
