"""Columns by path: `email`, `address.email`, `items[].email`, `emails[]`."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from heap_assets.identity.errors import RulesError


@dataclass(frozen=True)
class Found:
    """What a path leads to: an expression of values or, if `many`, of lists of them, and the type of a value."""

    expression: pl.Expr
    dtype: pl.DataType
    many: bool


def resolve_path(path: str, schema: pl.Schema, table: str) -> Found:
    """Find a column path in a schema.

    A column whose name is the whole path wins (BigQuery flattens `address.email` to such names).

    Raises
    ------
    RulesError
        If the path leads nowhere; the message names what is there instead.
    """
    if path in schema:
        return Found(pl.col(path), schema[path], many=False)
    steps = [step for part in path.split(".") for step in _steps(part)]
    root, *rest = steps
    if root not in schema:
        raise RulesError(f"table {table} has no column {root!r} (path {path!r}); it has {', '.join(schema) or 'none'}")
    return _descend(pl.col(root), schema[root], rest, f"table {table}, path {path!r}")


def _steps(part: str) -> list[str]:
    name = part.rstrip("[]")
    return [name] * bool(name) + ["[]"] * part.count("[]")


def _descend(expression: pl.Expr, dtype: pl.DataType, steps: list[str], where: str) -> Found:
    for position, step in enumerate(steps):
        if step == "[]":
            if not isinstance(dtype, pl.List):
                raise RulesError(f"{where}: [] needs a list, found {dtype}")
            return _elements(expression, dtype, steps[position + 1 :], where)
        dtype = _field(dtype, step, where)
        expression = expression.struct.field(step)
    return Found(expression, dtype, many=False)


def _elements(expression: pl.Expr, dtype: pl.List, steps: list[str], where: str) -> Found:
    inner: pl.Expr = pl.element()
    element = pl.DataType.from_python(dtype.inner) if isinstance(dtype.inner, type) else dtype.inner
    for step in steps:
        if step == "[]":
            if not isinstance(element, pl.List):
                raise RulesError(f"{where}: [] needs a list, found {element}")
            inner, element = inner.explode(), element.inner
        else:
            element = _field(element, step, where)  # type: ignore[arg-type]
            inner = inner.struct.field(step)
    return Found(expression.list.eval(inner), element, many=True)  # type: ignore[arg-type]


def _field(dtype: pl.DataType, name: str, where: str) -> pl.DataType:
    if not isinstance(dtype, pl.Struct):
        raise RulesError(f"{where}: .{name} needs a struct, found {dtype}")
    fields = {item.name: item.dtype for item in dtype.fields}
    if name not in fields:
        raise RulesError(f"{where}: no field {name!r}; found {', '.join(fields)}")
    return fields[name]  # type: ignore[return-value]
