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
    look,
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
    table_name,
    table_names,
    told_counts,
    told_names,
)
from heap_assets.sources.warehouse.refresh import Observation, Refreshed, refreshed
from heap_assets.sources.warehouse.resolved_views import RESOLVED_COLUMNS, ResolvedOn
from heap_assets.sources.warehouse.rows import RowsWarehouse
from heap_assets.sources.warehouse.shape import Shape, family_of

__all__ = [
    "CONTENT_SCHEME",
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
    "look",
    "propose",
    "propose_yaml",
    "refreshed",
    "row_fingerprints",
    "source_kinds",
    "table_name",
    "table_names",
    "tables_of",
    "target_kinds",
    "told_counts",
    "told_names",
    "warehouse_of",
]
