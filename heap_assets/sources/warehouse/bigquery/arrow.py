"""Values of BigQuery that Parquet or Polars cannot hold, as exact text: INTERVAL, and BIGNUMERIC's 76 digits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal

import pyarrow as pa

_MICROSECOND = 1_000
_SECOND = 1_000_000


def readable(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Return schema and batches with INTERVAL and BIGNUMERIC as text, inside structs and arrays as well."""
    wanted = pa.schema([pa.field(each.name, _kind(each.type)) for each in schema])
    return wanted, (_batch(batch, wanted) for batch in batches)


def interval_text(value: pa.MonthDayNano) -> str:
    """Write an interval as BigQuery casts it to STRING.

    >>> interval_text(pa.MonthDayNano([14, 3, 14_706_789_000_000]))
    '1-2 3 4:5:6.789'
    """
    months, days, nanoseconds = value
    micros = abs(nanoseconds) // _MICROSECOND
    seconds, fraction = divmod(micros, _SECOND)
    tail = f".{fraction:06d}".rstrip("0") if fraction else ""
    clock = f"{_sign(nanoseconds)}{seconds // 3600}:{seconds // 60 % 60}:{seconds % 60}{tail}"
    return f"{_sign(months)}{abs(months) // 12}-{abs(months) % 12} {days} {clock}"


def decimal_text(value: Decimal) -> str:
    """Write all digits of a number and no exponent.

    >>> decimal_text(Decimal("1.50E+3"))
    '1500'
    """
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _sign(number: int) -> str:
    return "-" if number < 0 else ""


def _kind(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_interval(kind) or pa.types.is_decimal256(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_kind(kind.value_type))
    if pa.types.is_struct(kind):
        children = [kind.field(index) for index in range(kind.num_fields)]
        return pa.struct([pa.field(child.name, _kind(child.type)) for child in children])
    return kind


def _batch(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [_column(batch.column(index), field.type) for index, field in enumerate(schema)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _column(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if array.type.equals(kind):
        return array
    if pa.types.is_interval(array.type):
        return pa.array([None if value is None else interval_text(value) for value in array.to_pylist()], kind)
    if pa.types.is_decimal256(array.type):
        return pa.array([None if value is None else decimal_text(value) for value in array.to_pylist()], kind)
    if pa.types.is_struct(array.type):
        children = [_column(child, kind.field(index).type) for index, child in enumerate(array.flatten())]
        return pa.StructArray.from_arrays(children, fields=list(kind), mask=array.is_null())
    if pa.types.is_list(array.type):
        values = _column(array.values, kind.value_type)
        return pa.ListArray.from_arrays(array.offsets, values, type=kind, mask=array.is_null())
    return array.cast(kind)
