"""What changes in live profiles goes to the syncs that are marked `live`, behind the same gate, guard and lease."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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

_GATE_SECONDS = 10.0
_DELIVERED = (Status.SUCCEEDED, Status.PARTIAL)


@dataclass
class LiveSync:
    """One live sync, with the people whose changes wait to be sent."""

    name: str
    sender: LiveSender
    waiting: set[str] = field(default_factory=set)
    """Ids of profiles that are to be sent, or looked for and withdrawn."""
    before: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Their rows as they were when they were sent last."""
    blocked_by: str = ""
    """Why nothing is sent now; empty if the last attempt went out."""
    _gate: tuple[float, str] = (-_GATE_SECONDS, "")

    def queue(self, changed: Changed) -> None:
        """Let changed people wait."""
        for row in changed.before.to_dicts():
            self.before.setdefault(row["profile_id"], row)
        self.waiting |= {*changed.before["profile_id"], *changed.now["profile_id"]}


class LiveDelivery:
    """The live syncs of a deployment."""

    def __init__(self, project: Project, profiles: LiveProfiles) -> None:
        self._project, self._profiles = project, profiles
        names = [name for name, sync in project.settings.sync.items() if sync.live]
        self.syncs = [LiveSync(name, self._sender(name)) for name in names]

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

    def queue(self, changed: Changed) -> None:
        """Let changed people wait for every sync."""
        for sync in self.syncs:
            sync.queue(changed)

    def send(self) -> Iterator[SyncReport]:
        """Send what waits, sync by sync; what cannot be sent goes on waiting, and the sync says why."""
        for sync in self.syncs:
            if not sync.waiting:
                continue
            sync.blocked_by = self._shut(sync)
            if sync.blocked_by:
                continue
            try:
                report = self._send(sync)
            except LeaseHeldError:
                sync.blocked_by = "a run of the sync is sending"
                continue
            if report.status in _DELIVERED:
                sync.waiting.clear()
                sync.before.clear()
            else:
                sync.blocked_by = f"{report.status}: {report.reason or 'no reason is known'}"
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

    def _send(self, sync: LiveSync) -> SyncReport:
        now = self._profiles.rows(sync.waiting)
        before = pl.DataFrame(list(sync.before.values()), schema=now.schema)
        with self._rows(sync.name, before) as rows:
            keys = _keys(rows)
        with self._rows(sync.name, now) as rows:
            return sync.sender.send(rows, pl.concat([keys, _keys(rows)]))

    @contextmanager
    def _rows(self, name: str, profiles: pl.DataFrame) -> Iterator[Rows]:
        """Give the rows that the connector makes of some profiles, as if these were all of the day."""
        with tempfile.TemporaryDirectory(prefix="heap-assets-") as folder:
            lake = Lake(OverlayStore(self._project.lake.store, Path(folder)))
            day = str(self._profiles.day)
            lake.write(PROFILES, day, profiles)
            lake.write(GRAPH, day, _graph_of(profiles))
            connector: Connector[Any] = connector_of(self._project.with_lake(lake), name)
            yield connector.rows_to_send(self._profiles.day)

    def close(self) -> None:
        """Store what senders keep."""
        for sync in self.syncs:
            try:
                sync.sender.close()
            except LeaseHeldError:
                continue  # a run is sending, and folds the log itself


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
    if changed is not None:
        delivery.queue(changed)
    sent = {report.sync: report.sent for report in delivery.send()}
    delivery.close()
    return {
        sync.name: {"sent": sent.get(sync.name, 0), "waiting": len(sync.waiting)}
        | ({"blocked_by": sync.blocked_by} if sync.blocked_by else {})
        for sync in delivery.syncs
    }


def _keys(rows: Rows) -> pl.Series:
    """Return all keys of rows, of held and invalid ones too."""
    if not isinstance(rows, Addressed):
        return rows.select(pl.col("key").cast(pl.String)).collect()["key"]
    parts = (rows.rows, rows.held, rows.invalid)
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
