"""Told once on change and once on recovery, and not lost when a channel is down. No Dagster here.

What was told last of an alarm stands in `_alerts/open/<alarm>.json` of the lake's store, for all sensors and a
restarted daemon; whoever changes it first is the one to tell. Before that its message is a draft in
`_alerts/outbox/<channel>/`, which becomes a message once its alarms are known to be news, and is deleted when the
channel took it; what a channel refuses waits there and is tried again. A message is sent by who has claimed it.

Two at once tell an alarm once. Who is killed is followed by another after five minutes, who tells what was claimed and
not told; a kill right after sending sends twice, with one id.
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
from heap_assets.storage import Store, state_keys

ROOT = state_keys.ALERTS
_OPEN = f"{ROOT}/open"
_OUTBOX = f"{ROOT}/outbox"
_GIVEN_UP = f"{ROOT}/undeliverable"
KEEP_TRYING = timedelta(days=7)
_CLAIM = timedelta(minutes=5)
"""How long a draft, or a message that is being sent, is left to who began with it; calls to channels take seconds."""
_PER_TICK = 20
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError)

_log = logging.getLogger("heap_assets.alerts")


@dataclass
class Outbox:
    """Decides what is news, and sends it; at most one attempt a channel and tick once it has failed."""

    store: Store
    channels: Sequence[Channel]
    environ: Mapping[str, str]
    down: dict[str, str] = field(default_factory=dict)

    def tell(self, message: Message) -> int:
        """Send what is new in a message to every channel that wants it; return how many alarms were news.

        Nothing is raised for a channel that is down: the message waits, and the other channels are told.
        """
        news = self._tell(message)
        self.deliver()
        return news

    def deliver(self) -> None:
        """Send what waits, oldest first; tell the other channels once about one that is down, and when it is back."""
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
        if self._tell(Message(f"An alert channel {word}", tuple(state))):
            for channel in self.channels:
                self._deliver(channel)

    def open_alarms(self) -> list[Alarm]:
        """Return what has been told as wrong and not yet as right again."""
        self._forget_ended()
        alarms = [self._told(info.key) for info in self.store.list(_OPEN)]
        return [alarm for alarm in alarms if alarm is not None and not alarm.recovered]

    def waiting(self) -> int:
        """Return how many messages wait for a channel."""
        return len(self.store.list(_OUTBOX))

    def _tell(self, message: Message) -> int:
        """Make a message of what is news in another one, for every channel; return how many alarms are."""
        candidates = self._news(message.alarms)
        if not candidates:
            return 0
        claim = uuid.uuid4().hex
        keys = self._draft(replace(message, alarms=tuple(candidates)), claim)
        news = [alarm for alarm in candidates if alarm.kind is Kind.ALIVE or self._claim(alarm, claim)]
        for channel, key in keys:
            part = channel.select(replace(message, alarms=tuple(news)))
            if part is None:
                self.store.delete(key)
            else:
                self.store.update(key, partial(_final, part))
        return len(news)

    def _news(self, alarms: Iterable[Alarm]) -> list[Alarm]:
        news: dict[str, Alarm] = {}
        known = {info.key for info in self.store.list(_OPEN)}  # one listing, for runs with thousands of checks
        for alarm in alarms:
            earlier = self._told(_open_key(alarm)) if _open_key(alarm) in known else None
            if (told := _new(alarm, earlier)) is not None:
                news[alarm.key] = told
            elif alarm.recovered:
                news.pop(alarm.key, None)
        return list(news.values())

    def _told(self, key: str) -> Alarm | None:
        """Return what was told last of an alarm; None if nothing was, or its file is damaged."""
        try:
            return self._record(key, self.store.read(key))
        except FileNotFoundError:
            return None

    def _record(self, key: str, data: bytes | None) -> Alarm | None:
        try:
            return _alarm(data) if data is not None else None
        except _DAMAGED:
            _log.warning("%s is damaged: what it told of is told again", self.store.uri(key))
            return None

    def _claim(self, alarm: Alarm, claim: str) -> bool:
        """Take it on to tell an alarm; False if somebody else has told it since it was news."""
        key, taken = _open_key(alarm), False

        def told(data: bytes | None) -> bytes | None:
            nonlocal taken
            if _claimed_by(data) == claim:  # its own change, whose answer was lost
                return None
            taken = _new(alarm, self._record(key, data)) is not None
            record = {**asdict(alarm), "kind": alarm.kind.value, "claim": claim}
            return json.dumps(record).encode() if taken else None

        self.store.update(key, told)
        return taken

    def _forget_ended(self) -> None:
        """Remove what was told as right again long ago: until then it says that this was told."""
        long_ago = datetime.now(UTC) - KEEP_TRYING
        for info in self.store.list(_OPEN):
            if info.last_modified < long_ago and (alarm := self._told(info.key)) is not None and alarm.recovered:
                self.store.delete(info.key)

    def _draft(self, message: Message, claim: str) -> list[tuple[Channel, str]]:
        """Write a message for every channel that wants it, not to be sent yet; return where."""
        keys = []
        for channel in self.channels:
            part = channel.select(message)
            if part is not None:
                key = f"{_OUTBOX}/{channel_name(channel)}/{part.at:%Y%m%dT%H%M%S%f}-{part.id}.json"
                self.store.write(key, json.dumps({**part.as_json(), "draft": claim, "since": _now()}).encode())
                keys.append((channel, key))
        return keys

    def _deliver(self, channel: Channel) -> bool:
        """Send what waits for one channel; return whether anything did."""
        name, tried = channel_name(channel), False
        for key in [info.key for info in self.store.list(f"{_OUTBOX}/{name}")][:_PER_TICK]:
            if name in self.down:
                break
            data = self._mine(key)
            if data is None:  # somebody else is at it; what comes later waits, so that no recovery overtakes its alarm
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
                    send(channel, message, self.environ)
            except HeapAssetsError as error:
                self.down[name] = str(error)
                _log.error("%s; %d messages wait for it", error, self.waiting())
                self.store.write(key, data)
            else:
                self.store.delete(key)
        return tried

    def _mine(self, key: str) -> bytes | None:
        """Claim a message, or the draft of one who died, to send it; None if it is somebody else's, or gone."""
        claim = uuid.uuid4().hex
        mine: bytes | None = None

        def claimed(data: bytes | None) -> bytes | None:
            nonlocal mine
            if data is None:
                mine = None
                return None
            try:
                body = json.loads(data)
                if body.get("sending") == claim:
                    return None
                mine = None if _is_recent(body.get("since")) else data
                return json.dumps({**body, "sending": claim, "since": _now()}).encode() if mine else None
            except _DAMAGED:
                mine = data
                return None

        self.store.update(key, claimed)
        return mine

    def _message(self, data: bytes) -> Message:
        """Read a message; of a draft, what its maker has claimed: the rest is told by others."""
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
    """Return the alarm, as it is told, if it is news after what was told before."""
    wrong = earlier is not None and not earlier.recovered
    if alarm.recovered:
        return replace(alarm, kind=earlier.kind) if earlier is not None and wrong else None
    return alarm if earlier is None or not wrong or _worse(alarm, earlier) else None


def _worse(alarm: Alarm, earlier: Alarm) -> bool:
    return earlier.kind is Kind.CHECK_WARNED and alarm.kind is Kind.CHECK_FAILED


def _final(message: Message, draft: bytes | None) -> bytes | None:
    """Make a message of a draft, unless somebody has given up waiting for it and sends what it claimed."""
    return None if draft is None or "sending" in json.loads(draft) else json.dumps(message.as_json()).encode()


def _open_key(alarm: Alarm) -> str:
    return f"{_OPEN}/{alarm.key}.json"


def _alarm(data: bytes) -> Alarm:
    fields: dict[str, Any] = json.loads(data)
    fields.pop("claim", None)
    return Alarm(**{**fields, "kind": Kind(fields["kind"])})


def _claimed_by(data: bytes | None) -> str:
    """Return whose claim the record of an alarm holds; empty if nobody's, or it is damaged."""
    try:
        return str(json.loads(data or b"{}").get("claim", ""))
    except _DAMAGED:
        return ""


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _is_recent(since: str | None) -> bool:
    """Whether a claim may still be somebody's; one of a clock that is far ahead holds nothing up."""
    return since is not None and abs(datetime.now(UTC) - datetime.fromisoformat(since)) < _CLAIM
