"""Analytics: named, parametrised results over events and profiles, each as SQL for DuckDB and for BigQuery."""

from heap_assets.analytics.audience_sql import AudienceTables, Relation, audience_sql
from heap_assets.analytics.charts import Chart, chart_of
from heap_assets.analytics.columns import result_columns
from heap_assets.analytics.dialects import DIALECTS, Dialect, Statement, parsed, translated
from heap_assets.analytics.models import SqlTables, columns_read, with_tables
from heap_assets.analytics.queries import QUERIES, parse_query
from heap_assets.analytics.query import Query
from heap_assets.analytics.signal_sql import SignalTables, signal_sql

__all__ = [
    "DIALECTS",
    "QUERIES",
    "AudienceTables",
    "Chart",
    "Dialect",
    "Query",
    "Relation",
    "SignalTables",
    "SqlTables",
    "Statement",
    "audience_sql",
    "chart_of",
    "columns_read",
    "parse_query",
    "parsed",
    "result_columns",
    "signal_sql",
    "translated",
    "with_tables",
]
