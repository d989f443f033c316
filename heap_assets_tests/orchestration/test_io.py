"""The IO manager: frames in and out by one partition, by a range, and as a mapping."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from heap_assets.orchestration.resources import LakeResource, lake_io_manager

DAYS = dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-01-10")


@dg.asset(key=["mine", "numbers"], partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def numbers(context: dg.AssetExecutionContext) -> dict[str, pl.LazyFrame]:
    return {day: pl.LazyFrame({"day": [day], "n": [int(day[-2:])]}) for day in context.partition_keys}


@dg.asset(
    ins={"numbers": dg.AssetIn(["mine", "numbers"])},
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def doubled(numbers: pl.LazyFrame) -> pl.LazyFrame:
    return numbers.with_columns(pl.col("n") * 2)


@dg.asset(
    ins={"numbers": dg.AssetIn(["mine", "numbers"])},
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def counted(context: dg.AssetExecutionContext, numbers: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    return {day: pl.DataFrame({"rows": [frame.height]}) for day, frame in numbers.items()}


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def forgetful() -> pl.LazyFrame:
    return pl.LazyFrame({"a": [1]})


def run(tmp_path: Path, assets: Sequence[Any], *days: str, fails: bool = False) -> LakeResource:
    lake = LakeResource(url=str(tmp_path))
    where: dict[str, Any] = {"partition_key": days[0]}
    if len(days) == 2:
        names = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
        where = {"tags": dict(zip(names, days, strict=True))}
    result = dg.materialize(
        assets, resources={"lake": lake, "io_manager": lake_io_manager}, raise_on_error=not fails, **where
    )
    assert result.success is not fails
    return lake


def test_one_partition(tmp_path: Path) -> None:
    lake = run(tmp_path, [numbers, doubled], "2026-01-03").open()
    assert lake.scan("doubled", "2026-01-03").collect()["n"].to_list() == [6]


def test_a_range_writes_each_partition_and_reads_them_as_one_or_apart(tmp_path: Path) -> None:
    lake = run(tmp_path, [numbers, counted], "2026-01-02", "2026-01-05").open()
    assert lake.partitions("mine/numbers") == ["2026-01-02", "2026-01-03", "2026-01-04", "2026-01-05"]
    assert lake.scan("mine/numbers", lake.partitions("mine/numbers")).collect()["n"].to_list() == [2, 3, 4, 5]
    assert lake.scan("counted", "2026-01-05").collect()["rows"].to_list() == [1]


@pytest.mark.filterwarnings("ignore")
def test_one_frame_for_several_partitions_is_refused(tmp_path: Path) -> None:
    lake = run(tmp_path, [forgetful], "2026-01-02", "2026-01-03", fails=True).open()
    assert lake.partitions("forgetful") == []
