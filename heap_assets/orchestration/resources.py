"""Dagster's door to the lake: one resource, and an IO manager for assets that take and return frames."""

from collections.abc import Mapping
from typing import Any, get_args, get_origin

import dagster as dg
import polars as pl
from pydantic import Field

from heap_assets.errors import HeapAssetsError
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


class LakeIOManager(dg.IOManager):
    """Give assets the partitions they depend on as lazy frames, and store the frames they return.

    An input annotated `dict[str, pl.LazyFrame]` gets one frame per partition, any other all partitions as one frame.
    An output is one frame, or in a run over several partitions a mapping from partition key to frame.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        if obj is None:
            return
        asset = context.asset_key.to_user_string()
        keys: list[str | None] = [*context.asset_partition_keys] if context.has_asset_partitions else [None]
        frames = obj if isinstance(obj, Mapping) else {keys[0]: obj}
        if set(frames) != set(keys):
            raise HeapAssetsError(
                f"{asset}: this run covers {len(keys)} partitions; return a mapping from each key to its frame"
            )
        written = [self._lake.write(asset, key, frame).partition for key, frame in frames.items()]
        first = next(iter(frames.values())).lazy()
        rows = "dagster/partition_row_count" if keys[0] else "dagster/row_count"
        context.add_output_metadata(
            {rows: sum(p.rows for p in written), "dagster/column_schema": table_schema(first.collect_schema())}
        )

    def load_input(self, context: dg.InputContext) -> Any:
        asset = context.asset_key.to_user_string()
        keys: list[str | None] = [*context.asset_partition_keys] if context.has_asset_partitions else [None]
        wanted = context.dagster_type.typing_type
        if get_origin(wanted) in (dict, Mapping):
            eager = get_args(wanted)[1] is pl.DataFrame
            return {key: _as(eager, self._lake.scan(asset, key)) for key in keys}
        return _as(wanted is pl.DataFrame, self._lake.scan(asset, None if keys == [None] else [k for k in keys if k]))


def _as(eager: bool, frame: pl.LazyFrame) -> pl.LazyFrame | pl.DataFrame:
    return frame.collect() if eager else frame


@dg.io_manager(required_resource_keys={"lake"})
def lake_io_manager(context: dg.InitResourceContext) -> LakeIOManager:
    """Store frames in the lake."""
    return LakeIOManager(context.resources.lake.open())
