"""Browsing shows what is there, proposes mappings that can be pasted, and shows no value unless asked."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from uuid import uuid4

import duckdb
import pytest
import yaml
from google.cloud import bigquery as gcp

from heap_assets.config.identity import IdentifierType
from heap_assets.errors import SettingsError
from heap_assets.project import parse_settings
from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
from heap_assets.sources.warehouse.bigquery.reader import BigQueryWarehouse
from heap_assets.sources.warehouse.browse import (
    _NAMES,
    Proposal,
    datasets,
    declare_yaml,
    describe,
    inspect_table,
    propose,
    propose_yaml,
    tables_of,
)
from heap_assets.sources.warehouse.duckdb.reader import DuckDBWarehouse
from heap_assets_tests.sources.warehouse.refusing_google import refusing_google

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


def test_a_table_without_rows_is_proposed_by_name_and_floats_are_no_identifiers(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "empty.duckdb")) as connection:
        connection.execute("CREATE TABLE t (email VARCHAR)")
        connection.execute("CREATE TABLE f AS SELECT 1.0::DOUBLE AS crm_id")
    empty = DuckDBWarehouse(tmp_path / "empty.duckdb")
    text = propose_yaml(empty, "t")
    assert "key: ???  # the sample has no rows" in text
    assert "email: email  # by name; the sample has no value" in text
    assert not propose(empty, "f")


def test_a_table_of_another_alphabet_is_proposed_under_a_name_that_settings_take(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        connection.execute('CREATE SCHEMA "цены"; CREATE TABLE "цены"."заказы 2026" AS SELECT 1 AS id')
    text = propose_yaml(DuckDBWarehouse(tmp_path / "w.duckdb"), "цены.заказы 2026")
    [name] = yaml.safe_load(text)
    assert name.isascii()
    assert name.isidentifier()


def test_types_that_the_settings_lack_are_declared_with_the_proposal(source: DuckDBWarehouse) -> None:
    text = resources.files("heap_assets.config").joinpath("template.yaml").read_text()
    settings = yaml.safe_load(text.replace("{start_date}", "2026-01-01").replace("${HEAP_APP_ID}", "'1'"))
    declared = settings["identity"]["identifiers"]
    types = [each["type"] for each in declared]
    proposals = propose(source, "crm.contacts")
    lacking = yaml.safe_load(declare_yaml(proposals, types))
    assert lacking == [{"type": "phone", "max_per_profile": 3, "normalise": "digits"}]
    assert declare_yaml(proposals, [*types, "phone"]) == ""
    settings["warehouse"]["tables"] = yaml.safe_load(propose_yaml(source, "crm.contacts"))
    path = Path("/somewhere/heap_assets.yaml")
    with pytest.raises(SettingsError, match=r"identity\.identifiers does not declare"):
        parse_settings(yaml.safe_dump(settings), path)
    declared += lacking
    assert parse_settings(yaml.safe_dump(settings), path).identity.types[-1] == "phone"


def test_every_type_that_is_proposed_can_be_declared() -> None:
    kinds = dict.fromkeys(kind for _, kind in _NAMES)
    declared = yaml.safe_load(declare_yaml([Proposal("x", kind, "") for kind in kinds], []))
    rules = [IdentifierType.model_validate(rule) for rule in declared]
    assert {rule.type for rule in rules} == set(kinds)


def test_a_table_without_identifiers_says_so(source: DuckDBWarehouse) -> None:
    assert yaml.safe_load(propose_yaml(source, "crm.companies")) == {
        "crm_companies": {"relation": "crm.companies", "key": "id", "identifiers": {}}
    }


@pytest.fixture
def in_bigquery(bigquery_emulator: object) -> Iterator[BigQueryWarehouse]:
    """Give a warehouse that may scan one byte."""
    rest, grpc = bigquery_emulator.rest, bigquery_emulator.grpc  # type: ignore[attr-defined]
    account = BigQueryAccount("demo", endpoint=rest, storage_endpoint=grpc)
    dataset = f"browse_{uuid4().hex[:8]}"
    rows = "SELECT x AS contact_id, CONCAT('p', CAST(x AS STRING), '@example.com') AS login, STRUCT('z' AS zip) AS addr"
    with account.client() as client:
        client.create_dataset(dataset)
        client.query(f"CREATE TABLE {dataset}.contacts AS {rows} FROM UNNEST(GENERATE_ARRAY(1, 50)) AS x").result()
        client.query(f"CREATE VIEW {dataset}.v AS SELECT * FROM {dataset}.contacts").result()
        yield BigQueryWarehouse(account, (dataset,), maximum_bytes=1)
        client.delete_dataset(dataset, delete_contents=True)


@pytest.mark.parametrize(("table", "queries", "cost"), [("contacts", 0, "costs nothing"), ("v", 1, "bytes billed")])
def test_a_table_is_browsed_for_nothing_and_a_view_by_one_query(
    in_bigquery: BigQueryWarehouse, table: str, queries: int, cost: str
) -> None:
    relation = f"{in_bigquery.datasets[0]}.{table}"
    with in_bigquery.account.client() as client:

        def asked() -> int:
            jobs = client.list_jobs(max_results=10_000)
            return sum(isinstance(job, gcp.QueryJob) and not job.dry_run and relation in job.query for job in jobs)

        before = asked()
        seen = inspect_table(in_bigquery, relation)
        view = describe(in_bigquery, relation, 3, seen)
        proposal = yaml.safe_load(propose_yaml(in_bigquery, relation, seen))
        assert asked() - before == queries
    assert seen.sample.frame is not None
    assert seen.sample.frame.height == 50
    assert cost in seen.sample.cost
    assert len(view.samples["login"]) == 3
    assert proposal[relation.replace(".", "_")]["identifiers"] == {"login": "email", "contact_id": "crm_id"}


TIMED = [
    {"name": "email", "type": "STRING"},
    {"name": "addr", "type": "RECORD", "fields": [{"name": "city", "type": "STRING"}]},
    {"name": "seen_at", "type": "TIMESTAMP"},
    {"name": "day", "type": "DATE"},
]


def test_of_a_view_over_the_limit_newer_rows_are_sampled_where_that_scans_less() -> None:
    with refusing_google() as google:
        google.tables["people"], google.kinds["people"] = TIMED, "VIEW"
        google.scans = {"FROM `p.d.people`": 5_000, "`day` >= DATE": 90}
        warehouse = BigQueryWarehouse(google.account, ("d",), maximum_bytes=100)
        sample = warehouse.sample("d.people", 10)
        run = [job["query"]["query"] for job in google.jobs() if not job.get("dryRun")]
    assert "90 bytes billed" in sample.cost
    assert len(run) == 1
    assert "`day` >= DATE" in run[0]
    assert run[0].endswith("LIMIT 10")


def test_a_view_that_cannot_be_sampled_within_the_limit_is_described_and_says_so() -> None:
    with refusing_google() as google:
        google.tables["people"], google.kinds["people"] = TIMED, "VIEW"
        google.scans = {"FROM `p.d.people`": 5_000}
        warehouse = BigQueryWarehouse(google.account, ("d",), maximum_bytes=100)
        seen = inspect_table(warehouse, "d.people")
        assert not [job for job in google.jobs() if not job.get("dryRun")]
    assert "would scan 5,000 bytes, more than warehouse.max_bytes_billed (100)" in seen.sample.cost
    assert [path for path, *_ in describe(warehouse, "d.people", 2, seen).rows()] == [
        "email", "addr", "addr.city", "seen_at", "day",
    ]  # fmt: skip
    table = yaml.safe_load(propose_yaml(warehouse, "d.people", seen))["d_people"]
    assert table["identifiers"] == {"email": "email"}
    assert table["key"].startswith("???")


def test_of_tables_by_day_the_newest_is_listed_which_costs_nothing(in_bigquery: BigQueryWarehouse) -> None:
    dataset = in_bigquery.datasets[0]
    with in_bigquery.account.client() as client:
        for day in ("20260101", "20260102"):
            client.query(f"CREATE TABLE {dataset}.days_{day} AS SELECT {day} AS id").result()
    sample = in_bigquery.sample(f"{dataset}.days_*", 10)
    assert sample.frame is not None
    assert sample.frame["id"].to_list() == [20260102]
    assert sample.cost == "1 rows of days_20260102 listed, which costs nothing"
