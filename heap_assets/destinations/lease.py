"""One writer per sync and destination, on any object store, with nothing but create-if-absent.

Lease number n is the object `_sync/<sync>/lease/<n>.json`. Whoever creates n+1 holds the sync; that is allowed once n
is released, silent for longer than its time, or held by a process of this machine that is dead. The number is the
fencing number that every intent carries.
"""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from heap_assets.errors import DeliveryError
from heap_assets.lake import Store, state_keys
from heap_assets.processes import machine, process_start

_KEPT = 5


class LeaseHeldError(DeliveryError):
    """Somebody else is sending; the message names the run."""


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

    def is_gone(self, now: datetime) -> bool:
        """Tell whether the lease may be taken over."""
        if self.released or now - self.heartbeat > timedelta(seconds=self.ttl):
            return True
        return self.machine == machine() and process_start(self.pid) != self.started


class Lease:
    """A held lease. Use as a context manager; it beats by itself and is released at the end.

    Attributes
    ----------
    fence
        The fencing number.
    previous
        The holder before, if it never released: its run was killed.
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
        self.fence, self.previous, self.previous_fence = self._acquired()
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

        Raises
        ------
        LeaseLostError
            If another run took over, or this one could not say for too long that it is alive.
        """
        if self._lost is None and time.monotonic() - self._last_beat > self._ttl - self._margin:
            self._lost = "its heartbeat could not be written in time"
        if self._lost is not None:
            raise LeaseLostError(f"{self._root}: run {self._run_id} lost its lease {self.fence}: {self._lost}")

    def _acquired(self) -> tuple[int, Holder | None, int]:
        held = [info.key for info in self._store.list(self._root)]
        number = int(held[-1].rsplit("/", 1)[-1].removesuffix(".json")) if held else 0
        before = Holder.from_json(self._store.read(held[-1])) if held else None
        if before is not None and not before.is_gone(datetime.now(UTC)):
            raise self._refused(before)
        if not self._store.create(self._key(number + 1), self._me().to_json()):
            raise self._refused(Holder.from_json(self._store.read(self._key(number + 1))))
        for key in held[:-_KEPT]:
            self._store.delete(key)
        killed = before if before is not None and not before.released else None
        return number + 1, killed, number

    def _refused(self, holder: Holder) -> LeaseHeldError:
        return LeaseHeldError(
            f"{self._root}: run {holder.run_id} (process {holder.pid}) is sending since its lease was taken and was "
            f"last heard of at {holder.heartbeat:%Y-%m-%d %H:%M:%S} UTC. Wait for it, or stop it; if it died, its "
            f"lease ends {holder.ttl:.0f} s after that"
        )

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
