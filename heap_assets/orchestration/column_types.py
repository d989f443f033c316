"""Names of column types as the UI shows them, and the types that settings and code declare before a table is built."""

from collections.abc import Mapping
from typing import cast

import dagster as dg
import polars as pl

from heap_assets.identity import AUDIT_SCHEMA, CHANGES, CONFLICTS, GRAPH, LINKS, REVIEW, SHARED
from heap_assets.pipelines.erasure_requests import SCHEMA as ERASURE_SCHEMA
from heap_assets.pipelines.findings import SCHEMA as FINDINGS_SCHEMA
from heap_assets.pipelines.keys import SCHEMA as KEYS_SCHEMA
from heap_assets.pipelines.retention import SCHEMA as RETENTION_SCHEMA
from heap_assets.profiles import ACCOUNT_MEMBERSHIP_SCHEMA, MEMBERSHIP_SCHEMA, PROFILE_SCHEMA, UNIFIED_SCHEMA
from heap_assets.project import Project
from heap_assets.signals import FIRINGS
from heap_assets.sources.heap_connect import key_dtype
from heap_assets.tables import (
    ACCOUNT_AUDIENCES,
    AUDIENCES,
    AUDIT,
    ERASURES,
    FINDINGS,
    KEYS,
    PROFILES,
    RETENTION,
    UNIFIED_EVENTS,
    is_analytics,
    is_heap_table,
    is_signal,
    is_sync,
)
from heap_assets.tables import CHANGES as CHANGES_ASSET
from heap_assets.tables import CONFLICTS as CONFLICTS_ASSET
from heap_assets.tables import GRAPH as GRAPH_ASSET
from heap_assets.tables import LINKS as LINKS_ASSET
from heap_assets.tables import REVIEW as REVIEW_ASSET
from heap_assets.tables import SHARED as SHARED_ASSET

UNKNOWN = "known once built"
"""The type of a column that its source decides, before the first day of its table is built."""
SENT = "as in the source"
"""The type of a property that is sent, before the first day is sent."""
_SCHEMAS: Mapping[str, Mapping[str, pl.DataType | type[pl.DataType]]] = {
    LINKS_ASSET: LINKS,
    GRAPH_ASSET: GRAPH,
    CONFLICTS_ASSET: CONFLICTS,
    SHARED_ASSET: SHARED,
    CHANGES_ASSET: CHANGES,
    REVIEW_ASSET: REVIEW,
    PROFILES: PROFILE_SCHEMA,
    AUDIENCES: MEMBERSHIP_SCHEMA,
    ACCOUNT_AUDIENCES: ACCOUNT_MEMBERSHIP_SCHEMA,
    AUDIT: AUDIT_SCHEMA,
    UNIFIED_EVENTS: UNIFIED_SCHEMA,
    ERASURES: ERASURE_SCHEMA,
    FINDINGS: FINDINGS_SCHEMA,
    RETENTION: RETENTION_SCHEMA,
    KEYS: KEYS_SCHEMA,
}


def type_in_words(dtype: pl.DataType | type[pl.DataType]) -> str:
    """Return what the UI calls a type.

    >>> [type_in_words(dtype) for dtype in (pl.String, pl.Int64, pl.Datetime("us", "UTC"), pl.Decimal(38, 2))]
    ['text', 'integer', 'timestamp (UTC)', 'decimal (2 places)']
    >>> type_in_words(pl.List(pl.Struct({"type": pl.String, "value": pl.String})))
    'list of records (type, value)'
    """
    if isinstance(dtype, pl.List | pl.Array):
        item = type_in_words(cast("pl.DataType", dtype.inner))
        return f"list of {item.replace('record', 'records', 1) if item.startswith('record') else item}"
    if isinstance(dtype, pl.Struct):
        return f"record ({', '.join(field.name for field in dtype.fields)})"
    if isinstance(dtype, pl.Datetime):
        return f"timestamp ({dtype.time_zone or 'no time zone'})"
    if isinstance(dtype, pl.Decimal):
        return f"decimal ({dtype.scale} places)" if dtype.scale else "integer"
    if isinstance(dtype, pl.Categorical | pl.Enum):
        return "text"
    if dtype.is_integer():
        return "integer"
    if dtype.is_float():
        return "number"
    named = {pl.String: "text", pl.Boolean: "true or false", pl.Date: "date", pl.Time: "time of day"}
    named |= {pl.Binary: "bytes", pl.Duration: "duration", pl.Null: "empty"}
    return next((word for candidate, word in named.items() if dtype == candidate), str(dtype).lower())


def table_schema(schema: Mapping[str, pl.DataType]) -> dg.TableSchema:
    """Describe a frame's columns for the UI."""
    return dg.TableSchema([dg.TableColumn(name, type_in_words(dtype)) for name, dtype in schema.items()])


def declared_type(project: Project, path: str, column: str) -> str:
    """Return the name of a column's type before its table is built; :data:`UNKNOWN` if only the data tell."""
    schema = _SCHEMAS.get(path, {})
    if column in schema:
        return type_in_words(schema[column])
    if is_heap_table(path) and (dtype := key_dtype(project.heap_tables.get(path, ""), column)) is not None:
        return type_in_words(dtype)
    if path == PROFILES and (column in project.settings.profiles.audiences or column.endswith("__source")):
        return "text" if column.endswith("__source") else "true or false"
    if is_analytics(path):
        return UNKNOWN
    if is_signal(path):
        return type_in_words(FIRINGS[column]) if column in FIRINGS else UNKNOWN
    return SENT if is_sync(path) else UNKNOWN
