"""Browsing shows what is there, proposes mappings that can be pasted, and shows no value unless asked."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
import yaml

from heap_assets.warehouse import DuckDBWarehouse
from heap_assets.warehouse.browse import datasets, describe, propose, propose_yaml, tables_of

SCRIPT = """
CREATE SCHEMA crm;
CREATE TABLE crm.contacts AS SELECT
    range AS contact_id, 'Person' || range || '@Example.com' AS login, 'x' AS work_email, 'n' || range AS full_name,
    TIMESTAMP '2026-01-01' AS created_at, DATE '2026-01-01' AS updated_at,
    {'email': 'p' || range || '@example.com', 'zip': '1000'} AS addr,
    [{'device_id': 'd' || range, 'phone': 'none'}] AS devices, '+44 20 7946 0' || (100 + range % 800) AS phone
FROM range(2000);
CREATE TABLE crm.companies AS SELECT 1 AS id, 'Acme' AS title;
CREATE VIEW crm.v AS SELECT 1 AS one;
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> DuckDBWarehouse:
    path: Path = tmp_path_factory.mktemp("browse") / "w.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(SCRIPT)
    return DuckDBWarehouse(path)


def test_datasets_and_tables_with_their_rows(source: DuckDBWarehouse) -> None:
    assert datasets(source) == {"crm": 3}
    assert [(table.name, table.rows) for table in tables_of(source, "crm")] == [
        ("crm.companies", 1),
        ("crm.contacts", 2000),
        ("crm.v", None),
    ]


def test_a_table_is_described_with_nested_paths_and_no_values(source: DuckDBWarehouse) -> None:
    view = describe(source, "crm.contacts")
    shown = {path: (kind, mode) for path, kind, mode, _ in view.rows()}
    assert shown["addr.email"] == ("VARCHAR", "NULLABLE")
    assert shown["devices[].device_id"] == ("VARCHAR", "NULLABLE")
    assert shown["devices[]"][1] == "REPEATED"
    assert "@" not in str(view)
    assert "@Example.com" in describe(source, "crm.contacts", samples=2).samples["login"][1]


def test_identifiers_are_proposed_from_names_and_values(source: DuckDBWarehouse) -> None:
    proposals = propose(source, "crm.contacts")
    assert {proposal.path: proposal.identifier_type for proposal in proposals} == {
        "contact_id": "crm_id",
        "login": "email",
        "work_email": "email",
        "addr.email": "email",
        "devices[].device_id": "device_id",
        "phone": "phone",
    }
    reasons = {proposal.path: proposal.reason for proposal in proposals}
    assert reasons["login"] == "100% of 1000 values look like emails"
    assert reasons["work_email"].startswith("by name; only 0%")
    assert "@" not in str(proposals)


def test_the_proposal_is_yaml_to_paste(source: DuckDBWarehouse) -> None:
    [(name, table)] = yaml.safe_load(propose_yaml(source, "crm.contacts")).items()
    assert name == "crm_contacts"
    assert {k: v for k, v in table.items() if k != "identifiers"} == {
        "relation": "crm.contacts",
        "key": "contact_id",
        "created_at": "created_at",
        "updated_at": "updated_at",
    }
    assert table["identifiers"]["devices[].device_id"] == "device_id"


def test_a_table_without_identifiers_says_so(source: DuckDBWarehouse) -> None:
    assert yaml.safe_load(propose_yaml(source, "crm.companies")) == {
        "crm_companies": {"relation": "crm.companies", "key": "id", "identifiers": {}}
    }
