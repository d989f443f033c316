"""The warehouses that CRM, billing, product and support tables live in, and that results are published to.

Engines are imported when they are named: nobody waits for Google's client who reads a DuckDB file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heap_assets.sources.warehouse.base import (
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
from heap_assets.sources.warehouse.browse import (
    SAMPLE_ROWS,
    datasets,
    declare_yaml,
    describe,
    look,
    propose,
    propose_yaml,
    tables_of,
)
from heap_assets.sources.warehouse.content import CONTENT_SCHEME, FINGERPRINT_SCHEME, content_digest, row_fingerprints
from heap_assets.sources.warehouse.duckdb.reader import DuckDBWarehouse
from heap_assets.sources.warehouse.postgres.dsn import Dsn
from heap_assets.sources.warehouse.publish import (
    RESOLVED_COLUMNS,
    Preview,
    Publication,
    Published,
    Publisher,
    PublishError,
    PublishStatus,
    ResolvedOn,
    table_name,
    table_names,
    told_counts,
    told_names,
)
from heap_assets.sources.warehouse.refresh import Observation, Refreshed, refreshed
from heap_assets.sources.warehouse.shape import Shape, TimeKind, family_of

if TYPE_CHECKING:
    from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
    from heap_assets.sources.warehouse.bigquery.publisher import BigQueryPublisher
    from heap_assets.sources.warehouse.bigquery.reader import BigQueryWarehouse
    from heap_assets.sources.warehouse.postgres.publisher import PostgresPublisher
    from heap_assets.sources.warehouse.postgres.reader import PostgresWarehouse

_ENGINES = {
    "PostgresPublisher": "heap_assets.sources.warehouse.postgres.publisher",
    "BigQueryPublisher": "heap_assets.sources.warehouse.bigquery.publisher",
    "BigQueryAccount": "heap_assets.sources.warehouse.bigquery.client",
    "BigQueryWarehouse": "heap_assets.sources.warehouse.bigquery.reader",
    "PostgresWarehouse": "heap_assets.sources.warehouse.postgres.reader",
}

__all__ = [
    "CONTENT_SCHEME",
    "FINGERPRINT_SCHEME",
    "RESOLVED_COLUMNS",
    "SAMPLE_ROWS",
    "AccessError",
    "BigQueryAccount",
    "BigQueryPublisher",
    "BigQueryWarehouse",
    "Column",
    "ColumnMissingError",
    "Dsn",
    "DuckDBWarehouse",
    "Newer",
    "Observation",
    "Permission",
    "PostgresPublisher",
    "PostgresWarehouse",
    "Preview",
    "Publication",
    "PublishError",
    "PublishStatus",
    "Published",
    "Publisher",
    "Reading",
    "Refreshed",
    "RelationMissingError",
    "ResolvedOn",
    "Shape",
    "Snapshot",
    "Table",
    "Tally",
    "TimeKind",
    "Warehouse",
    "WarehouseBusyError",
    "WarehouseError",
    "choose_columns",
    "content_digest",
    "datasets",
    "declare_yaml",
    "describe",
    "family_of",
    "look",
    "propose",
    "propose_yaml",
    "refreshed",
    "row_fingerprints",
    "table_name",
    "table_names",
    "tables_of",
    "told_counts",
    "told_names",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _ENGINES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ENGINES[name]), name)
