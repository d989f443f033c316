"""Superset's datasets, in the form that `superset import_datasources` and its UI take: a ZIP archive of YAML files.

A dataset of an event table is virtual, with the newest rows that belong to its rows: Superset joins nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from heap_assets.bi.layer import Column, Kind, Layer, Table
from heap_assets.bi.statements import joined, newest_day

_VERSION = "1.0.0"
_TYPES = {
    Kind.TEXT: "TEXT",
    Kind.INTEGER: "BIGINT",
    Kind.NUMBER: "DOUBLE PRECISION",
    Kind.BOOLEAN: "BOOLEAN",
    Kind.TIME: "TIMESTAMP",
    Kind.DATE: "DATE",
    Kind.OTHER: None,
}


def files(layer: Layer) -> Iterator[tuple[str, str]]:
    """Yield each file's path and text; the ids are the same each time, so that a second import updates."""
    yield "metadata.yaml", _text({"version": _VERSION, "type": "SqlaTable", "timestamp": "1970-01-01T00:00:00+00:00"})
    database = {
        "database_name": layer.name,
        "sqlalchemy_uri": layer.location.sqlalchemy_uri,
        "expose_in_sqllab": True,
        "allow_ctas": False,
        "allow_cvas": False,
        "allow_dml": False,
        "extra": {},
        "uuid": str(layer.uuid("database")),
        "version": _VERSION,
    }
    yield f"databases/{layer.name}.yaml", _text(database)
    for table in layer.tables:
        yield f"datasets/{layer.name}/{table.name}.yaml", _text(_dataset(layer, table))


def _dataset(layer: Layer, table: Table) -> dict[str, Any]:
    query, columns = None, [_column(column.name, column) for column in table.columns]
    if table.newest:
        query = newest_day(layer, table)
    elif layer.joins_of(table):
        query, names = joined(layer, table)
        columns += [_column(name, layer.table(other).column(column)) for name, (other, column) in names.items()]
    metrics = [_metric("count", "COUNT(*)", "Rows")]
    if table.has(person := layer.location.spelled("profile_id")):
        metrics.append(_metric("people", f"COUNT(DISTINCT {person})", "People"))
    return {
        "table_name": table.name,
        "main_dttm_col": table.time,
        "description": table.description or None,
        "schema": table.schema,
        "sql": query,
        "filter_select_enabled": True,
        "normalize_columns": False,
        "uuid": str(layer.uuid("dataset", table.name)),
        "metrics": metrics,
        "columns": columns,
        "version": _VERSION,
        "database_uuid": str(layer.uuid("database")),
    }


def _column(name: str, column: Column) -> dict[str, Any]:
    return {
        "column_name": name,
        "verbose_name": column.title,
        "is_dttm": column.kind in (Kind.TIME, Kind.DATE),
        "is_active": True,
        "type": _TYPES[column.kind],
        "groupby": True,
        "filterable": True,
        "description": column.meaning or None,
    }


def _metric(name: str, expression: str, title: str) -> dict[str, Any]:
    return {"metric_name": name, "verbose_name": title, "expression": expression}


def _text(described: dict[str, Any]) -> str:
    return str(yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=120))
