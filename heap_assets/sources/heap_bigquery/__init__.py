"""Heap Connect's export to a warehouse as a source of Heap's tables, and the wide `events` table of its guides."""

from heap_assets.sources.heap_bigquery.export import HeapExport
from heap_assets.sources.heap_bigquery.export_log import ExportLog, ExportState, LookBack, TableLook
from heap_assets.sources.heap_bigquery.lower_case import LowerCaseWarehouse
from heap_assets.sources.heap_bigquery.wide_export import WideExport

__all__ = [
    "ExportLog",
    "ExportState",
    "HeapExport",
    "LookBack",
    "LowerCaseWarehouse",
    "TableLook",
    "WideExport",
]
