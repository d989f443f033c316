"""Avro schemas, hostile ones too: parsed within limits, and rewritten for the libraries that decode.

The rewritten schema has no logical types, enums, references or names of the writer's: only physical types. Logical
types are applied to the decoded values (:mod:`avro_logical`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import polars as pl

from heap_assets.sources.heap_connect.avro_logical import Logical, Scaled, logical_of, plain_text
from heap_assets.values import PRIVATE

MOST_DEPTH = 32
MOST_FIELDS = 10_000
_MOST_TYPES = 100_000
_LARGE_FIXED = 1 << 16
_PRIMITIVES: Mapping[str, tuple[int, pl.DataType]] = {
    "null": (0, pl.Null()),
    "boolean": (1, pl.Boolean()),
    "int": (1, pl.Int64()),
    "long": (1, pl.Int64()),
    "float": (4, pl.Float64()),
    "double": (8, pl.Float64()),
    "bytes": (1, pl.Binary()),
    "string": (1, pl.String()),
}
"""Fewest bytes of a value, and the Polars type."""


class SchemaError(ValueError):
    """A schema that cannot be read, or exceeds a limit; the message says why."""


@dataclass
class Lost:
    """Counts values that are null because their type cannot hold them."""

    values: int = 0


@dataclass(frozen=True)
class AvroType:
    """One type of a schema.

    Attributes
    ----------
    physical
        Its rewritten schema.
    least
        Fewest bytes of a value.
    dtype, storage
        The Polars type of a column, and of the values that :attr:`value` returns.
    flat
        Whether a column of it is decoded without Python objects.
    series
        Turns a decoded column into one of `dtype`; None if only the type differs.
    value
        Turns a decoded value into one of `storage`.
    plain
        Turns a decoded value into one that JSON can hold; text at the top is written without quotes.
    """

    physical: Any
    least: int
    dtype: pl.DataType
    storage: pl.DataType
    flat: bool
    value: Callable[[Any, Lost], Any]
    plain: Callable[[Any, Lost], Any]
    series: Callable[[pl.Series], pl.Series] | None = None

    @property
    def marked(self) -> bool:
        """Whether a value can hold random bits, for the end marks of `avro_flat`."""
        kinds = self.physical if isinstance(self.physical, list) else [self.physical]
        return any(kind in ("int", "long", "double", "bytes", "string") for kind in kinds)

    def column(self, decoded: pl.Series, lost: Lost) -> pl.Series:
        """Return a flat column in its type, counting what became null."""
        if self.series is None:
            return decoded if decoded.dtype == self.dtype else decoded.cast(self.dtype)
        converted = self.series(decoded)
        lost.values += converted.null_count() - decoded.null_count()
        return converted.alias(decoded.name)

    def column_of(self, name: str, values: Sequence[Any], lost: Lost) -> pl.Series:
        """Return a column of values that were decoded one by one."""
        converted = [None if value is None else self.value(value, lost) for value in values]
        return pl.Series(name, converted, dtype=self.storage, strict=True).cast(self.dtype)


@dataclass(frozen=True)
class AvroSchema:
    """The columns of a file by name, in its order."""

    fields: Mapping[str, AvroType]

    @property
    def dtypes(self) -> dict[str, pl.DataType]:
        return {name: kind.dtype for name, kind in self.fields.items()}

    @property
    def flat(self) -> bool:
        """Whether rows can be decoded column by column: no nested types, and one that can be marked at least."""
        kinds = list(self.fields.values())
        return all(kind.flat for kind in kinds) and any(kind.marked for kind in kinds)

    @property
    def least(self) -> int:
        """Fewest bytes that a row takes."""
        return sum(kind.least for kind in self.fields.values())

    @property
    def physical(self) -> Any:
        """The schema that decoders get: fields are called f0, f1, and so on."""
        return _record("row", [kind.physical for kind in self.fields.values()], "f")


def parse_schema(schema: Any) -> AvroSchema:
    """Parse the schema in a file's header.

    Raises SchemaError if it is no record, refers to itself or to what it does not define, has a name twice, or is
    beyond :data:`MOST_DEPTH` or :data:`MOST_FIELDS`.
    """
    if not isinstance(schema, Mapping) or schema.get("type") != "record":
        raise SchemaError("the rows of the file are no records")
    return AvroSchema(_Parser().fields_of(schema, "", 0))


@dataclass
class _Parser:
    by_name: dict[str, tuple[Any, str]] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)
    types: int = 0
    records: Any = field(default_factory=count)

    def fields_of(self, schema: Mapping[str, Any], namespace: str, depth: int) -> dict[str, AvroType]:
        full = self._register(schema, namespace)
        fields = schema.get("fields")
        if not isinstance(fields, list):
            raise SchemaError("a record in the schema has no list of fields")
        if len(fields) > MOST_FIELDS:
            raise SchemaError(f"a record in the schema has {len(fields):,} fields; {MOST_FIELDS:,} are read")
        self.open.append(full)
        types: dict[str, AvroType] = {}
        for number, entry in enumerate(fields):
            if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str) or "type" not in entry:
                raise SchemaError("a field in the schema has no name or no type")
            name = column_name(entry["name"], number)
            if name in types:
                raise SchemaError(f"the schema has two fields called {name[:60]!r}")
            types[name] = self.type_of(entry["type"], full.rpartition(".")[0], depth + 1)
        self.open.pop()
        return types

    def type_of(self, kind: Any, namespace: str, depth: int) -> AvroType:
        self.types += 1
        if depth > MOST_DEPTH:
            raise SchemaError(f"the schema is nested more than {MOST_DEPTH} deep")
        if self.types > _MOST_TYPES:
            raise SchemaError(f"the schema spells out more than {_MOST_TYPES:,} types")
        if isinstance(kind, list):
            return self._union(kind, namespace, depth)
        if isinstance(kind, str):
            return _leaf(kind, *_PRIMITIVES[kind]) if kind in _PRIMITIVES else self._reference(kind, namespace, depth)
        if not isinstance(kind, Mapping) or "type" not in kind:
            raise SchemaError("the schema has a type that is none of Avro's")
        return self._complex(kind, namespace, depth)

    def _complex(self, kind: Mapping[str, Any], namespace: str, depth: int) -> AvroType:
        base = kind["type"]
        if base == "array" or base == "map":
            return self._many(base, kind.get("items" if base == "array" else "values"), namespace, depth)
        if base == "record":
            return self._nested(self.fields_of(kind, namespace, depth))
        if base == "enum":
            self._register(kind, namespace)
            return _enum(kind.get("symbols"))
        if base == "fixed":
            self._register(kind, namespace)
            return _fixed(kind.get("size"), logical_of(kind), next(self.records))
        if isinstance(base, str) and base in _PRIMITIVES:
            return _leaf(base, *_PRIMITIVES[base], logical_of(kind))
        return self.type_of(base, namespace, depth + 1)

    def _many(self, base: str, items: Any, namespace: str, depth: int) -> AvroType:
        inner = self.type_of(items, namespace, depth + 1)
        if not inner.least and base == "array":
            raise SchemaError("the schema has an array of values that take no bytes: it could be of any length")
        if base == "array":
            return AvroType(
                physical={"type": "array", "items": inner.physical},
                least=1,
                dtype=pl.List(inner.dtype),
                storage=pl.List(inner.storage),
                flat=False,
                value=lambda items, lost: [_of(inner.value, item, lost) for item in items],
                plain=lambda items, lost: [_of(inner.plain, item, lost) for item in items],
            )
        pair = {"key": pl.String()}
        return AvroType(
            physical={"type": "map", "values": inner.physical},
            least=1,
            dtype=pl.List(pl.Struct(pair | {"value": inner.dtype})),
            storage=pl.List(pl.Struct(pair | {"value": inner.storage})),
            flat=False,
            value=lambda items, lost: [{"key": k, "value": _of(inner.value, v, lost)} for k, v in items.items()],
            plain=lambda items, lost: {k: _of(inner.plain, v, lost) for k, v in items.items()},
        )

    def _nested(self, fields: Mapping[str, AvroType]) -> AvroType:
        # A decoder's own names: the writer's may be anything.
        decoder_names = {name: f"n{number}" for number, name in enumerate(fields)}

        def value(row: Any, lost: Lost) -> Any:
            return {name: _of(kind.value, row[decoder_names[name]], lost) for name, kind in fields.items()}

        def plain(row: Any, lost: Lost) -> Any:
            return {name: _of(kind.plain, row[decoder_names[name]], lost) for name, kind in fields.items()}

        return AvroType(
            physical=_record(f"r{next(self.records)}", [kind.physical for kind in fields.values()], "n"),
            least=sum(kind.least for kind in fields.values()),
            dtype=pl.Struct({name: kind.dtype for name, kind in fields.items()}),
            storage=pl.Struct({name: kind.storage for name, kind in fields.items()}),
            flat=False,
            value=value,
            plain=plain,
        )

    def _union(self, kinds: list[Any], namespace: str, depth: int) -> AvroType:
        if not kinds or any(isinstance(kind, list) for kind in kinds):
            raise SchemaError("the schema has a union of nothing, or of unions")
        branches = [self.type_of(kind, namespace, depth + 1) for kind in kinds]
        present = [branch for branch in branches if branch.physical != "null"]
        if len(branches) == 2 and len(present) == 1:
            return replace(present[0], physical=[branch.physical for branch in branches], least=1)
        return _any_of(branches, next(self.records))

    def _reference(self, name: str, namespace: str, depth: int) -> AvroType:
        for full in (name, f"{namespace}.{name}", name.rpartition(".")[2]):
            if full in self.open:
                raise SchemaError(f"the schema's type {name[:60]!r} holds itself")
            if full in self.by_name:
                kind, within = self.by_name[full]
                return self.type_of(kind, within, depth + 1)
        raise SchemaError(f"the schema uses type {name[:60]!r}, which it does not define")

    def _register(self, kind: Mapping[str, Any], namespace: str) -> str:
        name, own_namespace = kind.get("name"), kind.get("namespace", namespace)
        if not isinstance(name, str) or not isinstance(own_namespace, str):
            raise SchemaError("a record, enum or fixed in the schema has no name")
        full = name if "." in name or not own_namespace else f"{own_namespace}.{name}"
        self.by_name[full] = self.by_name[full.rpartition(".")[2]] = (kind, namespace)
        return full


def column_name(name: str, number: int) -> str:
    """Return the column of a field: its name, without reserved characters.

    NUL and the prefix of our own columns become U+FFFD, lone surrogates a question mark; a field without a name is
    called by its position.
    """
    clean = name.encode("utf-8", "replace").decode()
    for mark in ("\0", PRIVATE):
        clean = clean.replace(mark, "\ufffd")
    return clean or f"unnamed_{number + 1}"


def _of(convert: Callable[[Any, Lost], Any], value: Any, lost: Lost) -> Any:
    return None if value is None else convert(value, lost)


def _same(value: Any, _: Lost) -> Any:
    return value


def _jsonable(value: Any, _: Lost) -> Any:
    is_plain = isinstance(value, bool | int | str) or (isinstance(value, float) and value - value == 0)
    return value if is_plain else plain_text(value)


def _leaf(
    physical: Any, least: int, dtype: pl.DataType, logical: Logical | None = None, *, flat: bool = True
) -> AvroType:
    if logical is None:
        return AvroType(physical, least, dtype, dtype, flat, _same, _jsonable)

    def counted(convert: Callable[[Any], Any]) -> Callable[[Any, Lost], Any]:
        def value(decoded: Any, lost: Lost) -> Any:
            converted = convert(decoded)
            lost.values += converted is None
            return converted

        return value

    if isinstance(logical, Scaled):
        scaled = logical
        text = counted(lambda number: None if scaled.value(number) is None else scaled.text(number))
        return AvroType(physical, least, scaled.dtype, pl.Int64(), flat, counted(scaled.value), text, scaled.series)
    converted = logical

    def spelled(value: Any) -> str | None:
        result = converted.convert(value)
        return result if result is None or isinstance(result, str) else format(result, "f")

    value = counted(converted.convert)
    return AvroType(physical, least, converted.dtype, converted.dtype, flat, value, counted(spelled), converted.series)


def _fixed(size: Any, logical: Logical | None, number: int) -> AvroType:
    if type(size) is not int or not 0 <= size < 2**31:
        raise SchemaError("the schema has a fixed without a size")
    return _leaf(
        {"type": "fixed", "name": f"x{number}", "size": size}, size, pl.Binary(), logical, flat=size <= _LARGE_FIXED
    )


def _enum(symbols: Any) -> AvroType:
    if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
        raise SchemaError("the schema has an enum without symbols")
    names: list[str] = [symbol.encode("utf-8", "replace").decode() for symbol in symbols]

    def symbol_of(number: int, _: Lost) -> str:
        if number < 0:
            raise IndexError(number)
        return names[number]

    def series(numbers: pl.Series) -> pl.Series:
        low, high = numbers.min(), numbers.max()
        if low is not None and (low < 0 or high >= len(names)):  # type: ignore[operator]
            raise ValueError("an enum has no such symbol")
        return pl.Series(names, dtype=pl.String).gather(numbers.cast(pl.UInt32))

    return AvroType("int", 1, pl.String(), pl.String(), True, symbol_of, symbol_of, series)


def _any_of(branches: Sequence[AvroType], number: int) -> AvroType:
    """Return a union of several types, or of one or none: text, since a column has one type.

    A branch is decoded as a record with one field, which has the same bytes; the field's name identifies the branch.
    """
    fields = {f"v{place}": branch for place, branch in enumerate(branches) if branch.physical != "null"}
    spelled = [
        "null" if branch.physical == "null" else _record(f"u{number}_{place}", [branch.physical], "v", place)
        for place, branch in enumerate(branches)
    ]
    least = 1 + min(branch.least for branch in branches)
    if not fields:
        return AvroType(spelled, least, pl.Null(), pl.Null(), False, _same, _same)
    if len(fields) == 1:
        ((name, only),) = fields.items()
        value = _on_field(only.value, name)
        return AvroType(spelled, least, only.dtype, only.storage, False, value, _on_field(only.plain, name))

    def plain(row: Any, lost: Lost) -> Any:
        ((name, value),) = row.items()
        return _of(fields[name].plain, value, lost)

    def text(row: Any, lost: Lost) -> Any:
        value = plain(row, lost)
        return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return AvroType(spelled, least, pl.String(), pl.String(), False, text, plain)


def _on_field(convert: Callable[[Any, Lost], Any], name: str) -> Callable[[Any, Lost], Any]:
    return lambda row, lost: _of(convert, row[name], lost)


def _record(name: str, kinds: Sequence[Any], prefix: str, first: int = 0) -> dict[str, Any]:
    fields = [{"name": f"{prefix}{number}", "type": kind} for number, kind in enumerate(kinds, first)]
    return {"type": "record", "name": name, "fields": fields}
