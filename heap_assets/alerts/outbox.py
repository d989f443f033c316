"""The outbox: an alarm is sent once on change and once on recovery, and is not lost while a channel is down.

The last state of an alarm that was sent is `_alerts/open/<alarm>.json` of the lake's store, shared by all sensors and
kept over restarts; the process that changes it first sends the alarm. Before that, its message is a draft in
`_alerts/outbox/<channel>/`, which becomes a message once its alarms are known to be news, and is deleted when the
channel accepted it; what a channel refuses is retried. A message is sent by the process that claimed it.

Two processes at once send an alarm once. After a kill another process takes over within five minutes and sends what was
claimed and not sent; a kill right after sending sends twice, with one id.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from heap_assets.alerts.channels import Channel, channel_name, send
from heap_assets.alerts.message import Alarm, Kind, Message
from heap_assets.errors import HeapAssetsError
from heap_assets.http_client import ANYWHERE, AllowedHosts
from heap_assets.storage import Store, state_keys

ROOT = state_keys.ALERTS
_OPEN = f"{ROOT}/open"
_OUTBOX = f"{ROOT}/outbox"
_GIVEN_UP = f"{ROOT}/undeliverable"
KEEP_TRYING = timedelta(days=7)
_CLAIM = timedelta(minutes=5)
"""How long a draft, or a message that is being sent, belongs to the process that claimed it; a call takes seconds."""
_PER_TICK = 20
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError)

_log = logging.getLogger("heap_assets.alerts")


@dataclass
class Outbox:
    """Deduplicates alarms and sends changes; a channel that failed is not tried again in the same tick."""

    store: Store
    channels: Sequence[Channel]
    environ: Mapping[str, str]
    allowed: AllowedHosts = ANYWHERE
    """Hosts that may be called."""
    down: dict[str, str] = field(default_factory=dict)

    def send_if_new(self, message: Message) -> int:
        """Send the alarms of a message whose state changed to the channels that subscribe; return how many changed.

        A channel that is down raises nothing: the message waits, and the other channels are alerted.
        """
        new_alarms = self._publish(message)
        self.deliver()
        return new_alarms

    def deliver(self) -> None:
        """Send waiting messages, oldest first; alert the other channels once when one is down, and when it is back."""
        attempted = {channel_name(channel): self._deliver(channel) for channel in self.channels}
        state = [
            Alarm(
                Kind.ALERT_UNDELIVERED,
                name,
                "undelivered",
                rule="Every alert is delivered.",
                detail=self.down.get(name, ""),
                recovered=name not in self.down,
            )
            for name, tried in attempted.items()
            if tried
        ]
        word = "cannot be reached" if self.down else "is back"
        if self._publish(Message(f"An alert channel {word}", tuple(state))):
            for channel in self.channels:
                self._deliver(channel)

    def open_alarms(self) -> list[Alarm]:
        """Return the alarms that were sent and have not recovered."""
        self._forget_ended()
        alarms = [self._last_state(info.key) for info in self.store.list(_OPEN)]
        return [alarm for alarm in alarms if alarm is not None and not alarm.recovered]

    def waiting(self) -> int:
        """Return how many messages wait for a channel."""
        return len(self.store.list(_OUTBOX))

    def _publish(self, message: Message) -> int:
        """Write a message with the news of another one to every channel's outbox; return how many alarms are news."""
        candidates = self._new_alarms(message.alarms)
        if not candidates:
            return 0
        claim = uuid.uuid4().hex
        keys = self._draft(replace(message, alarms=tuple(candidates)), claim)
        new_alarms = [alarm for alarm in candidates if alarm.kind is Kind.ALIVE or self._claim(alarm, claim)]
        for channel, key in keys:
            part = channel.select(replace(message, alarms=tuple(new_alarms)))
            if part is None:
                self.store.delete(key)
            else:
                self.store.update(key, partial(_final, part))
        return len(new_alarms)

    def _new_alarms(self, alarms: Iterable[Alarm]) -> list[Alarm]:
        new_alarms: dict[str, Alarm] = {}
        open_keys = {info.key for info in self.store.list(_OPEN)}  # one listing, for runs with thousands of checks
        for alarm in alarms:
            earlier = self._last_state(_open_key(alarm)) if _open_key(alarm) in open_keys else None
            if (new_alarm := _new(alarm, earlier)) is not None:
                new_alarms[alarm.key] = new_alarm
            elif alarm.recovered:
                new_alarms.pop(alarm.key, None)
        return list(new_alarms.values())

    def _last_state(self, key: str) -> Alarm | None:
        """Return the last state of an alarm that was sent; None if there is none, or its file is damaged."""
        try:
            return self._record(key, self.store.read(key))
        except FileNotFoundError:
            return None

    def _record(self, key: str, data: bytes | None) -> Alarm | None:
        try:
            return _alarm(data) if data is not None else None
        except _DAMAGED:
            _log.warning("%s is damaged: its alarm is sent again", self.store.uri(key))
            return None

    def _claim(self, alarm: Alarm, claim: str) -> bool:
        """Claim an alarm to send it; False if another process has sent it meanwhile."""
        key, is_new = _open_key(alarm), False

        def claim_if_new(data: bytes | None) -> bytes | None:
            nonlocal is_new
            if _claimed_by(data) == claim:  # its own change, whose answer was lost
                return None
            is_new = _new(alarm, self._record(key, data)) is not None
            record = {**asdict(alarm), "kind": alarm.kind.value, "claim": claim}
            return json.dumps(record).encode() if is_new else None

        self.store.update(key, claim_if_new)
        return is_new

    def _forget_ended(self) -> None:
        """Remove alarms that recovered long ago; until then the record shows that the recovery was sent."""
        long_ago = datetime.now(UTC) - KEEP_TRYING
        for info in self.store.list(_OPEN):
            if info.last_modified < long_ago and (alarm := self._last_state(info.key)) is not None and alarm.recovered:
                self.store.delete(info.key)

    def _draft(self, message: Message, claim: str) -> list[tuple[Channel, str]]:
        """Write a draft of a message for every channel that subscribes to it; return the channels and keys."""
        keys = []
        for channel in self.channels:
            part = channel.select(message)
            if part is not None:
                key = f"{_OUTBOX}/{channel_name(channel)}/{part.at:%Y%m%dT%H%M%S%f}-{part.id}.json"
                self.store.write(key, json.dumps({**part.as_json(), "draft": claim, "since": _now()}).encode())
                keys.append((channel, key))
        return keys

    def _deliver(self, channel: Channel) -> bool:
        """Send the waiting messages of one channel; return whether any was tried."""
        name, tried = channel_name(channel), False
        for key in [info.key for info in self.store.list(f"{_OUTBOX}/{name}")][:_PER_TICK]:
            if name in self.down:
                break
            data = self._claim_message(key)
            if data is None:  # another process is sending it; later ones wait, so that no recovery overtakes its alarm
                if self.store.exists(key):
                    break
                continue
            try:
                message = self._message(data)
            except _DAMAGED:
                _log.error("%s is damaged: it is kept under %s", self.store.uri(key), _GIVEN_UP)
                self._give_up(key, data)
                continue
            tried = True
            if datetime.now(UTC) - message.at > KEEP_TRYING:
                self._give_up(key, data)
                continue
            try:
                if message.alarms:
                    send(channel, message, self.environ, self.allowed)
            except HeapAssetsError as error:
                self.down[name] = str(error)
                _log.error("%s; %d messages wait for it", error, self.waiting())
                self.store.write(key, data)
            else:
                self.store.delete(key)
        return tried

    def _claim_message(self, key: str) -> bytes | None:
        """Claim a message, or an abandoned draft, to send it; None if another process has claimed it, or it is gone."""
        claim = uuid.uuid4().hex
        claimed_data: bytes | None = None

        def claim_it(data: bytes | None) -> bytes | None:
            nonlocal claimed_data
            if data is None:
                claimed_data = None
                return None
            try:
                body = json.loads(data)
                if body.get("sending") == claim:
                    return None
                claimed_data = None if _is_recent(body.get("since")) else data
                return json.dumps({**body, "sending": claim, "since": _now()}).encode() if claimed_data else None
            except _DAMAGED:
                claimed_data = data
                return None

        self.store.update(key, claim_it)
        return claimed_data

    def _message(self, data: bytes) -> Message:
        """Read a message; of an abandoned draft only the alarms that its process had claimed."""
        body = json.loads(data)
        message = Message.from_json(body)
        if "draft" not in body:
            return message
        own = [alarm for alarm in message.alarms if self._claim_on(alarm) == body["draft"]]
        return replace(message, alarms=tuple(own))

    def _claim_on(self, alarm: Alarm) -> str:
        try:
            return _claimed_by(self.store.read(_open_key(alarm)))
        except FileNotFoundError:
            return ""

    def _give_up(self, key: str, data: bytes) -> None:
        self.store.write(key.replace(_OUTBOX, _GIVEN_UP, 1), data)
        self.store.delete(key)


def _new(alarm: Alarm, earlier: Alarm | None) -> Alarm | None:
    """Return the alarm as it is to be sent, if it is news after the last state that was sent."""
    wrong = earlier is not None and not earlier.recovered
    if alarm.recovered:
        return replace(alarm, kind=earlier.kind) if earlier is not None and wrong else None
    if earlier is None or not wrong:
        return alarm
    return alarm if earlier.kind is Kind.CHECK_WARNED and alarm.kind is Kind.CHECK_FAILED else None


def _final(message: Message, draft: bytes | None) -> bytes | None:
    """Return the final message in place of a draft, unless another process has taken the draft over."""
    return None if draft is None or "sending" in json.loads(draft) else json.dumps(message.as_json()).encode()


def _open_key(alarm: Alarm) -> str:
    return f"{_OPEN}/{alarm.key}.json"


def _alarm(data: bytes) -> Alarm:
    fields: dict[str, Any] = json.loads(data)
    fields.pop("claim", None)
    return Alarm(**{**fields, "kind": Kind(fields["kind"])})


def _claimed_by(data: bytes | None) -> str:
    """Return the claim in the record of an alarm; empty if there is none, or it is damaged."""
    try:
        return str(json.loads(data or b"{}").get("claim", ""))
    except _DAMAGED:
        return ""


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _is_recent(since: str | None) -> bool:
    """Return whether a claim is still valid; one from a clock that is far ahead is not."""
    return since is not None and abs(datetime.now(UTC) - datetime.fromisoformat(since)) < _CLAIM
