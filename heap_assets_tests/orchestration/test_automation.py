"""An update of an input is not forgotten because the input was in progress again when automation looked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from heap_assets import clock
from heap_assets.orchestration.automation import PUBLISHED_DAYS, follows_graph, follows_upstream
from heap_assets.project import PLAIN_NAMES, Project, parse_settings
from heap_assets.sources.heap_connect import Catalogue
from heap_assets.storage import Inputs, Lake

DAYS_SINCE = dg.DailyPartitionsDefinition("2026-11-01")
DAYS = dg.DailyPartitionsDefinition("2026-11-01", end_date="2026-11-03")
DAY = "2026-11-02"


@pytest.mark.parametrize("condition", [PUBLISHED_DAYS, follows_graph(PLAIN_NAMES)])
def test_an_update_is_acted_on_once_its_input_is_no_longer_in_progress(
    condition: dg.AutomationCondition[Any], tmp_path: Path
) -> None:
    instance = dg.DagsterInstance.ephemeral(tempdir=str(tmp_path))
    cursor, body = None, list[Callable[[], object]]()

    def asked() -> set[str]:
        nonlocal cursor
        look = dg.evaluate_automation_conditions(defs=definitions, instance=instance, cursor=cursor)
        cursor = look.cursor
        return {key for one in look.results for key in one.true_subset.expensively_compute_partition_keys()}

    @dg.asset(partitions_def=DAYS)
    def table() -> None:
        for each in body:
            each()

    @dg.asset(deps=[table], partitions_def=DAYS, automation_condition=condition)
    def follows() -> None:
        pass

    def fails() -> None:
        assert asked() == set(), "its input is in progress"
        raise RuntimeError("and comes to nothing")

    definitions = dg.Definitions(assets=[table, follows])
    assert asked() == set()
    assert dg.materialize([table], instance=instance, partition_key=DAY).success
    body.append(fails)
    failed = dg.materialize([table], instance=instance, partition_key=DAY, raise_on_error=False)
    assert "and comes to nothing" in str(failed.all_events)
    assert asked() == {DAY}
    assert asked() == set(), "once"


SETTINGS = """
start_date: 2026-11-01
lake: {folder}/lake
heap: {{app_id: "1", source: {{kind: folder, path: {folder}/bucket}}}}
warehouse:
  kind: duckdb
  path: {folder}/warehouse.duckdb
  tables:
    contacts: {{relation: marts.contacts, key: id, upstream: [marts, contacts], identifiers: {{email: email}}}}
identity: {{identifiers: [{{type: email}}]}}
"""


def test_a_table_is_read_once_for_each_update_of_its_upstream_and_at_noon_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = parse_settings(SETTINGS.format(folder=tmp_path), tmp_path / "heap_assets.yaml")
    project = Project(settings, Catalogue({}), Lake.open(settings.lake.url))
    instance = dg.DagsterInstance.ephemeral(tempdir=str(tmp_path))
    table = dg.AssetKey(["warehouse", "contacts"])
    cursor = None

    @dg.asset(key=["marts", "contacts"])
    def model() -> None:
        pass

    def definitions() -> dg.Definitions:
        # made anew each time: what a condition asked of the lake is cached for seconds
        @dg.asset(
            key=table,
            deps=[model],
            partitions_def=DAYS_SINCE,
            automation_condition=follows_upstream(project),
        )
        def contacts(context: dg.AssetExecutionContext) -> None:
            inputs = Inputs({"read": clock.now().isoformat()})
            project.lake.write("warehouse/contacts", context.partition_key, pl.LazyFrame({"id": [1]}), inputs)

        return dg.Definitions(assets=[model, contacts])

    def run(asset: dg.AssetKey, day: str | None = None) -> None:
        job = definitions().resolve_implicit_global_asset_job_def().get_subset(asset_selection={asset})
        assert job.execute_in_process(instance=instance, partition_key=day).success

    def requested(now: str) -> set[str]:
        nonlocal cursor
        monkeypatch.setenv(clock.VARIABLE, f"{now}+00:00")
        evaluation = dg.evaluate_automation_conditions(defs=definitions(), instance=instance, cursor=cursor)
        cursor = evaluation.cursor
        return {day for one in evaluation.results for day in one.true_subset.expensively_compute_partition_keys()}

    assert requested("2026-11-10T05:00") == set(), "its upstream never materialized"
    run(model.key)
    assert requested("2026-11-10T05:01") == {"2026-11-09"}
    run(table, "2026-11-09")
    assert requested("2026-11-10T05:02") == set()
    run(model.key)
    assert requested("2026-11-10T15:00") == {"2026-11-09"}, "each update counts"
    run(table, "2026-11-09")
    assert requested("2026-11-11T00:10") == set(), "an update of yesterday is no reason to read the new day"
    assert requested("2026-11-11T11:59") == set()
    assert requested("2026-11-11T12:01") == {"2026-11-10"}, "its upstream did not run"
