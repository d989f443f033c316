"""Polars types as BigQuery fields, what may become of a table's schema, and rows in a form that load jobs take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from google.cloud import bigquery

from heap_assets.warehouse.publish import Publication, PublishError

_SCALARS: Mapping[type[pl.DataType], str] = {
    pl.Int8: "INT64", pl.Int16: "INT64", pl.Int32: "INT64", pl.Int64: "INT64",
    pl.UInt8: "INT64", pl.UInt16: "INT64", pl.UInt32: "INT64", pl.UInt64: "NUMERIC",
    pl.Float32: "FLOAT64", pl.Float64: "FLOAT64", pl.Boolean: "BOOL", pl.String: "STRING",
    pl.Categorical: "STRING", pl.Enum: "STRING", pl.Null: "STRING", pl.Binary: "BYTES",
    pl.Date: "DATE", pl.Time: "TIME",
}  # fmt: skip
_LEGACY = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}
_WIDER = {
    "INT64": frozenset({"NUMERIC", "BIGNUMERIC", "FLOAT64"}),
    "NUMERIC": frozenset({"BIGNUMERIC", "FLOAT64"}),
}
"""Changes of type that BigQuery makes in place (ALTER COLUMN SET DATA TYPE); all others lose something."""


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
        fields = [field_of(child.name, _instance(child.dtype)) for child in dtype.fields]
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
    kind = next((kind for known, kind in _SCALARS.items() if isinstance(dtype, known)), None)
    if kind is None:
        raise PublishError(f"column {name!r} is of type {dtype}, which BigQuery does not have")
    return kind


def schema_of(publication: Publication, schema: pl.Schema) -> list[bigquery.SchemaField]:
    """Return the fields of a publication, described."""
    return [
        field_of(name, dtype, publication.descriptions.get(name, ""), json=name in publication.json_columns)
        for name, dtype in schema.items()
    ]


def kind_of(entry: bigquery.SchemaField) -> str:
    return str(_LEGACY.get(entry.field_type, entry.field_type))


def changes(
    table: str, existing: Sequence[bigquery.SchemaField], wanted: Sequence[bigquery.SchemaField]
) -> tuple[list[bigquery.SchemaField], list[tuple[str, str]]]:
    """Compare a table with what is to be loaded.

    Returns
    -------
    tuple
        Columns to add, and columns to widen with their new type.

    Raises
    ------
    PublishError
        If a type would narrow or become another one; names column and both types.
    """
    known = {entry.name.casefold(): entry for entry in existing}
    added = [entry for entry in wanted if entry.name.casefold() not in known]
    widened = []
    for entry in wanted:
        old = known.get(entry.name.casefold())
        if old is None or _same(old, entry):
            continue
        if old.mode != entry.mode or kind_of(entry) not in _WIDER.get(kind_of(old), frozenset()):
            raise PublishError(
                f"{table}: column {entry.name!r} is {_shown(old)} in BigQuery and would become {_shown(entry)}: "
                "a type can only be widened. Rename the column, or drop the table to have it made anew"
            )
        widened.append((old.name, kind_of(entry)))
    return added, widened


def retyped(entry: bigquery.SchemaField, kind: str) -> bigquery.SchemaField:
    """Return the field with another type."""
    return bigquery.SchemaField(entry.name, kind, entry.mode, description=entry.description)


def _same(old: bigquery.SchemaField, new: bigquery.SchemaField) -> bool:
    if old.mode != new.mode or kind_of(old) != kind_of(new):
        return False
    return [f.name for f in old.fields] == [f.name for f in new.fields] and all(
        _same(a, b) for a, b in zip(old.fields, new.fields, strict=True)
    )


def _shown(entry: bigquery.SchemaField) -> str:
    inner = f"<{', '.join(f'{f.name} {_shown(f)}' for f in entry.fields)}>" if entry.fields else ""
    return f"{'REPEATED ' if entry.mode == 'REPEATED' else ''}{kind_of(entry)}{inner}"


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


def in_table_order(frame: pl.LazyFrame, fields: Sequence[bigquery.SchemaField]) -> pl.LazyFrame:
    """Select the table's columns in its order; one that the frame lacks is null. Lists lose their null elements."""
    schema = frame.collect_schema()
    own = {name.casefold(): name for name in schema.names()}
    selected = []
    for entry in fields:
        name = own.get(entry.name.casefold())
        expression = pl.lit(None, dtype_of(entry)) if name is None else pl.col(name)
        if name is not None and isinstance(schema[name], pl.List):
            expression = expression.list.drop_nulls()
        if name is not None and isinstance(schema[name], pl.Categorical | pl.Enum | pl.Null):
            expression = expression.cast(pl.String)
        if name is not None and isinstance(dtype := schema[name], pl.Datetime) and dtype.time_unit != "us":
            expression = expression.dt.cast_time_unit("us")
        selected.append(expression.alias(entry.name))
    return frame.select(selected)


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
    if isinstance(dtype, pl.Date | pl.Time | pl.Decimal):
        return pl.col(name).cast(pl.String)
    if isinstance(dtype, pl.Binary):
        return pl.col(name).bin.encode("base64")
    return pl.col(name)
