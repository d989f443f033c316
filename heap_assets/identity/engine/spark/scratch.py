"""Parquet files of a run, below one URL, as both Spark and this process reach them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from pyspark.sql import DataFrame, SparkSession

from heap_assets.identity.engine.spark.results import remove_all, result_files, scan_result
from heap_assets.storage import Store


class Scratch:
    """Parquet files between the steps of a run: a step starts from stored rows and not from the history of a frame."""

    def __init__(self, spark: SparkSession, store: Store) -> None:
        self.spark = spark
        self.store = store

    def stored(self, frame: DataFrame, name: str) -> DataFrame:
        """Write a frame below a name and return it as read."""
        frame.write.option("compression", "zstd").parquet(self.uri(name))
        return self.spark.read.schema(frame.schema).parquet(self.uri(name))

    def files(self, name: str = "") -> list[str]:
        """Return the keys of the Parquet files below a name, in order."""
        return result_files(self.store, name)

    def scan(self, name: str, schema: pl.Schema) -> pl.LazyFrame:
        """Scan what is stored below a name, in order of the files."""
        return scan_result(self.store, name, schema)

    def taken(self, frame: pl.DataFrame, name: str) -> DataFrame:
        """Hand a frame of this process to Spark."""
        self.store.sink(f"{name}/part.parquet", frame)
        return self.spark.read.parquet(self.uri(name))

    def uri(self, name: str = "") -> str:
        """Return the address at which Spark finds what is below a name."""
        return spark_uri(self.store.uri(name) if name else self.store.url)

    def remove(self) -> None:
        """Remove all files."""
        remove_all(self.store)


def spark_uri(uri: str) -> str:
    """Return the address by which Spark opens what a store has at `uri`: clusters know `s3://` and `gs://` as we do."""
    return uri if "://" in uri else Path(uri).as_uri()
