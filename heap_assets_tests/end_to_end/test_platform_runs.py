"""The whole platform as a user runs it: real webserver, real daemon, real HTTP server to send to.

One flow, because starting all of it costs most: dumps are picked up, days are built by automation and by a backfill
launched over GraphQL as the UI does and published, people are resolved, profiles sent, and the next night's dump does
it again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fastavro
import polars as pl
import pytest
from adbc_driver_postgresql import dbapi

from heap_assets.demo import Company, write_company
from heap_assets.demo.server_process import ServerProcess, running_server
from heap_assets_tests.end_to_end.dagster_process import ROOT, Dagster, dagster_dev, until
from heap_assets_tests.sources.warehouse import servers

pytestmark = pytest.mark.slow

APP = "2463913201"
TABLES = ["heap/sessions", "heap/pageviews", "heap/events/feature_used"]
SYNC = "sync/heap_user_properties"
PUBLISH = "\npublish:\n  there: {kind: postgres, dsn: '%s', schema: pub, assets: [heap/users]}\n"


@pytest.fixture(scope="module")
def heap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server("heap", tmp_path_factory.mktemp("heap")) as server:
        yield server


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Company:
    """Heap has not delivered the last night yet: its manifest is held back."""
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    made = write_company(tmp_path_factory.mktemp("c"), people=60, days=4, seed=5, until=yesterday, faults=False)
    _manifest(made).rename(_held_back(made))
    return made


@pytest.fixture(scope="module")
def network_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("network") / "addresses.log"


@pytest.fixture(scope="module")
def postgres() -> Iterator[str | None]:
    """Give the URI of a database of its own, None where PostgreSQL is not installed."""
    try:
        with servers.postgres_cluster() as address:
            yield f"postgresql://{address}/postgres"
    except servers.UnavailableError:
        yield None


@pytest.fixture(scope="module")
def dagster(
    company: Company,
    heap: ServerProcess,
    network_log: Path,
    postgres: str | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Dagster]:
    folder = tmp_path_factory.mktemp("dagster")
    settings = (ROOT / "heap_assets.yaml").read_text().replace("15 * * * *", "* * * * *")
    settings = settings.replace("  region: us ", "  manifest_poll_seconds: 30\n  region: us ")
    (folder / "heap_assets.yaml").write_text(settings + (PUBLISH % postgres if postgres else ""))
    shutil.copy(ROOT / "heap_catalogue.yaml", folder / "heap_catalogue.yaml")
    environment = {
        "HEAP_ASSETS_SETTINGS": str(folder / "heap_assets.yaml"),
        "HEAP_ASSETS_DEMO": str(company.folder),
        "HEAP_BASE_URL": heap.base_url,
        "PYTHONPATH": str(Path(__file__).parent / "network_watch"),
        "NETWORK_WATCH_LOG": str(network_log),
    }
    _know_users(heap, company.bucket)
    with dagster_dev(folder, environment) as running:
        yield running


def test_dumps_are_landed_and_their_days_built_without_being_asked(dagster: Dagster, company: Company) -> None:
    days = {str(day) for day in company.days[:-1]}
    until(lambda: _built(dagster, days), 420, "building every day of every table")


def test_a_backfill_of_several_days_keeps_a_result_per_day(dagster: Dagster, company: Company) -> None:
    days = [str(day) for day in company.days[:-1]]
    assert dagster.backfill(TABLES, days) == "COMPLETED_SUCCESS"
    for table in TABLES:
        built = dagster.materializations(table)
        assert {day: built[day]["status"] for day in days} == dict.fromkeys(days, "unchanged")
        results = dagster.check_results(table, "unique_keys")
        assert {day: results.get(day) for day in days} == dict.fromkeys(days, True)


def test_the_next_dump_rebuilds_exactly_the_days_it_touched(dagster: Dagster, company: Company) -> None:
    before = {table: dagster.counts(table) for table in TABLES}
    _held_back(company).rename(_manifest(company))
    newest, dump = str(company.until), str(company.dump_ids[company.until])
    until(lambda: _built(dagster, {newest}), 300, "building the new day")
    landed = dagster.landed_by(dump)
    assert newest in landed
    for table in TABLES:
        # the dump's own day always, so that a quiet table gets its empty partition
        days = {day for day, tables in landed.items() if table.rpartition("/")[2] in tables} | {newest}
        until(lambda t=table, d=days: _touched(dagster, t, before[t]) >= d or None, 240, f"rebuilding {table}")
        assert _touched(dagster, table, before[table]) == days


def test_people_are_resolved_and_sent_once_the_warehouse_was_read(
    dagster: Dagster, company: Company, heap: ServerProcess
) -> None:
    newest = str(company.until)
    until(lambda: newest in dagster.materializations("heap/users") or None, 240, "folding users")
    warehouse = ["crm_contacts", "crm_accounts", "billing_customers", "product_users", "product_accounts"]
    assert (
        dagster.backfill([f"warehouse/{name}" for name in (*warehouse, "support_tickets")], [newest])
        == "COMPLETED_SUCCESS"
    )
    pushed = {"Plan", "MRR", "Deal Stage"}

    def reached() -> int | None:
        users = heap.state(app_id=APP)["users"].values()
        return sum(bool(pushed & set(user["properties"])) for user in users) or None

    users = until(reached, 300, "users that a sync reached")
    # a run reports what it sent when it ends; what it sent first is sent again only where it changed
    until(lambda: dagster.total(SYNC, "sent") >= users or None, 120, "a report of what was sent")
    assert newest in dagster.materializations(SYNC)
    assert not heap.state(app_id=APP)["summary"].get("ghost_users")


def test_what_was_built_is_published_without_being_asked(
    dagster: Dagster, company: Company, postgres: str | None
) -> None:
    if postgres is None:
        pytest.skip("PostgreSQL is not installed (initdb not found): publishing by the daemon was NOT tested")
    newest = str(company.until)
    until(lambda: newest in dagster.materializations("publish/there/heap_users") or None, 240, "publishing users")
    built = pl.read_parquet(company.folder / "lake" / "heap" / "users" / f"{newest}.parquet")["user_id"]
    with dbapi.connect(postgres) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT user_id FROM pub.heap_users")
        assert {row[0] for row in cursor.fetchall()} >= set(built) > set()


def test_nothing_was_called_that_the_user_did_not_configure(network_log: Path, dagster: Dagster) -> None:
    strangers = {line for line in network_log.read_text().splitlines() if line and not _is_local(line)}
    assert not strangers


def _manifest(company: Company) -> Path:
    return company.bucket / "manifests" / f"sync_{company.dump_ids[company.until]}.json"


def _held_back(company: Company) -> Path:
    return company.folder / "held_back.json"


def _built(dagster: Dagster, days: set[str]) -> bool | None:
    return True if all(days <= set(dagster.materializations(table)) for table in TABLES) else None


def _touched(dagster: Dagster, table: str, before: dict[str, int]) -> set[str]:
    return {day for day, count in dagster.counts(table).items() if count > before.get(day, 0)}


def _know_users(heap: ServerProcess, bucket: Path) -> None:
    """Make everybody whom Heap exports known to the local Heap: a sync sends as soon as it can."""
    rows = (row for path in bucket.glob("sync_*/users/*.avro") for row in fastavro.reader(path.open("rb")))
    heap.seed(sorted({row["identity"] for row in rows if isinstance(row, dict) and row.get("identity")}), app_id=APP)


def _is_local(line: str) -> bool:
    return any(name in line for name in ("'127.0.0.1'", "'localhost'", "'::1'", "'/", "None,"))
