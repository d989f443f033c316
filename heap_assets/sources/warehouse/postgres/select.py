"""SELECT expressions that read PostgreSQL columns exactly: unchanged if Arrow has the type, else as text or JSON."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]

from heap_assets.sources.warehouse.arrow import MisfitError
from heap_assets.values import sql_identifier

NATIVE_TYPES = frozenset(
    {
        *("bool", "int2", "int4", "int8", "float4", "float8", "numeric", "text", "varchar", "bpchar", "name"),
        *("bytea", "date", "time", "timestamp", "timestamptz", "json", "jsonb"),
    }
)
"""Base types that the driver converts to Arrow; enums too. Others are read as text."""
_CASTS = {"oid": "bigint"}  # the driver's is of 32 bits with a sign
_GUARD = "heap_assets_dimensions_"
_NULL = "heap_assets_null_"
_AT = "heap_assets_position"


@dataclass(frozen=True)
class Selection:
    """Expressions of a SELECT, and its helper columns.

    Attributes
    ----------
    guards
        Helper column, true if an array has several dimensions, to the column that it checks.
    nulls
        Helper column, true if a composite is null, to the path of the composite (column, then fields); a list for
        arrays of composites.
    """

    expressions: tuple[str, ...]
    guards: Mapping[str, str] = field(default_factory=dict)
    nulls: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return ", ".join(self.expressions)

    def checked(self, batches: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        """Yield batches without the guards, composites null where they are.

        Raises
        ------
        MisfitError
            If a value is of several dimensions, which the driver would bring as one.
        """
        for batch in batches:
            for guard, column in self.guards.items():
                if pc.any(batch.column(guard)).as_py():
                    raise MisfitError(column, "a list of one dimension")
            nulls = {path: batch.column(name) for name, path in self.nulls.items()}
            schema = self.schema(batch.schema)
            columns = [_composites(batch.column(name), (name,), nulls) for name in schema.names]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Return a schema without the guards."""
        return pa.schema([each for each in schema if each.name not in self.guards and each.name not in self.nulls])


def _composites(array: pa.Array, path: tuple[str, ...], nulls: Mapping[tuple[str, ...], pa.Array]) -> pa.Array:
    """Restore nulls of composites, which the query replaced by rows of nulls for the driver."""
    if path not in nulls:
        return array
    if pa.types.is_list(array.type):
        values = _composites(array.values, path, nulls)
        return pa.ListArray.from_arrays(array.offsets, values, type=array.type, mask=array.is_null())
    mask = nulls[path]
    fields = list(array.type)
    children = [_composites(array.field(index), (*path, each.name), nulls) for index, each in enumerate(fields)]
    return pa.StructArray.from_arrays(
        children, fields=fields, mask=mask.flatten() if pa.types.is_list(mask.type) else mask
    )


@dataclass(frozen=True)
class _Type:
    """A type with its domains taken off: `element` of arrays, `relation` of composite types."""

    name: str
    kind: str
    element: int
    relation: int
    sql_name: str
    is_domain: bool = False


def selection(cursor: dbapi.Cursor, relation: str, columns: Sequence[str], text: Collection[str]) -> Selection:
    """Plan how columns are read.

    Parameters
    ----------
    relation
        Its oid, as SQL.
    text
        Columns whose values do not fit the type they have in Arrow: numbers are read as text, all else as JSON.
    """
    types = _Types(cursor)
    column_types = {name: types.resolved(oid) for name, oid in types.attributes(relation)}
    expressions: list[str] = []
    guards: dict[str, str] = {}
    nulls: dict[str, tuple[str, ...]] = {}
    for name in columns:
        quoted = sql_identifier(name)
        expression, arrays = types.expression(quoted, column_types[name], as_text=name in text)
        composites = types.nulls(quoted, column_types[name], (name,)) if expression == quoted else {}
        if composites:
            expression = types.filled(quoted, column_types[name])
        expressions.append(quoted if expression == quoted else f"{expression} AS {quoted}")
        for path, is_null in composites.items():
            column = f"{_NULL}{len(nulls)}"
            nulls[column] = path
            expressions.append(f"({is_null}) AS {column}")
        if arrays:
            guard = f"{_GUARD}{len(guards)}"
            several = " OR ".join(f"coalesce(array_ndims({array}) > 1, false)" for array in arrays)
            guards[guard] = name
            expressions.append(f"({several}) AS {guard}")
    return Selection(tuple(expressions), guards, nulls)


@dataclass
class _Types:
    cursor: dbapi.Cursor
    _by_oid: dict[int, _Type] = field(default_factory=dict)
    _money: str | None = None

    def attributes(self, relation: str) -> list[tuple[str, int]]:
        self.cursor.execute(
            "SELECT attname, atttypid::bigint FROM pg_attribute "
            f"WHERE attrelid = {relation} AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        )
        return list(self.cursor.fetchall())

    def resolved(self, oid: int) -> _Type:
        if oid not in self._by_oid:
            self.cursor.execute(
                "SELECT typname::text, typtype::text, CASE WHEN typcategory = 'A' THEN typelem::bigint ELSE 0 END, "
                "typrelid::bigint, typbasetype::bigint, format_type(oid, NULL) "
                f"FROM pg_type WHERE oid = {oid}"
            )
            [(name, kind, element, relation, base, sql_name)] = self.cursor.fetchall()
            if kind == "d":
                inner = self.resolved(base)
                self._by_oid[oid] = replace(inner, is_domain=True)
            else:
                self._by_oid[oid] = _Type(name, kind, element, relation, sql_name)
        return self._by_oid[oid]

    def expression(self, value: str, kind: _Type, *, as_text: bool) -> tuple[str, list[str]]:
        """Return the expression of a column, and the arrays in it that may have several dimensions."""
        element = self.resolved(kind.element) if kind.element else kind
        if element.relation:
            arrays = self._arrays(value, element) if not kind.element else [] if self._fits(element) else None
            if as_text or arrays is None:
                return f"to_jsonb({value})::text", []
            return value, [*arrays, value] if kind.element else arrays
        if as_text and kind.element:
            return f"to_jsonb({value})::text", []
        cast = self._cast(element) if not as_text or element.name != "numeric" else "text"
        brackets = "[]" if kind.element else ""
        return f"{value}::{cast}{brackets}" if cast else value, [value] if kind.element else []

    def _cast(self, kind: _Type) -> str:
        if kind.name == "money":
            if self._money is None:
                self.cursor.execute("SELECT scale(0::money::numeric)")
                self._money = f"numeric(20,{self.cursor.fetchall()[0][0]})"
            return self._money
        return _CASTS.get(kind.name, "" if kind.kind == "e" or kind.name in NATIVE_TYPES else "text")

    def filled(self, value: str, kind: _Type) -> str:
        """Return a value with rows of nulls for null composites: the driver fails after one, or loses those behind."""
        if kind.element:
            inner = self.resolved(kind.element)
            filled = self.filled(f"({value})[{_AT}]", inner)
            each = f"ARRAY(SELECT {filled} FROM generate_subscripts({value}, 1) AS {_AT})"
            return f"CASE WHEN {value} IS NOT NULL THEN {each} END" if inner.relation else value
        if not kind.relation:
            return value
        fields = [
            self.filled(f"({value}).{sql_identifier(name)}", self.resolved(oid))
            for name, oid in self.attributes(str(kind.relation))
        ]
        return f"ROW({', '.join(fields)})::{kind.sql_name}"

    def nulls(self, value: str, kind: _Type, path: tuple[str, ...]) -> dict[tuple[str, ...], str]:
        """Return for each composite in a value, by its place, the expression that tells whether it is null."""
        if kind.element:
            is_null_by_path = self.nulls(f"({value})[{_AT}]", self.resolved(kind.element), path)
            each = f"FROM generate_subscripts({value}, 1) AS {_AT}"
            return {deeper: f"ARRAY(SELECT {is_null} {each})" for deeper, is_null in is_null_by_path.items()}
        if not kind.relation:
            return {}
        is_null_by_path = {path: f"{value} IS NOT DISTINCT FROM NULL"}
        for name, oid in self.attributes(str(kind.relation)):
            is_null_by_path |= self.nulls(f"({value}).{sql_identifier(name)}", self.resolved(oid), (*path, name))
        return is_null_by_path

    def _arrays(self, value: str, composite: _Type) -> list[str] | None:
        """Return the arrays among the fields of a composite type; None if the driver lacks a type of one of them."""
        arrays: list[str] = []
        for name, oid in self.attributes(str(composite.relation)):
            kind, inner = self.resolved(oid), f"({value}).{sql_identifier(name)}"
            element = self.resolved(kind.element) if kind.element else kind
            if kind.is_domain or (not element.relation and self._cast(element)):
                return None
            if kind.relation:
                deeper = self._arrays(inner, kind)
                if deeper is None:
                    return None
                arrays += deeper
            elif kind.element:
                if element.relation and not self._fits(element):
                    return None
                arrays.append(inner)
        return arrays

    def _fits(self, kind: _Type) -> bool:
        """Whether the driver brings the elements of an array of composites, none of which can be guarded."""
        return self._arrays("", kind) == []
