"""Files of four formats as batches of rows: Avro, Parquet, JSON lines and CSV; the latter two also compressed.

A value is a text in CSV, and in JSON lines a text, a boolean or a number; lists and objects are JSON text. A line that
is no object, or has more fields than the header, comes as a row without values, which landing sets aside.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from heap_assets.errors import SourceError
from heap_assets.sources.heap_connect.avro import BATCH_ROWS, AvroBatch, read_batches
from heap_assets.sources.heap_connect.avro_container import Limits

_LINE_BYTES = 16 << 20
_BATCH_BYTES = 8 << 20
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class FileFormat:
    """A format: endings of its files, and what reads them in batches (path, name for messages, limits)."""

    endings: tuple[str, ...]
    batches: Callable[[Path, str, Limits], Iterator[AvroBatch]]


def format_of(key: str) -> str:
    """Return the format of a file by its ending, `.gz` aside; SourceError if it has none of them."""
    bare = key.lower().removesuffix(".gz")
    for name, form in FORMATS.items():
        if bare.endswith(form.endings):
            return name
    raise SourceError(
        f"{key}: its ending tells no format; write `format:` for its table in heap.source.tables ({', '.join(FORMATS)})"
    )


def _avro(path: Path, name: str, limits: Limits) -> Iterator[AvroBatch]:
    yield from read_batches(path, name=name, limits=limits)


def _parquet(path: Path, name: str, limits: Limits) -> Iterator[AvroBatch]:
    del limits  # a batch is of a bounded number of rows
    try:
        with pq.ParquetFile(path) as file:
            empty = pl.from_arrow(file.schema_arrow.empty_table())
            if not file.metadata.num_rows:
                yield AvroBatch(_plain(empty))  # type: ignore[arg-type]
            for batch in file.iter_batches(BATCH_ROWS):
                yield AvroBatch(_plain(pl.from_arrow(batch)))  # type: ignore[arg-type]
    except (pa.ArrowException, OSError, pl.exceptions.PolarsError) as error:
        raise SourceError(f"{name} is no whole Parquet file ({type(error).__name__})") from None


def _plain(rows: pl.DataFrame) -> pl.DataFrame:
    """Give rows the types that dumps have: integers and floats of 64 bits, texts, times to the microsecond."""
    changed = []
    for column, dtype in rows.schema.items():
        value = pl.col(column)
        if dtype.is_integer() and dtype not in (pl.Int64, pl.UInt64):
            changed.append(value.cast(pl.Int64))
        elif dtype in (pl.UInt64, pl.Categorical, pl.Enum) or dtype.is_decimal() or dtype == pl.Null:
            changed.append(value.cast(pl.String))
        elif dtype == pl.Float32:
            changed.append(value.cast(pl.Float64))
        elif isinstance(dtype, pl.Datetime):
            utc = value.dt.convert_time_zone("UTC") if dtype.time_zone else value.dt.replace_time_zone("UTC")
            changed.append(utc.dt.cast_time_unit("us"))
    return rows.with_columns(changed)


def _csv(path: Path, name: str, limits: Limits) -> Iterator[AvroBatch]:
    del limits  # a batch is of a bounded number of rows, whose fields are bounded
    csv.field_size_limit(_LINE_BYTES)
    try:
        with _opened(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
            lines = csv.reader(text)
            header = _csv_header(next(lines, []), name)
            is_empty = True
            while rows := list(itertools.islice(lines, BATCH_ROWS)):
                is_empty = False
                yield AvroBatch(_of_lines(header, rows))
            if is_empty:
                yield AvroBatch(_of_lines(header, []))
    except (csv.Error, UnicodeDecodeError, OSError, EOFError) as error:
        raise SourceError(f"{name} is no CSV of UTF-8 text to its end ({type(error).__name__})") from None


def _csv_header(fields: list[str], name: str) -> list[str]:
    names = [field.strip() for field in fields]
    if not names or not all(names) or len(set(names)) < len(names):
        raise SourceError(f"{name}: its first line has no column names, an empty one, or one twice")
    return names


def _of_lines(header: list[str], lines: list[list[str]]) -> pl.DataFrame:
    """Return texts by column; a line with more fields than the header has no value, one with fewer none at its end."""
    width = len(header)
    lines = [line for line in lines if line]
    rows = [line if len(line) == width else [*line, *[""] * width][:width] if len(line) < width else [""] * width
            for line in lines]  # fmt: skip
    columns = zip(*rows, strict=True) if rows else ((),) * width
    schema = dict.fromkeys(header, pl.String())
    return pl.DataFrame(dict(zip(header, columns, strict=True)), schema=schema).with_columns(
        pl.when(pl.all() != "").then(pl.all())
    )


def _jsonl(path: Path, name: str, limits: Limits) -> Iterator[AvroBatch]:
    del limits  # a line is of at most 16 MB, a batch of 8 MB or one line
    rows: list[Mapping[str, Any]] = []
    size, is_empty = 0, True
    try:
        with _opened(path) as file:
            while line := file.readline(_LINE_BYTES + 1):
                if len(line) > _LINE_BYTES:
                    raise SourceError(f"{name} has a line of over {_LINE_BYTES >> 20} MB: it is no file of JSON lines")
                if not line.strip():
                    continue
                rows.append(_object(line))
                size += len(line)
                if size >= _BATCH_BYTES or len(rows) >= BATCH_ROWS:
                    is_empty = False
                    yield AvroBatch(_of_objects(rows))
                    rows, size = [], 0
    except (OSError, EOFError) as error:
        raise SourceError(f"{name} cannot be read to its end ({type(error).__name__})") from None
    if rows or is_empty:
        yield AvroBatch(_of_objects(rows))


def _object(line: bytes) -> Mapping[str, Any]:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _of_objects(rows: list[Mapping[str, Any]]) -> pl.DataFrame:
    names = dict.fromkeys(name for row in rows for name in row)
    return pl.DataFrame({name: _of_values([row.get(name) for row in rows]) for name in names})


def _of_values(values: list[Any]) -> pl.Series:
    """Return a column of one type: booleans, numbers, or texts where there is anything else."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {bool}:
        return pl.Series(values, dtype=pl.Boolean)
    if kinds == {int} and all(value is None or -(2**63) <= value < 2**63 for value in values):
        return pl.Series(values, dtype=pl.Int64)
    if kinds and kinds <= {int, float}:
        return pl.Series([None if value is None else float(value) for value in values], dtype=pl.Float64)
    return pl.Series([_text(value) for value in values], dtype=pl.String)


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        is_gzip = file.read(2) == _GZIP
        file.seek(0)
        with gzip.open(file) if is_gzip else file as opened:
            yield opened  # type: ignore[misc]


FORMATS: Mapping[str, FileFormat] = {
    "avro": FileFormat((".avro",), _avro),
    "parquet": FileFormat((".parquet", ".pq"), _parquet),
    "jsonl": FileFormat((".jsonl", ".ndjson", ".json"), _jsonl),
    "csv": FileFormat((".csv",), _csv),
}
