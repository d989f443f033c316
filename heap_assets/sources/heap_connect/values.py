"""Ids and times as Heap spells them, read exactly or not at all (heap.md 2.7)."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from heap_assets.sources.heap_connect.config import USER_MIGRATIONS, USERS
from heap_assets.values import TIME, as_text

_IDS = {USERS: ("user_id",), USER_MIGRATIONS: ("from_user_id", "to_user_id")}
_EVENT_IDS = ("event_id", "user_id", "session_id")
_TIMES = {USERS: ("joindate", "last_modified")}
_EVENT_TIMES = ("time",)

_DIGITS = r"^\s*-?\d{1,19}\s*$"
_EXPORTED = "%Y-%m-%d %H:%M:%S.%6f"
"""Heap's own format: of a fixed width, which Polars reads in half the time."""
_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.fZ",
    "%Y-%m-%d %H:%M:%S%.fZ",
    "%Y-%m-%d %H:%M:%S%.f UTC",
)
_ZONED = ("%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f %#z")
_DAY = "%Y-%m-%d"
_OLDEST = -719_162 * 86_400_000_000  # 0001-01-01: what Python's dates can hold
_YEAR_1000 = -354_285 * 86_400_000_000
_END = 2_932_897 * 86_400_000_000  # after 9999-12-31


def key_dtype(table: str, column: str) -> pl.DataType | None:
    """Return the type of an id or time column that Heap has in a table; None for any other column.

    The same names elsewhere are custom properties: an event may have a `to_user_id` of its own.
    """
    if column in _IDS.get(table, _EVENT_IDS):
        return pl.Int64()
    return TIME if column in _TIMES.get(table, _EVENT_TIMES) else None


def was_misread(table: str, reasons: Iterable[str]) -> bool:
    """Return whether rows of a table were set aside because of a column that is no id or time of it.

    Former versions mistook a property that is called like an id of another table (`to_user_id`) for one.
    """
    return any(" is not " in reason and key_dtype(table, reason.partition(" is not ")[0]) is None for reason in reasons)


@dataclass(frozen=True)
class Read:
    """A column read as ids or times; `unreadable` is true where a value is not null but cannot be read."""

    values: pl.Series
    unreadable: pl.Series


def read_ids(column: pl.Series) -> Read:
    """Read Avro longs and digit strings as Int64, never through a float."""
    dtype = column.dtype
    if dtype.is_integer():
        return _read(column, column.cast(pl.Int64, strict=False))
    if dtype == pl.String:
        digits = column.str.contains(_DIGITS)
        return _read(
            column, column.set(~digits.fill_null(value=True), None).str.strip_chars().cast(pl.Int64, strict=False)
        )
    return _read(column, pl.Series(column.name, [None] * len(column), dtype=pl.Int64))


def read_times(column: pl.Series) -> Read:
    """Read timestamps, epoch numbers in s, ms, us or ns, and ISO strings, as UTC; no zone means UTC."""
    return _read(column, _times(column))


def _times(column: pl.Series) -> pl.Series:
    dtype = column.dtype
    if isinstance(dtype, pl.Datetime):
        return _bounded(_in_utc(column).cast(TIME))
    if dtype == pl.Date:
        return _bounded(column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))
    if dtype.is_integer():
        return _bounded(_epoch(column.cast(pl.Int64, strict=False)))
    if dtype == pl.String:
        return _bounded(_text(column))
    return pl.Series(column.name, [None] * len(column), dtype=TIME)


def _text(column: pl.Series) -> pl.Series:
    result = _exported(column).dt.replace_time_zone("UTC")
    if result.null_count() == column.null_count():
        return result
    # One format serves a whole file as a rule; the others are tried only on what it cannot read.
    unread = (result.is_null() & column.is_not_null()).arg_true()
    return result.scatter(unread, _other_formats(column.gather(unread)))


def _exported(column: pl.Series) -> pl.Series:
    result = column.str.to_datetime(_EXPORTED, time_unit="us", strict=False)
    # Of a fixed width, a sign passes for a digit of the year: so early times are read by the formats that refuse it.
    return result.set(result.to_physical() < _YEAR_1000, None)


def _other_formats(column: pl.Series) -> pl.Series:
    """Read what has none of the earlier formats by the next one, until all is read: most columns have one format."""
    text = column.str.strip_chars()
    times = _epoch(text.set(~text.str.contains(_DIGITS), None).cast(pl.Int64, strict=False))
    for form in (*_FORMATS, *_ZONED, _DAY):
        is_unread = times.is_null() & text.is_not_null()
        if not is_unread.any():
            break
        if form == _DAY:
            read = text.str.to_date(form, strict=False).cast(pl.Datetime("us"))
        else:
            read = text.str.to_datetime(form, time_unit="us", strict=False)
        times = times.zip_with(~is_unread, _in_utc(read))
    return times.alias(column.name)


def _in_utc(times: pl.Series) -> pl.Series:
    is_zoned = isinstance(times.dtype, pl.Datetime) and times.dtype.time_zone
    return times.dt.convert_time_zone("UTC") if is_zoned else times.dt.replace_time_zone("UTC")


def _epoch(numbers: pl.Series) -> pl.Series:
    """Tell seconds from milli-, micro- and nanoseconds by size (heap.md 2.7)."""
    value, size = pl.col("n"), pl.col("n").abs()
    micros = (
        pl.when(size >= 10**17)
        .then(value // 1_000)
        .when(size >= 10**14)
        .then(value)
        .when(size >= 10**11)
        .then(value * 1_000)
        .otherwise(value * 1_000_000)
    )
    return pl.DataFrame({"n": numbers}).select(micros.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")).to_series()


def _bounded(times: pl.Series) -> pl.Series:
    physical = times.to_physical()
    low, high = physical.min(), physical.max()
    if low is None or (low >= _OLDEST and high < _END):  # type: ignore[operator]
        return times
    return times.set((physical < _OLDEST) | (physical >= _END), None)


def _read(source: pl.Series, values: pl.Series) -> Read:
    return Read(values.alias(source.name), values.is_null() & source.is_not_null())


@dataclass(frozen=True)
class Typed:
    """Rows with ids and times in their types; `reasons` is null for a row that can be kept."""

    rows: pl.DataFrame
    reasons: pl.Series

    @property
    def clean(self) -> bool:
        return self.reasons.null_count() == len(self.reasons)


def typed(rows: pl.DataFrame, table: str, required: Sequence[str], text: Container[str]) -> Typed:
    """Give ids and times their types and Heap's own columns String.

    Parameters
    ----------
    table
        Decides which columns are ids and times.
    required
        Columns that no row may lack.
    text
        Names of Heap's own columns, which are String whatever a file says.

    Returns the same rows in the same order. A reason names the column and never the value.
    """
    reasons = pl.repeat(None, rows.height, dtype=pl.String, eager=True)
    changed: list[pl.Series] = []
    for name in rows.columns:
        key = key_dtype(table, name)
        if key is not None:
            read = read_times(rows[name]) if key == TIME else read_ids(rows[name])
            changed.append(read.values)
            expected = "a time" if key == TIME else "an id"
            reasons = _with_reason(reasons, read.unreadable, f"{name} is not {expected}")
        elif name in text and rows.schema[name] != pl.String:
            changed.append(_as_text(rows[name]))
    result = rows.with_columns(changed)
    for name in required:
        reasons = _with_reason(reasons, result[name].is_null(), f"{name} is missing")
    return Typed(result, reasons)


def _with_reason(reasons: pl.Series, where: pl.Series, reason: str) -> pl.Series:
    return reasons.set(where & reasons.is_null(), reason) if where.any() else reasons


def _as_text(column: pl.Series) -> pl.Series:
    if column.dtype.is_nested():
        return column.to_frame("v").select(as_text(pl.col("v"), column.dtype).alias(column.name)).to_series()
    if column.dtype == pl.Binary:
        return column.bin.encode("hex")
    return column.cast(pl.String)
