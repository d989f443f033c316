"""Files for BI tools of a layer with names and texts that formats trip over: each read by the format's own reader."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import duckdb
import lkml
import polars as pl
import pytest
import sqlglot
import yaml

from heap_assets.bi import TOOLS, Column, Exposure, Join, Kind, Layer, Table
from heap_assets.bi.statements import joined, newest_day, newest_view
from heap_assets.config import SqlLocation

NASTY = 'Says "hi" to <b>&amp; ${path} \\ ;; — größer {{ x }}'
DUCKDB = SqlLocation("duckdb", "db", "main", "duckdb://", {"class": "postgres", "server": "h", "port": "1"})
EVENTS = Table(
    "visits",
    "main",
    NASTY,
    (
        Column("partition_day", Kind.DATE, "Day."),
        Column("event_id", Kind.INTEGER, "Number."),
        Column("user_id", Kind.INTEGER, ""),
        Column("profile_id", Kind.TEXT, NASTY, personal=True),
        Column("time", Kind.TIME, "When."),
        Column("Cart_Value", Kind.NUMBER, "A name that needs quotes."),
        Column("tags", Kind.OTHER, "A list."),
    ),
    newest=False,
    key=("event_id", "user_id"),
    time="time",
)
PEOPLE = Table(
    "people",
    "main",
    "Everybody",
    (
        Column("partition_day", Kind.DATE, "Day."),
        Column("profile_id", Kind.TEXT, "Who."),
        Column("plan", Kind.TEXT, "What they pay for.", personal=True),
        Column("active", Kind.BOOLEAN, ""),
    ),
    newest=True,
    key=("profile_id",),
    time="partition_day",
)
LAYER = Layer(
    "analytics",
    DUCKDB,
    (EVENTS, PEOPLE),
    (Join("visits", "people", (("profile_id", "profile_id"),)),),
    (Exposure("sync_crm", "Sync", ("people",), "ann@acme.example"), Exposure("sync_b", "B", ("visits",), "team:data")),
)
DIALECTS = ("duckdb", "postgres", "bigquery", "snowflake", "redshift", "tsql")


def layer_in(dialect: str) -> Layer:
    return replace(LAYER, location=replace(DUCKDB, dialect=dialect, qualifies=dialect in ("bigquery", "snowflake")))


@pytest.fixture
def connection() -> Any:
    with duckdb.connect() as opened:
        days = {"partition_day": ["2026-03-01", "2026-03-01", "2026-03-02", "2026-03-02"]}
        people = pl.DataFrame(
            days | {"profile_id": ["p", "q"] * 2, "plan": ["old", "old", "new", None], "active": True}
        )
        visits = pl.DataFrame(
            {"partition_day": "2026-03-01", "event_id": [1, 2, 3], "user_id": 1, "profile_id": ["p", "p", None],
             "time": "2026-03-01", "Cart_Value": 1.5, "tags": None}
        )  # fmt: skip
        opened.sql("CREATE TABLE people AS SELECT * FROM people")
        opened.sql("CREATE TABLE visits AS SELECT * FROM visits")
        assert people.height + visits.height == 7
        yield opened


def test_a_join_with_the_newest_day_multiplies_no_row(connection: Any) -> None:
    query, names = joined(LAYER, EVENTS)
    rows = connection.sql(query).pl()
    assert rows["people__plan"].to_list() == ["new", "new", None]
    assert rows.columns == [*(column.name for column in EVENTS.columns), *names]
    assert names["people__plan"] == ("people", "plan")
    assert connection.sql(newest_day(LAYER, PEOPLE)).pl()["plan"].to_list() == ["new", None]
    connection.sql(newest_view(LAYER, PEOPLE))
    assert connection.sql("SELECT count(*) FROM latest_people").fetchall() == [(2,)]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_statements_are_of_the_dialect(dialect: str) -> None:
    layer = layer_in(dialect)
    for text in (joined(layer, EVENTS)[0], newest_day(layer, PEOPLE), newest_view(layer, PEOPLE)):
        [parsed] = sqlglot.parse(text, dialect=dialect)
        assert parsed is not None
        tables = {table.sql(dialect=dialect) for table in parsed.find_all(sqlglot.exp.Table)}
        quote = {"bigquery": "`", "tsql": "["}.get(dialect, '"')
        assert all(name.startswith(f"{quote}db" if layer.location.qualifies else f"{quote}main") for name in tables)


def test_lookml_is_read_by_lkml(connection: Any) -> None:
    texts = dict(TOOLS["lookml"](LAYER))
    assert set(texts) == {"views/visits.view.lkml", "views/people.view.lkml", "analytics.model.lkml"}
    [visits], [people] = (lkml.load(texts[f"views/{name}.view.lkml"])["views"] for name in ("visits", "people"))
    assert visits["sql_table_name"] == '"main"."visits"'
    assert connection.sql(people["derived_table"]["sql"]).pl().height == 2
    dimensions = {dimension["name"]: dimension for dimension in visits["dimensions"]}
    assert set(dimensions) == {"row_key", "event_id", "user_id", "profile_id", "cart_value"}
    assert dimensions["profile_id"]["tags"] == ["personal_data"]
    assert dimensions["profile_id"]["description"].startswith("Says 'hi' to <b>&amp;")
    key = dimensions["row_key"]["sql"].replace("${TABLE}", "visits")
    assert connection.sql(f"SELECT {key} FROM visits").fetchall() == [("1-1",), ("2-1",), ("3-1",)]
    assert [group["name"] for group in visits["dimension_groups"]] == ["partition_day", "time"]
    assert [measure["name"] for measure in visits["measures"]] == ["row_count", "people"]
    model = lkml.load(texts["analytics.model.lkml"])
    assert (model["connection"], model["includes"]) == ("analytics", ["views/*.view.lkml"])
    [join] = model["explores"][0]["joins"]
    assert join["sql_on"].strip() == "${visits.profile_id} = ${people.profile_id}"
    assert join["relationship"] == "many_to_one"


def test_superset_files_are_of_its_schema(connection: Any) -> None:
    texts = {name: yaml.safe_load(text) for name, text in TOOLS["superset"](LAYER)}
    database, dataset = texts["databases/analytics.yaml"], texts["datasets/analytics/visits.yaml"]
    assert texts["metadata.yaml"]["version"] == "1.0.0"
    assert dataset["database_uuid"] == database["uuid"]
    assert [column["column_name"] for column in dataset["columns"]] == connection.sql(dataset["sql"]).columns
    assert dataset["main_dttm_col"] == "time"
    measures = {metric["metric_name"]: metric["expression"] for metric in dataset["metrics"]}
    assert connection.sql(f"SELECT {measures['people']} FROM ({dataset['sql']})").fetchall() == [(1,)]
    again = {name: yaml.safe_load(text) for name, text in TOOLS["superset"](LAYER)}
    assert again == texts


def test_metabase_files_carry_their_path(connection: Any) -> None:
    texts = dict(TOOLS["metabase"](LAYER))
    statement = texts.pop("latest.sql")
    assert connection.execute(statement) is not None
    for name, text in texts.items():
        described = yaml.safe_load(text)
        path = [step["id"] for step in described["serdes/meta"]]
        kinds = [step["model"] for step in described["serdes/meta"]]
        assert kinds == ["Database", "Schema", "Table", "Field"][: len(kinds)]
        assert path[-1] == described["name"] == name.rpartition("/")[2].removesuffix(".yaml")
        if kinds[-1] == "Field":
            assert described["table_id"] == path[:3]
            assert described["name"] in connection.sql(f'SELECT * FROM "{path[2]}"').columns
    fields = "databases/analytics/schemas/main/tables/{}/fields/{}.yaml"
    foreign = yaml.safe_load(texts[fields.format("visits", "profile_id")])
    assert foreign["semantic_type"] == "type/FK"
    assert foreign["fk_target_field_id"] == ["analytics", "main", "latest_people", "profile_id"]
    assert yaml.safe_load(texts[fields.format("latest_people", "profile_id")])["semantic_type"] == "type/PK"


def test_tableau_data_sources_map_every_column(connection: Any) -> None:
    texts = dict(TOOLS["tableau"](LAYER))
    root = ET.fromstring(texts["visits.tds"])
    names = {column.attrib["name"] for column in root.findall("column")}
    mapped = {entry.attrib["key"]: entry.attrib["value"] for entry in root.iterfind("connection/cols/map")}
    assert names == set(mapped)
    assert mapped["[plan (people)]"] == "[people].[plan]"
    [connected] = root.iterfind("connection/named-connections/named-connection")
    relations = {relation.attrib["name"]: relation for relation in root.iter("relation") if "name" in relation.attrib}
    assert {relation.attrib["connection"] for relation in relations.values()} == {connected.attrib["name"]}
    assert relations["visits"].attrib["table"] == "[main].[visits]"
    assert connection.sql(relations["people"].text).pl().height == 2
    operands = [expression.attrib["op"] for expression in root.iterfind("connection/relation/clause/expression/*")]
    assert operands == ["[visits].[profile_id]", "[people].[profile_id]"]
    described = {column.attrib["name"]: column for column in root.findall("column")}["[profile_id]"]
    assert "".join(described.itertext()).strip() == f"{NASTY} Personal data."


def test_dbt_sources_and_exposures_name_each_other() -> None:
    texts = {name: yaml.safe_load(text) for name, text in TOOLS["dbt"](LAYER)}
    [source] = texts["analytics_sources.yml"]["sources"]
    tables = {table["name"]: table for table in source["tables"]}
    assert "filter by partition_day" in tables["people"]["description"]
    tested = {column["name"]: column.get("data_tests") for column in tables["visits"]["columns"]}
    assert (tested["event_id"], tested["time"]) == (["not_null"], None)
    first, second = texts["analytics_exposures.yml"]["exposures"]
    assert first["depends_on"] == [f"source('{source['name']}', 'people')"]
    assert (first["owner"], second["owner"]) == ({"email": "ann@acme.example"}, {"name": "team:data"})
