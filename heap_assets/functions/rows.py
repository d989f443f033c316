"""Rows of event tables as JSON for a function, and its results as rows again, each value checked."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from operator import itemgetter
from typing import Any, Final

import polars as pl
import pyarrow as pa
from pyarrow.json import ParseOptions, ReadOptions, read_json

from heap_assets.functions.pool import DROPPED, REJECTED, SPLIT, Batch, Pool, Results, batches_of
from heap_assets.redaction import redact
from heap_assets.values import PRIVATE, json_safe, read_times

ORDINAL: Final = "event_ordinal"
"""Column of tables that a function transforms: 0, and 1, 2 … of further rows that one event was split into."""
DTYPES: Final[Mapping[str, pl.DataType]] = {
    "text": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
    "time": pl.Datetime("us", "UTC"),
    "date": pl.Date(),
}
_SAFE: Final = 2**53 - 1
_SHOWN: Final = 100
_ROWS_AT_ONCE: Final = 5000
"""Results that become columns at a time: of fewer, what each step costs by itself would count."""
_INTEGER: Final = re.compile(r"-?\d{1,40}")
_LONGEST_JSON: Final = 1 << 30
_AT: Final = f"{PRIVATE}at"


def is_passed(dtype: pl.DataType) -> bool:
    """Whether a function gets columns of a type; lists, structs, bytes, durations and times of day stay as they are."""
    plain = isinstance(dtype, pl.String | pl.Boolean | pl.Datetime | pl.Date | pl.Decimal)
    return plain or dtype.is_integer() or dtype.is_float()


def json_rows(rows: pl.DataFrame, as_text: frozenset[str]) -> list[str]:
    """Return each row as a JSON object: times as ISO 8601, decimals and the integers of `as_text` as text."""
    columns = [
        (pl.col(name).cast(pl.String) if name in as_text else json_safe(pl.col(name), dtype)).alias(name)
        for name, dtype in rows.schema.items()
        if is_passed(dtype)
    ]
    return rows.select(pl.struct(columns).struct.json_encode()).to_series().to_list() if columns else ["{}"] * len(rows)


def wide_integers(rows: pl.LazyFrame, keys: Sequence[str]) -> frozenset[str]:
    """Return the integer columns that go as text: keys always, others where a value is beyond 2^53."""
    integers = [name for name, dtype in rows.collect_schema().items() if dtype.is_integer()]
    checked = [name for name in integers if name not in keys]
    wide: set[str] = {name for name in integers if name in keys}
    if checked:
        beyond = rows.select(
            ((pl.col(name) > _SAFE) | (pl.col(name) < -_SAFE)).any().alias(name) for name in checked
        ).collect(engine="streaming")
        wide |= {name for name in checked if beyond[name][0]}
    return frozenset(wide)


@dataclass
class Outcome:
    """What became of the rows of a call: counts, and the first hundred rejected rows and logged lines."""

    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    split: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    rejected_rows: list[dict[str, str]] = field(default_factory=list)
    undeclared: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)
    log_left_off: int = 0

    def notes(self) -> dict[str, Any]:
        """Return the notes of a partition; they hold no value of a row."""
        return {
            "function_rows": self.rows,
            "function_rejected": self.rejected,
            "function_dropped": self.dropped.total(),
            "function_split": self.split,
            "function_reasons": dict(self.reasons.most_common(20)),
            "function_rejected_rows": self.rejected_rows,
            "function_dropped_by": dict(self.dropped.most_common(50)),
            "function_undeclared": dict(self.undeclared.most_common(50)),
            "function_log": self.log,
            "function_log_left_off": self.log_left_off,
        }


@dataclass(frozen=True)
class Shape:
    """The columns of a table before and after its function.

    `schema`: the columns before; `declared`: those that the function adds; `keys`: columns that a result may leave out
    (the row's stay), the first of which it cannot change; `hashed`: makes the key that a rejected row is shown by.
    """

    schema: pl.Schema
    declared: Mapping[str, pl.DataType]
    keys: Sequence[str]
    hashed: Callable[[Any], str]
    time: str | None = None
    day: date | None = None

    @property
    def after(self) -> pl.Schema:
        """The columns of the results."""
        added = {name: dtype for name, dtype in self.declared.items() if name not in self.schema}
        return pl.Schema({**self.schema, **added, ORDINAL: pl.Int32()})

    def rows(
        self,
        before: pl.DataFrame,
        results: Sequence[Results],
        outcome: Outcome,
        as_text: frozenset[str] = frozenset(),
    ) -> pl.DataFrame:
        """Return the rows that results of consecutive rows make; what is no row is counted in `outcome`.

        `as_text`: the integer columns that went as text.
        """
        passed = {name: dtype for name, dtype in self.after.items() if name != ORDINAL and is_passed(dtype)}
        outcome.rows += len(before)
        at, ordinals = list(range(len(before))), [0] * len(before)
        rejected: dict[int, tuple[str, str]] = {}
        raw: Mapping[str, pl.Series | list[Any]] | None
        raw = _read_objects(results, {name: _json_type(dtype, name in as_text) for name, dtype in passed.items()})
        if raw is None:
            at, ordinals, objects = self._unpacked(results, rejected, outcome)
            raw = {name: _values(name, objects) for name in passed}
            for one in objects:
                if not one.keys() <= passed.keys():
                    outcome.undeclared.update(name[:100] for name in one.keys() - passed.keys())
        columns = {}
        sources = before if at == list(range(len(before))) else before[at]
        for name, dtype in passed.items():
            if name in self.keys and name in before.columns:
                columns[name], mistakes = self._key(name, raw[name], sources[name])
            else:
                columns[name], mistakes = converted(name, raw[name], dtype)
            rejected |= {at[n]: (f"column {name[:100]}: {mistake}", "") for n, mistake in mistakes.items()}
        unpassed = [name for name, dtype in self.schema.items() if not is_passed(dtype)]
        rows = pl.DataFrame(
            {**columns, **{name: sources[name] for name in unpassed}, ORDINAL: pl.Series(ordinals, dtype=pl.Int32())}
        ).with_columns(pl.Series(_AT, at, pl.Int64()))
        rejected |= self._of_other_days(rows)
        self.note(before, results, rejected, outcome)
        if rejected:
            rows = rows.filter(~pl.col(_AT).is_in(list(rejected)))
        return rows.select(list(self.after))

    def _unpacked(
        self, results: Sequence[Results], rejected: dict[int, tuple[str, str]], outcome: Outcome
    ) -> tuple[list[int], list[int], list[dict[str, Any]]]:
        """Return the place of the row, the ordinal and the object of each result that is a row."""
        at: list[int] = []
        ordinals: list[int] = []
        row_objects: list[dict[str, Any]] = []
        for index, (kind, value, place) in enumerate(row for part in results for row in part.rows):
            if kind == DROPPED:
                outcome.dropped[str(value)] += 1
            elif kind == REJECTED:
                rejected[index] = (str(value), place)
            else:
                objects = value if kind == SPLIT else [value]
                outcome.split += len(objects) > 1
                for ordinal, one in enumerate(objects):
                    at.append(index)
                    ordinals.append(ordinal)
                    row_objects.append(one if isinstance(one, dict) else {})
        return at, ordinals, row_objects

    def note(
        self,
        before: pl.DataFrame,
        results: Sequence[Results],
        rejected: Mapping[int, tuple[str, str]],
        outcome: Outcome,
    ) -> None:
        """Count rejected rows, by place to reason and where, and keep what the function logged."""
        for index in sorted(rejected):
            self._reject(before, index, *rejected[index], outcome)
        self._note_log(before, results, outcome)

    def _key(self, name: str, raw: pl.Series | list[Any], own: pl.Series) -> tuple[pl.Series, dict[int, str]]:
        """Return the values of a key: where results leave it out, and always of the first, what their rows have."""
        if name == self.keys[0]:
            return own, {}
        text = pl.col(name).cast(pl.String) if own.dtype.is_integer() else json_safe(pl.col(name), own.dtype)
        texts = own.to_frame().select(text)[name]
        if isinstance(raw, pl.Series):
            if raw.equals(texts):
                return own, {}
            raw = raw.to_list()
        completed = [text if value is None else value for value, text in zip(raw, texts.to_list(), strict=True)]
        return converted(name, completed, own.dtype)

    def _of_other_days(self, rows: pl.DataFrame) -> dict[int, tuple[str, str]]:
        if self.time is None or self.day is None or self.time not in rows.columns:
            return {}
        moved = rows.filter(pl.col(self.time).dt.date() != self.day)[_AT].to_list()
        return dict.fromkeys(moved, (f"column {self.time}: the time is of another day than {self.day}", ""))

    def _reject(self, before: pl.DataFrame, index: int, reason: str, place: str, outcome: Outcome) -> None:
        outcome.rejected += 1
        is_shown = len(outcome.rejected_rows) < _SHOWN
        row = before.row(index, named=True) if is_shown or not place else {}
        shown = redact(reason, (str(value) for value in row.values() if value is not None), longest=300)
        # messages may hold values: rows are counted by place and kind of error
        outcome.reasons[f"{place} {reason.partition(':')[0][:60]}".strip() if place else shown[:150]] += 1
        if is_shown:
            key = self.hashed(row.get(self.keys[0])) if self.keys else ""
            outcome.rejected_rows.append({"key": key, "place": place, "reason": shown})

    def _note_log(self, before: pl.DataFrame, results: Sequence[Results], outcome: Outcome) -> None:
        first = results[0].first if results else 0
        for part in results:
            outcome.log_left_off += part.log_left_off
            for position, line in part.log:
                if len(outcome.log) >= _SHOWN or not 0 <= position - first < len(before):
                    outcome.log_left_off += 1
                    continue
                row = before.row(position - first)
                outcome.log.append(redact(line, (str(value) for value in row if value is not None), longest=300))


def through(
    pool: Pool, shape: Shape, as_text: frozenset[str], parts: Iterable[pl.DataFrame], outcome: Outcome
) -> Iterator[pl.DataFrame]:
    """Yield the rows that a function makes of a table's, part by part and in their order.

    While results are read, the processes work on the next batches.
    """
    sent: deque[pl.DataFrame] = deque()

    def batches() -> Iterator[Batch]:
        first = 0
        for part in parts:
            for batch in batches_of(json_rows(part, as_text), pool.limits):
                sent.append(part.slice(batch.first, len(batch.rows)))
                yield Batch(first + batch.first, batch.rows)
            first += len(part)

    frames: list[pl.DataFrame] = []
    ready: list[Results] = []
    for results in pool.run(batches()):
        frames.append(sent.popleft())
        ready.append(results)
        if sum(map(len, frames)) >= _ROWS_AT_ONCE:
            yield shape.rows(pl.concat(frames), ready, outcome, as_text)
            frames, ready = [], []
    if frames:
        yield shape.rows(pl.concat(frames), ready, outcome, as_text)


def _json_type(dtype: pl.DataType, is_text: bool) -> pa.DataType:
    """Return what a column's values are in JSON."""
    numbers = {"integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
    return pa.string() if is_text else numbers.get(_family(dtype), pa.string())


def _read_objects(results: Sequence[Results], types: Mapping[str, pa.DataType]) -> Mapping[str, pl.Series] | None:
    """Return results by column; None if some are not one object each, or have other columns or types than these."""
    lines = b"\n".join(part.outcomes for part in results if isinstance(part.outcomes, bytes))
    if len(lines) > _LONGEST_JSON or any(isinstance(part.outcomes, list) for part in results):
        return None
    try:
        table = read_json(
            pa.BufferReader(lines),
            ReadOptions(use_threads=False, block_size=len(lines) + 1),
            ParseOptions(explicit_schema=pa.schema(types.items()), unexpected_field_behavior="error"),
        )
    except pa.ArrowInvalid:
        return None
    return {name: pl.Series(name, table[name]) for name in types}


def _values(name: str, objects: list[dict[str, Any]]) -> list[Any]:
    """Return what results have in a column."""
    try:
        return list(map(itemgetter(name), objects))
    except KeyError:
        return [one.get(name) for one in objects]


def _family(dtype: pl.DataType) -> str:
    if dtype.is_integer():
        return "integer"
    if dtype.is_float():
        return "number"
    return {pl.Boolean: "boolean", pl.Datetime: "time", pl.Date: "date", pl.Decimal: "decimal"}.get(
        dtype.base_type(), "text"
    )


def converted(name: str, raw: pl.Series | list[Any], dtype: pl.DataType) -> tuple[pl.Series, dict[int, str]]:
    """Return values of JSON as a column, and the place of each value that it cannot hold (null there) with why."""
    family = _family(dtype)
    if isinstance(raw, pl.Series):
        if raw.dtype == dtype:
            return raw, {}
        if family in _OF_TEXT:
            return _read_texts(raw, dtype, family, {})
        raw = raw.to_list()
    kinds = set(map(type, raw)) - {type(None)}
    mistakes: dict[int, str] = {}
    if not kinds <= _PLAIN[family]:
        raw = raw.copy()
        for at, value in enumerate(raw):
            if value is None:
                continue
            converted = _read(value, family)
            if converted is None:
                mistakes[at] = f"expected {_EXPECTED[family]}, got {_kind(value)}"
            raw[at] = converted
    if family == "integer":
        low, high = _RANGES[dtype.base_type()]
        for at, value in enumerate(raw):
            if value is not None and not low <= value <= high:
                mistakes[at] = "the number is out of the column's range"
                raw[at] = None
        return pl.Series(name, raw, dtype), mistakes
    if family not in _OF_TEXT:
        return pl.Series(name, raw, dtype), mistakes
    return _read_texts(pl.Series(name, raw, pl.String()), dtype, family, mistakes)


def _read_texts(
    text: pl.Series, dtype: pl.DataType, family: str, mistakes: dict[int, str]
) -> tuple[pl.Series, dict[int, str]]:
    name = text.name
    if isinstance(dtype, pl.Datetime):
        times = read_times(pl.col(name))
        read = times if dtype.time_zone else times.dt.replace_time_zone(None)
    elif family == "date":
        read = pl.col(name).str.to_date("%Y-%m-%d", strict=False)
    else:
        read = pl.col(name)
    values = text.to_frame().select(read.cast(dtype, strict=False))[name]
    for at in (values.is_null() & text.is_not_null()).arg_true().to_list():
        mistakes[at] = f"expected {_EXPECTED[family]}, got other text"
    return values, mistakes


def _read(value: Any, family: str) -> Any:
    """Return a value of another type as the family has it; None if it is none of that family."""
    if family == "integer" and isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    if family == "integer" and type(value) is float and value.is_integer() and abs(value) <= _SAFE:
        return int(value)
    if family == "decimal" and type(value) in (int, float):
        return repr(value)
    return value if type(value) in _PLAIN[family] else None


_OF_TEXT: Final = ("time", "date", "decimal")
_PLAIN: Final[Mapping[str, set[type]]] = {
    "text": {str},
    "integer": {int},
    "number": {int, float},
    "boolean": {bool},
    "time": {str},
    "date": {str},
    "decimal": {str},
}
"""Types of JSON values that a family takes as they are."""
_EXPECTED: Final = {
    "text": "text",
    "integer": "a whole number, beyond 2^53 as text",
    "number": "a number",
    "boolean": "true or false",
    "time": "a time as ISO 8601 text",
    "date": "a day as 2026-01-31",
    "decimal": "a decimal number, as text",
}
_RANGES: Final[Mapping[Any, tuple[int, int]]] = {
    **{kind: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for kind, bits in (
        (pl.Int8, 8), (pl.Int16, 16), (pl.Int32, 32), (pl.Int64, 64), (pl.Int128, 128))},
    **{kind: (0, 2**bits - 1) for kind, bits in (
        (pl.UInt8, 8), (pl.UInt16, 16), (pl.UInt32, 32), (pl.UInt64, 64), (pl.UInt128, 128))},
}  # fmt: skip


def _kind(value: Any) -> str:
    kinds = ((bool, "true or false"), (str, "text"), (int, "a number"), (float, "a number"), (list, "a list"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "an object")
