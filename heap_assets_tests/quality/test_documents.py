"""docs/checks.md says what the definitions say."""

from dataclasses import fields

import dagster as dg
from check_toys import DAYS, LakeResource

from heap_assets.alerts.message import DEFAULT_KINDS, Kind
from heap_assets.config.operations import Alert
from heap_assets.orchestration.alert_sensors import alert_sensors
from heap_assets.orchestration.checks import check_step
from heap_assets.orchestration.generated_docs import checks_document
from heap_assets.orchestration.schedules import recency_job
from heap_assets.quality.heap_tables import checks_for_event_table
from heap_assets.quality.profiles import checks_for_profiles
from heap_assets.quality.recency import recency_checks
from heap_assets.quality.thresholds import Cadence, Thresholds
from heap_assets.storage import Store


def document() -> str:
    tables = ["heap/events/a", "heap/events/b", "heap/sessions"]
    checks = [check for table in tables for check in checks_for_event_table(table)]
    recency = recency_job(recency_checks({table: Cadence() for table in tables}, {}))
    return checks_document(
        dg.Definitions(
            assets=[dg.AssetSpec(table.split("/"), partitions_def=DAYS) for table in [*tables, "profiles"]],
            asset_checks=[
                check_step("heap_checks", checks, DAYS),
                check_step("profile_checks", checks_for_profiles(unique_types=["email"]), DAYS),
                recency.step,
            ],
            jobs=[recency.job],
            schedules=[recency.schedule],
            sensors=alert_sensors(Store("unused"), [], "http://localhost:3000"),
            resources={"lake": LakeResource(url="unused")},
        )
    )


def test_every_check_threshold_and_alert_is_told_once() -> None:
    told = document()
    assert told.count("| `unique_keys` |") == 2, "once for all event tables, once for profiles"
    assert told.count("| `newest_row_is_recent` |") == 1
    assert "No Heap identity stands on two profiles." in told
    for threshold in fields(Thresholds):
        assert f"| `{threshold.name}` |" in told
    for line in told.splitlines():
        assert not line.endswith("|  |") or "`" in line.split("|")[2], line
    for kind in Kind:
        assert f"| `{kind.value}` |" in told
    assert "`run_alerts`" in told
    assert "`standing_alerts`" in told


def test_every_threshold_has_a_meaning() -> None:
    rows = [line.split("|") for line in document().split("## Thresholds")[1].split("## Alerts")[0].splitlines()]
    meanings = [row[3].strip() for row in rows if len(row) == 5 and row[1].strip().startswith("`")]
    assert len(meanings) == len(fields(Thresholds))
    assert all(meanings)


def test_by_default_a_channel_hears_what_the_document_says_it_hears() -> None:
    assert {Kind(kind) for kind in Alert(kind="slack").on} == set(DEFAULT_KINDS)
