"""Where tables live: Parquet partitions on a folder, S3 or GCS, written whole or not at all."""

from heap_assets.lake.lake import Inputs, Lake, Partition, Status, Written, conform
from heap_assets.lake.store import FileWriter, ObjectInfo, Store, write_frame

__all__ = [
    "FileWriter",
    "Inputs",
    "Lake",
    "ObjectInfo",
    "Partition",
    "Status",
    "Store",
    "Written",
    "conform",
    "write_frame",
]
