"""Where tables live: Parquet partitions on a folder, S3 or GCS, written whole or not at all."""

from heap_assets.storage.checksums import UNSEALED, from_parquet, is_whole, seal, to_parquet
from heap_assets.storage.files import SCRATCH, folder_name, remove_scratch_folders, update_file
from heap_assets.storage.lake import Inputs, Lake, Partition, Status, Written, conform
from heap_assets.storage.overlay import OverlayStore
from heap_assets.storage.parts import (
    FOOTER,
    Parts,
    footer_of,
    is_marker,
    markers,
    named_parts,
    parts_folder,
    parts_of,
    renamed,
    table_of_part,
)
from heap_assets.storage.side_by_side import side_by_side
from heap_assets.storage.sql import LakeSql, view_name
from heap_assets.storage.store import FAST, FileWriter, ObjectInfo, Store, write_parquet

__all__ = [
    "FAST",
    "FOOTER",
    "SCRATCH",
    "UNSEALED",
    "FileWriter",
    "Inputs",
    "Lake",
    "LakeSql",
    "ObjectInfo",
    "OverlayStore",
    "Partition",
    "Parts",
    "Status",
    "Store",
    "Written",
    "conform",
    "folder_name",
    "footer_of",
    "from_parquet",
    "is_marker",
    "is_whole",
    "markers",
    "named_parts",
    "parts_folder",
    "parts_of",
    "remove_scratch_folders",
    "renamed",
    "seal",
    "side_by_side",
    "table_of_part",
    "to_parquet",
    "update_file",
    "view_name",
    "write_parquet",
]
