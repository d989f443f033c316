"""How values are spelled: as text and JSON with all their digits, times in text, numbers in other types, column names.

What becomes of a column whose name is one of ours, one rule for tables of the lake and for views over them: a property
or a warehouse column may be called anything. Where a table or a view has a column of its own (`migrated_to`,
`partition_key`, `profile_id` …), its own keeps the name, and the other gets `property_` before it; one that is itself
called `property_profile_id` gets another, so that no two become one. Names that differ in case only are one name here,
since warehouses and DuckDB hold them for equal.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Collection, Iterable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

import polars as pl

PREFIX: Final = "property_"
PSEUDONYM: Final = r"^user_[0-9a-f]{32}$"
"""What stands in place of a value that a rule of masking has hashed: an identifier of any type, as it is."""
PRIVATE: Final = "\x1f"
"""Begins the names of columns that are added for the time of a computation; no source has it in names."""
TIME: Final = pl.Datetime("us", "UTC")
ALWAYS: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Since when something holds that holds without a beginning."""

_ISO: Final = "%Y-%m-%dT%H:%M:%S%.f"
_SPELLING: Final = (
    r"^\s*(\d{4})(?:-(\d{1,2})-(\d{1,2})|/(\d{1,2})/(\d{1,2})|(\d\d)(\d\d))"
    r"(?:(?:[Tt]|\s+)(\d{1,2}):?(\d\d)(?::?(\d\d)(?:[.,](\d+))?)?\s*(?:([Zz]|UTC|GMT)|([+-]\d\d)(?::?(\d\d))?)?)?\s*$"
)
"""ISO 8601 and RFC 3339: year first, with `-`, `/` or nothing between; `T` or blanks before the time of day."""
_USUAL: Final = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,9})?Z?$"
_FLOAT_DIGITS: Final = 15
"""Every decimal of so many digits is the one that a double is written with."""
_SPELLED_KEY: Final = r"^[-+]?[0-9]+(\.[0-9]+)?$"
_EXPONENTIAL: Final = r"^[-+]?[0-9]+(\.[0-9]+)?[eE][-+]?[0-9]{1,3}$"
_SPELLED: Final = r"^[-+]?\d+(\.\d+)?$"


def apart(name: str, own: Collection[str]) -> str:
    """Return the name that a column goes under beside a table's `own` columns.

    >>> apart("plan", ["profile_id"]), apart("Profile_ID", ["profile_id"]), apart("property_profile_id", ["profile_id"])
    ('plan', 'property_Profile_ID', 'property_property_profile_id')
    """
    bare = name.casefold()
    while bare.startswith(PREFIX):
        bare = bare.removeprefix(PREFIX)
    return PREFIX + name if bare in {column.casefold() for column in own} else name


def set_apart(columns: Iterable[str], own: Collection[str]) -> dict[str, str]:
    """Return those of `columns` that go under another name beside a table's `own` columns, with that name."""
    return {name: under for name in columns if (under := apart(name, own)) != name}


def original(name: str, own: Collection[str]) -> str:
    """Return the column that :func:`apart` calls `name`."""
    bare = name.removeprefix(PREFIX)
    return bare if bare != name and apart(bare, own) == name else name


def as_text(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Write values as text with all their digits; null stays null.

    Whole floats are `30`, others as Polars writes them; decimals lose the zeros at their end. Times are ISO 8601, in
    UTC if they have a zone; bytes are base64; lists and structs JSON.
    """
    if isinstance(dtype, pl.Float32 | pl.Float64):
        integer = pl.when(column == column.floor()).then(column.cast(pl.Int64, strict=False))
        return pl.coalesce(integer.cast(pl.String), column.cast(pl.String))
    if isinstance(dtype, pl.Decimal):
        text = column.cast(pl.String)
        return text.str.strip_chars_end("0").str.strip_suffix(".") if dtype.scale else text
    if isinstance(dtype, pl.Datetime | pl.Time | pl.Binary):
        return json_safe(column, dtype)
    if dtype.is_nested() or isinstance(dtype, pl.Object):
        return exact_json(column, dtype)
    return column.cast(pl.String)


def key_text(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Write values as keys and identifiers: numbers as `17`, whether a source has them as `17.0` or `17.000000000`."""
    return as_text(column, dtype) if dtype.is_float() or dtype.is_decimal() else column.cast(pl.String)


def number_key(text: pl.Expr) -> pl.Expr:
    """Spell keys that are the text of a number as :func:`key_text` spells the number; null for all other text.

    What a column held as a float, a decimal or text, and now holds as an integer: `17` for `17.0`, `017` and `1.7e1`.
    """
    plain = text.str.replace(r"^\+?(-?)0*([0-9])", "$1$2")
    short = pl.when(plain.str.contains(".", literal=True)).then(plain.str.strip_chars_end("0").str.strip_suffix("."))
    spelt = short.otherwise(plain).str.replace(r"^-0$", "0")
    exponential = pl.when(text.str.contains(_EXPONENTIAL)).then(text.cast(pl.Float64, strict=False))
    return pl.coalesce(pl.when(text.str.contains(_SPELLED_KEY)).then(spelt), key_text(exponential, pl.Float64()))


def json_text(value: pl.Expr, dtype: Any) -> pl.Expr:
    """Write values as JSON; null stays null.

    Whole numbers and floats are numbers with all their digits, decimals are text with all theirs; times are ISO 8601,
    in UTC if they have a zone; bytes are base64. NaN and infinities are null: :func:`json_lost` counts them.
    """
    encoded = pl.struct(json_safe(value, dtype).alias("v")).struct.json_encode()
    return pl.when(value.is_not_null()).then(encoded.str.strip_prefix('{"v":').str.strip_suffix("}"))


def json_lost(value: pl.Expr, dtype: Any) -> pl.Expr:
    """Count, row by row, the numbers in values that JSON has no form for."""
    if isinstance(dtype, pl.Struct):
        counts = [json_lost(value.struct.field(child.name), child.dtype) for child in dtype.fields]
        return pl.sum_horizontal(*counts) if counts else pl.lit(0, pl.UInt32)
    if isinstance(dtype, pl.Array):
        return json_lost(value.arr.to_list(), pl.List(dtype.inner))
    if isinstance(dtype, pl.List):
        return value.list.eval(json_lost(pl.element(), dtype.inner)).list.sum().fill_null(0)
    if dtype in (pl.Float32, pl.Float64):
        return (~value.is_finite()).fill_null(value=False).cast(pl.UInt32)
    return pl.when(value.is_null()).then(pl.lit(0, pl.UInt32)).otherwise(pl.lit(0, pl.UInt32))


def exact_json(value: pl.Expr, dtype: Any) -> pl.Expr:
    """Write values as JSON in which nothing is lost: decimals are numbers, NaN and infinities are text; row by row."""
    safe = json_safe(value, dtype, decimals=False)
    return safe.map_batches(json_texts, return_dtype=pl.String, is_elementwise=True)


def json_or_exact(value: pl.Expr, dtype: Any) -> pl.Expr:
    """Write values as :func:`json_text`, but NaN and infinities as text."""
    encoded = pl.struct(
        json_text(value, dtype).alias("v"), json_lost(value, dtype).alias("lost"), json_safe(value, dtype).alias("safe")
    )
    return encoded.map_batches(_endless_as_text, return_dtype=pl.String, is_elementwise=True)


def _endless_as_text(values: pl.Series) -> pl.Series:
    parts = values.struct.unnest()
    endless = (parts["lost"] > 0).arg_true()
    texts = parts["v"]
    return texts.scatter(endless, json_texts(parts["safe"].gather(endless))) if len(endless) else texts


def json_texts(values: pl.Series) -> pl.Series:
    """Write each value of a column by :func:`value_as_json`; null stays null."""
    texts = [None if each is None else value_as_json(each) for each in values.to_list()]
    return pl.Series(values.name, texts, pl.String)


def json_safe(value: pl.Expr, dtype: Any, *, decimals: bool = True) -> pl.Expr:
    """Turn values into those that Polars writes as the JSON of :func:`json_text`.

    `decimals`: whether decimals become text.
    """
    if isinstance(dtype, pl.Struct):
        fields = [
            json_safe(value.struct.field(child.name), child.dtype, decimals=decimals).alias(child.name)
            for child in dtype.fields
        ]
        return pl.when(value.is_not_null()).then(pl.struct(fields)) if fields else value
    if isinstance(dtype, pl.Array):
        return json_safe(value.arr.to_list(), pl.List(dtype.inner), decimals=decimals)
    if isinstance(dtype, pl.List):
        return value.list.eval(json_safe(pl.element(), dtype.inner, decimals=decimals))
    if isinstance(dtype, pl.Datetime):
        utc = value.dt.convert_time_zone("UTC") if dtype.time_zone else value
        return utc.dt.strftime(_ISO + ("Z" if dtype.time_zone else ""))
    if isinstance(dtype, pl.Time):
        return value.dt.strftime("%H:%M:%S%.f")
    if isinstance(dtype, pl.Binary):
        return value.bin.encode("base64")
    if isinstance(dtype, pl.Duration):
        return value.dt.to_string("iso")
    if isinstance(dtype, pl.Categorical | pl.Enum) or (decimals and isinstance(dtype, pl.Decimal)):
        return value.cast(pl.String)
    return value


def value_as_json(value: Any) -> str:
    """Write a value as JSON with all its digits; what JSON has no form for is text in it.

    >>> value_as_json({"a": [1, None], "n": Decimal("1.50")})
    '{"a":[1,null],"n":1.50}'
    """
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{value_as_json(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | pl.Series):
        return "[" + ",".join(value_as_json(each) for each in value) + "]"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(str(value))
    return json.dumps(_scalar(value), ensure_ascii=False)


def _scalar(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime | date | time):
        return value.isoformat().replace("+00:00", "Z")
    return str(value) if isinstance(value, timedelta) else value


def fitting(value: pl.Expr, own: pl.DataType, dtype: pl.DataType) -> pl.Expr:
    """Return a number or time in another type of its family; null where no value of it is the same."""
    if dtype.is_float():
        near, integer = nearest_double(value, own).cast(dtype), value.cast(pl.Int128, strict=False)
        is_same = near.cast(pl.Int128, strict=False) == integer
        if isinstance(own, pl.Decimal):
            is_same = (is_same & (integer.cast(own, strict=False) == value)) | _is_short(value)
        return near if own.is_float() else pl.when(is_same).then(near)
    if isinstance(dtype, pl.Datetime):
        return in_zone(value, own, dtype.time_zone).cast(dtype, strict=False)
    return value.cast(dtype, strict=False)


def double_spelled(text: pl.Expr) -> pl.Expr:
    """Return the double that a text spells; null where it would be rounded, or the text is no number."""
    near = text.cast(pl.Float64, strict=False)
    integer = near.cast(pl.Int64, strict=False).cast(pl.String)
    is_same = ~text.str.contains(_SPELLED) | _is_short(text) | (integer == text.str.strip_prefix("+"))
    return pl.when(is_same).then(near)


def nearest_double(value: pl.Expr, own: pl.DataType) -> pl.Expr:
    """Return the double that is nearest to a number; the cast of a decimal would round twice."""
    return (value.cast(pl.String) if isinstance(own, pl.Decimal) else value).cast(pl.Float64)


def in_zone(value: pl.Expr, own: pl.DataType, zone: str | None) -> pl.Expr:
    """Return dates or times in a zone (None: none); one without a zone is of it, a date is its midnight."""
    if not isinstance(own, pl.Datetime):
        value = value.cast(pl.Datetime("us"))
    if zone is None:
        return value
    if getattr(own, "time_zone", None) is None:
        return value.dt.replace_time_zone(zone)
    return value.dt.convert_time_zone(zone)


def _is_short(decimal: pl.Expr) -> pl.Expr:
    digits = decimal.cast(pl.String).str.replace_all(r"[-.]", "").str.strip_chars_start("0").str.strip_chars_end("0")
    return digits.str.len_chars() <= _FLOAT_DIGITS


def read_times(text: pl.Expr) -> pl.Expr:
    """Read times: one without a zone is UTC, a date alone its midnight; null for text that is no time.

    Days and months are never guessed: `01/02/2026` is no time. Digits beyond microseconds are cut off. The years are 1
    to 9999, as everywhere in the lake (docs/values.md).
    """
    return text.map_batches(_read, return_dtype=TIME, is_elementwise=True)


def as_moment(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return moments in UTC, by the microsecond: text as :func:`read_times` reads it, a date at its midnight."""
    if dtype == pl.String:
        return read_times(value)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return value.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    return value.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _read(values: pl.Series) -> pl.Series:
    """Read most values by the one format that nearly all have, the others part by part."""
    rows = values.alias("text").to_frame().with_columns(read=_quick(pl.col("text")))
    unread = rows["read"].is_null() & rows["text"].is_not_null()
    if unread.any():
        parts = rows.filter(unread).select(pl.col("text").str.extract_groups(_SPELLING)).unnest("text")
        place = pl.when(unread).then(unread.cast(pl.UInt32).cum_sum() - 1)
        rows = rows.with_columns(read=pl.coalesce("read", pl.lit(parts.select(_spelt()).to_series()).gather(place)))
    return rows["read"].alias(values.name)


def _quick(text: pl.Expr) -> pl.Expr:
    plain = pl.when(text.str.contains(_USUAL)).then(text.str.strip_suffix("Z").str.replace(" ", "T", literal=True))
    return _in_range(plain.str.to_datetime(_ISO, time_unit="us", strict=False))


def _spelt() -> pl.Expr:
    """Put the parts of :data:`_SPELLING`, columns 1 to 14, together as one format."""

    def part(number: int, fallback: str) -> pl.Expr:
        return pl.col(str(number)).fill_null(fallback)

    month, day = (pl.coalesce(*map(str, numbers)).str.zfill(2) for numbers in ((2, 4, 6), (3, 5, 7)))
    fraction = part(11, "0").str.slice(0, 6).str.pad_end(6, "0")
    spelt = pl.concat_str(
        "1", pl.lit("-"), month, pl.lit("-"), day, pl.lit("T"), part(8, "00").str.zfill(2), pl.lit(":"), part(9, "00"),
        pl.lit(":"), part(10, "00"), pl.lit("."), fraction, part(13, "+00"), part(14, "00"),
    )  # fmt: skip
    read = spelt.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", time_unit="us", time_zone="UTC", strict=False)
    return _in_range(read.dt.replace_time_zone(None))


def _in_range(naive: pl.Expr) -> pl.Expr:
    return pl.when(naive.dt.year().is_between(1, 9999)).then(naive).dt.replace_time_zone("UTC")


def sql_identifier(name: str) -> str:
    """Quote a name of a schema, table or column, as DuckDB and PostgreSQL do."""
    return '"' + name.replace('"', '""') + '"'


def sql_literal(text: str) -> str:
    """Quote a text, as DuckDB and PostgreSQL do."""
    return "'" + text.replace("'", "''") + "'"
