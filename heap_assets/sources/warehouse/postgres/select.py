"""Which expression reads a column of PostgreSQL exactly: as it is where Arrow has the type, else as text or JSON."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]

from heap_assets.sources.warehouse.arrow import MisfitError

KEPT = frozenset(
    {
        *("bool", "int2", "int4", "int8", "float4", "float8", "numeric", "text", "varchar", "bpchar", "name"),
        *("bytea", "date", "time", "timestamp", "timestamptz", "json", "jsonb"),
    }
)
"""Base types that the driver brings into Arrow as they are; enums too. Others are read as text."""
_CASTS = {"oid": "bigint"}  # the driver's is of 32 bits with a sign
_GUARD = "heap_assets_dimensions_"


@dataclass(frozen=True)
class Selection:
    """Expressions of a SELECT, and the columns among its last ones that tell of arrays of several dimensions."""

    expressions: tuple[str, ...]
    guards: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return ", ".join(self.expressions)

    def checked(self, batches: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        """Yield batches without the guards.

        Raises
        ------
        MisfitError
            If a value is of several dimensions, which the driver would bring as one.
        """
        for batch in batches:
            for guard, column in self.guards.items():
                if pc.any(batch.column(guard)).as_py():
                    raise MisfitError(column, "a list of one dimension")
            yield batch.select([name for name in batch.schema.names if name not in self.guards])

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Return a schema without the guards."""
        return pa.schema([each for each in schema if each.name not in self.guards])


@dataclass(frozen=True)
class _Type:
    """A type with its domains taken off: `element` of arrays, `relation` of composite types."""

    name: str
    kind: str
    element: int
    relation: int
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
    found = {name: types.resolved(oid) for name, oid in types.attributes(relation)}
    expressions: list[str] = []
    guards: dict[str, str] = {}
    for name in columns:
        quoted = identifier(name)
        expression, arrays = types.expression(quoted, found[name], as_text=name in text)
        expressions.append(quoted if expression == quoted else f"{expression} AS {quoted}")
        if arrays:
            guard = f"{_GUARD}{len(guards)}"
            several = " OR ".join(f"coalesce(array_ndims({array}) > 1, false)" for array in arrays)
            guards[guard] = name
            expressions.append(f"({several}) AS {guard}")
    return Selection(tuple(expressions), guards)


def identifier(name: str) -> str:
    """Quote a name."""
    return '"' + name.replace('"', '""') + '"'


@dataclass
class _Types:
    cursor: dbapi.Cursor
    _known: dict[int, _Type] = field(default_factory=dict)
    _money: str | None = None

    def attributes(self, relation: str) -> list[tuple[str, int]]:
        self.cursor.execute(
            "SELECT attname, atttypid::bigint FROM pg_attribute "
            f"WHERE attrelid = {relation} AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        )
        return list(self.cursor.fetchall())

    def resolved(self, oid: int) -> _Type:
        if oid not in self._known:
            self.cursor.execute(
                "SELECT typname::text, typtype::text, CASE WHEN typcategory = 'A' THEN typelem::bigint ELSE 0 END, "
                f"typrelid::bigint, typbasetype::bigint FROM pg_type WHERE oid = {oid}"
            )
            [(name, kind, element, relation, base)] = self.cursor.fetchall()
            if kind == "d":
                inner = self.resolved(base)
                self._known[oid] = _Type(inner.name, inner.kind, inner.element, inner.relation, is_domain=True)
            else:
                self._known[oid] = _Type(name, kind, element, relation)
        return self._known[oid]

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
        return _CASTS.get(kind.name, "" if kind.kind == "e" or kind.name in KEPT else "text")

    def _arrays(self, value: str, composite: _Type) -> list[str] | None:
        """Return the arrays among the fields of a composite type; None if the driver lacks a type of one of them."""
        arrays: list[str] = []
        for name, oid in self.attributes(str(composite.relation)):
            kind, inner = self.resolved(oid), f"({value}).{identifier(name)}"
            if kind.relation:
                deeper = self._arrays(inner, kind)
                if deeper is None or kind.is_domain:
                    return None
                arrays += deeper
            elif kind.element and not kind.is_domain and not self.resolved(kind.element).relation:
                if self._cast(self.resolved(kind.element)):
                    return None
                arrays.append(inner)
            elif kind.is_domain or (not self._fits(self.resolved(kind.element)) if kind.element else self._cast(kind)):
                return None
        return arrays

    def _fits(self, kind: _Type) -> bool:
        """Whether the driver brings the elements of an array of composites, none of which can be guarded."""
        return self._arrays("", kind) == []
