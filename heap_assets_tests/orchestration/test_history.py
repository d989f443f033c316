"""Dagster's event log: what was told is there after a kill, batches are told whole, and it is Dagster's own log."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.event_log.schema import AssetKeyTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from heap_assets.orchestration import event_log
from heap_assets.orchestration.event_log import EventLog, batch_check_events
from heap_assets_tests.orchestration.company_platform import ROOT
from heap_assets_tests.orchestration.killed_writer import CHECKS, TABLES, run, toy_job

DAY = "2026-11-01"
_ABOUT = "json_extract(event, '$.dagster_event.event_specific_data.%s')"
ABOUT_EVENTS = f"""
    SELECT dagster_event_type, coalesce(asset_key, {_ABOUT % "asset_key.path"}), {_ABOUT % "check_name"}, partition,
           {_ABOUT % "metadata"}, step_key
    FROM event_logs ORDER BY id"""
ABOUT_VERDICTS = """
    SELECT c.asset_key, check_name, c.partition, execution_status, e.dagster_event_type,
           json_extract(evaluation_event, '$.dagster_event') = json_extract(e.event, '$.dagster_event')
    FROM asset_check_executions c JOIN event_logs e ON e.id = evaluation_event_storage_id ORDER BY 1, 2, 3"""
ABOUT_ASSETS = "SELECT asset_key, last_run_id IS NOT NULL, last_materialization IS NOT NULL FROM asset_keys ORDER BY 1"
TOLD = (
    "SELECT run_id, asset_key, count(*) FROM asset_check_executions WHERE execution_status != 'PLANNED' GROUP BY 1, 2"
)
PLANNED, VERDICT = "ASSET_CHECK_EVALUATION_PLANNED", "ASSET_CHECK_EVALUATION"

REPORTER = """
import itertools, sys
import dagster as dg
with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    for number in itertools.count(1):
        instance.report_runless_asset_event(dg.AssetMaterialization("a", metadata={"number": number}))
        print(number, flush=True)
"""

PLANNER = """
import sys, time
import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    for number in range(10_000):
        entries = []
        for check in range(50):
            data = AssetCheckEvaluationPlanned(asset_key=dg.AssetKey("p"), check_name=f"c{number}_{check}")
            event = dg.DagsterEvent(
                event_type_value="ASSET_CHECK_EVALUATION_PLANNED", job_name="j", event_specific_data=data
            )
            entries.append(
                dg.EventLogEntry(
                    error_info=None, level=10, user_message="", run_id="planner", timestamp=1.0, job_name="j",
                    dagster_event=event,
                )
            )
        instance.event_log_storage.store_event_batch(entries)
        print(number, flush=True)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    return tmp_path


def numbers(instance: dg.DagsterInstance) -> list[object]:
    found = instance.fetch_materializations(dg.AssetKey("a"), limit=10_000).records
    return [r.asset_materialization.metadata["number"].value for r in reversed(found) if r.asset_materialization]


def report(instance: dg.DagsterInstance, number: int) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization("a", metadata={"number": number}))


def test_what_was_reported_before_a_kill_is_there_after_it(home: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", REPORTER, str(home)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(25)]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert isinstance(instance.event_log_storage, EventLog)
        found = numbers(instance)
    assert found[: len(told)] == told
    assert found == list(range(1, len(found) + 1))


def test_two_writers_see_each_other_and_a_wiped_log_begins_anew(home: Path) -> None:
    with dg.DagsterInstance.from_config(str(home)) as one, dg.DagsterInstance.from_config(str(home)) as other:
        for number in range(10):
            report(one if number % 2 else other, number)
        assert numbers(one) == numbers(other) == list(range(10))
        one.event_log_storage.wipe()
        report(other, 77)
        assert numbers(one) == numbers(other) == [77]


def test_a_process_that_writes_without_a_pause_lets_others_write(home: Path) -> None:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        process = subprocess.Popen([sys.executable, "-c", PLANNER, str(home)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        first = int(process.stdout.readline())
        for number in range(30):
            report(instance, number)
        process.kill()
        batches = int(process.communicate()[0].splitlines()[-1]) - first
        assert numbers(instance) == list(range(30))
    # two writes an event: each waits for a batch or two
    assert batches < 100


def test_events_are_written_where_files_cannot_be_locked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(event_log.fcntl, "flock", refuse)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        report(instance, 1)
        assert numbers(instance) == [1]


def test_a_thread_that_reads_does_not_wait_for_one_that_writes(home: Path) -> None:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        report(instance, 1)
        log = instance.event_log_storage
        assert isinstance(log, EventLog)
        with log.index_connection() as connection:
            connection.execute(AssetKeyTable.update().values(last_run_id="x"))
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(numbers, instance).result(timeout=30) == [1]


def test_more_runs_than_files_kept_open(home: Path) -> None:
    @dg.asset
    def a() -> None: ...

    with dg.DagsterInstance.from_config(str(home)) as instance:
        runs = [dg.materialize([a], instance=instance).run_id for _ in range(10)]
        for run_id in runs:
            kinds = {
                record.event_log_entry.dagster_event_type for record in instance.get_records_for_run(run_id).records
            }
            assert dg.DagsterEventType.RUN_SUCCESS in kinds


def test_the_log_holds_what_dagsters_own_log_would_hold(home: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    kept = []
    for folder, kind in ((home, EventLog), (plain, SqliteEventLogStorage)):
        with dg.DagsterInstance.from_config(str(folder)) as instance:
            assert type(instance.event_log_storage) is kind
            run_id = run(instance, toy_job(), DAY)
            latest = instance.fetch_materializations(dg.AssetKey(TABLES[0]), limit=1).records[0]
            assert (latest.partition_key, latest.run_id) == (DAY, run_id)
        index = folder / "history" / "runs" / "index.db"
        rows = _rows(folder, run_id, ABOUT_EVENTS)
        kept.append((rows, [_rows(folder, index.stem, sql) for sql in (ABOUT_EVENTS, ABOUT_VERDICTS, ABOUT_ASSETS)]))
    assert kept[0] == kept[1]
    assert len(kept[0][1][1]) == len(TABLES) * len(CHECKS)


def test_a_kill_at_any_moment_leaves_the_verdicts_on_a_table_whole(home: Path) -> None:
    command = [sys.executable, "-m", "heap_assets_tests.orchestration.killed_writer", "6", "3"]
    environment = {**os.environ, "DAGSTER_HOME": str(home), "PYTHONWARNINGS": "ignore"}
    with dg.DagsterInstance.from_config(str(home)):  # two that make the files at once would be another matter
        pass
    told = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    whole = len(CHECKS)
    index = {(run_id, asset): count for run_id, asset, count in _rows(home, "index", TOLD)}
    for run_id in (path.stem for path in (home / "history" / "runs").glob("*-*.db")):
        log = Counter((kind, asset) for kind, asset, *_ in _rows(home, run_id, ABOUT_EVENTS))
        assert sum(n for (kind, _), n in log.items() if kind == PLANNED) in (0, whole * len(TABLES))
        for asset in (f'["{table}"]' for table in TABLES):
            assert log[VERDICT, asset] in (0, whole)
            assert index.get((run_id, asset), 0) in (0, log[VERDICT, asset])
    for run_id, table in (line.split() for line in told.splitlines()):
        assert index[run_id, f'["{table}"]'] == whole
    _assert_that_a_run_tells_everything(home)


def _assert_that_a_run_tells_everything(home: Path) -> None:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        run_id = run(instance, toy_job(), DAY)
        keys = [dg.AssetCheckKey(dg.AssetKey(table), name) for table in TABLES for name in CHECKS]
        latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
        assert {record.run_id for record in latest.values()} == {run_id}
        assert len(latest) == len(keys)


def test_verdicts_that_wait_are_told_before_anything_is_read(home: Path) -> None:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for record in _records():
            with batch_check_events(instance):
                instance.event_log_storage.store_event(record)
                instance.event_log_storage.store_event(record)
                assert not _rows(home, record.run_id, ABOUT_EVENTS)
                assert len(instance.get_records_for_run(record.run_id).records) == 2
            assert len(instance.get_records_for_run(record.run_id).records) == 2


def test_verdicts_that_wait_are_told_when_the_step_fails(home: Path) -> None:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for record in _records():
            with pytest.raises(ValueError, match="the judge broke"):
                _write_together(instance, [record], ValueError("the judge broke"))
            assert len(_rows(home, record.run_id, ABOUT_EVENTS)) == 1


def test_a_verdict_that_is_refused_takes_no_other_with_it(home: Path) -> None:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        good, refused = _records()
        for _ in range(2):  # Dagster refuses the result of a check that was planned twice
            instance.event_log_storage.store_event(_planned(refused))
        with pytest.raises(dg.DagsterInvariantViolationError, match="duplicate"):
            _write_together(instance, [good, refused])
        assert _rows(home, good.run_id, ABOUT_EVENTS)
        assert _rows(home, "index", "SELECT execution_status FROM asset_check_executions WHERE run_id = 'one'") == [
            ("SUCCEEDED",)
        ]


def test_another_log_tells_each_verdict_for_itself() -> None:
    with dg.DagsterInstance.ephemeral() as instance, batch_check_events(instance):
        for record in _records():
            instance.event_log_storage.store_event(record)
            assert len(instance.get_records_for_run(record.run_id).records) == 1


def test_a_dagster_that_is_built_otherwise_keeps_its_own_log(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def _connect(self: SqliteEventLogStorage, shard: str, mode: str) -> Iterator[Any]:
        raise NotImplementedError

    monkeypatch.setattr(SqliteEventLogStorage, "_connect", _connect)
    monkeypatch.delattr(SqliteEventLogStorage, "path_for_shard")
    monkeypatch.setattr(SqliteEventLogStorage, "__init__", lambda self, base_dir, inst_data=None: None)
    with caplog.at_level(logging.WARNING):
        log = EventLog.from_config_value(None, {"base_dir": str(home)})
    assert type(log) is SqliteEventLogStorage
    assert "_connect, path_for_shard" in caplog.text


def _records() -> tuple[dg.EventLogEntry, dg.EventLogEntry]:
    """Return a result of each of two runs, as the log is given them."""
    result = dg.AssetCheckEvaluation(asset_key=dg.AssetKey("a"), check_name="c", passed=True, metadata={})
    return _entry("one", VERDICT, result), _entry("two", VERDICT, result)


def _write_together(
    instance: dg.DagsterInstance, records: Sequence[dg.EventLogEntry], error: Exception | None = None
) -> None:
    with batch_check_events(instance):
        for record in records:
            instance.event_log_storage.store_event(record)
        if error:
            raise error


def _planned(result: dg.EventLogEntry) -> dg.EventLogEntry:
    return _entry(result.run_id, PLANNED, AssetCheckEvaluationPlanned(asset_key=dg.AssetKey("a"), check_name="c"))


def _entry(run_id: str, kind: str, data: Any) -> dg.EventLogEntry:
    told = dg.DagsterEvent(event_type_value=kind, job_name="j", event_specific_data=data)
    return dg.EventLogEntry(
        error_info=None, level=10, user_message="", run_id=run_id, timestamp=1.0, job_name="j", dagster_event=told
    )


def _rows(home: Path, shard: str, sql: str) -> list[tuple[Any, ...]]:
    """Return what is in a file, whatever process wrote it; nothing of a file that was being made when it was killed."""
    with closing(sqlite3.connect(home / "history" / "runs" / f"{shard}.db")) as connection:
        if connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'event_logs'").fetchone() == (0,):
            return []
        return connection.execute(sql).fetchall()


def test_a_run_that_goes_on_is_read_once_for_all_of_its_assets(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    days = dg.DailyPartitionsDefinition("2026-11-01", end_date="2026-11-04")
    keys = [dg.AssetKey(f"table_{number}") for number in range(5)]
    seen: list[Any] = []

    @dg.multi_asset(specs=[dg.AssetSpec(key, skippable=True) for key in keys], partitions_def=days, can_subset=True)
    def tables(context):  # type: ignore[no-untyped-def]  # Dagster reads annotations, which are text here
        yield dg.MaterializeResult(keys[0])
        instance = context.instance
        log, asked, plain = instance.event_log_storage, list[Any](), instance.get_runs
        loading, pairs = LoadingContextForTest(instance), [(key, days) for key in keys]
        monkeypatch.setattr(instance, "get_runs", lambda *one, **two: asked.append(1) or plain(*one, **two))
        seen.append(log.get_asset_status_cache_values(pairs, loading))
        seen.append(len(asked))
        seen.append(SqliteEventLogStorage.get_asset_status_cache_values(log, pairs, loading))

    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert isinstance(instance.event_log_storage, EventLog)
        dg.materialize([tables], instance=instance, partition_key="2026-11-02")
    once, reads, every_time = seen
    assert once == every_time
    for value in once[1:]:
        assert [*value.deserialize_in_progress_partition_subsets(days).get_partition_keys()] == ["2026-11-02"]
    assert reads == 1
