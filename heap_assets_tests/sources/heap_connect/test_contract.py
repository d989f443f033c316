"""The tables that Heap documents: every documented column arrives under its name and in its type."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl
import pytest
from dump_builders import Bucket, land_all, landing_in, migration, user

from heap_assets.sources.heap_connect import build_event_day, build_user_migrations, build_users, built_in_columns

MARCH_1 = date(2026, 3, 1)
TIME = pl.Datetime("us", "UTC")
COMMON = [
    "library", "platform", "device_type", "country", "region", "city",
    "ip", "referrer", "landing_page", "browser", "search_keyword", "utm_source",
    "utm_campaign", "utm_medium", "utm_term", "utm_content", "device", "carrier",
    "app_name", "app_version",
]  # fmt: skip
SCREEN = ["path", "query", "hash", "title", "view_controller", "screen_a11y_id", "screen_a11y_label"]
TABLES = {
    "sessions": [*COMMON, "landing_page_query", "landing_page_hash"],
    "pageviews": [
        *[*COMMON, *SCREEN, "session_time", "domain", "landing_page_query", "landing_page_hash", "target_a11y_label"],
        *["heap_device_id", "heap_device", "heap_previous_page", "heap_app_name", "heap_app_version"],
    ],
    "sign_up": [
        *[*COMMON, *SCREEN, "session_time", "type", "href", "action_method", "target_text", "target_view_class"],
        *["target_view_name", "target_a11y_id", "target_a11y_label", "screen_ally_id", "screen_ally_label"],
        *["target_ally_id", "target_ally_label", "target_tag", "target_id", "target_class"],
    ],
}
ABOVE_2_53 = 2**53 + 1


@pytest.mark.parametrize("table", TABLES)
def test_every_documented_column_of_an_event_table(tmp_path: Path, table: str) -> None:
    columns = TABLES[table]
    keys = {"event_id": str(ABOVE_2_53), "user_id": ABOVE_2_53, "session_id": 7, "time": "2026-03-01 10:00:00"}
    row = keys | dict.fromkeys(columns, "x") | {"Custom Number": 1.5, "custom_flag": True}
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(1, "2026-03-02T02:00:00", **{table: [row]})
    landing = landing_in(tmp_path / "lake")
    [report] = land_all(landing, bucket)
    assert not report.failed
    built = build_event_day(landing, table, MARCH_1).frame.collect()
    assert built.schema == {
        **dict.fromkeys(("event_id", "user_id", "session_id"), pl.Int64()),
        "time": TIME,
        **dict.fromkeys(columns, pl.String()),
        "Custom Number": pl.Float64(),
        "custom_flag": pl.Boolean(),
    }
    assert built.select("event_id", "user_id").row(0) == (ABOVE_2_53, ABOVE_2_53)
    assert set(columns) <= set(built_in_columns(table))


def test_users_and_migrations_have_their_documented_columns(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    person = user(1) | {"user_id": str(ABOVE_2_53), "identity": "i", "handle": "h", "email": "e@x.org", "plan": "pro"}
    bucket.dump(1, "2026-03-02T02:00:00", users=[person], user_migrations=[migration(3, ABOVE_2_53)])
    landing = landing_in(tmp_path / "lake")
    land_all(landing, bucket)
    users = build_users(landing, MARCH_1).frame.collect()
    text = dict.fromkeys(("identity", "handle", "email"), pl.String())
    assert dict(users.schema) == {
        "user_id": pl.Int64(),
        "joindate": TIME,
        "last_modified": TIME,
        "plan": pl.String(),
        "migrated_to": pl.Int64(),
        **text,
    }
    assert users["user_id"].to_list() == [ABOVE_2_53]
    moved = build_user_migrations(landing, MARCH_1).frame.collect()
    assert moved.select("from_user_id", "to_user_id", "time").schema == {
        "from_user_id": pl.Int64(),
        "to_user_id": pl.Int64(),
        "time": TIME,
    }
    assert moved["to_user_id"].to_list() == [ABOVE_2_53]


def test_a_users_column_that_changes_type_keeps_both(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(1, "2026-03-02T02:00:00", users=[user(1, plan="pro"), user(2, plan="free")])
    bucket.dump(2, "2026-03-03T02:00:00", users=[user(1, "2026-03-02 00:00:00", plan=7)])
    landing = landing_in(tmp_path / "lake")
    land_all(landing, bucket)
    users = build_users(landing, date(2026, 3, 2)).frame.collect()
    assert users.select("user_id", "plan", "plan__long").rows() == [(1, None, 7), (2, "free", None)]
