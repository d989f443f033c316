"""Rows of a table as conversions: what both of Google's APIs take of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from pydantic import Field, model_validator

from heap_assets.activation.connectors.google.people import CLICKS, CONSENT, GooglePeopleSettings
from heap_assets.activation.connectors.inputs import EventRowSettings
from heap_assets.activation.engine.events import event_faults
from heap_assets.config import PROPERTIES

_NAME = 255
VALUE, CURRENCY = "conversion_value", "currency"


class ConversionSettings(EventRowSettings, GooglePeopleSettings):
    """Rows of a table as conversions."""

    event_name: str | None = Field(default="conversion", description="Only for the report: Google knows the action")
    consent: str = CONSENT
    conversion_action_id: str = Field(pattern=r"^[0-9]+$", description="Id of the conversion action")
    currency: str | None = Field(
        default=None, pattern=r"^[A-Z]{3}$", description="Of conversion_value, where no property currency says it"
    )
    properties: dict[str, str] = PROPERTIES

    @model_validator(mode="after")
    def _can_be_matched(self) -> ConversionSettings:
        if not {*CLICKS, "email", "phone"} & set(self.properties):
            raise ValueError(f"properties: Google matches conversions by {', '.join(CLICKS)}, email or phone; map one")
        if VALUE in self.properties and self.currency is None and CURRENCY not in self.properties:
            raise ValueError("currency: conversion_value needs one, here or as a property")
        return self


def conversion_faults(rows: pl.LazyFrame, properties: Sequence[str]) -> Mapping[str, pl.Expr]:
    """Return reason to expression that is true for rows that are no conversion."""
    ways = [pl.col(f"v:{name}").is_not_null() for name in (*CLICKS, "email", "phone") if name in properties]
    identifiers_mapped = ", ".join(name for name in (*CLICKS, "email", "phone") if name in properties)
    faults = {**event_faults(rows, _NAME), "it has no time": pl.col("time").is_null()}
    faults[f"it has no {identifiers_mapped} that Google could match"] = ~pl.any_horizontal(ways)
    if CURRENCY in properties:
        currency = pl.col(f"v:{CURRENCY}")
        faults["currency is no code of three capitals"] = (~currency.str.contains(r"^[A-Z]{3}$")).fill_null(value=False)
    return faults


def click_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the id of a conversion's click; of several the one that says most."""
    return next(({name: values[name]} for name in CLICKS if values.get(name) is not None), {})


def worth_of(values: Mapping[str, Any], currency: str | None, *, names: tuple[str, str]) -> dict[str, Any]:
    """Return value and currency of a conversion under the names of an API."""
    if values.get(VALUE) is None:
        return {}
    return {names[0]: float(values[VALUE]), names[1]: values.get(CURRENCY) or currency}
