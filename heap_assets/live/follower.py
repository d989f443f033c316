"""The live loop: what came in becomes changed profiles, and these go out; in a thread beside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import polars as pl

from heap_assets import clock
from heap_assets.activation import SyncReport
from heap_assets.errors import HeapAssetsError, MissingInputError
from heap_assets.live.threads import to_its_end
from heap_assets.pipelines.functions import OpenPools
from heap_assets.pipelines.live_delivery import LiveDelivery, Waiting
from heap_assets.pipelines.live_profiles import Changed, LiveProfiles, base_versions
from heap_assets.project import Project
from heap_assets.sources.inbox import Arrival, Part, message_frames, read_parts, stored_parts
from heap_assets.tables import inbox_asset

_LOG: Final = logging.getLogger("heap_assets.live")
_BASE_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 2.0
_MOST_MESSAGES: Final = 5_000
"""Messages of one step: more wait for the next."""
_LANDING_SECONDS: Final = 15.0
"""So long, beside two rolls of a segment, until what is on disk is in the lake."""
_PATIENCE_SECONDS: Final = 1.0
"""So long syncs wait for each other."""
_SHOWN: Final = 5
_LATENCIES: Final = 10_000

T = TypeVar("T")
Messages = Mapping[str, pl.DataFrame]
"""By the lake asset of their table, as parts have them."""
Watcher = Callable[[Mapping[str, Any]], None]
"""Is told of each step: what came, who it became, what went out; without values."""


@dataclass
class LiveLoop:
    """Follows messages of one service."""

    project: Project
    interval: float
    watcher: Watcher | None = None
    own_writer: str = ""
    """Name of the segments of this service: what others bring into the lake is followed from there."""
    _arrivals: deque[tuple[float, Arrival]] = field(default_factory=deque)
    _recent: deque[tuple[float, Messages]] = field(default_factory=deque)
    """What was applied, and may not be in the lake yet: applied again to a base that is loaded anew."""
    _taken_parts: set[str] = field(default_factory=set)
    _has_peers: bool = False
    _polled_at: float = 0.0
    _waiting_since: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES))
    _latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES))
    _profiles: LiveProfiles | None = None
    _delivery: LiveDelivery | None = None
    _waiting: dict[str, Waiting] = field(default_factory=dict)
    """By sync, what waited when the base was given up."""
    _is_loading: bool = False
    """Whether a base is being loaded, which may not have what comes meanwhile."""
    _checked_at: float = 0.0
    _pools: OpenPools = field(default_factory=OpenPools)
    _is_stopping: bool = False
    state: str = "starting"
    messages: int = 0
    changed: int = 0
    sent: int = 0

    def arrived(self, arrivals: Sequence[Arrival]) -> None:
        """Take what is on disk by now."""
        now = time.monotonic()
        self._arrivals.extend((now, arrival) for arrival in arrivals)
        if self._profiles is None and not self._is_loading:  # the next base reads what is in the lake by then
            self._forget_landed(self._arrivals)

    async def run(self) -> None:
        """Follow until cancelled; then store what is kept."""
        try:
            while True:
                started = time.monotonic()
                pause = await to_its_end(self._guarded_step, self._hurry)
                await asyncio.sleep(max(pause - (time.monotonic() - started), 0.02))
        finally:
            if self._delivery is not None:
                self._delivery.close()
            self._pools.close()

    def _hurry(self) -> None:
        """Let a step that is under way begin no further call to a destination."""
        self._is_stopping = True  # before the delivery is looked at: a step may put another in its place meanwhile
        if self._delivery is not None:
            self._delivery.stop()

    def _guarded_step(self) -> float:
        try:
            self.step()
        except MissingInputError as error:
            self.state, self._profiles = f"waits: {error}", None
            return _RETRY_SECONDS
        except Exception as error:  # whatever it was, what came is on disk: everything is read anew
            self.state, self._profiles = f"starts again after {type(error).__name__}", None
            text = str(error) if isinstance(error, HeapAssetsError) else type(error).__name__
            _LOG.exception("live profiles are loaded anew: %s", text)
            return _RETRY_SECONDS
        return self.interval

    def step(self) -> None:
        """Load the base if it is another, apply what came, send what changed."""
        changed = None
        if self._profiles is None or self._is_outdated():
            self._is_loading = True
            try:
                changed = self._load()
            finally:
                self._is_loading = False
        assert self._profiles is not None
        assert self._delivery is not None
        if time.monotonic() - self._polled_at >= _POLL_SECONDS:
            foreign = self._foreign_messages()
            changed = self._profiles.apply(foreign) if foreign else None
            self._queue(changed, [])
        arrivals = self._taken()
        if arrivals:
            frames = message_frames(arrival.facts for _, arrival in arrivals)
            messages = {inbox_asset(table): rows for table, rows in frames.items()}
            self._recent.append((arrivals[-1][0], messages))
            changed = self._apply(messages, [at for at, _ in arrivals])
            self.messages += sum(len(arrival.messages) for _, arrival in arrivals)
        self._forget_landed(self._recent)
        reports = [] if self._is_stopping else list(self._delivery.send(_PATIENCE_SECONDS))
        self.sent += sum(report.sent for report in reports)
        if not self.queue_length:
            now = time.monotonic()
            self._latencies.extend(now - at for at in self._waiting_since)
            self._waiting_since.clear()
        blocked = {sync.name: sync.blocked_by for sync in self._delivery.syncs if sync.blocked_by}
        self.state = "; ".join(f"{name}: {why}" for name, why in blocked.items()) or "following"
        if self.watcher is not None and (arrivals or reports):
            self.watcher(self._shown([arrival for _, arrival in arrivals], changed, reports))

    def _shown(
        self, arrivals: Sequence[Arrival], changed: Changed | None, reports: Sequence[SyncReport]
    ) -> Mapping[str, Any]:
        """Return what a page shows of a step: counts, names of events and columns, shortened profile ids."""
        names = Counter(
            str(message.get("event") or message.get("table") or "refused") for a in arrivals for message in a.messages
        )
        people = changed_people(changed) if changed is not None else []
        return {
            "time": f"{clock.now():%H:%M:%S}",
            "messages": dict(names.most_common(_SHOWN)),
            "people": people[:_SHOWN],
            "more": max(len(people) - _SHOWN, 0),
            "sent": {report.sync: report.sent for report in reports if report.sent},
            "state": self.state,
            "figures": dict(self.gauges()),
        }

    def _queue(self, changed: Changed | None, times: Sequence[float]) -> None:
        assert self._delivery is not None
        before = self.queue_length
        self._delivery.queue(changed)
        self.changed += len(changed.now) if changed is not None else 0
        if (changed is not None and (len(changed.now) or len(changed.before))) or self.queue_length > before:
            self._waiting_since.extend(times)

    def _load(self) -> Changed | None:
        """Load the newest base, with the messages that are not in it."""
        if self._delivery is not None:
            self._waiting |= self._delivery.close()
        self._profiles = self._delivery = None  # one base at a time is in memory
        self.project = replace(self.project)  # rules, decisions and who was erased are read anew
        self._taken_parts = {part.info.key for part in self._lately_landed()}
        self._profiles = LiveProfiles(self.project, self._pools)
        self._delivery = LiveDelivery(self.project, self._profiles, self._waiting)
        self._waiting, self._checked_at = {}, time.monotonic()
        self._queue(self._profiles.apply(self._profiles.backlog), [])
        self._profiles.backlog = {}
        recent: dict[str, list[pl.DataFrame]] = {}
        for _, messages in self._recent:
            for asset, rows in messages.items():
                recent.setdefault(asset, []).append(rows)
        return self._apply({asset: pl.concat(frames) for asset, frames in recent.items()}, [])

    def _lately_landed(self) -> list[Part]:
        """Return the parts of the running day and the day before that other services wrote, or builds put together."""
        store, days = self.project.lake.store, (clock.newest_complete_day(), clock.today())
        tables = [table.name for table in self.project.message_tables.values()]
        parts = [part for table in tables for day in days for part in stored_parts(store, table, day)]
        return [part for part in parts if not (self.own_writer and part.name.startswith(self.own_writer))]

    def _foreign_messages(self) -> dict[str, pl.DataFrame]:
        """Return messages that other services brought into the lake since this was asked last."""
        self._polled_at = time.monotonic()
        lately = self._lately_landed()
        parts = [part for part in lately if part.info.key not in self._taken_parts]
        self._taken_parts = {part.info.key for part in lately}
        self._has_peers = self._has_peers or not all(part.is_merged for part in parts)
        if not self._has_peers:
            return {}  # what was put together is our own
        by_table: dict[str, list[Part]] = {}
        for part in parts:
            by_table.setdefault(inbox_asset(part.table), []).append(part)
        return {asset: read_parts(self.project.lake.store, of_table).collect() for asset, of_table in by_table.items()}

    def _forget_landed(self, arrivals: deque[tuple[float, T]]) -> None:
        inbox = self.project.settings.inbox
        landing_seconds = _LANDING_SECONDS + 2 * (inbox.roll_seconds if inbox else 0.0)
        with contextlib.suppress(IndexError):  # another thread may take the last one meanwhile
            while arrivals and time.monotonic() - arrivals[0][0] > landing_seconds:
                arrivals.popleft()

    def _apply(self, messages: Messages, times: Sequence[float]) -> Changed | None:
        assert self._profiles is not None
        changed = self._profiles.apply(messages)
        self._queue(changed, times)
        return changed

    def _is_outdated(self) -> bool:
        if time.monotonic() - self._checked_at < _BASE_SECONDS:
            return False
        self._checked_at = time.monotonic()
        assert self._profiles is not None
        return base_versions(self.project) != self._profiles.versions

    def _taken(self) -> list[tuple[float, Arrival]]:
        taken, count = [], 0
        while self._arrivals and count < _MOST_MESSAGES:
            taken.append(self._arrivals.popleft())
            count += len(taken[-1][1].messages)
        return taken

    @property
    def queue_length(self) -> int:
        """People or messages that wait to be sent, of the sync with the most."""
        syncs = self._delivery.syncs if self._delivery is not None else []
        return max((sync.waiting for sync in syncs), default=0)

    def gauges(self) -> Mapping[str, float]:
        """Return figures for the metrics."""
        latencies = pl.Series(list(self._latencies), dtype=pl.Float64)
        shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
        quantiles = {f"latency_seconds_{n}": float(latencies.quantile(q) or 0.0) for n, q in shares.items()}
        return {
            "followed_messages": float(self.messages),
            "changed_profiles": float(self.changed),
            "sent_rows": float(self.sent),
            "queue_length": float(self.queue_length),
            "loaded": float(self._profiles is not None),
            "unapplied_calls": float(len(self._arrivals)),
            **quantiles,
        }


def changed_people(changed: Changed) -> list[dict[str, Any]]:
    """Return who changed, by a shortened profile id, with the names of the columns that did."""
    before = {row["profile_id"]: row for row in changed.before.to_dicts()}
    people = []
    for row in changed.now.to_dicts():
        earlier = before.get(row["profile_id"])
        columns = [name for name, value in row.items() if earlier is not None and earlier.get(name) != value]
        people.append({"profile": row["profile_id"][:8], "new": earlier is None, "changed": columns})
    return people
