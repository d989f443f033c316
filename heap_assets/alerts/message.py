"""Alarms and recoveries, grouped into one message a run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from heap_assets.redaction import redact

_SHOWN = 20
_PARTITIONS_SHOWN = 5


class Kind(StrEnum):
    """The kinds of alarm that a channel can subscribe to with `on:`."""

    CHECK_FAILED = "check_failed"
    CHECK_WARNED = "check_warned"
    RUN_FAILED = "run_failed"
    STALE = "stale"
    NOT_TICKING = "not_ticking"
    ALERT_UNDELIVERED = "alert_undelivered"
    ALIVE = "alive"


MEANINGS: Mapping[Kind, str] = {
    Kind.CHECK_FAILED: "A check of severity ERROR failed, in a green run too.",
    Kind.CHECK_WARNED: "A check of severity WARN failed.",
    Kind.RUN_FAILED: "A run failed; the message names step, partition and, for errors of ours, the reason.",
    Kind.STALE: "The newest row of a table is too old, or an asset was not run within its freshness window.",
    Kind.NOT_TICKING: "A sensor or schedule failed or stands still, a daemon is silent, or recency is not judged.",
    Kind.ALERT_UNDELIVERED: "Another channel did not take a message; it waits and is tried again for seven days.",
    Kind.ALIVE: "Hourly sign of life, for a dead man's switch outside: its absence is the alarm.",
}

DEFAULT_KINDS = tuple(kind for kind in Kind if kind is not Kind.ALIVE)
"""All but the hourly sign of life, which is for a dead man's switch."""


@dataclass(frozen=True)
class Alarm:
    """One alarm about an asset, check, sensor or daemon, or (`recovered`) its recovery."""

    kind: Kind
    subject: str
    """Asset, job, sensor or channel."""
    about: str
    """Check name, or what went wrong in one word; with subject and partition it identifies the alarm."""
    rule: str = ""
    """The sentence that no longer holds."""
    partition: str | None = None
    group: str = ""
    """Asset group, for routing; empty if it has none."""
    blocking: bool = False
    numbers: Mapping[str, int | float] = field(default_factory=dict)
    """Counts; never a value of a row."""
    detail: str = ""
    recovered: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", redact(self.detail))

    @property
    def key(self) -> str:
        """Identify the alarm: equal for the same subject, check and partition."""
        identity = "\x1f".join((self.subject, self.about, self.partition or ""))
        return hashlib.sha256(identity.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Message:
    """The alarms of one run, or of one tick of the hourly sensor."""

    title: str
    alarms: tuple[Alarm, ...]
    link: str = ""
    run_id: str = ""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def id(self) -> str:
        """Identify the message, so that a receiver can drop a duplicate."""
        content = "\x1e".join((self.title, self.run_id, self.at.isoformat(), *(alarm.key for alarm in self.alarms)))
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    @property
    def headline(self) -> str:
        """Return the title with the number of alarms and recoveries."""
        wrong = sum(not alarm.recovered for alarm in self.alarms)
        right = len(self.alarms) - wrong
        counts = [f"{wrong} to look at"] if wrong else []
        return f"{self.title}: {', '.join(counts + ([f'{right} recovered'] if right else []))}"

    def as_json(self) -> dict[str, Any]:
        """Return the body of a webhook."""
        return {
            "id": self.id,
            "title": self.title,
            "headline": self.headline,
            "link": self.link,
            "run_id": self.run_id,
            "at": self.at.isoformat(timespec="seconds"),
            "alarms": [{**asdict(alarm), "kind": alarm.kind.value} for alarm in self.alarms],
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Message:
        """Read what `as_json` wrote."""
        alarms = tuple(Alarm(**{**alarm, "kind": Kind(alarm["kind"])}) for alarm in body["alarms"])
        return cls(body["title"], alarms, body["link"], body["run_id"], datetime.fromisoformat(body["at"]))

    def as_text(self) -> str:
        """Return the message for people: one line per rule with its partitions, the worst first."""
        lines = [self.headline, self.link] if self.link else [self.headline]
        groups: dict[tuple[str, str, bool], list[Alarm]] = {}
        for alarm in sorted(self.alarms, key=_worst_first):
            groups.setdefault((alarm.subject, alarm.about, alarm.recovered), []).append(alarm)
        lines += [_line(alarms) for alarms in list(groups.values())[:_SHOWN]]
        if len(groups) > _SHOWN:
            lines.append(f"… and {len(groups) - _SHOWN} more")
        return "\n".join(lines)


def _worst_first(alarm: Alarm) -> tuple[bool, bool, bool, str, str, str]:
    warned = alarm.kind is Kind.CHECK_WARNED
    return alarm.recovered, not alarm.blocking, warned, alarm.subject, alarm.about, alarm.partition or ""


def _line(alarms: list[Alarm]) -> str:
    first = alarms[0]
    word = "RECOVERED" if first.recovered else first.kind.value.upper().replace("_", " ")
    blocking = " (nothing is sent to Heap)" if first.blocking and not first.recovered else ""
    days = [alarm.partition for alarm in alarms if alarm.partition]
    where = f" [{', '.join(days[:_PARTITIONS_SHOWN])}]" if days else ""
    more = f" and {len(days) - _PARTITIONS_SHOWN} more days" if len(days) > _PARTITIONS_SHOWN else ""
    numbers = ", ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in first.numbers.items())
    parts = [part for part in (first.rule, first.detail, numbers) if part]
    return f"• {word}{blocking} {first.subject}: {first.about}{where}{more}\n  {' | '.join(parts)}".rstrip()


def _short(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
