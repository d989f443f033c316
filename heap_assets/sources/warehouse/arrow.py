"""Writes Arrow batches of any driver into one Parquet file of plain types, with bounded memory."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

GROUP_BYTES = 8 * 1024 * 1024
"""Size of a row group in memory, about."""


_DAY_SECONDS = 86_400
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_FIRST, _END = -62_135_596_800, 253_402_300_800
"""Seconds from 1970 to the beginning of the year 1, and to the end of 9999."""
_BOUNDS = {
    "D": (_FIRST // _DAY_SECONDS, _END // _DAY_SECONDS - 1),
    **{unit: (_FIRST * each, _END * each - 1) for unit, each in _PER_SECOND.items() if unit != "ns"},
    "ns": (-(2**63) + 2, 2**63 - 2),  # the whole range is inside, but for DuckDB's infinities
}
_NO_NUMBERS = ["nan", "inf", "-inf", "NaN", "Infinity", "-Infinity"]


class SourceFailedError(Exception):
    """The driver failed in the middle of a read, with its own text."""


class MisfitError(ValueError):
    """A column has values that its type cannot keep; read as text it can."""

    def __init__(self, column: str, kind: object) -> None:
        super().__init__(f"column {column!r} holds values that {kind} cannot keep")
        self.column = column


def plain_type(kind: pa.DataType, typmod: int = -1) -> pa.DataType:
    """Return the Parquet type for a driver's type: the same without driver-specific extensions.

    Dictionaries become their values, extension types their storage, fixed-size lists lists, maps lists of key and
    value; timestamps are microseconds (nanoseconds stay) and in UTC if they have a zone at all. PostgreSQL's numeric
    becomes a decimal of its precision, or of (38, 9) if none was declared.

    Parameters
    ----------
    typmod
        PostgreSQL's type modifier of a numeric: precision and scale.
    """
    if _is_numeric_text(kind):
        return _decimal(typmod)
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_decimal256(kind):
        return pa.string()  # BigQuery's BIGNUMERIC: more digits than any decimal of Polars holds
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_timestamp(kind):
        return pa.timestamp("ns" if kind.unit == "ns" else "us", "UTC" if kind.tz else None)
    if pa.types.is_time32(kind):
        return pa.time64("us")
    if pa.types.is_struct(kind):
        return pa.struct([plain_field(kind.field(index)) for index in range(kind.num_fields)])
    if pa.types.is_map(kind):
        return pa.list_(pa.struct([pa.field("key", plain_type(kind.key_type)), plain_field(kind.item_field)]))
    if pa.types.is_large_list(kind):
        return pa.large_list(plain_field(kind.value_field))
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(plain_field(kind.value_field))
    return kind


def _is_numeric_text(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.OpaqueType) and kind.type_name == "numeric"


def _decimal(typmod: int) -> pa.DataType:
    precision, scale = ((typmod - 4) >> 16, (typmod - 4) & 0x7FF) if typmod >= 4 else (38, 9)
    return pa.decimal128(precision, scale) if precision <= 38 and scale <= precision else pa.string()


def plain_field(arrow_field: pa.Field) -> pa.Field:
    typmod = int((arrow_field.metadata or {}).get(b"POSTGRESQL:typmod", b"-1"))
    return pa.field(arrow_field.name, plain_type(arrow_field.type, typmod), nullable=True)


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema in plain types, without driver metadata."""
    return pa.schema([plain_field(arrow_field) for arrow_field in schema])


@dataclass(frozen=True)
class Stored:
    """A written file: its rows, and by column how many values became null because no type holds them."""

    rows: int
    lost: Mapping[str, int]


def write_parquet(schema: pa.Schema, batches: Iterable[pa.RecordBatch], path: Path) -> Stored:
    """Write batches into a Parquet file, which appears only when all of them are written.

    Raises
    ------
    MisfitError
        If a column has values that its type cannot keep and that text could.
    """
    target = plain_schema(schema)
    staging = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    rows = 0
    lost: Counter[str] = Counter()
    try:
        with pq.ParquetWriter(staging, target, compression="zstd", compression_level=1) as writer:
            for table in _groups(target, batches, lost):
                rows += table.num_rows
                writer.write_table(table, row_group_size=max(table.num_rows, 1))
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)
    return Stored(rows, {name: count for name, count in lost.items() if count})


def first_rows(batches: Iterable[pa.RecordBatch], limit: int) -> Iterator[pa.RecordBatch]:
    """Stop after so many rows."""
    for batch in batches:
        yield batch.slice(0, limit)
        limit -= batch.num_rows
        if limit <= 0:
            return


def _groups(schema: pa.Schema, batches: Iterable[pa.RecordBatch], lost: Counter[str]) -> Iterator[pa.Table]:
    group: list[pa.RecordBatch] = []
    size = 0
    for batch in _received(batches):
        if batch.num_rows == 0:
            continue
        plain = plain_batch(batch, schema, lost)
        group.append(plain)
        size += plain.get_total_buffer_size()
        if size >= GROUP_BYTES:
            yield pa.Table.from_batches(group, schema)
            group, size = [], 0
    if group:
        yield pa.Table.from_batches(group, schema)


def _received(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Iterate; the source's errors (OSError in Arrow) become SourceFailedError, to tell them from write errors."""
    iterator = iter(batches)
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except (pa.ArrowException, OSError) as error:
            raise SourceFailedError(str(error)) from error
        yield batch


def plain_batch(batch: pa.RecordBatch, schema: pa.Schema, lost: Counter[str]) -> pa.RecordBatch:
    """Convert a batch to a plain schema; values without a type become null and are counted by column in `lost`.

    Raises
    ------
    MisfitError
        If a column has values that its type cannot keep and that text could.
    """
    columns = []
    for index, arrow_field in enumerate(schema):
        try:
            column, count = plain_array(batch.column(index), arrow_field.type)
        except pa.ArrowInvalid as error:
            raise MisfitError(arrow_field.name, arrow_field.type) from error
        columns.append(column)
        lost[arrow_field.name] += count
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def plain_array(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, int]:
    """Return an array in a plain type, and how many of its values became null because the type lacks them."""
    if _is_numeric_text(array.type):
        text = array.storage
        if pa.types.is_decimal(kind):
            text, lost = _nulled(text, pc.is_in(text, value_set=pa.array(_NO_NUMBERS)))
            _require_fits(text, kind)
            return text.cast(kind), lost
        return text.cast(kind), 0
    if isinstance(array, pa.ExtensionArray):
        return plain_array(array.storage, kind)
    if pa.types.is_dictionary(array.type):
        return plain_array(array.dictionary_decode(), kind)
    if pa.types.is_nested(array.type):
        return _plain_nested(array, kind)
    representable, lost = _representable(array)
    return (representable if representable.type.equals(kind) else representable.cast(kind)), lost


def times_of_text(texts: pa.Array) -> pa.Array:
    """Return times of the day of their text, `10:11:12.5`; null where there is none, as of 24:00."""
    series = pl.Series(pl.from_arrow(texts)).str.to_time("%H:%M:%S%.f", strict=False)
    return series.to_arrow().cast(pa.time64("us"), safe=False)


def _require_fits(text: pa.Array, kind: pa.DataType) -> None:
    """Refuse numbers with more digits before the point than a decimal holds: Arrow's cast lets some of them wrap."""
    most = kind.precision - kind.scale
    if pc.any(pc.match_substring_regex(text, rf"^[+-]?0*[1-9][0-9]{{{most},}}(\.|$)")).as_py():
        raise pa.ArrowInvalid(f"a number has more than {most} digits before the point")


def _plain_nested(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, int]:
    if pa.types.is_struct(array.type):
        # flatten() nulls the children of a null struct: values below it do not count as lost
        parts = [plain_array(child, kind.field(index).type) for index, child in enumerate(array.flatten())]
        built = pa.StructArray.from_arrays([child for child, _ in parts], fields=list(kind), mask=array.is_null())
        return built, sum(lost for _, lost in parts)
    if pa.types.is_fixed_size_list(array.type):
        array = array.cast(pa.list_(array.type.value_field))
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return array.cast(kind), 0
    first = array.offsets[0].as_py() if len(array) else 0
    last = array.offsets[-1].as_py() if len(array) else 0
    if pa.types.is_map(array.type):
        pairs = list(pa.struct([array.type.key_field, array.type.item_field]))
        inside = pa.StructArray.from_arrays([array.keys, array.items], fields=pairs)
    else:
        inside = array.values
    values, lost = plain_array(inside.slice(first, last - first), kind.value_type)
    offsets = pc.subtract(array.offsets, first) if len(array) else array.offsets
    build = pa.LargeListArray if pa.types.is_large_list(kind) else pa.ListArray
    return build.from_arrays(offsets, values, type=kind, mask=array.is_null()), lost


def _representable(array: pa.Array) -> tuple[pa.Array, int]:
    """Null what Python and Polars cannot represent: infinite times, years beyond 1 to 9999, 24:00, invalid UTF-8."""
    kind = array.type
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        unit = "D" if pa.types.is_date32(kind) else "ms" if pa.types.is_date64(kind) else kind.unit
        return _within(array, pa.int32() if unit == "D" else pa.int64(), *_BOUNDS[unit])
    if pa.types.is_time(kind):
        number = pa.int32() if pa.types.is_time32(kind) else pa.int64()
        return _within(array, number, 0, _DAY_SECONDS * _PER_SECOND[kind.unit] - 1)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _utf8(array)
    return array, 0


def _within(array: pa.Array, number: pa.DataType, least: int, most: int) -> tuple[pa.Array, int]:
    numbers = array.view(number)
    extremes = pc.min_max(numbers)
    if extremes["min"].as_py() is None or (extremes["min"].as_py() >= least and extremes["max"].as_py() <= most):
        return array, 0
    return _nulled(array, pc.or_(pc.less(numbers, least), pc.greater(numbers, most)))


def _utf8(array: pa.Array) -> tuple[pa.Array, int]:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        values = [_text(value) for value in array.cast(pa.binary()).to_pylist()]
        decoded = pa.array(values, array.type)
        return decoded, decoded.null_count - array.null_count
    return array, 0


def _text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _nulled(array: pa.Array, wrong: pa.Array) -> tuple[pa.Array, int]:
    count = pc.sum(wrong).as_py() or 0
    return (pc.if_else(wrong, pa.scalar(None, array.type), array) if count else array), count
