"""Converts rows to the types of a BigQuery table, as Parquet for load jobs; values that do not fit become null."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from google.cloud import bigquery

from heap_assets.sources.warehouse.bigquery.evolution import kind_of
from heap_assets.sources.warehouse.publish import PublishError

_BATCH_ROWS = 65_536
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
"""0001-01-01 and 9999-12-31, in days since 1970."""
_DAY_SECONDS = 86_400
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_EXACT = 2**53
_ARROW: Mapping[str, pa.DataType] = {
    "INT64": pa.int64(), "FLOAT64": pa.float64(), "BOOL": pa.bool_(), "BYTES": pa.binary(), "DATE": pa.date32(),
    "TIME": pa.time64("us"), "TIMESTAMP": pa.timestamp("us", "UTC"), "DATETIME": pa.timestamp("us"),
}  # fmt: skip


def write_fitted(source: Path, path: Path, table: str, fields: Sequence[bigquery.SchemaField]) -> dict[str, int]:
    """Rewrite a Parquet file whose columns are those of a table, in its order, into the table's types.

    Returns
    -------
    dict[str, int]
        Column to the number of values that BigQuery has no place for: times of finer than microseconds, years beyond 1
        to 9999, integers that a FLOAT64 column would round, nulls inside arrays (which BigQuery leaves out).

    Raises
    ------
    PublishError
        If a REQUIRED column would be null.
    """
    lost: Counter[str] = Counter()
    with pq.ParquetFile(source) as file:
        kinds = file.schema_arrow
        target = pa.schema([_field(entry, kinds.field(entry.name).type) for entry in fields])
        with pq.ParquetWriter(path, target, compression="zstd", compression_level=1) as writer:
            for batch in file.iter_batches(_BATCH_ROWS):
                columns = []
                for entry, target_field in zip(fields, target, strict=True):
                    try:
                        column, count = _fitted(batch.column(entry.name), target_field.type)
                    except _LackingError as lacking:
                        field, rows = lacking.args
                        raise PublishError(_required(table, f"{entry.name}.{field}", rows)) from None
                    lost[entry.name] += count
                    if entry.mode == "REQUIRED" and column.null_count:
                        raise PublishError(_required(table, entry.name, column.null_count))
                    columns.append(column)
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=target), row_group_size=_BATCH_ROWS)
    return {name: count for name, count in lost.items() if count}


def _required(table: str, column: str, count: int) -> str:
    return (
        f"{table}: column {column!r} is REQUIRED in BigQuery, and {count} rows or more have no value for it: "
        f"ALTER TABLE `{table}` ALTER COLUMN {column} DROP NOT NULL lets them in"
    )


def _field(entry: bigquery.SchemaField, source: pa.DataType) -> pa.Field:
    return pa.field(entry.name, _type(entry, source), nullable=entry.mode != "REQUIRED")


def _type(entry: bigquery.SchemaField, source: pa.DataType) -> pa.DataType:
    if entry.mode == "REPEATED":
        inner = source.value_type if _is_list(source) else pa.null()
        return pa.list_(_scalar_type(entry, inner))
    return _scalar_type(entry, source)


def _scalar_type(entry: bigquery.SchemaField, source: pa.DataType) -> pa.DataType:
    if entry.fields:
        inner = {source.field(i).name: source.field(i).type for i in range(source.num_fields)}
        return pa.struct([_field(child, inner.get(child.name, pa.null())) for child in entry.fields])
    kind = kind_of(entry)
    if kind in ("NUMERIC", "BIGNUMERIC"):
        if pa.types.is_decimal(source):
            return source
        return pa.decimal128(38, 0) if pa.types.is_integer(source) else pa.decimal128(38, 9)
    return _ARROW.get(kind, pa.string())


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _fitted(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, int]:
    """Return an array in a type, and how many of its values became null for it."""
    if pa.types.is_null(array.type) and not pa.types.is_struct(kind):
        return pa.nulls(len(array), kind), 0
    if pa.types.is_struct(kind):
        return _fitted_struct(array, kind)
    if pa.types.is_list(kind):
        return _fitted_list(array, kind)
    if pa.types.is_date(kind):
        return _within(array.cast(pa.date32()), pa.int32(), _FIRST_DAY, _LAST_DAY)
    if pa.types.is_timestamp(kind):
        return _moments(array, kind)
    if pa.types.is_time(kind):
        return _whole_microseconds(array, kind)
    if pa.types.is_floating(kind) and pa.types.is_integer(array.type):
        wrong = pc.greater(array, _EXACT)
        if pa.types.is_signed_integer(array.type):
            wrong = pc.or_(wrong, pc.less(array, -_EXACT))
        representable, lost = _nulled(array, wrong)
        return representable.cast(kind), lost
    return array.cast(kind), 0


def _fitted_struct(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, int]:
    children = {} if pa.types.is_null(array.type) else dict(zip(array.type.names, array.flatten(), strict=True))
    parts, lost = [], 0
    for field in kind:
        part, count = _fitted(children.get(field.name, pa.nulls(len(array))), field.type)
        parts.append(part if field.nullable else _present(part, array, field))
        lost += count
    return pa.StructArray.from_arrays(parts, fields=list(kind), mask=array.is_null()), lost


def _present(part: pa.Array, parent: pa.Array, field: pa.Field) -> pa.Array:
    """Return a REQUIRED field without nulls: Arrow wants values even where the whole struct is null, and ignores them.

    Raises
    ------
    _LackingError
        If a struct lacks the value.
    """
    lacking = part.null_count - parent.null_count
    if lacking:
        raise _LackingError(field.name, lacking)
    if not part.null_count or pa.types.is_nested(field.type):
        return part
    plain = "" if pa.types.is_string(field.type) else b"" if pa.types.is_binary(field.type) else 0
    return pc.fill_null(part, pa.scalar(plain, field.type))


class _LackingError(Exception):
    """A REQUIRED field inside a struct has no value: its name, and in how many structs."""


def _fitted_list(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, int]:
    """Leave nulls out of arrays, for BigQuery stores none."""
    array = array.cast(pa.list_(array.type.value_type)) if not pa.types.is_list(array.type) else array
    values, lost = _fitted(array.flatten(), kind.value_type)
    owners = pc.list_parent_indices(array).to_numpy()
    if values.null_count:
        # a scalar that became null is among the nulls that are left out
        lost = values.null_count + (lost if pa.types.is_struct(values.type) else 0)
        owners, values = owners[values.is_valid().to_numpy(zero_copy_only=False)], values.drop_null()
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(array)))])
    built = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, type=kind, mask=array.is_null())
    return built, lost


def _moments(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, int]:
    unit, numbers = array.type.unit, array.cast(pa.int64())
    per_day = _DAY_SECONDS * _PER_SECOND[unit]
    least, most = max(_FIRST_DAY * per_day, -(2**63)), min((_LAST_DAY + 1) * per_day - 1, 2**63 - 1)
    wrong = pc.or_(pc.less(numbers, least), pc.greater(numbers, most))
    if unit == "ns":
        wrong = pc.or_(wrong, _has_remainder(numbers))
    representable, lost = _nulled(array, wrong)
    return representable.cast(pa.timestamp(unit, kind.tz)).cast(kind), lost


def _whole_microseconds(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, int]:
    if array.type.unit != "ns":
        return array.cast(kind), 0
    representable, lost = _nulled(array, _has_remainder(array.cast(pa.int64())))
    return representable.cast(kind), lost


def _has_remainder(numbers: pa.Array) -> pa.Array:
    thousands = pc.multiply(pc.divide(numbers, 1000), 1000)
    return pc.not_equal(thousands, numbers)


def _within(array: pa.Array, number: pa.DataType, least: int, most: int) -> tuple[pa.Array, int]:
    numbers = array.cast(number)
    return _nulled(array, pc.or_(pc.less(numbers, least), pc.greater(numbers, most)))


def _nulled(array: pa.Array, wrong: pa.Array) -> tuple[pa.Array, int]:
    count = int(pc.sum(wrong).as_py() or 0)
    return (pc.if_else(wrong, pa.scalar(None, array.type), array) if count else array), count
