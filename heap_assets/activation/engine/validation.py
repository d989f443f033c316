"""Decide which rows can be sent at all, and say of the others why not."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from heap_assets.activation.engine.canonical import utf16_longer_than
from heap_assets.activation.engine.destination import Destination, Limits
from heap_assets.errors import SettingsError

VALUE = "v:"
"""Prefix of the columns that hold the values to send."""


def check_names(sync: str, names: Iterable[str], limits: Limits) -> None:
    """Refuse property names that the destination would misread.

    Raises
    ------
    SettingsError
        For a name that is empty, too long (heap.md 1.9) or taken by the destination ("id", heap.md 1.5).
    """
    for name in names:
        if not name.strip():
            raise SettingsError(f"sync {sync}: a property has an empty name")
        if name.lower() in limits.forbidden_names:
            raise SettingsError(f"sync {sync}: property {name!r} clashes with a name of the destination: rename it")
        if limits.name_units is not None and len(name.encode("utf-16-le")) // 2 > limits.name_units:
            raise SettingsError(f"sync {sync}: property {name[:40]!r}... is longer than {limits.name_units} characters")


def reasons(frame: pl.DataFrame, destination: Destination, names: Iterable[str]) -> pl.Series:
    """Return for every row why it cannot be sent; null if it can.

    Parameters
    ----------
    frame
        `key`, the destination's other columns, and one `v:` column per property.
    """
    found = pl.Series("reason", [None], dtype=pl.String).new_from_index(0, len(frame))
    tests = [*_key_tests(frame, destination), *_value_tests(frame, destination.limits, names)]
    for reason, expression in destination.unusable(frame.lazy()).items():
        tests.append((reason, frame.select(bad=expression.fill_null(value=True))["bad"]))
    for reason, bad in reversed(tests):
        if bad.any():
            found = found.set(bad, reason)
    return found


def _key_tests(frame: pl.DataFrame, destination: Destination) -> list[tuple[str, pl.Series]]:
    key, limits = frame["key"], destination.limits
    nulls = [] if destination.key_may_be_null else [("key is null", key.is_null())]
    tests = [*nulls, ("key is blank", (key.str.strip_chars() == "").fill_null(value=False))]
    if limits.key_units is not None:
        tests.append((f"key is longer than {limits.key_units} characters", utf16_longer_than(key, limits.key_units)))
    if limits.junk_keys:
        junk = key.str.to_lowercase().is_in(list(limits.junk_keys)).fill_null(value=False)
        tests.append(("key is a placeholder, not one person", junk))
    return tests


def _value_tests(frame: pl.DataFrame, limits: Limits, names: Iterable[str]) -> list[tuple[str, pl.Series]]:
    tests = []
    for name in names:
        values = frame[VALUE + name]
        if values.dtype == pl.String and limits.value_units is not None:
            reason = f"{name} is longer than {limits.value_units} characters"
            tests.append((reason, utf16_longer_than(values, limits.value_units)))
        elif values.dtype.is_float():
            tests.append((f"{name} is not a finite number", (~values.is_finite()).fill_null(value=False)))
    return tests


def duplicated(frame: pl.DataFrame, column: str) -> pl.Series:
    """Tell which rows share their key with another row; null keys share nothing."""
    return frame[column].is_duplicated() & frame[column].is_not_null()
