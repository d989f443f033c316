"""Audiences: named sets of profiles, by a definition over events and traits.

The definition is the JSON (or YAML) of features.md G55 and G56::

    {"events": [{"type": "Add to Cart", "properties": {"cart_value": {"gt": 100}}, "within_days": 7}],
     "exclude_events": [{"type": "Purchase", "within_days": 7}],
     "user_properties": {"plan_type": "free"}}
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from heap_assets.errors import SettingsError
from heap_assets.identity import HEAP_USER_ID
from heap_assets.profiles.conditions import COMPARISONS, OPERATORS, Condition, holds, parse_conditions
from heap_assets.values import apart, set_apart
from heap_assets.yaml_core import core, kind_of

_OWN = ("profile_id",)
AT_LEAST_ONCE = Condition("gte", 1, "count")


@dataclass(frozen=True)
class EventCriterion:
    """An event that a person did, how often, and how recently.

    Attributes
    ----------
    type
        The event, by the name of its table or by a name that spells it (`Add to Cart` is `add_to_cart`).
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
class Audience:
    """A named definition: all of `events` and `user_properties`, and none of `exclude_events`."""

    name: str
    events: tuple[EventCriterion, ...] = ()
    exclude_events: tuple[EventCriterion, ...] = ()
    user_properties: tuple[tuple[str, Condition], ...] = ()


def parse_audience(name: str, definition: Mapping[str, Any], where: str | None = None) -> Audience:
    """Read a definition; `{"name": …, "definition": {…}}` around it is accepted.

    Raises SettingsError: something in it is unknown or has the wrong form; the message names its path below `where`.
    """
    where = where or f"audience {name!r}"
    if "definition" in definition:
        definition, where = definition["definition"], f"{where}.definition"
    _only(definition, {"events", "exclude_events", "user_properties"}, where)
    audience = Audience(
        name,
        events=_criteria(definition.get("events", []), f"{where}.events"),
        exclude_events=_criteria(definition.get("exclude_events", []), f"{where}.exclude_events"),
        user_properties=_properties(definition.get("user_properties", {}), f"{where}.user_properties"),
    )
    if not (audience.events or audience.exclude_events or audience.user_properties):
        raise SettingsError(f"{where} has no condition: it would hold everyone.")
    return audience


def members(
    audience: Audience, profiles: pl.LazyFrame, events: Mapping[str, pl.LazyFrame], as_of: datetime
) -> pl.LazyFrame:
    """Find who is in an audience.

    Parameters
    ----------
    audience
        The definition.
    profiles
        profile_id and the columns that `user_properties` names, one row per profile.
    events
        By event table name: profile_id, time (UTC), and the columns that `properties` names.
    as_of
        The moment that `within_days` counts back from: the end of the partition's day.

    Returns profile_id String, sorted; profiles without any event are candidates like all others.

    Raises SettingsError: the definition names an event or a column that does not exist, or compares what cannot be
    compared.
    """
    schema = profiles.collect_schema()
    properties = [
        holds(condition, *_column(schema, name, condition.where)) for name, condition in audience.user_properties
    ]
    candidates = (profiles.filter(properties) if properties else profiles).select("profile_id")
    for criterion in (*audience.events, *audience.exclude_events):
        counted = _with_event_count(candidates, criterion, events, as_of)
        meets = pl.all_horizontal([holds(condition, pl.col("count"), pl.Int64()) for condition in criterion.count])
        candidates = counted.filter(meets if criterion in audience.events else ~meets).select("profile_id")
    return candidates.sort("profile_id")


def with_audiences(
    profiles: pl.LazyFrame, audiences: Sequence[Audience], events: Mapping[str, pl.LazyFrame], as_of: datetime
) -> pl.LazyFrame:
    """Return the profiles with one Boolean column per audience, so that a sync can send membership as a trait."""
    result = profiles
    for audience in audiences:
        inside = members(audience, profiles, events, as_of).with_columns(pl.lit(True).alias(audience.name))
        result = result.join(inside, on="profile_id", how="left", maintain_order="left").with_columns(
            pl.col(audience.name).fill_null(False)
        )
    return result


def events_needed(audiences: Sequence[Audience]) -> dict[str, float | None]:
    """Return the events that audiences ask for, and how many days back; None: all of them."""
    needed: dict[str, float | None] = {}
    for audience in audiences:
        for criterion in (*audience.events, *audience.exclude_events):
            longest, days = needed.get(criterion.type, 0.0), criterion.within_days
            needed[criterion.type] = None if longest is None or days is None else max(longest, days)
    return needed


def events_of_profiles(rows: pl.LazyFrame, graph: pl.LazyFrame) -> pl.LazyFrame:
    """Add `profile_id` to rows of a Heap event table, by `user_id`; rows of a shared or unknown user are left out.

    A property that is called so goes under another name (:mod:`heap_assets.values`).
    """
    users = graph.filter(
        (pl.col("identifier_type") == HEAP_USER_ID) & ~pl.col("shared") & pl.col("profile_id").is_not_null()
    ).select(pl.col("identifier").cast(pl.Int64).alias("user_id"), "profile_id")
    return rows.rename(set_apart(rows.collect_schema(), _OWN)).join(users, on="user_id")


def event_table(name: str, tables: Mapping[str, Any]) -> str | None:
    """Return the table that an event name means: its own name, or the one that it spells; None if there is none."""
    if name in tables:
        return name
    spelt = {_spelling(table): table for table in sorted(tables, reverse=True)}
    return spelt.get(_spelling(name))


def _spelling(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _with_event_count(
    candidates: pl.LazyFrame, criterion: EventCriterion, events: Mapping[str, pl.LazyFrame], as_of: datetime
) -> pl.LazyFrame:
    """Return the candidates with `count`, the number of their events that meet the criterion."""
    table = event_table(criterion.type, events)
    if table is None:
        tables = ", ".join(sorted(events)) or "none"
        raise SettingsError(f"{criterion.where}.type is {criterion.type!r}, which is no event table. Tables: {tables}.")
    rows = events[table]
    schema = rows.collect_schema()
    filters = [
        holds(condition, *_column(schema, apart(name, _OWN), condition.where))
        for name, condition in criterion.properties
    ]
    filters.append(pl.col("time") < as_of)
    if criterion.within_days is not None:
        filters.append(pl.col("time") >= as_of - timedelta(days=criterion.within_days))
    counts = rows.filter(filters).group_by("profile_id").agg(count=pl.len().cast(pl.Int64))
    return candidates.join(counts, on="profile_id", how="left").with_columns(pl.col("count").fill_null(0))


def _column(schema: pl.Schema, name: str, where: str) -> tuple[pl.Expr, pl.DataType]:
    if name not in schema:
        raise SettingsError(f"{where}: there is no column {name!r}. Columns: {', '.join(schema)}.")
    return pl.col(name), schema[name]


def _criteria(definitions: Any, where: str) -> tuple[EventCriterion, ...]:
    if not isinstance(definitions, list | tuple):
        raise SettingsError(f"{where} is {kind_of(definitions)}, expected a list of events.")
    return tuple(_criterion(definition, f"{where}[{i}]") for i, definition in enumerate(definitions))


def _criterion(definition: Any, where: str) -> EventCriterion:
    _only(definition, {"type", "properties", "within_days", "count"}, where)
    if not isinstance(definition.get("type"), str):
        raise SettingsError(f"{where}.type is missing: the name of the event.")
    days = core(definition.get("within_days"))
    if days is not None and (isinstance(days, bool) or not isinstance(days, int | float) or not days > 0):
        raise SettingsError(f"{where}.within_days is {days!r}, expected a number of days above 0.")
    counts = parse_conditions(definition["count"], f"{where}.count") if "count" in definition else (AT_LEAST_ONCE,)
    for condition in counts:
        if condition.operator not in COMPARISONS or isinstance(condition.operand, bool | str):
            raise SettingsError(f"{condition.where} is {condition.operand!r}, expected a comparison with a number.")
    return EventCriterion(
        definition["type"], _properties(definition.get("properties", {}), f"{where}.properties"), days, counts, where
    )


def _properties(definitions: Any, where: str) -> tuple[tuple[str, Condition], ...]:
    if not isinstance(definitions, Mapping):
        raise SettingsError(f"{where} is {kind_of(definitions)}, expected property: condition.")
    return tuple(
        (name, condition)
        for name, definition in definitions.items()
        for condition in parse_conditions(definition, f"{where}.{name}")
    )


def _only(definition: Any, keys: set[str], where: str) -> None:
    if not isinstance(definition, Mapping):
        raise SettingsError(f"{where} is {kind_of(definition)}, expected a mapping.")
    for key in definition:
        if key not in keys:
            raise SettingsError(f"{where}.{key} is unknown; known are {', '.join(sorted(keys))}.")


def audience_schema() -> dict[str, Any]:
    """Return the JSON Schema of a definition, for editors."""
    scalar: dict[str, Any] = {"type": ["string", "number", "boolean"]}
    number: dict[str, Any] = {"type": "number"}
    operators: dict[str, Any] = dict.fromkeys(COMPARISONS, scalar)
    operators |= {"in": {"type": "array", "items": scalar, "minItems": 1}, "exists": {"type": "boolean"}}
    condition = {"anyOf": [scalar, _object({name: operators[name] for name in OPERATORS})]}
    properties = {"type": "object", "additionalProperties": condition}
    event = _object(
        {
            "type": {"type": "string"},
            "properties": properties,
            "within_days": {"type": "number", "exclusiveMinimum": 0},
            "count": {"anyOf": [number, _object(dict.fromkeys(COMPARISONS, number))]},
        }
    )
    event["required"] = ["type"]
    events = {"type": "array", "items": event}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Audience",
        **_object({"events": events, "exclude_events": events, "user_properties": properties}),
        "minProperties": 1,
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}
