"""LookML: a view of each table, an explore of each view, one model; written by the package lkml."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lkml

from heap_assets.bi.layer import Column, Kind, Layer, Table
from heap_assets.bi.statements import as_text, newest_day, quoted, relation

_TYPES = {Kind.INTEGER: "number", Kind.NUMBER: "number", Kind.BOOLEAN: "yesno"}
_DAYS = ["raw", "date", "week", "month", "quarter", "year"]
_TIMES = ["raw", "time", "hour", *_DAYS[1:]]


def files(layer: Layer) -> Iterator[tuple[str, str]]:
    """Yield each file's path and text: views, and a model whose connection in Looker is named as the target."""
    for table in layer.tables:
        yield f"views/{_name(table.name)}.view.lkml", _text({"views": [_view(layer, table)]})
    model = {
        "connection": layer.name,
        "includes": ["views/*.view.lkml"],
        "explores": [_explore(layer, table) for table in layer.tables],
    }
    yield f"{layer.name}.model.lkml", _text(model)


def _text(described: dict[str, Any]) -> str:
    return f"{lkml.dump(described)}\n"


def _view(layer: Layer, table: Table) -> dict[str, Any]:
    view: dict[str, Any] = {"name": _name(table.name), "label": table.title}
    if table.newest:
        view["derived_table"] = {"sql": newest_day(layer, table)}
    else:
        view["sql_table_name"] = relation(layer, table)
    groups = [column for column in table.columns if column.kind in (Kind.TIME, Kind.DATE)]
    view["dimensions"] = [_dimension(layer, table, c) for c in table.columns if c not in groups and _is_shown(c)]
    if len(table.key) > 1:
        parts = " || '-' || ".join(as_text(layer, f"${{TABLE}}.{quoted(layer, column)}") for column in table.key)
        view["dimensions"].insert(0, {"name": "row_key", "primary_key": "yes", "hidden": "yes", "sql": parts})
    view["dimension_groups"] = [_group(layer, column) for column in groups]
    view["measures"] = [{"name": "row_count", "type": "count"}]
    if table.has(person := layer.location.spelled("profile_id")):
        view["measures"].append({"name": "people", "type": "count_distinct", "sql": f"${{{_name(person)}}}"})
    return view


def _is_shown(column: Column) -> bool:
    return column.kind is not Kind.OTHER


def _dimension(layer: Layer, table: Table, column: Column) -> dict[str, Any]:
    dimension = {**_described(column), "type": _TYPES.get(column.kind, "string"), "sql": _reference(layer, column)}
    if table.key == (column.name,):
        dimension["primary_key"] = "yes"
    if column.personal:
        dimension["tags"] = ["personal_data"]
    return dimension


def _group(layer: Layer, column: Column) -> dict[str, Any]:
    is_day = column.kind is Kind.DATE
    frames: dict[str, Any] = {"timeframes": _DAYS if is_day else _TIMES}
    if is_day:
        frames |= {"datatype": "date", "convert_tz": "no"}
    return {**_described(column), "type": "time", **frames, "sql": _reference(layer, column)}


def _described(column: Column) -> dict[str, Any]:
    # LookML has no way that every reader takes to write a double quote within text
    meaning = column.meaning.replace('"', "'").replace("\\", "/")
    return {"name": _name(column.name), "label": column.title, **({"description": meaning} if meaning else {})}


def _reference(layer: Layer, column: Column) -> str:
    return f"${{TABLE}}.{quoted(layer, column.name)}"


def _explore(layer: Layer, table: Table) -> dict[str, Any]:
    left = _name(table.name)
    joins = [
        {
            "name": _name(join.right),
            "type": "left_outer",
            "relationship": "many_to_one",
            "sql_on": " AND ".join(
                f"{_field(table, one)} = {_field(layer.table(join.right), other)}" for one, other in join.on
            ),
        }
        for join in layer.joins_of(table)
    ]
    description = table.description.replace('"', "'").replace("\\", "/")
    explore: dict[str, Any] = {"name": left, **({"description": description} if description else {})}
    return {**explore, "joins": joins} if joins else explore


def _field(table: Table, column: str) -> str:
    return f"${{{_name(table.name)}.{_name(column)}}}"


def _name(name: str) -> str:
    return name.lower()
