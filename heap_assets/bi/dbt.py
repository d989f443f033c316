"""dbt: the published tables as a source, and what reads them as exposures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from heap_assets.bi.layer import Column, Exposure, Layer, Table


def files(layer: Layer) -> Iterator[tuple[str, str]]:
    """Yield the two files for a dbt project's folder of models: sources and exposures."""
    schemas = dict.fromkeys(table.schema for table in layer.tables)
    sources = [_source(layer, schema) for schema in schemas]
    yield f"{layer.name}_sources.yml", _text({"version": 2, "sources": sources})
    exposures = [_exposure(layer, exposure) for exposure in layer.exposures]
    yield f"{layer.name}_exposures.yml", _text({"version": 2, "exposures": exposures})


def _source(layer: Layer, schema: str) -> dict[str, Any]:
    tables = [table for table in layer.tables if table.schema == schema]
    source: dict[str, Any] = {
        "name": schema,
        "schema": schema,
        "description": f"Published by heap_assets: {layer.name}",
    }
    if layer.location.qualifies:
        source["database"] = layer.location.database
    return source | {
        "quoting": {"database": True, "schema": True, "identifier": True},
        "tables": [_table(layer, table) for table in tables],
    }


def _table(layer: Layer, table: Table) -> dict[str, Any]:
    note = f" A day is how things stood: filter by {layer.location.spelled('partition_day')}." if table.newest else ""
    columns = [_column(table, column) for column in table.columns]
    return {"name": table.name, "description": f"{table.description}.{note}".lstrip("."), "columns": columns}


def _column(table: Table, column: Column) -> dict[str, Any]:
    described: dict[str, Any] = {"name": column.name, "quote": True}
    if column.meaning:
        described["description"] = column.meaning
    if column.name in table.key:
        described["data_tests"] = ["not_null"]
    return described


def _exposure(layer: Layer, exposure: Exposure) -> dict[str, Any]:
    owner = {"email": exposure.owner} if "@" in exposure.owner else {"name": exposure.owner}
    return {
        "name": exposure.name,
        "type": "application",
        "description": exposure.description,
        "owner": owner,
        "depends_on": [f"source('{layer.table(name).schema}', '{name}')" for name in exposure.tables],
    }


def _text(described: dict[str, Any]) -> str:
    return str(yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=120))
