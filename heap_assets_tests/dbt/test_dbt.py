"""A real dbt project in the same code location: what it builds is followed through to Heap, with column lineage."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from heap_assets_tests.environments import UnavailableError, environment

FOLDER = Path(__file__).parent
TABLES = ("warehouse/crm_contacts", "warehouse/billing_customers")


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    constraints = ["--constraint", str(FOLDER / "constraints.txt")]
    try:
        venv = environment("dbt", "dbt-core<1.12", "dbt-duckdb", "dagster-dbt", *constraints, inherits=True)
    except UnavailableError as missing:
        pytest.skip(f"{missing}: lineage from dbt was NOT tested")
    command = [str(venv / "bin" / "python"), "-m", "heap_assets_tests.dbt.follow", str(tmp_path_factory.mktemp("dbt"))]
    variables = {**os.environ, "PYTHONPATH": str(FOLDER.parents[1])}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_a_table_waits_for_its_model_and_says_so(followed: dict[str, Any]) -> None:
    read = {request.partition(" ")[0] for request in followed["before"]}
    assert "warehouse/product_users" in read, "a table without upstream follows the clock"
    for table in TABLES:
        assert table not in read
        model = table.replace("warehouse", "marts")
        assert f"is read when {model} materializes" in followed["waits"][table]


def test_what_dbt_built_reaches_heap_by_itself(followed: dict[str, Any]) -> None:
    for build in ("first", "second"):
        requested = [request for request in followed[build] if request.endswith(followed["day"])]
        assets = [request.partition(" ")[0] for request in requested]
        assert {*TABLES, "identity/graph", "profiles"} <= {*assets}
    assert "sync/heap_user_properties" in {request.partition(" ")[0] for request in followed["first"]}
    assert len(followed["plans"]) > 1
    assert followed["changed_plans"] == ["changed"] * len(followed["plans"])


def test_the_lineage_of_a_property_begins_in_the_source_of_the_model(followed: dict[str, Any]) -> None:
    assert followed["lineage"] == [
        "sync/heap_user_properties.Plan",
        "profiles.plan",
        "warehouse/billing_customers.plan",
        "marts/billing_customers.plan",
        "billing/customers.plan",
    ]


def test_dbt_parses_the_sources_and_exposures_of_what_is_published(followed: dict[str, Any]) -> None:
    """dbt's own parser, with its warnings as errors."""
    source = "source.acme.main."
    assert followed["bi"] == {
        "sources": [f"{source}people", f"{source}visits"],
        "sync_crm": [f"{source}people"],
        "sync_b": [f"{source}visits"],
    }
