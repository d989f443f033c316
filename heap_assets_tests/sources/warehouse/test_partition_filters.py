"""Tables that must be read with a partition filter get one, of the type of their column, and no row is lost to it."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
import pytest

from heap_assets.sources.warehouse import WarehouseError
from heap_assets.sources.warehouse.bigquery.reader import BigQueryWarehouse
from heap_assets.sources.warehouse.browse import inspect_table
from heap_assets.sources.warehouse.refresh import Observation, Refreshed, refreshed
from heap_assets_tests.sources.warehouse.strict_google import PSEUDO, StrictGoogle, strict_google

FIELDS = "id INT64, plan STRING, updated_at TIMESTAMP, day DATE, at TIMESTAMP, local DATETIME, shop INT64"
ROWS = f"""
SELECT id, plan, TIMESTAMPTZ '2026-11-01 00:00+00' + to_days(id::INT) AS updated_at, DATE '2026-11-01' + id::INT AS day,
  TIMESTAMPTZ '2026-11-01 00:00+00' AS at, TIMESTAMP '2026-11-01 00:00' AS local, id * 10 AS shop,
  CASE WHEN id < 3 THEN TIMESTAMPTZ '2026-11-01 00:00+00' END AS {PSEUDO}
FROM (VALUES (0::BIGINT, 'free'), (1, 'pro'), (2, 'pro'), (3, 'team')) AS rows (id, plan)
"""
OLDEST = """
INSERT INTO t VALUES
(4, 'late', '2019-01-01 00:00+00', '0001-01-01', '0001-01-01 00:00+00', '0001-01-01', -9223372036854775808,
  '2019-01-01 00:00+00'),
(5, 'of no partition', '2019-01-02 00:00+00', NULL, NULL, NULL, NULL, NULL)
"""


@pytest.fixture
def google() -> Iterator[StrictGoogle]:
    with strict_google() as server:
        yield server


def read(google: StrictGoogle, relation: str, before: Refreshed | None = None) -> tuple[str, Refreshed, pl.DataFrame]:
    """Read what has changed, as an asset does; returns how it was read and the rows."""
    warehouse = BigQueryWarehouse(google.account, ("d",))
    known = Observation(before.frame, before.observed_at, before.version, before.tally) if before else None
    with refreshed(warehouse, relation, None, key="id", updated_at="updated_at", previous=known) as found:
        rows = found.frame.sort("id").collect()
    return found.mode, Refreshed(**{**vars(found), "frame": rows.lazy()}), rows


@pytest.mark.parametrize("partition", ["day", "at", "local", "shop", "updated_at", PSEUDO])
def test_changes_are_read_with_the_filter_and_late_rows_with_them(google: StrictGoogle, partition: str) -> None:
    google.hold("t", FIELDS, ROWS, partition)
    mode, first, rows = read(google, "d.t")
    assert (mode, rows["id"].to_list()) == ("full", [0, 1, 2, 3])
    assert read(google, "d.t", first)[0] == "unchanged"
    google.change(OLDEST)
    google.change("DELETE FROM t WHERE id = 0")
    google.change("UPDATE t SET plan = 'more', updated_at = '2026-11-20 00:00+00' WHERE id = 1")
    mode, _, rows = read(google, "d.t", first)
    assert mode == "changes"
    assert rows.equals(read(google, "d.t")[2])
    assert rows["plan"].to_list() == ["more", "pro", "team", "late", "of no partition"]
    assert len(google.restrictions) == 4, "a full read, keys, changes, a full read: none without the filter"


@pytest.mark.parametrize("partition", ["day", "at", "local", "shop", "updated_at"])
def test_a_view_on_such_a_table_is_read_by_the_column_that_bigquery_asks_for(
    google: StrictGoogle, partition: str
) -> None:
    google.hold("t", FIELDS, ROWS, partition)
    view(google)
    mode, first, rows = read(google, "d.v")
    assert (mode, rows["id"].to_list()) == ("full", [0, 1, 2, 3])
    assert read(google, "d.v", first)[0] == "unchanged"
    google.change(OLDEST)
    mode, _, rows = read(google, "d.v", first)
    assert mode == "changes"
    assert rows["plan"].to_list() == ["free", "pro", "pro", "team", "late", "of no partition"]
    seen = inspect_table(BigQueryWarehouse(google.account, ("d",)), "d.v", 3)
    assert seen.rows.height == 3
    assert "would scan" in BigQueryWarehouse(google.account).try_reading("d.v")


@pytest.mark.parametrize(
    ("partition", "hidden", "said"),
    [
        (PSEUDO, False, "a filter on _PARTITION_LOAD_TIME or _PARTITIONDATE or _PARTITIONTIME, and has no such column"),
        ("day", True, "a filter on day, and keeps one from reaching it"),
    ],
)
def test_a_view_that_cannot_be_filtered_says_what_to_do(
    google: StrictGoogle, partition: str, hidden: bool, said: str
) -> None:
    google.hold("t", FIELDS, ROWS, partition)
    view(google)
    google.hidden = {"v"} if hidden else set()
    with pytest.raises(WarehouseError, match=rf"d\.v reads a table that demands {said}: have the view itself filter"):
        read(google, "d.v")


@pytest.mark.parametrize(
    ("query", "refused"),
    [
        ("SELECT id FROM `p.d.t`", "Cannot query over table"),
        ("SELECT id FROM `p.d.t` WHERE day >= DATE '2026-01-01' OR id = 1", "Cannot query over table"),
        ("SELECT id FROM `p.d.t` WHERE day >= TIMESTAMP '2026-01-01 00:00:00'", "No matching signature"),
        ("SELECT id FROM `p.d.t` WHERE id = 1 AND (day >= DATE '2026-01-01' OR day IS NULL)", None),
    ],
)
def test_the_server_refuses_what_bigquery_refuses(google: StrictGoogle, query: str, refused: str | None) -> None:
    google.hold("t", FIELDS, ROWS, "day")
    status, answer = google.answer("POST", "/projects/p/jobs", {"configuration": {"query": {"query": query}}})
    assert (refused or "") in str(answer.get("error"))
    assert (status == 400) is (refused is not None)


def view(google: StrictGoogle) -> None:
    google.database.execute("CREATE VIEW v AS SELECT * FROM t")
    google.resources["v"] = {"schema": google.resources["t"]["schema"], "type": "VIEW"}
    google.reads["v"] = "t"
