"""Definitions of audiences: JSON or YAML that is read into conditions over events, traits, accounts and each other.

The plain form is that of features.md G55 and G56::

    {"events": [{"type": "Add to Cart", "properties": {"cart_value": {"gt": 100}}, "within_days": 7}],
     "exclude_events": [{"type": "Purchase", "within_days": 7}],
     "user_properties": {"plan_type": "free"}}
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from heap_assets.errors import SettingsError
from heap_assets.profiles.conditions import COMPARISONS, OPERATORS, Condition, parse_conditions
from heap_assets.profiles.operators import DAYS, LISTS, TEXTS
from heap_assets.tables import signal_asset
from heap_assets.yaml_core import core, kind_of

AT_LEAST_ONCE = Condition("gte", 1, "count")
_UNITS = {"days": 1.0, "hours": 1 / 24, "minutes": 1 / 1440}
_MOST_STEPS = 100
_KEYS = (
    *("events", "exclude_events", "user_properties", "account_properties", "sequences", "audiences"),
    *("any", "all", "none"),
)


@dataclass(frozen=True)
class EventCriterion:
    """An event that a person did, how often, and how recently.

    Attributes
    ----------
    type
        The event, by the name of its table or by a name that spells it (`Add to Cart` is `add_to_cart`); of a signal
        its asset, `signals/<name>`.
    properties
        Column and condition; all must hold for one event to count.
    within_days
        Only events of the last N × 24 hours before `as_of` count, `as_of` itself not; None: all.
    count
        Conditions on the number of events that count.
    where
        Path in the definition, for messages.
    """

    type: str
    properties: tuple[tuple[str, Condition], ...]
    within_days: float | None
    count: tuple[Condition, ...]
    where: str


@dataclass(frozen=True)
class EventSequence:
    """Events in this order, each after the one before it.

    Attributes
    ----------
    steps
        One entry per event; a step that must happen three times stands three times.
    span_days
        From the first event to the last at most N × 24 hours; None: any time.
    where
        Path in the definition, for messages.
    """

    steps: tuple[EventCriterion, ...]
    span_days: float | None
    where: str


@dataclass(frozen=True)
class Audience:
    """A named definition: everything that it names must hold, and none of `exclude_events` and `none_of`.

    `audiences`: names of audiences whose members its members are. `title`: what the settings or the file call it.
    """

    name: str
    events: tuple[EventCriterion, ...] = ()
    exclude_events: tuple[EventCriterion, ...] = ()
    user_properties: tuple[tuple[str, Condition], ...] = ()
    account_properties: tuple[tuple[str, Condition], ...] = ()
    sequences: tuple[EventSequence, ...] = ()
    audiences: tuple[str, ...] = ()
    any_of: tuple[Audience, ...] = ()
    all_of: tuple[Audience, ...] = ()
    none_of: tuple[Audience, ...] = ()
    title: str = ""

    @property
    def parts(self) -> Iterator[Audience]:
        """This definition and, recursively, those of its groups."""
        yield self
        for group in (*self.any_of, *self.all_of, *self.none_of):
            yield from group.parts

    @property
    def criteria(self) -> Iterator[EventCriterion]:
        """All events that it names, at any depth; steps of sequences too."""
        for part in self.parts:
            yield from (*part.events, *part.exclude_events)
            for sequence in part.sequences:
                yield from sequence.steps

    @property
    def traits(self) -> Iterator[tuple[str, Condition]]:
        """All conditions on traits of people, at any depth."""
        for part in self.parts:
            yield from part.user_properties

    @property
    def declared(self) -> dict[str, Any]:
        """What makes up its version: the fields that say something, those of the plain form always."""
        plain = ("name", "events", "exclude_events", "user_properties")
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "title"}
        for group in ("any_of", "all_of", "none_of"):
            values[group] = [part.declared for part in values[group]]
        return {name: value for name, value in values.items() if name in plain or value}


def parse_audience(name: str, definition: Mapping[str, Any], where: str | None = None) -> Audience:
    """Read a definition; `{"name": …, "definition": {…}}` around it is accepted.

    Raises SettingsError: something in it is unknown or has the wrong form; the message names its path below `where`.
    """
    where = where or f"audience {name!r}"
    title = name
    if isinstance(definition, Mapping) and "definition" in definition:
        title = str(definition.get("name") or name)
        definition, where = definition["definition"], f"{where}.definition"
    return replace(_definition(name, definition, where), title=title)


def _definition(name: str, definition: Any, where: str) -> Audience:
    only(definition, _KEYS, where)
    groups = {
        group: tuple(
            _definition(f"{name}.{group}[{i}]", part, f"{where}.{group}[{i}]")
            for i, part in enumerate(_listed(definition.get(group, []), f"{where}.{group}", "definitions"))
        )
        for group in ("any", "all", "none")
    }
    audience = Audience(
        name,
        events=_criteria(definition.get("events", []), f"{where}.events"),
        exclude_events=_criteria(definition.get("exclude_events", []), f"{where}.exclude_events"),
        user_properties=properties_of(definition.get("user_properties", {}), f"{where}.user_properties"),
        account_properties=properties_of(definition.get("account_properties", {}), f"{where}.account_properties"),
        sequences=tuple(
            parse_sequence(sequence, f"{where}.sequences[{i}]")
            for i, sequence in enumerate(_listed(definition.get("sequences", []), f"{where}.sequences", "sequences"))
        ),
        audiences=_names(definition.get("audiences", []), f"{where}.audiences"),
        any_of=groups["any"],
        all_of=groups["all"],
        none_of=groups["none"],
    )
    if not any(getattr(audience, field.name) for field in fields(audience) if field.name not in ("name", "title")):
        raise SettingsError(f"{where} has no condition: it would hold everyone.")
    return audience


def parse_sequence(definition: Any, where: str) -> EventSequence:
    """Read `{"steps": [{"type": …, "count": 3}, …], "span_minutes": 30, "within_days": 7}`."""
    only(definition, ("steps", *(f"{prefix}_{unit}" for prefix in ("span", "within") for unit in _UNITS)), where)
    steps: list[EventCriterion] = []
    within = duration(definition, "within", where)
    for i, step in enumerate(_listed(definition.get("steps", []), f"{where}.steps", "events")):
        step_path = f"{where}.steps[{i}]"
        only(step, ("type", "signal", "properties", "count"), step_path)
        count = core(step.get("count", 1))
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= _MOST_STEPS:
            raise SettingsError(f"{step_path}.count is {count!r}, expected a whole number from 1 to {_MOST_STEPS}.")
        criterion = parse_criterion({key: value for key, value in step.items() if key != "count"}, step_path)
        steps += [replace(criterion, within_days=within)] * count
    if not 1 <= len(steps) <= _MOST_STEPS:
        raise SettingsError(f"{where}.steps has {len(steps)} events in all, expected 1 to {_MOST_STEPS}.")
    return EventSequence(tuple(steps), duration(definition, "span", where), where)


def duration(definition: Mapping[str, Any], prefix: str, where: str) -> float | None:
    """Return `<prefix>_days`, `<prefix>_hours` or `<prefix>_minutes` in days; None if none of them is there.

    Raises SettingsError: there are two, or it is no positive number.
    """
    keys = [f"{prefix}_{unit}" for unit in _UNITS if f"{prefix}_{unit}" in definition]
    if len(keys) > 1:
        raise SettingsError(f"{where} has {' and '.join(keys)}, expected one of them.")
    if not keys:
        return None
    number = core(definition[keys[0]])
    if isinstance(number, bool) or not isinstance(number, int | float) or not number > 0:
        unit = keys[0].removeprefix(f"{prefix}_")
        raise SettingsError(f"{where}.{keys[0]} is {number!r}, expected a number of {unit} above 0.")
    factor = _UNITS[keys[0].removeprefix(f"{prefix}_")]
    return number if factor == 1 else number * factor


def event_table(name: str, tables: Mapping[str, Any]) -> str | None:
    """Return the table that an event name means: its own name, or the one that it spells; None if there is none."""
    if name in tables:
        return name
    spelt = {spelling(table): table for table in sorted(tables, reverse=True)}
    return spelt.get(spelling(name))


def spelling(name: str) -> str:
    """Return a name in lower case with `_` for what is no letter or digit: `Add to Cart` is `add_to_cart`."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def in_order(audiences: list[Audience]) -> list[Audience]:
    """Return audiences so that each stands after those that it names.

    Raises SettingsError: one names itself, directly or through others, or one that there is not.
    """
    by_name = {audience.name: audience for audience in audiences}
    ordered: dict[str, Audience] = {}

    def add(audience: Audience, path: tuple[str, ...]) -> None:
        if audience.name in path:
            circle = " > ".join((*path, audience.name))
            raise SettingsError(f"profiles.audiences.{audience.name} depends on itself: {circle}")
        if audience.name in ordered:
            return
        for name in dict.fromkeys(other for part in audience.parts for other in part.audiences):
            if name not in by_name:
                raise SettingsError(
                    f"profiles.audiences.{audience.name} names the audience {name!r}, which there is not. "
                    f"Audiences: {', '.join(by_name)}"
                )
            add(by_name[name], (*path, audience.name))
        ordered[audience.name] = audience

    for audience in audiences:
        add(audience, ())
    return list(ordered.values())


def only(definition: Any, keys: Collection[str], where: str) -> None:
    """Raise SettingsError if a definition is no mapping or has other keys."""
    if not isinstance(definition, Mapping):
        raise SettingsError(f"{where} is {kind_of(definition)}, expected a mapping.")
    for key in definition:
        if key not in keys:
            raise SettingsError(f"{where}.{key} is unknown; known are {', '.join(keys)}.")


def properties_of(definitions: Any, where: str) -> tuple[tuple[str, Condition], ...]:
    """Read `property: condition`; SettingsError names the path of a mistake."""
    if not isinstance(definitions, Mapping):
        raise SettingsError(f"{where} is {kind_of(definitions)}, expected property: condition.")
    return tuple(
        (name, condition)
        for name, definition in definitions.items()
        for condition in parse_conditions(definition, f"{where}.{name}")
    )


def _listed(value: Any, where: str, kind: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise SettingsError(f"{where} is {kind_of(value)}, expected a list of {kind}.")
    return list(value)


def _names(value: Any, where: str) -> tuple[str, ...]:
    for i, name in enumerate(_listed(value, where, "names")):
        if not isinstance(name, str):
            raise SettingsError(f"{where}[{i}] is {name!r}, expected the name of an audience.")
    return tuple(value)


def _criteria(definitions: Any, where: str) -> tuple[EventCriterion, ...]:
    listed = _listed(definitions, where, "events")
    return tuple(parse_criterion(definition, f"{where}[{i}]") for i, definition in enumerate(listed))


def parse_criterion(definition: Any, where: str) -> EventCriterion:
    """Read `{"type": …, "properties": …, "within_days": …, "count": …}`; SettingsError names the path of a mistake."""
    only(definition, ("type", "signal", "properties", "count", *(f"within_{unit}" for unit in _UNITS)), where)
    signal = definition.get("signal")
    if not isinstance(definition.get("type", signal), str):
        raise SettingsError(f"{where}.type is missing: the name of the event.")
    if signal is not None and "type" in definition:
        raise SettingsError(f"{where} has type and signal, expected one of them.")
    counts = parse_conditions(definition["count"], f"{where}.count") if "count" in definition else (AT_LEAST_ONCE,)
    for condition in counts:
        if condition.operator not in COMPARISONS or isinstance(condition.operand, bool | str):
            raise SettingsError(f"{condition.where} is {condition.operand!r}, expected a comparison with a number.")
    return EventCriterion(
        definition["type"] if signal is None else signal_asset(signal),
        properties_of(definition.get("properties", {}), f"{where}.properties"),
        duration(definition, "within", where),
        counts,
        where,
    )


def audience_schema() -> dict[str, Any]:
    """Return the JSON Schema of a definition, for editors."""
    scalar: dict[str, Any] = {"type": ["string", "number", "boolean"]}
    positive: dict[str, Any] = {"type": "number", "exclusiveMinimum": 0}
    number: dict[str, Any] = {"type": "number"}
    text: dict[str, Any] = {"type": "string"}
    several = {"type": "array", "items": scalar, "minItems": 1}
    operators: dict[str, Any] = dict.fromkeys(COMPARISONS, scalar)
    operators |= {"in": several, "not_in": several, "between": several | {"minItems": 2, "maxItems": 2}}
    operators |= {"exists": {"type": "boolean"}, **dict.fromkeys(TEXTS, text), "contains": scalar}
    operators |= dict.fromkeys(LISTS, several) | dict.fromkeys(DAYS, positive)
    condition = {"anyOf": [scalar, _object({name: operators[name] for name in OPERATORS})]}
    properties = {"type": "object", "additionalProperties": condition}
    windows = {f"within_{unit}": positive for unit in _UNITS}
    of_event = {"type": text, "signal": text, "properties": properties}
    counted = {"count": {"anyOf": [number, _object(dict.fromkeys(COMPARISONS, number))]}}
    event = _object({**of_event, **windows, **counted})
    event["anyOf"] = [{"required": ["type"]}, {"required": ["signal"]}]
    events = {"type": "array", "items": event}
    step = _object({**of_event, "count": {"type": "integer", "minimum": 1}})
    sequence = _object(
        {"steps": {"type": "array", "items": step, "minItems": 1}}
        | windows
        | {f"span_{unit}": positive for unit in _UNITS}
    )
    groups = {"type": "array", "items": {"$ref": "#"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Audience",
        **_object(
            {"events": events, "exclude_events": events, "user_properties": properties}
            | {"account_properties": properties, "sequences": {"type": "array", "items": sequence}}
            | {"audiences": {"type": "array", "items": text}, "any": groups, "all": groups, "none": groups}
        ),
        "minProperties": 1,
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}
