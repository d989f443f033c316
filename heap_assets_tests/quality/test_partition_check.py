"""Every partition is judged on its own and keeps its own result, whatever the shape of the run."""

from collections.abc import Callable, Iterable, Iterator

import dagster as dg
import polars as pl
import pytest
from check_toys import DAYS, events

from heap_assets.orchestration.checks import StepChecks, check_specs, check_step, lake_of
from heap_assets.quality import result_store
from heap_assets.quality.engine import Check, CheckContext
from heap_assets.quality.measures import unique_keys
from heap_assets.quality.result_store import StoredResult, gate, read, record
from heap_assets.quality.results import CheckResult, Severity, nothing_to_compare
from heap_assets.storage import Lake, Store

TABLE = "heap/events/signup"
KEY = ("event_id", "user_id")
BAD_DAY = "2026-11-02"
Run = Callable[..., dg.ExecuteInProcessResult]
Kept = Callable[[str, str], dict[str | None, list[str]]]


def unique(**options: object) -> Check:
    return Check(TABLE, "unique_keys", "No event is there twice.", lambda s: unique_keys(s.rows(), KEY), **options)  # type: ignore[arg-type]


def table_asset(policy: dg.BackfillPolicy | None = None) -> dg.AssetsDefinition:
    @dg.asset(
        key=dg.AssetKey(TABLE.split("/")), partitions_def=DAYS, backfill_policy=policy, required_resource_keys={"lake"}
    )
    def signup(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        for day in context.partition_keys:
            rows = events(day)
            lake_of(context).write(TABLE, day, pl.concat([rows, rows.head(1)]) if day == BAD_DAY else rows)
        return dg.MaterializeResult()

    return signup


def downstream_asset() -> dg.AssetsDefinition:
    @dg.asset(deps=[TABLE.split("/")], partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
    def forwarded() -> dg.MaterializeResult:
        return dg.MaterializeResult()

    return forwarded


def test_a_single_partition_run_keeps_the_result_of_its_partition(run: Run, kept: Kept, lake: Lake) -> None:
    assets = [table_asset(), check_step("table_checks", [unique()], DAYS)]
    assert run(assets, "2026-11-01").success
    assert run(assets, BAD_DAY).success  # ERROR without blocking leaves the run green
    assert kept(TABLE, "unique_keys") == {"2026-11-01": ["SUCCEEDED"], BAD_DAY: ["FAILED"]}
    result = read(lake.store, TABLE, "unique_keys", BAD_DAY)
    assert result is not None
    assert result.numbers == {"rows": 4, "repeated_keys": 1, "extra_rows": 1}
    assert result.version == lake.versions(TABLE)[BAD_DAY]


def test_a_range_run_keeps_a_result_for_each_of_its_partitions(run: Run, kept: Kept) -> None:
    policy = dg.BackfillPolicy.single_run()
    result = run([table_asset(policy), check_step("table_checks", [unique()], DAYS)], "2026-11-01", "2026-11-03")
    assert result.success
    assert kept(TABLE, "unique_keys") == {
        "2026-11-01": ["SUCCEEDED"],
        BAD_DAY: ["FAILED"],
        "2026-11-03": ["SUCCEEDED"],
    }


@pytest.mark.parametrize("last", [None, "2026-11-03"])
def test_a_blocking_check_fails_the_run_and_skips_what_follows(run: Run, kept: Kept, last: str | None) -> None:
    policy = dg.BackfillPolicy.single_run()
    assets = [
        table_asset(policy),
        check_step("table_checks", [unique(blocking=True)], DAYS),
        downstream_asset(),
    ]
    result = run(assets, BAD_DAY, last)
    assert not result.success
    assert not result.asset_materializations_for_node("forwarded")
    assert kept(TABLE, "unique_keys")[BAD_DAY] == ["FAILED"]


def test_a_warning_never_blocks(run: Run) -> None:
    check = unique(blocking=True, severity=Severity.WARN)
    table = table_asset(dg.BackfillPolicy.single_run())
    assert run([table, check_step("table_checks", [check], DAYS), downstream_asset()], BAD_DAY).success


def test_a_result_points_to_the_materialization_that_it_judged(run: Run, instance: dg.DagsterInstance) -> None:
    run([table_asset(), check_step("table_checks", [unique()], DAYS)], "2026-11-01")
    key = dg.AssetCheckKey(dg.AssetKey(TABLE.split("/")), "unique_keys")
    [kept] = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    built = instance.fetch_materializations(key.asset_key, limit=1).records[0]
    evaluation = kept.event.dagster_event.asset_check_evaluation_data
    assert evaluation.target_materialization_data.storage_id == built.storage_id


def test_checks_alone_can_be_run_again_on_one_partition(run: Run, kept: Kept, instance: dg.DagsterInstance) -> None:
    checks = check_step("table_checks", [unique()], DAYS)
    asset = table_asset()
    run([asset, checks], BAD_DAY)
    result = run([asset, checks], BAD_DAY, BAD_DAY, selection=dg.AssetSelection.checks(checks))
    assert result.success
    assert kept(TABLE, "unique_keys") == {BAD_DAY: ["FAILED", "FAILED"]}


def many_tables(tables: list[str], checks: list[Check], broken: str = "") -> dg.AssetsDefinition:
    """The way that all Heap tables are built: one subsettable step, results inline."""

    @dg.multi_asset(
        specs=[dg.AssetSpec(dg.AssetKey(table.split("/")), partitions_def=DAYS, skippable=True) for table in tables],
        check_specs=check_specs(checks, DAYS),
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
        required_resource_keys={"lake"},
    )
    def heap_tables(context: dg.AssetExecutionContext) -> Iterator[object]:
        lake = lake_of(context)
        step = StepChecks(context, lake, checks)
        done = set()
        for day in context.partition_keys:
            for table in tables:
                if table == broken:
                    given = {"readable": CheckResult(passed=False, notes={"reason": "bad Avro block"})}
                else:
                    lake.write(table, day, events(day))
                    given = {"readable": CheckResult(passed=True)}
                    if table not in done:
                        done.add(table)
                        yield dg.MaterializeResult(asset_key=dg.AssetKey(table.split("/")))
                yield from step.evaluate(table, day, given)
        yield from step.finish()

    return heap_tables


def inline_checks(table: str) -> list[Check]:
    return [
        Check(table, "readable", "The table can be read."),
        Check(table, "unique_keys", "No event is there twice.", lambda s: unique_keys(s.rows(), KEY)),
    ]


@pytest.mark.parametrize("last", [None, "2026-11-03"])
def test_one_unreadable_table_fails_its_check_and_stops_no_other(run: Run, kept: Kept, last: str | None) -> None:
    tables = ["heap/events/a", "heap/events/b"]
    checks = [check for table in tables for check in inline_checks(table)]
    result = run([many_tables(tables, checks, broken="heap/events/b")], "2026-11-01", last)
    assert result.success
    days = ["2026-11-01", "2026-11-02", "2026-11-03"] if last else ["2026-11-01"]
    assert kept("heap/events/a", "unique_keys") == {day: ["SUCCEEDED"] for day in days}
    assert kept("heap/events/b", "readable") == {day: ["FAILED"] for day in days}
    assert kept("heap/events/b", "unique_keys") == {day: ["PLANNED"] for day in days}  # the UI says "Skipped"


def test_a_check_that_cannot_be_carried_out_fails_no_step_and_has_not_passed(run: Run, lake: Lake) -> None:
    def broken(subject: CheckContext) -> CheckResult:
        return unique_keys(subject.rows(), ["no_such_column"])

    def first_day(subject: CheckContext) -> CheckResult:
        return nothing_to_compare("there is no earlier day")

    checks = [
        Check(TABLE, "broken", "…", broken, blocking=True),
        Check(TABLE, "first_day", "…", first_day, blocking=True),
        unique(),
    ]
    result = run([table_asset(), check_step("table_checks", checks, DAYS)], "2026-11-01")
    assert result.success
    stored = read(lake.store, TABLE, "broken", "2026-11-01")
    assert stored is not None
    assert (stored.passed, stored.failed, stored.not_judged) == (False, False, "ColumnNotFoundError")
    told = {e.check_name: (e.passed, e.severity.value, e.description) for e in result.get_asset_check_evaluations()}
    assert told["broken"] == (False, "WARN", "Not judged: ColumnNotFoundError")
    assert told["first_day"] == (False, "WARN", "Not judged: there is no earlier day")
    assert told["unique_keys"][0]
    assert gate(lake, TABLE, "2026-11-01", ["broken", "first_day", "unique_keys"]) == [
        f"{TABLE} 2026-11-01: broken could not be judged: ColumnNotFoundError"
    ]


def judged(lake: Lake, day: str, *, passed: bool, severity: Severity = Severity.ERROR) -> None:
    version = lake.versions(TABLE)[day]
    record(
        lake.store,
        CheckResult(passed=passed),
        asset=TABLE,
        check="unique_keys",
        partition=day,
        version=version,
        severity=severity,
        blocking=True,
    )


def test_the_gate_opens_only_for_a_pass_on_the_version_that_stands_now(lake: Lake) -> None:
    day = "2026-11-01"
    assert gate(lake, TABLE, day, ["unique_keys"]) == [f"{TABLE} {day} has not been built"]
    lake.write(TABLE, day, events(day))
    assert "has not judged it" in gate(lake, TABLE, day, ["unique_keys"])[0]
    judged(lake, day, passed=False)
    assert "failed" in gate(lake, TABLE, day, ["unique_keys"])[0]
    judged(lake, day, passed=True)
    assert gate(lake, TABLE, day, ["unique_keys"]) == []
    lake.write(TABLE, day, events(day, rows=5))
    assert "judged another version" in gate(lake, TABLE, day, ["unique_keys"])[0]


def test_offenders_are_stored_hashed_and_compare_over_time(lake: Lake) -> None:
    frame = pl.DataFrame({"email": ["ann@acme.test"], "rows": [2]})
    for day in ("2026-11-01", "2026-11-02"):
        lake.write(TABLE, day, events(day))
        record(
            lake.store,
            CheckResult(passed=False, offenders=frame, plain=("rows",)),
            asset=TABLE,
            check="unique_keys",
            partition=day,
            version="v",
            severity=Severity.ERROR,
            blocking=False,
        )
    first, second = (read(lake.store, TABLE, "unique_keys", day) for day in ("2026-11-01", "2026-11-02"))
    assert first is not None
    assert second is not None
    assert first.sample == second.sample
    assert first.sample[0]["rows"] == 2
    assert not any(b"ann@" in lake.store.read(o.key) for o in lake.store.list("_verdicts") if o.key.endswith("json"))


def test_each_result_of_a_range_points_to_the_materialization_of_its_partition(
    run: Run, instance: dg.DagsterInstance
) -> None:
    policy = dg.BackfillPolicy.single_run()
    run([table_asset(policy), check_step("table_checks", [unique()], DAYS)], "2026-11-01", "2026-11-03")
    key = dg.AssetCheckKey(dg.AssetKey(TABLE.split("/")), "unique_keys")
    evaluated = instance.event_log_storage.get_asset_check_execution_history(key, limit=3)
    built = instance.fetch_materializations(key.asset_key, limit=3).records
    judged = {
        result.partition: result.event.dagster_event.asset_check_evaluation_data.target_materialization_data.storage_id
        for result in evaluated
    }
    assert judged == {record.partition_key: record.storage_id for record in built}


def test_results_of_the_days_before_are_read_once_at_most(
    run: Run, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    days_read: set[str] = set()

    def results_of(_store: Store, _asset: str, _check: str, partitions: Iterable[str]) -> list[StoredResult]:
        days_read.update(partitions)
        return []

    def days_before(context: CheckContext) -> CheckResult:
        return CheckResult(True, {"earlier": len(context.earlier(3))})

    monkeypatch.setattr(result_store, "read_many", results_of)
    check = Check(TABLE, "days_before", "It counts the results of the days before.", days_before)
    days = [f"2026-11-0{n}" for n in range(1, 6)]
    table = table_asset(dg.BackfillPolicy.single_run())
    assert run([table, check_step("table_checks", [check], DAYS)], days[0], days[-1]).success
    results = [read(lake.store, TABLE, "days_before", day) for day in days]
    assert [result.numbers["earlier"] for result in results if result] == [0, 1, 2, 3, 3]
    assert days_read.isdisjoint(days), "what the run itself has stored is not read again"
