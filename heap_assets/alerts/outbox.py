"""Told once on change and once on recovery, and not lost when a channel is down. No Dagster here.

What is wrong stands in `_alerts/open/<alarm>.json` of the lake's store, so that all sensors and a restarted daemon
know what has been told. A message is written to `_alerts/outbox/<channel>/` before it is sent and deleted when the
channel took it; what a channel refuses waits there and is tried again. A kill in between sends twice, with one id.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
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
        news = self._news(message.alarms)
        if news:
            self._enqueue(replace(message, alarms=tuple(news)))
            self._remember(news)
        self.deliver()
        return len(news)

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
        news = self._news(state)
        if news:
            word = "cannot be reached" if any(not alarm.recovered for alarm in news) else "is back"
            self._enqueue(Message(f"An alert channel {word}", tuple(news)))
            self._remember(news)
            for channel in self.channels:
                self._deliver(channel)

    def open_alarms(self) -> list[Alarm]:
        """Return what has been told as wrong and not yet as right again."""
        alarms = [self._told(info.key) for info in self.store.list(_OPEN)]
        return [alarm for alarm in alarms if alarm is not None]

    def waiting(self) -> int:
        """Return how many messages wait for a channel."""
        return len(self.store.list(_OUTBOX))

    def _news(self, alarms: Iterable[Alarm]) -> list[Alarm]:
        news: dict[str, Alarm] = {}
        still_open = {info.key for info in self.store.list(_OPEN)}  # one listing, for runs with thousands of checks
        for alarm in alarms:
            earlier = self._told(_open_key(alarm)) if _open_key(alarm) in still_open else None
            if alarm.recovered:
                if earlier is not None:
                    news[alarm.key] = replace(alarm, kind=earlier.kind)
                else:
                    news.pop(alarm.key, None)
            elif earlier is None or _worse(alarm, earlier):
                news[alarm.key] = alarm
        return list(news.values())

    def _told(self, key: str) -> Alarm | None:
        """Return an alarm that was told; None if another sensor has told its end, or its file is damaged."""
        try:
            return _alarm(self.store.read(key))
        except FileNotFoundError:
            return None
        except _DAMAGED:
            _log.warning("%s is damaged: what it told of is told again", self.store.uri(key))
            return None

    def _remember(self, news: Iterable[Alarm]) -> None:
        for alarm in news:
            if alarm.recovered:
                self.store.delete(_open_key(alarm))
            elif alarm.kind is not Kind.ALIVE:
                self.store.write(_open_key(alarm), json.dumps({**asdict(alarm), "kind": alarm.kind.value}).encode())

    def _enqueue(self, message: Message) -> None:
        for channel in self.channels:
            part = channel.select(message)
            if part is not None:
                key = f"{_OUTBOX}/{channel_name(channel)}/{part.at:%Y%m%dT%H%M%S%f}-{part.id}.json"
                self.store.write(key, json.dumps(part.as_json()).encode())

    def _deliver(self, channel: Channel) -> bool:
        """Send what waits for one channel; return whether anything did."""
        name = channel_name(channel)
        waiting = [info.key for info in self.store.list(f"{_OUTBOX}/{name}")][:_PER_TICK]
        for key in waiting:
            if name in self.down:
                break
            try:
                data = self.store.read(key)
                message = Message.from_json(json.loads(data))
            except FileNotFoundError:  # another sensor has sent it
                continue
            except _DAMAGED:
                _log.error("%s is damaged: it is kept under %s", self.store.uri(key), _GIVEN_UP)
                self._give_up(key, data)
                continue
            if datetime.now(UTC) - message.at > KEEP_TRYING:
                self._give_up(key, data)
                continue
            try:
                send(channel, message, self.environ)
            except HeapAssetsError as error:
                self.down[name] = str(error)
                _log.error("%s; %d messages wait for it", error, len(waiting))
            else:
                self.store.delete(key)
        return bool(waiting)

    def _give_up(self, key: str, data: bytes) -> None:
        self.store.write(key.replace(_OUTBOX, _GIVEN_UP, 1), data)
        self.store.delete(key)


def _worse(alarm: Alarm, earlier: Alarm) -> bool:
    return earlier.kind is Kind.CHECK_WARNED and alarm.kind is Kind.CHECK_FAILED


def _open_key(alarm: Alarm) -> str:
    return f"{_OPEN}/{alarm.key}.json"


def _alarm(data: bytes) -> Alarm:
    fields: dict[str, Any] = json.loads(data)
    return Alarm(**{**fields, "kind": Kind(fields["kind"])})
