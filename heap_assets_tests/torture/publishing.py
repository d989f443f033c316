"""Days published to a PostgreSQL or to a BigQuery emulator, as a stage that can be stopped anywhere and begun again.

What stands at the target before is older: a day without a column that it now has, one that is narrower, tables that
are not there yet, views. Every call to the target is one at which the stage can be stopped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import requests
from adbc_driver_manager import dbapi as driver
from adbc_driver_postgresql import dbapi

from heap_assets.pipelines.publishing import due_days, make_views, open_publisher, publish_day, published_tables
from heap_assets.project.project import Project
from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
from heap_assets.tables import GRAPH, MIGRATIONS, PROFILES, USERS, heap_asset
from heap_assets_tests.sources.warehouse import servers
from heap_assets_tests.torture.stages import DAYS, copy_world, platform_of
from heap_assets_tests.torture.trials import Base
from heap_assets_tests.torture.zygote import Outcome, Zygote

CALLS: Sequence[tuple[Any, Sequence[str]]] = (
    (dbapi, ("connect",)),
    (driver.Connection, ("commit",)),
    (driver.Cursor, ("execute", "adbc_ingest", "fetchall")),
    (requests.Session, ("send",)),
)
"""Through these every word to a target goes."""

_TARGET, _SCHEMA, _VIEWS = "there", "published", "resolved"
_CHANGING = heap_asset("pageviews")
_EARLIER = ("heap_pageviews", "heap_user_migrations", "identity_graph")
_LISTS = f"resolved_views: {_VIEWS}, assets: [{_CHANGING}, {USERS}, {MIGRATIONS}, {GRAPH}, {PROFILES}]"


@dataclass(frozen=True)
class Target:
    """A server of its own: how settings name it, how it is emptied, what it holds by table."""

    section: str
    empty: Callable[[], None]
    held: Callable[[], dict[str, list[str]]]


def earlier(folder: Path) -> None:
    """Publish some tables, then let their days change: a column more, a wider one."""
    there = platform_of(folder)
    _change(there, seats=pl.lit(1, pl.Int32))
    _publish(there, _EARLIER)
    _change(there, seats=pl.lit(2**40, pl.Int64), note=pl.lit("new"))


def publish(folder: Path) -> None:
    """Publish everything, and make the views."""
    _publish(platform_of(folder))


def settle(folder: Path) -> dict[str, Any]:
    """Publish again, and say what is remembered of it; versions are those of files, and no two worlds share them."""
    publish(folder)
    there = platform_of(folder)
    store, publisher = there.lake.store, open_publisher(there, _TARGET)
    records = {info.key: json.loads(store.read(info.key)) for info in store.list("_published")}
    due = {table.asset: due_days(there, publisher, table) for table in published_tables(there, _TARGET)}
    return {
        "rows": {key.partition("/")[2].partition("/")[2]: record.get("rows") for key, record in records.items()},
        "due": {asset: [str(day) for day in days if day in DAYS[1:]] for asset, days in due.items()},
    }


def publishing_base(zygote: Zygote, folder: Path, stages: Base, kind: str, target: Target) -> Base:
    """Publish undisturbed once, from what the stages before left; the target is put back before each trial."""
    prepared, again = folder / "prepared", folder / "again"
    copy_world(stages.before["retention"], prepared)
    settings = prepared / "heap_assets.yaml"
    settings.write_text(f"{settings.read_text()}publish:\n  {_TARGET}: {target.section}\n")

    def put_back() -> Path:
        target.empty()
        shutil.rmtree(again, ignore_errors=True)
        copy_world(prepared, again)
        _finished(zygote.ask("earlier", again))
        return again

    base = Base(folder, reset=put_back, observe=target.held)
    base.before[kind] = put_back().rename(folder / "before")
    world = folder / "undisturbed"
    copy_world(base.before[kind], world)
    outcome = _finished(zygote.ask(kind, world))
    base.calls[kind], base.seconds[kind] = outcome.calls, outcome.seconds
    base.after[kind] = {**_finished(zygote.ask("settle", world, stage=kind)).said, "elsewhere": target.held()}
    return base


@contextmanager
def postgres() -> Iterator[Target]:
    """Run a PostgreSQL."""
    with servers.postgres_cluster() as address:
        uri = f"postgresql://{address}/postgres"
        with dbapi.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:

            def ask(query: str) -> list[Any]:
                cursor.execute(query)
                return [row[0] for row in cursor.fetchall()]

            def empty() -> None:
                for schema in (_SCHEMA, _VIEWS):
                    cursor.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")

            def held() -> dict[str, list[str]]:
                names = ask(
                    "SELECT table_schema || '.' || table_name FROM information_schema.tables "
                    f"WHERE table_schema IN ('{_SCHEMA}', '{_VIEWS}')"
                )
                return {name: sorted(ask(f"SELECT row_to_json(t)::text FROM {name} t")) for name in names}

            section = f"{{kind: postgres, dsn: '{uri}', schema: {_SCHEMA}, {_LISTS}}}"
            yield Target(section, empty, held)


@contextmanager
def bigquery() -> Iterator[Target]:
    """Run a BigQuery emulator."""
    with servers.bigquery_emulator() as emulator, BigQueryAccount("demo", endpoint=emulator.rest).client() as client:

        def empty() -> None:
            for dataset in (_VIEWS, _SCHEMA):
                client.delete_dataset(dataset, delete_contents=True, not_found_ok=True)
            client.create_dataset(_SCHEMA)

        def rows(name: str) -> list[str]:
            found = client.query(f"SELECT TO_JSON_STRING(t) FROM `{name}` t").result()
            return sorted(row[0] for row in found)

        def held() -> dict[str, list[str]]:
            tables = [table for dataset in (_SCHEMA, _VIEWS) for table in client.list_tables(dataset)]
            names = [f"{table.dataset_id}.{table.table_id}" for table in tables]
            # what a killed load left beside a table expires by itself
            return {name: rows(name) for name in names if "__" not in name}

        section = f"{{kind: bigquery, project: demo, dataset: {_SCHEMA}, endpoint: '{emulator.rest}', {_LISTS}}}"
        yield Target(section, empty, held)


TARGETS = {"postgres": postgres, "bigquery": bigquery}


def _change(there: Project, **columns: pl.Expr) -> None:
    for day in map(str, DAYS[1:]):
        rows = there.lake.scan(_CHANGING, day).with_columns(**columns).collect()
        there.lake.write(_CHANGING, day, rows)


def _publish(there: Project, only: Sequence[str] | None = None) -> None:
    publisher = open_publisher(there, _TARGET)
    for table in published_tables(there, _TARGET):
        for day in DAYS[1:]:
            if only is None or table.publication.table in only:
                publish_day(there, publisher, table, day)
    make_views(there, publisher, _TARGET)


def _finished(outcome: Outcome) -> Outcome:
    assert outcome.ended == "finished", outcome
    return outcome
