"""A partition backfill of several days, launched over GraphQL as the UI does, through the real webserver and daemon."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from heap_assets.demo import Company, write_company
from heap_assets.demo.server_process import ServerProcess, running_server
from heap_assets_tests.end_to_end.dagster_process import ROOT, Dagster, dagster_dev

pytestmark = pytest.mark.slow

APP = "2463913201"


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Company:
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    folder = tmp_path_factory.mktemp("company")
    return write_company(folder, people=80, days=9, seed=5, until=yesterday, faults=False)


@pytest.fixture(scope="module")
def heap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server("heap", tmp_path_factory.mktemp("heap")) as server:
        yield server


@pytest.fixture(scope="module")
def dagster(company: Company, heap: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dagster]:
    folder = tmp_path_factory.mktemp("dagster")
    settings = (ROOT / "heap_assets.yaml").read_text() + "\nrun: {automation: stopped}\n"
    (folder / "heap_assets.yaml").write_text(settings)
    shutil.copy(ROOT / "heap_catalogue.yaml", folder / "heap_catalogue.yaml")
    environment = {
        "HEAP_ASSETS_SETTINGS": str(folder / "heap_assets.yaml"),
        "HEAP_ASSETS_DEMO": str(company.folder),
        "HEAP_BASE_URL": heap.base_url,
    }
    with dagster_dev(folder, environment) as running:
        yield running


def test_days_are_backfilled_checked_resolved_and_sent(dagster: Dagster, company: Company, heap: ServerProcess) -> None:
    dumps = [str(dump) for dump in company.dump_ids.values()]
    for dump in dumps:
        added = dagster.ask(
            """mutation($r: RepositorySelector!, $k: String!) { addDynamicPartition(
                 repositorySelector: $r, partitionsDefName: "heap_dumps", partitionKey: $k) { __typename } }""",
            r={"repositoryLocationName": "heap_assets.definitions", "repositoryName": "__repository__"},
            k=dump,
        )
        assert added["addDynamicPartition"]["__typename"] == "AddDynamicPartitionSuccess", added
    assert dagster.backfill(["heap_connect/dumps"], dumps, seconds=600) == "COMPLETED_SUCCESS"

    days = [str(day) for day in company.days[-4:]]
    tables = ["heap/sessions", "heap/pageviews", "heap/events/feature_used"]
    assert dagster.backfill(tables, days, seconds=400) == "COMPLETED_SUCCESS"
    for table in tables:
        assert set(days) <= set(dagster.materializations(table))
        results = dagster.check_results(table, "unique_keys")
        assert {day: results.get(day) for day in days} == dict.fromkeys(days, True)
    assert sum(dagster.materializations("heap/pageviews")[day]["dagster/partition_row_count"] for day in days) > 0


def test_the_newest_day_goes_all_the_way_to_heap(dagster: Dagster, company: Company, heap: ServerProcess) -> None:
    newest = str(company.until)
    every = [str(day) for day in company.days]
    events = ["sign_up", "invite_teammate", "plan_upgraded", "checkout_complete", "_key_events__export_data_",
              "click_on_anything", "ticket_opened", "feature_used"]  # fmt: skip
    tables = ["heap/sessions", "heap/pageviews", *(f"heap/events/{name}" for name in events)]
    assert dagster.backfill(tables, every, seconds=600).startswith("COMPLETED")
    warehouse = ["crm_contacts", "crm_accounts", "billing_customers", "product_users", "product_accounts"]
    people = ["heap/users", "heap/user_migrations", *(f"warehouse/{name}" for name in [*warehouse, "support_tickets"])]
    identity = [f"identity/{name}" for name in ("links", "graph", "conflicts", "shared", "changes")]
    assert dagster.backfill([*people, *identity, "profiles", "audit"], [newest], seconds=600) == "COMPLETED_SUCCESS"
    users = pl.read_parquet(company.folder / "lake" / "heap" / "users" / f"{newest}.parquet")
    heap.seed(users["identity"].drop_nulls().unique().sort().to_list(), app_id=APP)

    assert dagster.backfill(["sync/heap_user_properties"], [newest], seconds=300) == "COMPLETED_SUCCESS"

    sent = dagster.materializations("sync/heap_user_properties")[newest]
    assert sent["sent"] > 0
    state = heap.state(app_id=APP)
    plans = {identity: user["properties"].get("Plan") for identity, user in state["users"].items()}
    assert sum(plan is not None for plan in plans.values()) == sent["sent"]
    assert not state["summary"].get("ghost_users")
