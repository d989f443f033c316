"""The warehouses that CRM, billing, product and support tables live in, and that results are published to."""

from heap_assets.warehouse.duckdb_file import DuckDBWarehouse
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
    Warehouse,
    WarehouseBusyError,
    WarehouseError,
    choose_columns,
)
from heap_assets.warehouse.postgres import PostgresWarehouse

__all__ = [
    "AccessError",
    "Column",
    "ColumnMissingError",
    "DuckDBWarehouse",
    "Newer",
    "Permission",
    "PostgresWarehouse",
    "Reading",
    "RelationMissingError",
    "Snapshot",
    "Table",
    "Warehouse",
    "WarehouseBusyError",
    "WarehouseError",
    "choose_columns",
]
