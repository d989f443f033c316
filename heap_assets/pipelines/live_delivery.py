"""What changes in live profiles goes to the syncs that are marked `live`, behind the same gate, guard and lease."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import polars as pl

from heap_assets.activation import (
    Addressed,
    Connector,
    LeaseHeldError,
    LiveSender,
    Rows,
    Status,
    SyncReport,
    connector_of,
    live_run_id,
)
from heap_assets.identity import GRAPH as GRAPH_SCHEMA
from heap_assets.pipelines.live_profiles import Changed, LiveProfiles
from heap_assets.pipelines.sync_gate import sync_gate, waits_for_confirmation
from heap_assets.pipelines.sync_preflight import refusal as preflight_refusal
from heap_assets.project import Project
from heap_assets.storage import Lake, OverlayStore
from heap_assets.tables import GRAPH, PROFILES

_LOG: Final = logging.getLogger("heap_assets.live")
_GATE_SECONDS: Final = 10.0
_MOST_MESSAGES: Final = 100_000
"""Of a sync that cannot send: more are left to its next run, which reads them from the lake."""
_DELIVERED = (Status.SUCCEEDED, Status.PARTIAL)


@dataclass
class Waiting:
    """What of a sync is to be sent: people who changed, or messages that came.

    `people`: ids of profiles that are to be sent, or looked for and withdrawn; `before`: their rows as they were when
    they were sent last.
    """

    people: set[str] = field(default_factory=set)
    before: dict[str, dict[str, Any]] = field(default_factory=dict)
    messages: list[pl.DataFrame] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.people) + sum(map(len, self.messages))

    def followed_by(self, later: Waiting) -> Waiting:
        """Return both together; of a person who is in both, the earlier row is what was sent last."""
        return Waiting(self.people | later.people, {**later.before, **self.before}, [*self.messages, *later.messages])


@dataclass
class LiveSync:
    """One live sync, with what waits to be sent and what is being sent in a thread of its own."""

    name: str
    sender: LiveSender
    source: str
    blocked_by: str = ""
    """Why nothing is sent now; empty if the last attempt went out."""
    queued: Waiting = field(default_factory=Waiting)
    sending: Waiting = field(default_factory=Waiting)
    call: Future[SyncReport] | None = None
    """The send of `sending` that is under way."""
    is_slow: bool = False
    """Whether the last send took longer than the others were to wait."""
    _gate: tuple[float, str] = (-_GATE_SECONDS, "")

    @property
    def is_of_events(self) -> bool:
        """Whether it sends messages, each once, rather than people."""
        return self.source != PROFILES

    @property
    def waiting(self) -> int:
        """How many people or messages wait, or are being sent."""
        return len(self.queued) + len(self.sending)

    def queue(self, changed: Changed | None, posted: Mapping[str, pl.DataFrame]) -> None:
        """Let people who changed wait, or messages that came."""
        if self.is_of_events:
            if self.source in posted:
                self.queued.messages.append(posted[self.source])
            if len(self.queued) > _MOST_MESSAGES:
                why = self.blocked_by or "they came too fast"
                _LOG.warning("sync %s: %d messages are left to its next run (%s)", self.name, len(self.queued), why)
                self.queued = Waiting()
            return
        if changed is not None:
            for row in changed.before.to_dicts():
                self.queued.before.setdefault(row["profile_id"], row)
            self.queued.people |= {*changed.before["profile_id"], *changed.now["profile_id"]}

    def ended(self) -> SyncReport | None:
        """Take in what became of the send under way; what did not go out waits again. None if a run was sending."""
        assert self.call is not None
        call, sending = self.call, self.sending
        self.call, self.sending = None, Waiting()
        report, self.blocked_by = None, "the last send failed"
        try:
            report = call.result()
            delivered = report.status in _DELIVERED
            self.blocked_by = "" if delivered else f"{report.status}: {report.reason or 'no reason is known'}"
        except LeaseHeldError:
            self.blocked_by = "a run of the sync is sending"
        finally:
            if self.blocked_by:
                self.queued = sending.followed_by(self.queued)
        return report


class LiveDelivery:
    """The live syncs of a deployment.

    `waiting`: by sync, what waited with another base.
    """

    def __init__(self, project: Project, profiles: LiveProfiles, waiting: Mapping[str, Waiting] | None = None) -> None:
        self._project, self._profiles = project, profiles
        live = {name: sync.source for name, sync in project.settings.sync.items() if sync.live}
        self.syncs = [LiveSync(name, self._sender(name), source) for name, source in live.items()]
        self._threads = ThreadPoolExecutor(max(len(live), 1), thread_name_prefix="live-sync")
        for sync in self.syncs:
            sync.queued = (waiting or {}).get(sync.name, sync.queued)

    def _sender(self, name: str) -> LiveSender:
        connector, project = connector_of(self._project, name), self._project
        return LiveSender(
            connector.spec("", self._profiles.day),
            connector.destination(),
            project.lake.store,
            self._profiles.day,
            live_run_id(name),
            project.allowed_hosts,
        )

    def queue(self, changed: Changed | None) -> None:
        """Let changed people, and the messages that came, wait for every sync."""
        posted = self._profiles.posted()
        for sync in self.syncs:
            sync.queue(changed, posted)

    def send(self, patience: float | None = None) -> Iterator[SyncReport]:
        """Send what waits, each sync in a thread of its own.

        What cannot be sent goes on waiting, and the sync says why. Syncs wait for each other at most `patience`
        seconds: one that is throttled or away goes on by itself, and its report comes with a later call.
        """
        for sync in self.syncs:
            if sync.call is None and sync.waiting:
                sync.blocked_by = self._shut(sync)
                if not sync.blocked_by:
                    self._begin(sync)
        calls = [sync.call for sync in self.syncs if sync.call is not None and not (patience and sync.is_slow)]
        wait(calls, timeout=None if len(self.syncs) == 1 else patience)
        for sync in self.syncs:
            if sync.call is not None:
                sync.is_slow = not sync.call.done()
                if not sync.is_slow and (report := sync.ended()) is not None:
                    yield report

    def _shut(self, sync: LiveSync) -> str:
        """Return why nothing may be sent: checks of the newest built day, or a first run that nobody confirmed."""
        at, reason = sync._gate
        if time.monotonic() - at < _GATE_SECONDS:
            return reason
        name, day = sync.name, self._profiles.day
        shut = sync_gate(self._project, name, day)
        reason = f"checks did not pass: {'; '.join(shut)}" if shut else ""
        if not reason and waits_for_confirmation(self._project, name):
            reason = "its first run waits for a confirmation"
        if not reason and (refusal := preflight_refusal(connector_of(self._project, name))) is not None:
            reason = refusal
        if not reason:
            connector_of(self._project, name).remember_enabled()
        sync._gate = (time.monotonic(), reason)
        return reason

    def _begin(self, sync: LiveSync) -> None:
        """Begin to send what waits, as it is now: profiles go on changing meanwhile."""
        waiting = sync.queued
        if sync.is_of_events:
            messages = pl.concat(waiting.messages).unique("message_id", keep="first", maintain_order=True)
            people, graph = self._profiles.people_of(sync.source, messages)
            sync.call = self._threads.submit(self._send_messages, sync, messages, people, graph)
        else:
            now = self._profiles.rows(waiting.people)
            before = pl.DataFrame(list(waiting.before.values()), schema=now.schema)
            sync.call = self._threads.submit(self._send_people, sync, before, now)
        sync.sending, sync.queued = waiting, Waiting()

    def _send_people(self, sync: LiveSync, before: pl.DataFrame, now: pl.DataFrame) -> SyncReport:
        with self._rows(sync.name, before, _graph_of(before)) as rows:
            keys = _keys(rows, "key")
        with self._rows(sync.name, now, _graph_of(now)) as rows:
            return sync.sender.send(rows, pl.concat([keys, _keys(rows, "key")]))

    def _send_messages(
        self, sync: LiveSync, messages: pl.DataFrame, people: pl.DataFrame, graph: pl.DataFrame
    ) -> SyncReport:
        """Send messages to the people whose they are now; those of nobody yet are left to a run of the sync."""
        with self._rows(sync.name, people, graph, {sync.source: messages}) as rows:
            return sync.sender.send(rows, _keys(rows, "event_key"))

    @contextmanager
    def _rows(
        self, name: str, profiles: pl.DataFrame, graph: pl.DataFrame, posted: Mapping[str, pl.DataFrame] | None = None
    ) -> Iterator[Rows]:
        """Give the rows that the connector makes of people and messages, as if these were all of the day."""
        with tempfile.TemporaryDirectory(prefix="heap-assets-") as folder:
            store = OverlayStore(self._project.lake.store, Path(folder), [f"{asset}/" for asset in posted or ()])
            lake = Lake(store)
            day = str(self._profiles.day)
            lake.write(PROFILES, day, profiles)
            lake.write(GRAPH, day, graph)
            for asset, messages in (posted or {}).items():
                lake.write(asset, day, messages)
            connector: Connector[Any] = connector_of(self._project.with_lake(lake), name)
            yield connector.rows_to_send(self._profiles.day)

    def stop(self) -> None:
        """Let no further call begin; those under way end."""
        for sync in self.syncs:
            sync.sender.stop()

    def close(self) -> dict[str, Waiting]:
        """Wait for calls under way, and store what senders keep; returns what did not go out, by sync."""
        self.stop()
        self._threads.shutdown()
        for sync in self.syncs:
            try:
                if sync.call is not None:
                    sync.ended()
                sync.sender.close()
            except LeaseHeldError:
                continue  # a run is sending, and folds the log itself
        return {sync.name: sync.queued for sync in self.syncs}


def follow_once(project: Project) -> dict[str, dict[str, Any]]:
    """Apply the messages that the newest day does not have, and send what they changed: a micro-batch.

    Returns sync to `sent`, `waiting` and, where something waits, `blocked_by`.

    Raises
    ------
    MissingInputError
        If there is no day of profiles yet.
    """
    profiles = LiveProfiles(project)
    delivery = LiveDelivery(project, profiles)
    changed = profiles.apply(profiles.backlog)
    delivery.queue(changed)
    sent = {report.sync: report.sent for report in delivery.send()}
    delivery.close()
    return {
        sync.name: {"sent": sent.get(sync.name, 0), "waiting": sync.waiting}
        | ({"blocked_by": sync.blocked_by} if sync.blocked_by else {})
        for sync in delivery.syncs
    }


def _keys(rows: Rows, column: str) -> pl.Series:
    """Return all keys of rows, of held and invalid ones too."""
    if not isinstance(rows, Addressed):
        return rows.select(pl.col(column).cast(pl.String).alias("key")).collect()["key"]
    parts = (rows.rows.select(key=column), rows.held, rows.invalid)
    return pl.concat([part.select(pl.col("key").cast(pl.String)).collect()["key"] for part in parts])


def _graph_of(profiles: pl.DataFrame) -> pl.DataFrame:
    """Return the graph of some profiles, without times."""
    named = profiles.select("profile_id", "identifiers").explode("identifiers").drop_nulls("identifiers")
    fields = named.select(
        identifier_type=pl.col("identifiers").struct.field("type"),
        identifier=pl.col("identifiers").struct.field("value"),
        profile_id="profile_id",
        shared=pl.lit(value=False),
    )
    return fields.select(
        (pl.col(name) if name in fields.columns else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in GRAPH_SCHEMA.items()
    )
