"""The lake as a Dagster resource, and what the UI shows of its partitions."""

from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from heap_assets.orchestration.dead_runs import clear_dead_runs, note_process
from heap_assets.storage import Lake, Partition

SETTINGS_TAG = "heap/settings"


class LakeResource(dg.ConfigurableResource[Any]):
    """The lake of Parquet tables; `open` gives the object that domain code works with."""

    url: str = Field(description="Folder, s3:// or gs:// address")
    options: dict[str, str] = Field(default={}, description="Object-store options", repr=False)
    settings: str = Field(default="", description="Hash of the settings that were loaded: a tag of every run")

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Clear up after dead runs before this one waits for the slot of a pool that they hold."""
        if context.instance is not None and context.run is not None:
            note_process(context.instance, context.run.run_id)
            clear_dead_runs(context.instance)
            if self.settings and context.instance.has_run(context.run.run_id):
                context.instance.add_run_tags(context.run.run_id, {SETTINGS_TAG: self.settings})

    def open(self) -> Lake:
        return Lake.open(self.url, self.options)


def table_schema(schema: pl.Schema) -> dg.TableSchema:
    """Describe a frame's columns for the UI."""
    return dg.TableSchema([dg.TableColumn(name, str(dtype)) for name, dtype in schema.items()])


def partition_metadata(partition: Partition) -> dict[str, Any]:
    """Return what the UI shows of a stored partition: rows, size and where it lies."""
    return {
        "dagster/partition_row_count": partition.rows,
        "bytes": partition.bytes,
        "inputs": len(partition.inputs.versions),
        "version": partition.version.strip('"'),
    }
