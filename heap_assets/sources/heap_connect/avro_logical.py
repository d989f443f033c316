"""Avro's logical types as Polars types: the exact value, or text, or null where the type cannot hold it; never another.

Temporal values stay whole numbers until their column is made: `storage` is the type of those.
"""

from __future__ import annotations

import math
import struct
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl

_DAY = 86_400_000_000  # microseconds
_FIRST_DAY = -719_162  # 0001-01-01
_END_DAY = 2_932_897  # the day after 9999-12-31
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_LONG = (-(2**63), 2**63)
MOST_DIGITS = 38
"""Digits that Polars' decimals have; longer ones are text."""
_MOST_DECIMAL_BYTES = 1_600  # 3,853 digits: beyond, Python converts no whole number to text


@dataclass(frozen=True)
class Scaled:
    """A temporal type: whole numbers within [low, end), times `factor`, are those of `dtype`."""

    dtype: pl.DataType
    low: int
    end: int
    factor: int
    text: Callable[[int], str]

    def series(self, numbers: pl.Series) -> pl.Series:
        """Return a column in its type; what is out of range is null."""
        number = pl.col("n").cast(pl.Int64)
        fitting = pl.when(number.is_between(self.low, self.end - 1)).then(number * self.factor)
        return numbers.to_frame("n").select(fitting.cast(self.dtype)).to_series()

    def value(self, number: int) -> int | None:
        return number * self.factor if self.low <= number < self.end else None


@dataclass(frozen=True)
class Converted:
    """A type whose values are converted one by one; `convert` returns None for what the type cannot hold."""

    dtype: pl.DataType
    convert: Callable[[Any], Any]

    def series(self, values: pl.Series) -> pl.Series:
        converted = [None if value is None else self.convert(value) for value in values.to_list()]
        return pl.Series(values.name, converted, dtype=self.dtype, strict=True)


Logical = Scaled | Converted


def logical_of(kind: Mapping[str, Any]) -> Logical | None:
    """Return the conversion of a type's logical type; None if it has none, or (as Avro demands) an invalid one."""
    base, name = kind.get("type"), kind.get("logicalType")
    if not isinstance(base, str) or not isinstance(name, str):
        return None
    if name == "decimal" and base in ("bytes", "fixed"):
        return _decimal(kind.get("precision"), kind.get("scale", 0))
    if base == "fixed":
        return _FIXED.get((name, kind.get("size")))
    return _LOGICAL.get((base, name))


def _decimal(precision: Any, scale: Any) -> Converted | None:
    if type(precision) is not int or type(scale) is not int or not 0 <= scale <= precision or precision < 1:
        return None
    if precision > MOST_DIGITS:
        return Converted(pl.String(), lambda value: decimal_text(value, scale))
    end = 10**precision

    def convert(value: bytes) -> Decimal | None:
        unscaled = int.from_bytes(value, "big", signed=True) if len(value) <= _MOST_DECIMAL_BYTES else end
        return Decimal(f"{unscaled}E-{scale}") if -end < unscaled < end else None

    return Converted(pl.Decimal(precision, scale), convert)


def decimal_text(value: bytes, scale: int) -> str | None:
    """Write a decimal of any length with all its digits; None beyond some four thousand.

    >>> decimal_text((-1205).to_bytes(2, "big", signed=True), 2)
    '-12.05'
    """
    if len(value) > _MOST_DECIMAL_BYTES or scale > 8 * _MOST_DECIMAL_BYTES:
        return None
    unscaled = int.from_bytes(value, "big", signed=True)
    digits = str(abs(unscaled)).rjust(scale + 1, "0")
    integer, fraction = digits[: len(digits) - scale], digits[len(digits) - scale :]
    return f"{'-' if unscaled < 0 else ''}{integer}{'.' if fraction else ''}{fraction}"


def duration_text(value: bytes) -> str:
    """Write months, days and milliseconds as ISO 8601 does.

    >>> duration_text((1).to_bytes(4, "little") + (2).to_bytes(4, "little") + (3004).to_bytes(4, "little"))
    'P1M2DT3.004S'
    """
    months, days, millis = struct.unpack("<III", value)
    return f"P{months}M{days}DT{millis // 1_000}.{millis % 1_000:03d}S"


def plain_text(value: Any) -> str:
    """Write a number, a truth value or bytes as text."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    return repr(value) if isinstance(value, float) else str(value)


def _time_text(factor: int) -> Callable[[int], str]:
    return lambda number: (datetime.min + timedelta(microseconds=number * factor)).time().isoformat()


def _moment_text(factor: int, zone: Any) -> Callable[[int], str]:
    """`factor` is microseconds of one; 0 stands for nanoseconds."""

    def text(number: int) -> str:
        micros, nanos = (number * factor, 0) if factor else divmod(number, 1_000)
        moment = datetime(1970, 1, 1, tzinfo=zone) + timedelta(microseconds=micros)
        spelled = moment.replace(tzinfo=None).isoformat(timespec="microseconds")
        return f"{spelled}{nanos:03d}" * (not factor) + spelled * bool(factor) + ("Z" if zone else "")

    return text


def _moments(zone: str | None) -> dict[str, Scaled]:
    prefix, tz = ("", UTC) if zone else ("local-", None)
    low, end = _FIRST_DAY * _DAY, _END_DAY * _DAY
    micros, nanos = pl.Datetime("us", zone), pl.Datetime("ns", zone)
    return {
        f"{prefix}timestamp-millis": Scaled(micros, low // 1_000, end // 1_000, 1_000, _moment_text(1_000, tz)),
        f"{prefix}timestamp-micros": Scaled(micros, low, end, 1, _moment_text(1, tz)),
        f"{prefix}timestamp-nanos": Scaled(nanos, *_LONG, 1, _moment_text(0, tz)),
    }


_LOGICAL: Mapping[tuple[str, str], Logical] = {
    ("int", "date"): Scaled(pl.Date(), _FIRST_DAY, _END_DAY, 1, lambda n: date.fromordinal(_EPOCH_DAY + n).isoformat()),
    ("int", "time-millis"): Scaled(pl.Time(), 0, _DAY // 1_000, 1_000_000, _time_text(1_000)),
    ("long", "time-micros"): Scaled(pl.Time(), 0, _DAY, 1_000, _time_text(1)),
    **{("long", name): scaled for zone in ("UTC", None) for name, scaled in _moments(zone).items()},
}
_FIXED: Mapping[tuple[str, Any], Logical] = {
    ("duration", 12): Converted(pl.String(), duration_text),
    ("uuid", 16): Converted(pl.String(), lambda value: str(uuid.UUID(bytes=value))),
}
