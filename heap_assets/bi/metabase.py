"""Metabase's serialized metadata of tables and columns, a file each, and views of the newest day.

The form is that of Metabase's serialization (`metabase import`): every object carries its own path in `serdes/meta`.
Joins are foreign keys there, which need one row a key: they lead to views `latest_<table>`, whose statements are
written beside the files, to be run once on the target.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import yaml

from heap_assets.bi.layer import Column, Kind, Layer, Table
from heap_assets.bi.statements import newest_view, newest_view_name

_TYPES = {
    Kind.TEXT: "type/Text",
    Kind.INTEGER: "type/BigInteger",
    Kind.NUMBER: "type/Decimal",
    Kind.BOOLEAN: "type/Boolean",
    Kind.TIME: "type/DateTimeWithLocalTZ",
    Kind.DATE: "type/Date",
    Kind.OTHER: "type/*",
}
_ENGINES = {"bigquery": "bigquery-cloud-sdk"}
"""Where Metabase's driver is called otherwise than the dialect."""


def files(layer: Layer) -> Iterator[tuple[str, str]]:
    """Yield each file's path and text."""
    folder = f"databases/{layer.name}"
    database = {
        "name": layer.name,
        "engine": _ENGINES.get(layer.location.dialect, layer.location.dialect),
        "description": "Published by heap_assets. Its connection is set up in Metabase: no secret is written here.",
        "is_sample": False,
        "is_on_demand": False,
        "serdes/meta": [_path("Database", layer.name)],
    }
    yield f"{folder}/{layer.name}.yaml", _text(database)
    yield "latest.sql", "".join(newest_view(layer, table) for table in layer.tables if table.newest)
    for table in layer.tables:
        shown = _shown(layer, table)
        place = f"{folder}/schemas/{shown.schema}/tables/{shown.name}"
        yield f"{place}/{shown.name}.yaml", _text(_table(layer, shown))
        for position, column in enumerate(shown.columns):
            described = _field(layer, table, shown, column, position)
            yield f"{place}/fields/{column.name}.yaml", _text(described)


def _shown(layer: Layer, table: Table) -> Table:
    """Return the table that people see: of a snapshot table the view of its newest day."""
    return replace(table, name=newest_view_name(layer, table)) if table.newest else table


def _table(layer: Layer, table: Table) -> dict[str, Any]:
    return {
        "name": table.name,
        "display_name": table.title,
        "description": table.description or None,
        "db_id": layer.name,
        "schema": table.schema,
        "active": True,
        "entity_type": "entity/GenericTable",
        "field_order": "database",
        "visibility_type": None,
        "serdes/meta": _meta(layer, table),
    }


def _field(layer: Layer, table: Table, shown: Table, column: Column, position: int) -> dict[str, Any]:
    target = next(
        (
            [layer.name, other.schema, other.name, join.on[0][1]]
            for join in layer.joins_of(table)
            if len(join.on) == 1 and join.on[0][0] == column.name
            for other in [_shown(layer, layer.table(join.right))]
        ),
        None,
    )
    semantic = "type/FK" if target else "type/PK" if table.key == (column.name,) else None
    return {
        "name": column.name,
        "display_name": column.title,
        "description": column.meaning or None,
        "table_id": [layer.name, shown.schema, shown.name],
        "base_type": _TYPES[column.kind],
        "effective_type": _TYPES[column.kind],
        "semantic_type": semantic,
        "fk_target_field_id": target,
        "active": True,
        "visibility_type": "normal",
        "position": position,
        "database_position": position,
        "serdes/meta": [*_meta(layer, shown), _path("Field", column.name)],
    }


def _meta(layer: Layer, table: Table) -> list[dict[str, str]]:
    return [_path("Database", layer.name), _path("Schema", table.schema), _path("Table", table.name)]


def _path(model: str, name: str) -> dict[str, str]:
    return {"model": model, "id": name}


def _text(described: dict[str, Any]) -> str:
    return str(yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=120))
