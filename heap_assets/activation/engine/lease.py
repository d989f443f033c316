"""Leases: one writer per sync and destination, on any object store that has create-if-absent.

Lease number n is the object `_sync/<sync>/lease/<n>.json`. Whoever creates n+1 holds the sync; that is allowed once n
is released, silent for longer than its time, or held by a process of this machine that is dead. The number is the
fencing number that every intent carries.

How long a lease was silent is measured by one clock, that of the store: the time of the lease object, which every
heartbeat writes anew, against the time of an object that is written now. No machine's own clock decides anything.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from heap_assets.errors import DeliveryError
from heap_assets.machine import machine, process_start
from heap_assets.storage import ObjectInfo, Store, state_keys

LIVE = "live-"
"""How the ids of live senders begin, which hold leases for moments: a run waits for them."""
_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.05
_LOG = logging.getLogger(__name__)
_FILES_KEPT = 5
_NUMBERED = re.compile(r"/([0-9]{1,18})\.json$")


class LeaseHeldError(DeliveryError):
    """Somebody else is sending; the message names the run. `by_live`: a live sender, for a moment."""

    by_live = False


class LeaseLostError(DeliveryError):
    """This run was silent for too long and another one took over; it stops sending."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lease."""

    run_id: str
    machine: str
    pid: int
    started: str
    heartbeat: datetime
    ttl: float
    released: bool = False

    def to_json(self) -> bytes:
        return json.dumps({**self.__dict__, "heartbeat": self.heartbeat.isoformat()}).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Holder:
        facts: dict[str, Any] = json.loads(data)
        return cls(**{**facts, "heartbeat": datetime.fromisoformat(facts["heartbeat"])})

    def is_gone(self, silent: Callable[[], timedelta]) -> bool:
        """Tell whether the lease may be taken over."""
        if self.released or (self.machine == machine() and process_start(self.pid) != self.started):
            return True
        return silent() > timedelta(seconds=self.ttl)


class Lease:
    """A held lease. Use as a context manager; it beats by itself and is released at the end.

    `fence`: the fencing number. `previous`: the holder before, if it never released: its run was killed.
    """

    def __init__(self, store: Store, sync: str, run_id: str, ttl: timedelta, margin: float = 0.0) -> None:
        self._store = store
        self._root = f"{state_keys.SYNC}/{sync}/lease"
        self._run_id = run_id
        self._ttl = ttl.total_seconds()
        self._margin = margin
        self._stop = threading.Event()
        self._lost: str | None = None
        self._last_beat = time.monotonic()
        self.fence = 0
        self.previous: Holder | None = None
        self.previous_fence = 0

    def __enter__(self) -> Lease:
        self.fence, self.previous, self.previous_fence = self._acquire_from_live()
        self._thread = threading.Thread(target=self._beat_until_stopped, name=f"lease-{self.fence}", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._lost is None and not self._overtaken():
            self._store.write(self._key(self.fence), self._me(released=True).to_json())

    def check(self) -> None:
        """Make sure that a call begun now ends before the lease can.

        Raises LeaseLostError if another run took over, or this one could not say for too long that it is alive.
        """
        if self._lost is None and time.monotonic() - self._last_beat > self._ttl - self._margin:
            self._lost = "its heartbeat could not be written in time"
        if self._lost is not None:
            raise LeaseLostError(f"{self._root}: run {self._run_id} lost its lease {self.fence}: {self._lost}")

    def _acquire_from_live(self) -> tuple[int, Holder | None, int]:
        """Take the lease; a run waits while a live sender holds it, which is for moments."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return self._acquire()
            except LeaseHeldError as error:
                if self._run_id.startswith(LIVE) or not error.by_live or time.monotonic() > deadline:
                    raise
            time.sleep(_POLL_SECONDS)

    def _acquire(self) -> tuple[int, Holder | None, int]:
        leases = _leases(self._store, self._root)
        number = _number(leases)
        before = self._holder(leases[-1].key, leases[-1].last_modified) if leases else None
        if before is not None and not before.is_gone(lambda: self._now() - leases[-1].last_modified):
            raise self._held_error(before)
        if not self._store.create(self._key(number + 1), self._me().to_json()):
            raise self._held_error(self._holder(self._key(number + 1), datetime.now(UTC)))
        for info in leases[:-_FILES_KEPT]:
            self._store.delete(info.key)
        killed = before if before is not None and not before.released else None
        return number + 1, killed, number

    def _holder(self, key: str, written_at: datetime) -> Holder:
        """Return the holder of a lease; a damaged lease counts as held by an unknown run until it expires."""
        try:
            return Holder.from_json(self._store.read(key))
        except (AttributeError, KeyError, TypeError, ValueError):
            where = self._store.uri(key)
            _LOG.warning("%s is damaged: it counts as held by an unknown run until nobody writes it any more", where)
            return Holder(f"unknown (damaged: {where})", "", 0, "", written_at, self._ttl)

    def _now(self) -> datetime:
        """Return the time by the clock of the store."""
        key = f"{self._root}-clock"
        self._store.write(key, b"")
        info = self._store.head(key)
        return info.last_modified if info else datetime.now(UTC)

    def _held_error(self, holder: Holder) -> LeaseHeldError:
        error = LeaseHeldError(
            f"{self._root}: run {holder.run_id} (process {holder.pid}) is sending since its lease was taken and was "
            f"last heard of at {holder.heartbeat:%Y-%m-%d %H:%M:%S} UTC. Wait for it, or stop it; if it died, its "
            f"lease ends {holder.ttl:.0f} s after that"
        )
        error.by_live = holder.run_id.startswith(LIVE)
        return error

    def _me(self, *, released: bool = False) -> Holder:
        pid = os.getpid()
        now = datetime.now(UTC)
        return Holder(self._run_id, machine(), pid, process_start(pid), now, self._ttl, released)

    def _key(self, number: int) -> str:
        return f"{self._root}/{number:010d}.json"

    def _overtaken(self) -> bool:
        return self._store.exists(self._key(self.fence + 1))

    def _beat_until_stopped(self) -> None:
        while not self._stop.wait(self._ttl / 6):
            try:
                if self._overtaken():
                    self._lost = f"another run holds lease {self.fence + 1}"
                    return
                self._store.write(self._key(self.fence), self._me().to_json())
                self._last_beat = time.monotonic()
            except Exception:  # noqa: S112  whatever the store says, check() stops the sender in time
                continue


def next_fence(store: Store, sync: str) -> int:
    """Return the fencing number that the next lease of a sync will have."""
    return _number(_leases(store, f"{state_keys.SYNC}/{sync}/lease")) + 1


def _leases(store: Store, root: str) -> list[ObjectInfo]:
    return [info for info in store.list(root) if _NUMBERED.search(info.key)]


def _number(leases: list[ObjectInfo]) -> int:
    last = _NUMBERED.search(leases[-1].key) if leases else None
    return int(last[1]) if last else 0
