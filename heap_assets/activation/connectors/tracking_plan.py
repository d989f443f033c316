"""A tracking plan: which events and properties may leave, under which names and types.

As JSON::

    {"on_unplanned_event": "block_event", "on_unplanned_property": "drop_property", "on_violation": "reject_row",
     "events": {"Signed Up": {"rename": "User Signed Up",
                              "properties": {"plan": {"type": "string", "required": true},
                                             "seats": {"rename": "seat_count", "type": "integer"}}}}}

What it removes is counted by rule.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import polars as pl

from heap_assets.activation.engine.addressing import Addressed
from heap_assets.errors import SettingsError
from heap_assets.values import as_text, double_spelled, fitting, read_times

_TYPES: Mapping[str, pl.DataType] = {
    "string": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
    "datetime": pl.String(),
}
_TRUTH = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise SettingsError(f"tracking plan: the key {twice[0]!r} stands twice in one object")
    return dict(pairs)


class Violation(StrEnum):
    """The action on an event, a property or a value that the plan does not allow."""

    DROP_PROPERTY = "drop_property"
    BLOCK_EVENT = "block_event"
    REJECT_ROW = "reject_row"
    ALLOW = "allow"


@dataclass(frozen=True)
class PlannedProperty:
    """One allowed property: its type (null: any), its name at the destination, whether every row must have it."""

    type: str | None = None
    rename: str | None = None
    required: bool = False


@dataclass(frozen=True)
class PlannedEvent:
    """One allowed event."""

    rename: str | None = None
    properties: Mapping[str, PlannedProperty] = field(default_factory=dict)


@dataclass(frozen=True)
class TrackingPlan:
    """The planned events, and the actions on everything else."""

    events: Mapping[str, PlannedEvent]
    on_unplanned_event: Violation = Violation.BLOCK_EVENT
    on_unplanned_property: Violation = Violation.DROP_PROPERTY
    on_violation: Violation = Violation.REJECT_ROW

    @classmethod
    def from_json(cls, text: str | bytes) -> TrackingPlan:
        """Read a plan.

        Raises SettingsError, naming the place of the first mistake.
        """
        try:
            raw = json.loads(text, object_pairs_hook=_once)
        except RecursionError as error:
            raise SettingsError("tracking plan is nested too deeply") from error
        except ValueError as error:
            raise SettingsError(f"tracking plan is not JSON: {error}") from error
        top = _checked(raw, "tracking plan", {"events", *_CHOICES})
        events = {
            name: _event(value, f"tracking plan: events[{name!r}]")
            for name, value in _checked(top.get("events", {}), "tracking plan: events", None).items()
        }
        return cls(events, **{name: _choice(top[name], name) for name in _CHOICES if name in top})

    def names(self, properties: Sequence[str]) -> list[str]:
        """Return the property names that rows have after :meth:`apply`."""
        renames = {
            (planned.rename or name)
            for event in self.events.values()
            for name, planned in event.properties.items()
            if name in properties
        }
        loose = self.on_unplanned_property is Violation.ALLOW or self.on_unplanned_event is Violation.ALLOW
        return sorted(renames | (set(properties) if loose else set()))

    def apply(self, rows: pl.LazyFrame, properties: Sequence[str]) -> Planned:
        """Rename, convert and remove, event by event.

        `rows`: `event`, addressing columns, and one column per property.

        The returned rows have the columns of :meth:`names` instead of `properties`.
        """
        frame = rows.collect()
        allowed: list[pl.DataFrame] = []
        rejected: list[pl.DataFrame] = []
        counts: Counter[str] = Counter()
        for part in frame.partition_by("event", maintain_order=True):
            outcome = self._apply_event(part, str(part["event"][0]), properties, counts)
            allowed.append(outcome.filter(pl.col("_reason").is_null()).drop("_reason"))
            rejected.append(outcome.filter(pl.col("_reason").is_not_null(), pl.col("_reason") != Violation.BLOCK_EVENT))
        names = self.names(properties)
        addressing = [c for c in frame.columns if c not in properties]
        empty = frame.head(0).select(addressing)
        joined = pl.concat([empty, *_alike(allowed, names)], how="diagonal_relaxed")
        missing = [pl.lit(None, pl.String).alias(n) for n in names if n not in joined.columns]
        invalid = [_set_aside(part) for part in rejected if len(part)]
        return Planned(
            joined.with_columns(missing).lazy(),
            pl.concat(invalid).lazy() if invalid else None,
            dict(sorted(counts.items())),
        )

    def _apply_event(
        self, part: pl.DataFrame, name: str, properties: Sequence[str], counts: Counter[str]
    ) -> pl.DataFrame:
        reason = pl.lit(None, pl.String)
        event = self.events.get(name)
        if event is None:
            if self.on_unplanned_event is Violation.ALLOW:
                return part.with_columns(_reason=reason)
            counts[f"event {name}: not planned, {self.on_unplanned_event}"] += len(part)
            blocked = self.on_unplanned_event is Violation.BLOCK_EVENT
            text = str(Violation.BLOCK_EVENT) if blocked else "the event is not in the tracking plan"
            return part.with_columns(_reason=pl.lit(text)).drop(properties)
        part = part.with_columns(_reason=reason)
        for column in properties:
            planned = event.properties.get(column)
            part = (
                self._unplanned(part, name, column, counts)
                if planned is None
                else self._planned(part, name, column, planned, counts)
            )
        absent = [n for n, p in event.properties.items() if p.required and n not in properties]
        if absent:
            part = self._violated(
                part, pl.Series([True]).new_from_index(0, len(part)), name, f"{absent[0]} is missing", counts
            )
        renames = {c: p.rename for c in properties if (p := event.properties.get(c)) and p.rename and c in part.columns}
        return part.rename(renames).with_columns(event=pl.lit(event.rename or name))

    def _unplanned(self, part: pl.DataFrame, name: str, column: str, counts: Counter[str]) -> pl.DataFrame:
        if self.on_unplanned_property is Violation.ALLOW:
            return part
        filled = part[column].is_not_null()
        if self.on_unplanned_property is not Violation.DROP_PROPERTY:
            part = self._marked(part, filled, f"{column} is not planned", self.on_unplanned_property)
        if filled.any():
            counts[f"event {name}: {column} is not planned, {self.on_unplanned_property}"] += int(filled.sum())
        return part.drop(column)

    def _planned(
        self, part: pl.DataFrame, name: str, column: str, planned: PlannedProperty, counts: Counter[str]
    ) -> pl.DataFrame:
        before = part[column]
        after = before if planned.type is None else _converted(before, planned.type)
        part = part.with_columns(after.alias(column))
        part = self._violated(
            part, before.is_not_null() & after.is_null(), name, f"{column} is no {planned.type}", counts
        )
        if planned.required:
            part = self._violated(part, before.is_null(), name, f"{column} is missing", counts)
        return part

    def _violated(
        self, part: pl.DataFrame, where: pl.Series, name: str, violation: str, counts: Counter[str]
    ) -> pl.DataFrame:
        if not where.any():
            return part
        counts[f"event {name}: {violation}, {self.on_violation}"] += int(where.sum())
        return self._marked(part, where, violation, self.on_violation)

    @staticmethod
    def _marked(part: pl.DataFrame, where: pl.Series, violation: str, choice: Violation) -> pl.DataFrame:
        if choice in (Violation.DROP_PROPERTY, Violation.ALLOW):
            return part
        text = str(choice) if choice is Violation.BLOCK_EVENT else f"tracking plan: {violation}"
        marked = pl.when(pl.lit(where) & pl.col("_reason").is_null()).then(pl.lit(text)).otherwise("_reason")
        return part.with_columns(_reason=marked)


@dataclass(frozen=True)
class Planned:
    """Rows after a tracking plan; `counts` has rule to the number of rows it applied to."""

    rows: pl.LazyFrame
    invalid: pl.LazyFrame | None
    counts: dict[str, int]

    def addressed(self, before: Addressed) -> Addressed:
        """Return `before` with these rows, and with the rejected ones among the invalid."""
        invalid = before.invalid if self.invalid is None else pl.concat([before.invalid, self.invalid])
        counts = {**before.counts, **{f"tracking plan: {rule}": rows for rule, rows in self.counts.items()}}
        return Addressed(self.rows, before.held, invalid, before.writable, counts)


_CHOICES = ("on_unplanned_event", "on_unplanned_property", "on_violation")


def _converted(values: pl.Series, kind: str) -> pl.Series:
    """Convert values that can be converted without loss; others become null."""
    return values.to_frame().select(_conversion(pl.col(values.name), values.dtype, kind).alias(values.name)).to_series()


def _conversion(value: pl.Expr, dtype: pl.DataType, kind: str) -> pl.Expr:
    none = pl.lit(None, _TYPES[kind])
    if kind == "datetime":
        return value if dtype.is_temporal() else read_times(value) if dtype == pl.String else none
    if kind == "string":
        return as_text(value, dtype) if dtype.is_nested() or dtype == pl.Binary else value.cast(pl.String)
    if dtype.is_nested() or dtype.is_temporal() or dtype == pl.Binary:
        return none
    if kind == "boolean":
        text = value.cast(pl.String).str.to_lowercase()
        return value if dtype == pl.Boolean else text.replace_strict(_TRUTH, default=None, return_dtype=pl.Boolean)
    if kind == "number" and dtype == pl.String:
        return double_spelled(value)
    if dtype.is_decimal() or dtype.is_float():
        integer = value.cast(pl.Int64, strict=False)
        return (
            fitting(value, dtype, _TYPES[kind])
            if kind == "number"
            else pl.when(integer.cast(dtype) == value).then(integer)
        )
    return fitting(value, dtype, _TYPES[kind]) if dtype.is_integer() else value.cast(_TYPES[kind], strict=False)


def _alike(parts: Sequence[pl.DataFrame], properties: Sequence[str]) -> list[pl.DataFrame]:
    """Return the rows of several events with each property in one type: doubles if none is rounded, else text."""
    types = {name: {part.schema[name] for part in parts if name in part.columns} for name in properties}
    for name, differing in types.items():
        if len(differing - {pl.Null()}) > 1:
            parts = _as_doubles(parts, name) or [_as_text(part, name) for part in parts]
    return list(parts)


def _as_doubles(parts: Sequence[pl.DataFrame], name: str) -> list[pl.DataFrame] | None:
    doubles = []
    for part in parts:
        dtype = part.schema.get(name)
        if dtype is not None and dtype != pl.Null:
            if not dtype.is_numeric():
                return None
            shown = part.with_columns(fitting(pl.col(name), dtype, pl.Float64()).alias(name))
            if shown[name].null_count() > part[name].null_count():
                return None
            part = shown
        doubles.append(part)
    return doubles


def _as_text(part: pl.DataFrame, name: str) -> pl.DataFrame:
    return part.with_columns(as_text(pl.col(name), part.schema[name]).alias(name)) if name in part.columns else part


def _set_aside(part: pl.DataFrame) -> pl.DataFrame:
    profile = pl.col("profile_id") if "profile_id" in part.columns else pl.lit(None, pl.String)
    key = pl.col("event_key") if "event_key" in part.columns else pl.col("key")
    return part.select(profile_id=profile, key=key, reason="_reason")


def _event(value: Any, where: str) -> PlannedEvent:
    raw = _checked(value, where, {"rename", "properties"})
    properties = {}
    for name, text in _checked(raw.get("properties", {}), f"{where}.properties", None).items():
        at = f"{where}.properties[{name!r}]"
        planned = _checked(text, at, {"type", "rename", "required"})
        if planned.get("type") is not None and planned["type"] not in _TYPES:
            raise SettingsError(f"{at}.type is {planned['type']!r}; known types are {', '.join(_TYPES)}")
        properties[name] = PlannedProperty(planned.get("type"), planned.get("rename"), bool(planned.get("required")))
    return PlannedEvent(raw.get("rename"), properties)


def _checked(value: Any, where: str, keys: set[str] | None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SettingsError(f"{where} is not an object")
    if keys is not None and (unknown := sorted(set(value) - keys)):
        raise SettingsError(f"{where} has the unknown key {unknown[0]!r}; known are {', '.join(sorted(keys))}")
    return value


def _choice(value: Any, name: str) -> Violation:
    try:
        return Violation(value)
    except ValueError:
        raise SettingsError(f"tracking plan: {name} is {value!r}; known are {', '.join(Violation)}") from None
