"""Every query, and an audience with all that a definition can say, run in BigQuery's dialect and agree with DuckDB."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import polars as pl
import pytest

from heap_assets.analytics import QUERIES, AudienceTables, Relation, Statement, audience_sql, parse_query
from heap_assets.profiles import parse_audience
from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount

END = datetime(2026, 11, 21, tzinfo=UTC)
_CHANCE = random.Random(7)
EVENTS = pl.DataFrame(
    [
        {
            "profile_id": f"p{_CHANCE.randrange(4)}", "user_id": i % 4, "session_id": _CHANCE.choice([1, 2, None]),
            "event_id": i, "time": END - timedelta(hours=_CHANCE.randrange(1, 150)),
            "event_type": _CHANCE.choice(["signup", "view", "buy"]), "channel": _CHANCE.choice([None, "ads", "mail"]),
        }
        for i in range(40)
    ],
    schema_overrides={"time": pl.Datetime("us", "UTC")},
)  # fmt: skip
PEOPLE = pl.DataFrame(
    [
        {"profile_id": f"p{i}", "plan": ["pro", None, "free", "it's"][i],
         "lifecycle_stage": ["Active", "Dormant"][i % 2], "first_seen": END - timedelta(days=5 * i),
         "seats": i, "account": ["x", "y"][i % 2]}
        for i in range(4)
    ],
    schema_overrides={"first_seen": pl.Datetime("us", "UTC")},
)  # fmt: skip
PARAMETERS: dict[str, dict[str, Any]] = {
    "adoption": {"by": "plan"},
    "funnel": {"steps": ["signup", "view", "buy"], "span_hours": 60, "by": "plan"},
    "paths": {"goal": "buy"},
    "attribution": {"conversion": "buy", "touch": "view", "channel": "channel"},
    "experiment": {"exposure": "view", "variant": "channel", "conversion": "buy"},
    "accounts": {"account": "account"},
    "features": {"only": ["signup", "buy"]},
}
_TYPES = {str: "STRING", int: "INT64", float: "FLOAT64", datetime: "TIMESTAMP", bool: "BOOL"}


def rows_in_bigquery(frame: pl.DataFrame) -> str:
    def cell(name: str, value: Any) -> str:
        if value is None:
            return f"CAST(NULL AS {'INT64' if frame[name].dtype == pl.Int64 else 'STRING'}) AS {name}"
        if isinstance(value, datetime):
            return f"TIMESTAMP '{value:%Y-%m-%d %H:%M:%S}+00' AS {name}"
        escaped = str(value).replace("'", "\\'")
        return f"{value} AS {name}" if isinstance(value, int) else f"'{escaped}' AS {name}"

    selects = (", ".join(cell(name, value) for name, value in row.items()) for row in frame.to_dicts())
    return " UNION ALL ".join(f"SELECT {select}" for select in selects)


@pytest.fixture(scope="module")
def client(bigquery_emulator: object) -> Any:
    with BigQueryAccount("demo", endpoint=bigquery_emulator.rest).client() as client:  # type: ignore[attr-defined]
        yield client


def both(client: Any, statement: Statement) -> tuple[list[Any], list[Any]]:
    """Return the rows that BigQuery's stand-in and DuckDB answer."""
    from google.cloud import bigquery

    relations = {"events": EVENTS, "people": PEOPLE, "people_before": PEOPLE}
    heads = ", ".join(f"{name} AS ({rows_in_bigquery(frame)})" for name, frame in relations.items())
    body = statement.text("bigquery")
    text = f"WITH {heads}, {body.removeprefix('WITH ')}" if body.startswith("WITH ") else f"WITH {heads} {body}"
    parameters = [
        bigquery.ScalarQueryParameter(name, _TYPES[type(value)], value) for name, value in statement.parameters.items()
    ]
    job = client.query(text, job_config=bigquery.QueryJobConfig(query_parameters=parameters))
    there = [tuple(row.values()) for row in job.result()]
    with duckdb.connect() as sql:
        sql.execute("SET TimeZone = 'UTC'")
        for name, frame in relations.items():
            sql.register(name, frame.to_arrow())
        here = sql.execute(statement.text(), dict(statement.parameters)).fetchall()
    return there, here


@pytest.mark.parametrize("kind", QUERIES)
def test_a_query_gives_the_same_rows_in_both(kind: str, client: Any) -> None:
    query = parse_query({"kind": kind, **PARAMETERS.get(kind, {})}, kind)
    there, here = both(client, query.statement(END))
    assert here
    assert [tuple(map(_comparable, row)) for row in there] == [tuple(map(_comparable, row)) for row in here]


def test_an_audience_has_the_same_members_in_both(client: Any) -> None:
    definition = {
        "user_properties": {"seats": {"between": [0, 3]}, "plan": {"not_in": ["it's"]}},
        "sequences": [{"steps": [{"type": "signup"}, {"type": "view", "count": 2}], "span_days": 6}],
        "any": [{"events": [{"type": "buy", "count": {"lt": 3}}]}, {"user_properties": {"plan": {"matches": "^p"}}}],
        "none": [{"events": [{"type": "buy", "properties": {"channel": {"contains": "zzz"}}}]}],
    }
    events = {
        event: Relation(f"(SELECT * FROM events WHERE event_type = '{event}')", EVENTS.schema)
        for event in ("signup", "view", "buy")
    }
    audience = parse_audience("a", definition)
    there, here = both(client, audience_sql(audience, AudienceTables(Relation("people", PEOPLE.schema), events, END)))
    assert here
    assert there == here


def _comparable(value: Any) -> Any:
    return round(float(value), 6) if isinstance(value, int | float) or hasattr(value, "as_tuple") else value
