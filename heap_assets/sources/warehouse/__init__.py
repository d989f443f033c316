"""The warehouses that CRM, billing, product and support tables live in, and that results are published to."""

from __future__ import annotations

from heap_assets.sources.warehouse.base import (
    AccessError,
    Column,
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
    inspect_table,
    propose,
    propose_yaml,
    tables_of,
)
from heap_assets.sources.warehouse.content import CONTENT_SCHEME, FINGERPRINT_SCHEME, content_digest, row_fingerprints
from heap_assets.sources.warehouse.engine import (
    source_kinds,
    target_kinds,
    warehouse_of,
)
from heap_assets.sources.warehouse.publish import (
    Preview,
    Publication,
    Published,
    Publisher,
    PublishError,
    PublishStatus,
    format_counts,
    format_renames,
    table_name,
    table_names,
)
from heap_assets.sources.warehouse.refresh import Observation, Refreshed, refreshed
from heap_assets.sources.warehouse.resolved_views import DAY_COLUMN, RESOLVED_COLUMNS, ResolvedOn
from heap_assets.sources.warehouse.rows import DELETED, RowsWarehouse
from heap_assets.sources.warehouse.shape import Shape, family_of

__all__ = [
    "CONTENT_SCHEME",
    "DAY_COLUMN",
    "DELETED",
    "FINGERPRINT_SCHEME",
    "RESOLVED_COLUMNS",
    "SAMPLE_ROWS",
    "AccessError",
    "Column",
    "Newer",
    "Observation",
    "Permission",
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
    "RowsWarehouse",
    "Shape",
    "Snapshot",
    "Table",
    "Tally",
    "Warehouse",
    "WarehouseBusyError",
    "WarehouseError",
    "choose_columns",
    "content_digest",
    "datasets",
    "declare_yaml",
    "describe",
    "family_of",
    "format_counts",
    "format_renames",
    "inspect_table",
    "propose",
    "propose_yaml",
    "refreshed",
    "row_fingerprints",
    "source_kinds",
    "table_name",
    "table_names",
    "tables_of",
    "target_kinds",
    "warehouse_of",
]
