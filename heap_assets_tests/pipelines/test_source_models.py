"""Models that are sources: they name people, give traits and accounts, and their rows are events of definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from heap_assets import clock
from heap_assets.analytics import columns_read
from heap_assets.config.derived import models_of_folder
from heap_assets.errors import SettingsError
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.pipelines.analytics import query_of, result_of
from heap_assets.pipelines.audiences import AudienceDay
from heap_assets.pipelines.models import check_models
from heap_assets.pipelines.publishing import day_of, published_tables
from heap_assets.pipelines.signals import preview
from heap_assets.project import parse_settings
from heap_assets.project.project import Project
from heap_assets.storage import LakeSql
from heap_assets.tables import GRAPH, PROFILES
from heap_assets_tests.pipelines.delivery_world import DAY, IDENTITY, NOW, SETTINGS, World, why

_TRAITS = """    account: {{from: [contacts.account_id]}}
    spent: {{from: [models/spenders.spent], choose: newest}}
  audiences:
    buyers: {{events: [{{type: models/purchases, properties: {{total: {{gt: 9}}}}, within_days: 7}}]}}
    big: {{user_properties: {{spent: {{gte: 9}}}}}}
accounts: {{table: models/companies, key: account_id, member_of: account}}
"""
_MODELS = """
models:
  purchases:
    source: true
    key: order_id
    created_at: placed_at
    identifiers: {contact_id: crm_id}
    sql: |
      SELECT o.*, c.contact_id FROM warehouse.orders AS o JOIN warehouse.contacts AS c USING (email)
  spenders:
    source: true
    key: contact_id
    updated_at: newest
    identifiers: {contact_id: crm_id}
    sql: SELECT contact_id, sum(total) AS spent, max(placed_at) AS newest FROM models.purchases GROUP BY 1
  visitors:
    source: true
    key: visitor
    identifiers: {contact_id: crm_id, visitor: heap_user_id}
    sql: SELECT 'c-dan' AS contact_id, '903' AS visitor FROM warehouse.contacts LIMIT 1
  companies: {source: true, key: account_id, sql: "SELECT account_id, size * 2 AS size FROM warehouse.accounts"}
  later: {key: plan, schedule: "0 5 * * *", sql: "SELECT plan, count(*) AS n FROM profiles GROUP BY 1"}
signals:
  bought: {sequence: {steps: [{type: pageviews}, {type: models/purchases}], span_days: 30}}
"""
_SOURCES = ["purchases", "spenders", "visitors", "companies"]


@pytest.fixture(scope="module")
def world(base: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(clock.VARIABLE, NOW)
        world = base.copy(tmp_path_factory.mktemp("sources") / "world", "{}", "http://127.0.0.1:9")
        path = world.folder / "heap_assets.yaml"
        text = SETTINGS.replace("    account: {{from: [contacts.account_id]}}\n", _TRAITS).format(heap=world.heap)
        path.write_text(f"{text}  {{}}{_MODELS}")
        world.project = Project(parse_settings(path.read_text(), path), world.project.catalogue, world.lake)
        result = world.run([*(f"models/{name}" for name in _SOURCES), *IDENTITY, PROFILES, "models/later"], DAY)
        assert result.success, why(result)
    return world


def people(world: World) -> dict[str, dict[str, object]]:
    rows = world.lake.scan(PROFILES, str(DAY)).collect().iter_rows(named=True)
    return {row["heap_identity"].partition("@")[0]: row for row in rows if row["heap_identity"]}


def test_its_identifiers_are_linked(world: World) -> None:
    graph = world.lake.scan(GRAPH, str(DAY)).collect()
    owner = dict(graph.select(pl.concat_str("identifier_type", pl.lit(":"), "identifier"), "profile_id").rows())
    assert owner["crm_id:c-dan"] == owner["heap_user_id:903"] is not None


def test_its_columns_are_traits_and_its_rows_are_events(world: World) -> None:
    found = people(world)
    assert (found["ann"]["spent"], found["bob"]["spent"], found["cat"]["spent"]) == (9.5, 9.5, None)
    assert {name for name, row in found.items() if row["buyers"]} == {"ann", "bob"}
    assert {name for name, row in found.items() if row["big"]} == {"ann", "bob"}
    assert "models/purchases@2026-11-20" in world.lake.find(PROFILES, str(DAY)).inputs.versions  # type: ignore[union-attr]


def test_the_sql_of_an_audience_over_its_rows_gives_the_same(world: World) -> None:
    asked = AudienceDay.newest(world.project, DAY, {"of_large": {"account_properties": {"size": {"gt": 20}}}})
    with LakeSql(str(world.lake.store.url)) as lake:
        for name in ("buyers", "of_large"):
            statement = asked.statement(asked.one(name))
            members = asked.members(asked.one(name))["profile_id"].to_list()
            assert lake.sql(statement.text(), statement.parameters)["profile_id"].to_list() == members != [], name


def test_a_signal_fires_at_one_of_its_rows(world: World) -> None:
    fired = preview(world.project, "bought", DAY)
    assert set(fired["profile_id"]) == {people(world)["bob"]["profile_id"]}


def test_revenue_is_joined_back_to_what_led_to_it(world: World) -> None:
    query = {"conversion": "models/purchases", "value": "total", "outcome": "contact_id", "channel": "path"}
    of_people = result_of(world.project, query_of(world.project, "attribution", query), DAY)
    assert of_people.select("outcome", "linear").sort("outcome").rows() == [("c-ann", 9.5), ("c-bob", 9.5)]
    assert of_people["conversions"].sum() >= 2


def test_columns_of_its_sql_are_traced(world: World) -> None:
    event = world.instance.get_latest_materialization_event(asset_key("models/purchases"))
    lineage: Any = event.asset_materialization.metadata["dagster/column_lineage"].value  # type: ignore[union-attr]
    traced = {
        column: [(dep.asset_key.to_user_string(), dep.column_name) for dep in deps]
        for column, deps in lineage.deps_by_column.items()
    }
    assert traced["total"] == [("warehouse/orders", "total")]
    assert traced["contact_id"] == [("warehouse/contacts", "contact_id")]
    assert set(traced) == {"order_id", "email", "placed_at", "total", "contact_id"}


def test_columns_are_traced_through_what_sql_has() -> None:
    tables = {("main", "profiles"): "profiles", ("heap", "pageviews"): "heap/pageviews"}
    columns = {"profiles": ["profile_id", "plan", "mrr"], "heap/pageviews": ["user_id", "path"]}
    sql = """
        WITH own AS (SELECT p.plan AS kind, p.mrr * 2 AS twice FROM profiles AS p)
        SELECT kind, sum(twice) AS total, count(*) AS n, rank() OVER (ORDER BY kind) AS place FROM own GROUP BY kind
        UNION ALL SELECT "path", 0, 1, 2 FROM heap.pageviews
    """
    assert columns_read(sql, tables, columns) == {
        "kind": [("profiles", "plan"), ("heap/pageviews", "path")],
        "total": [("profiles", "mrr")],
        "n": [],
        "place": [("profiles", "plan")],
    }


def test_a_schedule_of_its_own_is_its_only_trigger(world: World) -> None:
    graph = build_definitions(world.project).resolve_asset_graph()
    label = graph.get(asset_key("models/later")).automation_condition.get_label()  # type: ignore[union-attr]
    assert label == "its time has come: 0 5 * * *"
    follows = graph.get(asset_key("models/purchases")).automation_condition.get_label()  # type: ignore[union-attr]
    assert follows is not None
    assert graph.get(asset_key("identity/links")).parent_keys >= {asset_key("models/visitors")}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ('{source: true, sql: "SELECT 1 AS a FROM profiles"}', "key: a source needs the column that is unique"),
        (
            '{source: true, key: a, sql: "SELECT n AS a FROM models.later"}',
            "models.x is a source and reads what is made of sources: models/x > models/later > profiles",
        ),
        (
            '{key: a, identifiers: {a: phone}, sql: "SELECT 1 AS a FROM profiles"}',
            "models.x.identifiers.a is 'phone', which identity.identifiers does not declare",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_told_when_the_project_loads(world: World, model: str, message: str) -> None:
    path = world.folder / "heap_assets.yaml"
    text = path.read_text().replace("models:\n", f"models:\n  x: {model}\n")

    def load() -> None:
        check_models(Project(parse_settings(text, path), world.project.catalogue, world.lake))

    with pytest.raises(SettingsError, match=message):
        load()


def test_only_sources_with_times_are_events(world: World) -> None:
    asked = AudienceDay.newest(world.project, DAY, {"x": {"events": [{"type": "models/later"}]}})
    with pytest.raises(SettingsError, match="of models only sources with created_at and identifiers are events: mod"):
        asked.members(asked.one("x"))


def test_a_file_says_at_its_top_that_it_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_text("-- key: k\n-- source: true\n-- identifiers: {k: email}\nSELECT 1\n")
    model = models_of_folder(tmp_path)["a"]
    assert (model["key"], model["source"], model["identifiers"]) == ("k", True, {"k": "email"})


def test_what_is_derived_can_be_published(world: World) -> None:
    path = world.folder / "heap_assets.yaml"
    target = "{kind: bigquery, project: acme, dataset: heap, assets: [models/*, signals/bought, audiences]}"
    text = f"{path.read_text()}publish: {{bi: {target}}}\n"
    project = Project(parse_settings(text, path), world.project.catalogue, world.lake)
    tables = {table.publication.table: table for table in published_tables(project, "bi")}
    assert set(tables) == {
        "models_purchases", "models_spenders", "models_visitors", "models_companies", "models_later", "signals_bought",
        "audiences",
    }  # fmt: skip
    published = day_of(project, tables["models_purchases"], DAY)
    assert published.frame.collect().height == world.lake.scan("models/purchases", str(DAY)).collect().height
    assert asset_key("publish/bi/models_later") in build_definitions(project).resolve_asset_graph().get_all_asset_keys()
