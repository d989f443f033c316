"""The demo's company as Heap would export it to BigQuery: raw tables, and views that apply migrations and deduplicate.

The rows come from the generator of the dumps, the views do in SQL what Heap says that its views do (heap.md 3.1): none
of it passes through the code that reads dumps.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
from google.cloud import bigquery

from heap_assets.demo import Company
from heap_assets.demo.dumps import DumpTable, UseCache, tables_of_dump
from heap_assets.demo.plan import Plan
from heap_assets.demo.world import make_world

_INTEGERS = ("event_id", "user_id", "session_id", "from_user_id", "to_user_id", "dump_number")
_TIMES = ("time", "joindate", "last_modified")


@dataclass(frozen=True)
class ExportedCompany:
    """A dataset in the emulator."""

    client: bigquery.Client
    dataset: str

    def query(self, text: str) -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in self.client.query(text.replace("{d}", self.dataset)).result()]

    def synced(self, table: str, to: str) -> None:
        self.query(f"INSERT INTO {{d}}._sync_info VALUES ('{table}', TIMESTAMP '{to}')")

    def jobs(self) -> int:
        return sum(1 for _ in self.client.list_jobs(max_results=10_000))


def export_company(client: bigquery.Client, company: Company) -> ExportedCompany:
    """Write all dumps of a company into a dataset of its own."""
    exported = ExportedCompany(client, f"main_production_{uuid4().hex[:6]}")
    client.create_dataset(exported.dataset)
    tables = _tables(company)
    migrations = tables["user_migrations"].select("from_user_id", "to_user_id", "time")
    _load(exported, "user_migrations", migrations)
    truth = ExportedCompany(client, f"{exported.dataset}_truth")
    client.create_dataset(truth.dataset)
    _load(truth, "closure", _closure(dict(migrations.select("from_user_id", "to_user_id").rows())))
    for name, rows in tables.items():
        if name == "users":
            _load(exported, "users_raw", rows)
            exported.query(
                "CREATE VIEW {d}.users AS SELECT * EXCEPT(dump_number) FROM {d}.users_raw WHERE TRUE "
                "QUALIFY ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY last_modified DESC, dump_number DESC) = 1"
            )
        elif name != "user_migrations":
            _load(exported, f"{name}_raw", rows)
            exported.query(_view(name, rows.columns))
    exported.query("CREATE TABLE {d}.all_events (event_id INT64)")
    exported.query("CREATE TABLE {d}._sync_info (event_table_name STRING, synced_to_time TIMESTAMP)")
    names = ", ".join(f"('{name}', TIMESTAMP '{company.until} 23:59:00+00')" for name in tables)
    exported.query(f"INSERT INTO {{d}}._sync_info VALUES {names}")
    return exported


def _view(name: str, columns: list[str]) -> str:
    """Migrated users; of an event the rows of its newest dump; one row for an event and user."""
    kept = ", ".join(
        "COALESCE(c.ends_at, r.user_id) AS user_id" if column == "user_id" else f"r.`{column}`"
        for column in columns
        if column != "dump_number"
    )
    return f"""
        CREATE VIEW {{d}}.{name} AS
        SELECT * EXCEPT(newest, nth) FROM (
          SELECT {kept}, r.dump_number = MAX(r.dump_number) OVER (PARTITION BY r.event_id) AS newest,
            ROW_NUMBER() OVER (
              PARTITION BY r.event_id, COALESCE(c.ends_at, r.user_id) ORDER BY r.dump_number DESC) AS nth
          FROM {{d}}.{name}_raw AS r LEFT JOIN {{d}}_truth.closure AS c ON c.starts_at = r.user_id
        ) WHERE newest AND nth = 1"""


def _tables(company: Company) -> dict[str, pl.DataFrame]:
    """Return each table's rows of all dumps since it came whole the last time."""
    plan = Plan(company.people, len(company.days), 7, company.first_day, False)
    world = make_world(plan)
    cache = UseCache(world)
    found: dict[str, list[pl.DataFrame]] = {}
    for day in range(plan.history_end, len(company.days)):
        for table in tables_of_dump(world, cache, day):
            _add(found, table, day)
    return {name: pl.concat(frames, how="diagonal") for name, frames in found.items()}


def _add(found: dict[str, list[pl.DataFrame]], table: DumpTable, day: int) -> None:
    if not table.incremental:
        found[table.name] = []
    found.setdefault(table.name, []).append(table.rows.with_columns(pl.lit(day, pl.Int64).alias("dump_number")))


def _closure(moves: Mapping[int, int]) -> pl.DataFrame:
    ends = {}
    for start in moves:
        at = start
        while at in moves:
            at = moves[at]
        ends[start] = at
    schema = {"starts_at": pl.Int64, "ends_at": pl.Int64}
    return pl.DataFrame(list(ends.items()), schema=schema, orient="row")


def _load(exported: ExportedCompany, table: str, rows: pl.DataFrame) -> None:
    kinds = {
        name: "INT64" if dtype.is_integer() and name not in _TIMES else "TIMESTAMP" if name in _TIMES else "STRING"
        for name, dtype in rows.schema.items()
    }
    times = [name for name in rows.columns if name in _TIMES]
    typed = rows.with_columns(pl.from_epoch(name, time_unit="us").dt.replace_time_zone("UTC") for name in times)
    fields = [bigquery.SchemaField(name, kind) for name, kind in kinds.items()]
    name = f"{exported.client.project}.{exported.dataset}.{table}"
    exported.client.create_table(bigquery.Table(name, fields))
    config = bigquery.LoadJobConfig(schema=fields, source_format="PARQUET")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        typed.write_parquet(path)
        with path.open("rb") as file:
            exported.client.load_table_from_file(file, name, job_config=config).result()
