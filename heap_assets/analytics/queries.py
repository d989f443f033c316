"""The kinds of queries, and reading one from the settings or a command line."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, Literal

from heap_assets.analytics.journeys import Attribution, Experiment, Funnel, Paths
from heap_assets.analytics.query import Query
from heap_assets.analytics.usage import (
    AccountActivity,
    Adoption,
    Engagement,
    Features,
    Lifecycle,
    Recommendations,
    Retention,
)
from heap_assets.errors import SettingsError, did_you_mean
from heap_assets.yaml_core import core

QUERIES: Mapping[str, type[Query]] = {
    one.kind: one
    for one in (
        *(Adoption, Funnel, Paths, Engagement, Lifecycle, Retention, Recommendations, Attribution, Experiment),
        *(AccountActivity, Features),
    )
}


def parse_query(definition: Mapping[str, Any], where: str) -> Query:
    """Read `{kind: funnel, steps: […], …}`; values may be text, as a command line has them.

    Raises SettingsError: kind or parameter that there is not, or a value of the wrong kind; the message names its path.
    """
    kind = definition.get("kind")
    if kind not in QUERIES:
        raise SettingsError(f"{where}.kind is {kind!r}, expected one of {', '.join(QUERIES)}.")
    model = QUERIES[str(kind)]
    parameters = {one.name: one for one in fields(model)}
    hints, values = typing.get_type_hints(model), {}
    for name, value in definition.items():
        if name == "kind":
            continue
        if name not in parameters:
            hint = did_you_mean(name, parameters)
            raise SettingsError(f"{where}.{name} is unknown; {kind} knows {', '.join(parameters)}.{hint}")
        values[name] = _typed(value, hints[name], f"{where}.{name}")
    for name, one in parameters.items():
        if one.default is MISSING and one.default_factory is MISSING and name not in values:
            raise SettingsError(f"{where}.{name} is missing: {kind} needs it.")
    if isinstance(steps := values.get("steps"), tuple) and len(steps) < 2:
        raise SettingsError(f"{where}.steps has {len(steps)} steps, expected two or more.")
    return model(**values)


def _typed(value: Any, hint: Any, where: str) -> Any:
    value = core(value)
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    (target,) = [option for option in options if option is not type(None)]
    if typing.get_origin(target) is tuple:
        items = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
        if not isinstance(items, list | tuple) or not all(isinstance(item, str) and item for item in items):
            raise SettingsError(f"{where} is {value!r}, expected a list of events.")
        return tuple(items)
    if typing.get_origin(target) is Literal:
        if value not in (choices := typing.get_args(target)):
            raise SettingsError(f"{where} is {value!r}, expected one of {', '.join(choices)}.")
        return value
    try:
        if target is bool:
            return {"true": True, "false": False}[str(value).lower()]
        if target is str and isinstance(value, str):
            return value
        if target in (int, float) and not isinstance(value, bool) and (number := target(value)) > 0:
            return number
    except (KeyError, TypeError, ValueError):
        pass
    words = {int: "a whole number above 0", float: "a number above 0", bool: "true or false", str: "a text"}
    raise SettingsError(f"{where} is {value!r}, expected {words[target]}.")
