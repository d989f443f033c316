"""The queries of Heap's BigQuery guides run on the published `events` table and count right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pytest

from heap_assets.sources.heap_bigquery.events_table import COLUMNS, PUBLICATION, events_table
from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
from heap_assets.sources.warehouse.bigquery.publisher import BigQueryPublisher
from heap_assets.storage import Store

GUIDE = """
event_id session_id user_id time event_type event_properties user_properties page_url page_title referrer device_type
browser platform country region city
"""
ADOPTION = """
SELECT JSON_VALUE(user_properties, '$.plan_level') AS plan_level, event_type, COUNT(DISTINCT user_id) AS users,
  COUNT(*) AS total_events, COUNT(*) / COUNT(DISTINCT user_id) AS avg_events_per_user
FROM {d}.events
WHERE DATE(time) >= DATE_SUB(CURRENT_DATE(), INTERVAL 30 DAY) AND event_type LIKE 'Feature:%'
GROUP BY plan_level, event_type
ORDER BY total_events DESC
"""
FUNNEL = """
WITH funnel_steps AS (
  SELECT session_id,
    MAX(IF(event_type = 'Signup Started', 1, 0)) AS started,
    MAX(IF(event_type = 'Email Verified', 1, 0)) AS verified,
    MAX(IF(event_type = 'Profile Completed', 1, 0)) AS completed,
    MAX(IF(event_type = 'First Purchase', 1, 0)) AS purchased
  FROM {d}.events
  WHERE DATE(time) >= DATE_SUB(CURRENT_DATE(), INTERVAL 7 DAY)
  GROUP BY session_id
)
SELECT SUM(started), SUM(verified), SUM(completed), SUM(purchased),
  ROUND(SUM(verified) / SUM(started) * 100, 2), ROUND(SUM(completed) / SUM(verified) * 100, 2),
  ROUND(SUM(purchased) / SUM(completed) * 100, 2)
FROM funnel_steps
WHERE started = 1
"""
RECENT = """
SELECT event_type, COUNT(*) AS frequency
FROM {d}.events
WHERE user_id = '5' AND time >= TIMESTAMP(DATE_SUB(CURRENT_DATE(), INTERVAL 30 DAY))
GROUP BY event_type
ORDER BY frequency DESC
LIMIT 10
"""
PATHS = """
WITH conversion_paths AS (
  SELECT user_id, ARRAY_AGG(event_type ORDER BY time) AS event_sequence
  FROM {d}.events
  WHERE session_id IN (SELECT DISTINCT session_id FROM {d}.events WHERE event_type = 'Purchase')
  GROUP BY user_id
)
SELECT event_sequence, COUNT(*) AS path_frequency, COUNT(*) * 100.0 / SUM(COUNT(*)) OVER () AS path_percentage
FROM conversion_paths
GROUP BY event_sequence
ORDER BY path_frequency DESC
LIMIT 20
"""
ENGAGEMENT = """
SELECT user_id,
  COUNT(DISTINCT DATE(time)) * 5 + COUNT(DISTINCT session_id) * 2 + COUNT(DISTINCT event_type) * 10 AS engagement_score
FROM {d}.events
WHERE time >= TIMESTAMP(DATE_SUB(CURRENT_DATE(), INTERVAL 30 DAY))
GROUP BY user_id
ORDER BY engagement_score DESC
"""
NAMES = {
    "signup_started": "Signup Started",
    "email_verified": "Email Verified",
    "feature_export": "Feature: Export",
    "profile_completed": "Profile Completed",
    "first_purchase": "First Purchase",
    "purchase": "Purchase",
}


@pytest.fixture(scope="module")
def ask(bigquery_emulator: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], list[Any]]]:
    rest, grpc = bigquery_emulator.rest, bigquery_emulator.grpc  # type: ignore[attr-defined]
    account, dataset = BigQueryAccount("demo", endpoint=rest, storage_endpoint=grpc), f"guide_{uuid4().hex[:6]}"
    lake: Path = tmp_path_factory.mktemp("lake")
    at = (datetime.now(UTC) - timedelta(days=2)).replace(hour=12, minute=0)

    def events(*rows: tuple[int, int, int]) -> pl.LazyFrame:
        frame = pl.LazyFrame(rows, schema=["event_id", "user_id", "session_id"], orient="row")
        return frame.with_columns(time=pl.lit(at) + pl.duration(minutes="event_id"))

    tables = {
        "signup_started": events((1, 5, 50), (2, 6, 60)),
        "email_verified": events((3, 5, 50)),
        "feature_export": events((4, 5, 50), (5, 5, 51), (6, 6, 60)),
        "profile_completed": events((7, 5, 50)),
        "first_purchase": events((8, 5, 50)),
        "purchase": events((9, 5, 51)),
    }
    users = pl.LazyFrame({"user_id": [5, 6], "plan_level": ["pro", "free"]})
    with account.client() as client:
        client.create_dataset(dataset)
        publisher = BigQueryPublisher(account, dataset, Store(str(lake)))
        publisher.publish(PUBLICATION, at.date(), events_table(tables, users, NAMES), "v1")
        yield lambda text: [tuple(row.values()) for row in client.query(text.replace("{d}", dataset)).result()]
        client.delete_dataset(dataset, delete_contents=True)


def test_the_table_has_the_columns_of_the_guides_and_one_more() -> None:
    assert [name for name in COLUMNS if name != "event_table"] == GUIDE.split()


def test_feature_adoption(ask: Callable[[str], list[Any]]) -> None:
    assert ask(ADOPTION) == [("pro", "Feature: Export", 1, 2, 2.0), ("free", "Feature: Export", 1, 1, 1.0)]


def test_funnel(ask: Callable[[str], list[Any]]) -> None:
    assert ask(FUNNEL) == [(2, 1, 1, 1, 50.0, 100.0, 100.0)]


def test_engagement(ask: Callable[[str], list[Any]]) -> None:
    assert ask(ENGAGEMENT) == [("5", 69), ("6", 27)]


def test_what_a_user_did_most_of_late(ask: Callable[[str], list[Any]]) -> None:
    found = ask(RECENT)
    assert found[0] == ("Feature: Export", 2)
    assert {name for name, count in found if count == 1} == {*NAMES.values()} - {"Feature: Export"}


def test_conversion_paths(ask: Callable[[str], list[Any]]) -> None:
    assert ask(PATHS) == [(["Feature: Export", "Purchase"], 1, 100.0)]


def test_events_are_found_by_the_name_of_their_table_as_well(ask: Callable[[str], list[Any]]) -> None:
    query = "SELECT DISTINCT event_table, event_type FROM {d}.events ORDER BY event_table"
    assert ask(query) == sorted(NAMES.items())
