"""A Dagster home that has run for years: event tables, settings, and their materializations, written in bulk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._core.events import DagsterEvent, DagsterEventType, StepMaterializationData
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.schema import AssetKeyTable, SqlEventLogStorageTable
from dagster_shared.serdes import serialize_value

ROOT = Path(__file__).parents[1]
RUN_ID = "00000000-0000-4000-8000-000000000001"
COLUMNS = 20
_BATCH = 5_000


def table_name(number: int) -> str:
    """Return the name of an event table."""
    return f"event_{number:03d}"


def write_settings(folder: Path, tables: int, start: date) -> Path:
    """Write the demo's settings with a start date of their own, and a catalogue of many event tables."""
    settings = yaml.safe_load((ROOT / "heap_assets.yaml").read_text())
    settings["start_date"] = start
    settings["run"] = {**settings.get("run", {}), "automation": "stopped"}
    settings["heap"]["identifiers"].pop("plan_upgraded", None)
    settings.pop("sync", None)
    settings["profiles"].pop("behaviour", None)
    settings["profiles"].pop("audiences", None)
    catalogue = yaml.safe_load((ROOT / "heap_catalogue.yaml").read_text())
    kept = {name: catalogue[name] for name in ("users", "user_migrations", "sessions", "pageviews")}
    built_in = dict(list(catalogue["feature_used"]["columns"].items())[:12])
    own = {f"property_{n}": {"description": f"Property {n}.", "pii": False} for n in range(COLUMNS - len(built_in))}
    for number in range(tables):
        kept[table_name(number)] = {"display_name": f"Event {number}", "columns": {**built_in, **own}}
    (folder / "heap_catalogue.yaml").write_text(yaml.safe_dump(kept, sort_keys=False))
    path = folder / "heap_assets.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


def write_history(home: Path, tables: int, days: list[date]) -> int:
    """Write one materialization for every day of every table; return how many."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.add_run(dg.DagsterRun(job_name="__ASSET_JOB", run_id=RUN_ID, status=dg.DagsterRunStatus.SUCCESS))
        storage: Any = instance.event_log_storage
        written = 0
        with storage.index_connection() as connection:
            for number in range(tables):
                path = ["heap", "events", table_name(number)]
                rows = list(_materializations(path, days))
                for start in range(0, len(rows), _BATCH):
                    connection.execute(SqlEventLogStorageTable.insert(), rows[start : start + _BATCH])
                connection.execute(AssetKeyTable.insert(), _key_row(path, rows[-1]))
                written += len(rows)
    return written


def _materializations(path: list[str], days: list[date]) -> Iterator[dict[str, Any]]:
    """Yield rows of the event log: one entry serialized for real, the others differ in partition, time and counts."""
    key = json.dumps(path)
    template = serialize_value(_entry(path, "2000-01-01", 111_111, 1_000_000_000.5))
    newest = datetime.now(UTC).timestamp()
    for number, day in enumerate(days):
        at = newest - (len(days) - number) * 86_400
        event = (
            template.replace("2000-01-01", day.isoformat())
            .replace("111111", str(20_000 + 5_000 * (day.weekday() < 5) + number))
            .replace("1000000000.5", repr(at))
        )
        yield {
            "run_id": RUN_ID,
            "event": event,
            "dagster_event_type": DagsterEventType.ASSET_MATERIALIZATION.value,
            "timestamp": datetime.fromtimestamp(at, UTC).replace(tzinfo=None),
            "step_key": "heap_event_tables",
            "asset_key": key,
            "partition": day.isoformat(),
        }


def _entry(path: list[str], day: str, rows: int, at: float) -> EventLogEntry:
    columns = [dg.TableColumn(f"property_{n}", "String") for n in range(COLUMNS)]
    materialization = dg.AssetMaterialization(
        dg.AssetKey(path),
        partition=day,
        metadata={
            "status": "written",
            "seconds": 0.042,
            "dagster/column_schema": dg.TableSchema(columns),
            "rows_landed": rows,
            "late": 3,
            "complete": True,
            "dagster/partition_row_count": rows,
            "bytes": rows * 11,
            "inputs": 2,
            "version": "1234567-89abcdef0123-4567",
        },
    )
    event = DagsterEvent(
        event_type_value=DagsterEventType.ASSET_MATERIALIZATION.value,
        job_name="__ASSET_JOB",
        step_key="heap_event_tables",
        event_specific_data=StepMaterializationData(materialization),
    )
    return EventLogEntry(
        error_info=None, level=20, user_message="", run_id=RUN_ID, timestamp=at, step_key="heap_event_tables",
        job_name="__ASSET_JOB", dagster_event=event,
    )  # fmt: skip


def _key_row(path: list[str], newest: dict[str, Any]) -> dict[str, Any]:
    return {
        "asset_key": json.dumps(path),
        "last_materialization": newest["event"],
        "last_run_id": RUN_ID,
        "last_materialization_timestamp": newest["timestamp"],
    }


def days_until_today(years: int) -> list[date]:
    """Return the days of the last years up to yesterday."""
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    return [yesterday - timedelta(days=back) for back in reversed(range(365 * years + 1))]
