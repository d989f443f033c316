"""An update of an input is not forgotten because the input was in progress again when automation looked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from heap_assets.orchestration.automation import PUBLISHED_DAYS, follows_graph
from heap_assets.project import PLAIN_NAMES

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
