"""Parquet files out of arrays: for those who know their texts by number, so that no library need find them again."""

from heap_assets.parquet.file import ParquetFile
from heap_assets.parquet.pages import AS_IS, DICTIONARY, KINDS, PLAIN, Buffer, Chunk, Packer, Packing, can_hold, levels
from heap_assets.parquet.thrift import varint

__all__ = [
    "AS_IS",
    "DICTIONARY",
    "KINDS",
    "PLAIN",
    "Buffer",
    "Chunk",
    "Packer",
    "Packing",
    "ParquetFile",
    "can_hold",
    "levels",
    "varint",
]
