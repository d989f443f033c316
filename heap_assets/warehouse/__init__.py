"""The warehouses that CRM, billing, product and support tables live in, and that results are published to.

Engines are imported when they are named: nobody waits for Google's client who reads a DuckDB file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heap_assets.warehouse.dsn import Dsn
from heap_assets.warehouse.duckdb_file import DuckDBWarehouse
from heap_assets.warehouse.families import family_of
from heap_assets.warehouse.model import (
    AccessError,
    Column,
    ColumnMissingError,
    Newer,
    Permission,
    Reading,
    RelationMissingError,
    Snapshot,
    Table,
    Tally,
    Warehouse,
    WarehouseBusyError,
    WarehouseError,
    choose_columns,
)
from heap_assets.warehouse.publish import (
    Published,
    Publisher,
    PublishError,
    PublishStatus,
    told_counts,
    told_names,
)
from heap_assets.warehouse.shape import Shape, TimeKind

if TYPE_CHECKING:
    from heap_assets.warehouse.bigquery import BigQueryWarehouse
    from heap_assets.warehouse.bigquery_client import BigQueryAccount
    from heap_assets.warehouse.postgres import PostgresWarehouse

_ENGINES = {
    "BigQueryAccount": "heap_assets.warehouse.bigquery_client",
    "BigQueryWarehouse": "heap_assets.warehouse.bigquery",
    "PostgresWarehouse": "heap_assets.warehouse.postgres",
}

__all__ = [
    "AccessError",
    "BigQueryAccount",
    "BigQueryWarehouse",
    "Column",
    "ColumnMissingError",
    "Dsn",
    "DuckDBWarehouse",
    "Newer",
    "Permission",
    "PostgresWarehouse",
    "PublishError",
    "PublishStatus",
    "Published",
    "Publisher",
    "Reading",
    "RelationMissingError",
    "Shape",
    "Snapshot",
    "Table",
    "Tally",
    "TimeKind",
    "Warehouse",
    "WarehouseBusyError",
    "WarehouseError",
    "choose_columns",
    "family_of",
    "told_counts",
    "told_names",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _ENGINES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ENGINES[name]), name)
