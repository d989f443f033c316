"""Where tables live: Parquet partitions on a folder, S3 or GCS, written whole or not at all."""

from heap_assets.storage.files import SCRATCH, folder_name, remove_scratch_folders, update_file
from heap_assets.storage.lake import Inputs, Lake, Partition, Status, Written, conform
from heap_assets.storage.sql import SqlDoor
from heap_assets.storage.store import FileWriter, ObjectInfo, Store, write_frame

__all__ = [
    "SCRATCH",
    "FileWriter",
    "Inputs",
    "Lake",
    "ObjectInfo",
    "Partition",
    "SqlDoor",
    "Status",
    "Store",
    "Written",
    "conform",
    "folder_name",
    "remove_scratch_folders",
    "update_file",
    "write_frame",
]
