"""Rules of signals, read from the settings: what fires, when, how often, and what is said with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from heap_assets.errors import SettingsError
from heap_assets.profiles import (
    Audience,
    Condition,
    EventCriterion,
    EventSequence,
    duration,
    only,
    parse_audience,
    parse_conditions,
    parse_criterion,
    parse_sequence,
)
from heap_assets.yaml_core import core

KINDS = ("sequence", "missing", "campaign", "becomes", "threshold", "inactive", "changed")
"""Each a key of a signal; it has exactly one of them."""
_COMMON = ("event", "where", "cool_down_days", "cool_down_hours", "cool_down_minutes", "properties", "backfill")
_A_DAY = 1.0


@dataclass(frozen=True)
class Step:
    """A message of a campaign, or the one of a step that is missing.

    `after_days`: how many × 24 hours after the anchor it is due.
    """

    name: str
    after_days: float


@dataclass(frozen=True)
class Anchored:
    """Steps after an anchor, until a stop.

    Attributes
    ----------
    anchor
        The event that an attempt begins with. Another one before the attempt has ended belongs to it.
    steps
        By when they are due.
    stops
        Events that end the attempt: steps that are due later do not fire.
    """

    anchor: EventCriterion
    steps: tuple[Step, ...]
    stops: tuple[EventCriterion, ...]

    @property
    def window_days(self) -> float:
        """How long an attempt lasts that nothing stops."""
        return max(step.after_days for step in self.steps)


@dataclass(frozen=True)
class Changed:
    """A trait that goes from one value to another.

    `before`, `after`: conditions on the trait of the day before, and of the day.
    """

    trait: str
    before: tuple[Condition, ...]
    after: tuple[Condition, ...]


@dataclass(frozen=True)
class Signal:
    """One rule.

    Attributes
    ----------
    name, kind, event
        Key of the settings; one of :data:`KINDS`; what destinations call it.
    sequence, anchored, becomes, changed
        What fires, by kind; one of them. `becomes`: who meets the definition and did not the day before.
    where
        Only people who meet this definition on the day.
    cool_down_days
        Time after a firing in which the person does not fire again; None: never again (each step of an anchored rule).
    properties
        Column of the firing to the trait that it holds.
    backfill
        Whether firings of days long before they were computed are delivered, too.
    """

    name: str
    kind: str
    event: str
    sequence: EventSequence | None = None
    anchored: Anchored | None = None
    becomes: Audience | None = None
    changed: Changed | None = None
    where: Audience | None = None
    cool_down_days: float | None = _A_DAY
    properties: Mapping[str, str] = field(default_factory=dict)
    backfill: bool = False

    @property
    def audiences(self) -> Iterator[Audience]:
        """The definitions that it evaluates on people."""
        yield from (one for one in (self.where, self.becomes) if one is not None)

    @property
    def criteria(self) -> Iterator[tuple[EventCriterion, float | None]]:
        """Every event that it names, with how many days back it is read; None for all."""
        if self.sequence is not None:
            yield from ((step, self.sequence.span_days) for step in self.sequence.steps)
        if self.anchored is not None:
            days = 2 * self.anchored.window_days
            yield from ((one, days) for one in (self.anchored.anchor, *self.anchored.stops))
        for audience in self.audiences:
            for criterion in audience.criteria:
                # the day before looks back a day further
                yield criterion, None if criterion.within_days is None else criterion.within_days + 1

    @property
    def traits(self) -> set[str]:
        """The traits that it reads."""
        conditions = {name for audience in self.audiences for name, _ in audience.traits}
        return {*conditions, *self.properties.values(), *([self.changed.trait] if self.changed else [])}


def parse_signal(name: str, definition: Mapping[str, Any], where: str | None = None) -> Signal:
    """Read a signal of the settings; SettingsError names the path of a mistake below `where`."""
    where = where or f"signals.{name}"
    only(definition, (*KINDS, *_COMMON), where)
    kinds = [kind for kind in KINDS if kind in definition]
    if len(kinds) != 1:
        raise SettingsError(f"{where} has {' and '.join(kinds) or 'no rule'}, expected one of {', '.join(KINDS)}.")
    kind = kinds[0]
    path, body = f"{where}.{kind}", definition[kind]
    rule = _READERS[kind](name, body, path)
    properties = definition.get("properties", {})
    if not isinstance(properties, Mapping) or not all(isinstance(trait, str) for trait in properties.values()):
        raise SettingsError(f"{where}.properties: expected names of columns, each with a trait.")
    if clashing := sorted(set(properties) & OWN_COLUMNS):
        raise SettingsError(f"{where}.properties.{clashing[0]}: every firing has this column; choose another name.")
    cool_down = duration(definition, "cool_down", where)
    usual = None if "anchored" in rule else _A_DAY
    return Signal(
        name,
        kind,
        str(definition.get("event") or name.replace("_", " ").title()),
        where=parse_audience(name, definition["where"], f"{where}.where") if "where" in definition else None,
        cool_down_days=usual if cool_down is None else cool_down,
        properties=dict(properties),
        backfill=definition.get("backfill") is True,
        **rule,
    )


OWN_COLUMNS = frozenset(
    {
        *("firing_id", "signal", "event", "time", "profile_id", "identifier_type", "identifier", "heap_identity"),
        *("user_id", "step", "status", "observed_at", "live", "event_key", "key"),
    }
)
"""Columns that every firing has, and names that addressing needs."""


def _sequence(name: str, body: Any, path: str) -> dict[str, Any]:
    sequence = parse_sequence(body, path)
    if sequence.span_days is None:
        raise SettingsError(f"{path} has no span: say span_minutes, span_hours or span_days.")
    return {"sequence": sequence}


def _missing(name: str, body: Any, path: str) -> dict[str, Any]:
    only(body, ("start", "completion", *(f"within_{unit}" for unit in ("days", "hours", "minutes"))), path)
    if (within := duration(body, "within", path)) is None:
        raise SettingsError(f"{path} has no time: say within_days, within_hours or within_minutes.")
    start, completion = (parse_criterion(body.get(key, {}), f"{path}.{key}") for key in ("start", "completion"))
    return {"anchored": Anchored(start, (Step("missing", within),), (completion,))}


def _campaign(name: str, body: Any, path: str) -> dict[str, Any]:
    only(body, ("anchor", "steps", "stop"), path)
    anchor = parse_criterion(body.get("anchor", {}), f"{path}.anchor")
    listed, steps = body.get("steps"), []
    if not isinstance(listed, list | tuple) or not listed:
        raise SettingsError(f"{path}.steps: expected a list such as [{{name: education, after_days: 3}}].")
    for i, step in enumerate(listed):
        step_path = f"{path}.steps[{i}]"
        only(step, ("name", *(f"after_{unit}" for unit in ("days", "hours", "minutes"))), step_path)
        after = duration(step, "after", step_path)
        if not isinstance(step.get("name"), str) or after is None:
            raise SettingsError(
                f"{step_path}: expected name and after_days, such as {{name: education, after_days: 3}}."
            )
        steps.append(Step(step["name"], after))
    if len({step.name for step in steps}) < len(steps):
        raise SettingsError(f"{path}.steps: two have the same name.")
    stop = body.get("stop", [])
    stops = [stop] if isinstance(stop, Mapping) else list(stop)
    stopping = tuple(parse_criterion(one, f"{path}.stop[{i}]") for i, one in enumerate(stops))
    return {"anchored": Anchored(anchor, tuple(sorted(steps, key=lambda step: step.after_days)), stopping)}


def _becomes(name: str, body: Any, path: str) -> dict[str, Any]:
    return {"becomes": parse_audience(name, body, path)}


def _threshold(name: str, body: Any, path: str) -> dict[str, Any]:
    """`{trait: pql_score, gte: 20}`, or `{type: report_created, count: {gte: 10}, within_days: 7}`."""
    if isinstance(body, Mapping) and "trait" in body:
        conditions = {key: value for key, value in body.items() if key != "trait"}
        return _becomes(name, {"user_properties": {body["trait"]: conditions}}, path)
    return _becomes(name, {"events": [body]}, path)


def _inactive(name: str, body: Any, path: str) -> dict[str, Any]:
    """`{days: 14}`: by the day that Heap saw the person last, or by another trait that holds a time."""
    only(body, ("days", "trait"), path)
    days = core(body.get("days"))
    if isinstance(days, bool) or not isinstance(days, int | float) or not days > 0:
        raise SettingsError(f"{path}.days is {days!r}, expected a number of days above 0.")
    return _becomes(name, {"user_properties": {body.get("trait", "last_active"): {"older_than_days": days}}}, path)


def _changed(name: str, body: Any, path: str) -> dict[str, Any]:
    only(body, ("trait", "from", "to"), path)
    if not isinstance(body.get("trait"), str) or "to" not in body:
        raise SettingsError(f"{path}: expected trait and to, such as {{trait: plan, from: free, to: {{in: [pro]}}}}.")
    before = parse_conditions(_listed(body["from"]), f"{path}.from") if "from" in body else ()
    return {"changed": Changed(body["trait"], before, parse_conditions(_listed(body["to"]), f"{path}.to"))}


def _listed(value: Any) -> Any:
    return {"in": value} if isinstance(value, list | tuple) else value


_READERS = {
    "sequence": _sequence,
    "missing": _missing,
    "campaign": _campaign,
    "becomes": _becomes,
    "threshold": _threshold,
    "inactive": _inactive,
    "changed": _changed,
}
