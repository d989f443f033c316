"""APIs of Heap that no public page describes: its query, and labels. Addresses are settings; nothing is verified."""

from heap_assets.heap_api.labels import (
    Change,
    FileLabels,
    HttpLabels,
    Label,
    LabelStore,
    apply_changes,
    changes_between,
    read_labels,
    write_labels,
)
from heap_assets.heap_api.query import HeapQuery, QueryClient

__all__ = [
    "Change",
    "FileLabels",
    "HeapQuery",
    "HttpLabels",
    "Label",
    "LabelStore",
    "QueryClient",
    "apply_changes",
    "changes_between",
    "read_labels",
    "write_labels",
]
