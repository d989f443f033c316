"""Polars types as BigQuery fields, and rows in a form that load jobs take."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from google.cloud import bigquery

from heap_assets.sources.warehouse.bigquery.evolution import kind_of
from heap_assets.sources.warehouse.empty_columns import is_untyped
from heap_assets.sources.warehouse.names import published_names
from heap_assets.sources.warehouse.publish import Publication, PublishError
from heap_assets.values import as_text, exact_json

LONGEST_NAME = 300
_SCALARS: Mapping[type[pl.DataType], str] = {
    pl.Int8: "INT64", pl.Int16: "INT64", pl.Int32: "INT64", pl.Int64: "INT64",
    pl.UInt8: "INT64", pl.UInt16: "INT64", pl.UInt32: "INT64", pl.UInt64: "NUMERIC",
    pl.Float32: "FLOAT64", pl.Float64: "FLOAT64", pl.Boolean: "BOOL", pl.String: "STRING",
    pl.Categorical: "STRING", pl.Enum: "STRING", pl.Null: "STRING", pl.Binary: "BYTES",
    pl.Date: "DATE", pl.Time: "TIME",
}  # fmt: skip
_IN_TEXT = (pl.Duration, pl.Int128, pl.UInt128, pl.Object)


def field_of(name: str, dtype: pl.DataType, description: str = "", *, json: bool = False) -> bigquery.SchemaField:
    """Return the BigQuery field of a column; PublishError for lists in lists, which BigQuery does not have."""
    mode = "NULLABLE"
    if isinstance(dtype, pl.List | pl.Array):
        mode, dtype = "REPEATED", _instance(dtype.inner)
        if isinstance(dtype, pl.List | pl.Array):
            raise PublishError(f"column {name!r} is a list of lists, which BigQuery does not have")
    fields: Sequence[bigquery.SchemaField] = ()
    if isinstance(dtype, pl.Struct):
        kind = "STRUCT"
        typed = [child for child in dtype.fields if not is_untyped(_instance(child.dtype))]
        fields = [field_of(child.name, _instance(child.dtype)) for child in typed]
    else:
        kind = "JSON" if json else _scalar(name, dtype)
    return bigquery.SchemaField(name, kind, mode, description=description or None, fields=fields)


def _instance(dtype: Any) -> pl.DataType:
    instance: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return instance


def _scalar(name: str, dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.Datetime):
        return "TIMESTAMP" if dtype.time_zone else "DATETIME"
    if isinstance(dtype, pl.Decimal):
        precision, scale = dtype.precision or 38, dtype.scale
        return "NUMERIC" if scale <= 9 and precision - scale <= 29 else "BIGNUMERIC"
    kind = next((kind for polars_type, kind in _SCALARS.items() if isinstance(dtype, polars_type)), None)
    if kind is None:
        raise PublishError(f"column {name!r} is of type {dtype}, which BigQuery does not have")
    return kind


def schema_of(publication: Publication, schema: pl.Schema) -> list[bigquery.SchemaField]:
    """Return the fields of a publication, described; a column that is null throughout and of no type waits for one."""
    return [
        field_of(name, dtype, publication.descriptions.get(name, ""), json=name in publication.json_columns)
        for name, dtype in schema.items()
        if not is_untyped(dtype)
    ]


def unsupported_as_text(frame: pl.LazyFrame, existing: Sequence[bigquery.SchemaField] = ()) -> pl.LazyFrame:
    """Write as text what BigQuery has no type for: durations, nanoseconds, lists of lists, integers of 128 bits.

    So are structs without a field, or with a field whose name BigQuery refuses.

    Nanoseconds of a column that is a time in BigQuery already stay times; those that have a rest are lost there.
    """
    times = {entry.name.casefold() for entry in existing if kind_of(entry) in ("TIMESTAMP", "DATETIME")}
    schema = frame.collect_schema()
    return frame.with_columns(
        _as_text(name, dtype)
        for name, dtype in schema.items()
        if _is_unsupported(dtype) and not (isinstance(dtype, pl.Datetime) and name.casefold() in times)
    )


def _is_unsupported(dtype: pl.DataType, *, in_list: bool = False) -> bool:
    if isinstance(dtype, pl.List | pl.Array):
        return in_list or _is_unsupported(_instance(dtype.inner), in_list=True)
    if isinstance(dtype, pl.Struct):
        names = [child.name for child in dtype.fields]
        legal = names and published_names(names, longest=LONGEST_NAME) == dict(zip(names, names, strict=True))
        return not legal or any(_is_unsupported(_instance(child.dtype)) for child in dtype.fields)
    return isinstance(dtype, _IN_TEXT) or (isinstance(dtype, pl.Datetime) and dtype.time_unit == "ns")


def _as_text(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if isinstance(dtype, pl.Duration):
        return column.dt.to_string("iso")
    if isinstance(dtype, pl.Datetime):
        return column.dt.strftime("%Y-%m-%dT%H:%M:%S%.9f" + ("Z" if dtype.time_zone else ""))
    if dtype.is_nested() or isinstance(dtype, pl.Object):
        return exact_json(column, dtype).alias(name)
    return column.cast(pl.String)


_DTYPES: Mapping[str, pl.DataType] = {
    "INT64": pl.Int64(), "FLOAT64": pl.Float64(), "BOOL": pl.Boolean(), "BYTES": pl.Binary(), "DATE": pl.Date(),
    "TIME": pl.Time(), "TIMESTAMP": pl.Datetime("us", "UTC"), "DATETIME": pl.Datetime("us"),
    "NUMERIC": pl.Decimal(38, 9), "BIGNUMERIC": pl.Decimal(38, 9),
}  # fmt: skip


def dtype_of(entry: bigquery.SchemaField) -> pl.DataType:
    """Return the Polars type of a column that the frame lacks."""
    kind: pl.DataType = _DTYPES.get(kind_of(entry), pl.String())
    if entry.fields:
        kind = pl.Struct({child.name: dtype_of(child) for child in entry.fields})
    return pl.List(kind) if entry.mode == "REPEATED" else kind


def in_table_order(
    frame: pl.LazyFrame, fields: Sequence[bigquery.SchemaField], empty: Collection[str] = ()
) -> pl.LazyFrame:
    """Select the table's columns in its order, as text where that is their type there.

    One that the frame lacks, or that is `empty`, is null.
    """
    schema = frame.collect_schema()
    by_folded_name = {name.casefold(): name for name in schema.names()}
    selected = []
    for entry in fields:
        name = by_folded_name.get(entry.name.casefold())
        if name is None or name in empty or is_untyped(schema[name]):
            selected.append(pl.lit(None, dtype_of(entry)).alias(entry.name))
        else:
            selected.append(_in_type(pl.col(name), schema[name], entry).alias(entry.name))
    return frame.select(selected)


def _in_type(column: pl.Expr, dtype: pl.DataType, entry: bigquery.SchemaField) -> pl.Expr:
    if kind_of(entry) != "STRING":
        return column
    if isinstance(dtype, pl.Array):
        return _in_type(column.arr.to_list(), pl.List(dtype.inner), entry)
    if isinstance(dtype, pl.List) and entry.mode == "REPEATED":
        inner = _instance(dtype.inner)
        return column if inner == pl.String() else column.list.eval(as_text(pl.element(), inner))
    return column if dtype == pl.String() else as_text(column, dtype)


def write_ndjson(frame: pl.LazyFrame, json_columns: frozenset[str], path: Path) -> None:
    """Write one JSON object per line, with the text of JSON columns as JSON and not as a quoted string.

    Parquet cannot be loaded into a JSON column (BigQuery: "Unsupported field type: JSON"); text in a string would
    become a JSON string.
    """
    schema = frame.collect_schema()
    plain = [_text(name, dtype) for name, dtype in schema.items() if name not in json_columns]
    line = pl.struct(plain).struct.json_encode().str.strip_suffix("}")
    parts: list[pl.Expr] = [line]
    for name in schema.names():
        if name in json_columns:
            parts += [pl.lit(f',"{name}":'), pl.col(name).str.replace_all("\n", " ", literal=True).fill_null("null")]
    lines = frame.select(pl.concat_str([*parts, pl.lit("}")]).alias("line"))
    lines.sink_csv(path, include_header=False, quote_style="never", separator="\x1f")


def _text(name: str, dtype: pl.DataType) -> pl.Expr:
    """Bring a value into the form that BigQuery reads from JSON."""
    if isinstance(dtype, pl.Datetime):
        return pl.col(name).dt.strftime("%Y-%m-%dT%H:%M:%S%.6f" + ("Z" if dtype.time_zone else ""))
    if isinstance(dtype, pl.Time):
        return pl.col(name).dt.to_string("%H:%M:%S%.f")
    if isinstance(dtype, pl.Float32 | pl.Float64):
        special = {"inf": "Infinity", "-inf": "-Infinity"}
        return pl.col(name).cast(pl.String).replace(special)
    if isinstance(dtype, pl.Date | pl.Decimal):
        return pl.col(name).cast(pl.String)
    if isinstance(dtype, pl.Binary):
        return pl.col(name).bin.encode("base64")
    return pl.col(name)


_MICROSECOND = 1_000
_SECOND = 1_000_000


def readable(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Return schema and batches with INTERVAL and BIGNUMERIC as text, inside structs and arrays as well."""
    readable_schema = pa.schema([pa.field(each.name, _kind(each.type)) for each in schema])
    return readable_schema, (_batch(batch, readable_schema) for batch in batches)


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
