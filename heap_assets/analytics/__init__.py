"""Analytics: named, parametrised results over events and profiles, each as SQL for DuckDB and for BigQuery."""

from heap_assets.analytics.audience_sql import AudienceTables, Relation, audience_sql
from heap_assets.analytics.dialects import DIALECTS, Dialect, Statement, parsed, translated

__all__ = [
    "DIALECTS",
    "AudienceTables",
    "Dialect",
    "Relation",
    "Statement",
    "audience_sql",
    "parsed",
    "translated",
]
