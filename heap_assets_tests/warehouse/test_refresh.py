"""Reading changes gives what reading everything gives, or everything is read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heap_assets.warehouse import DuckDBWarehouse
from heap_assets.warehouse.refresh import Observation, Refreshed, refreshed

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
COLUMNS = ("email",)


def warehouse(folder: Path) -> DuckDBWarehouse:
    path = folder / "w.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE t (id INT, email VARCHAR, updated_at TIMESTAMPTZ)")
        connection.execute("INSERT INTO t SELECT range, 'u' || range, TIMESTAMPTZ '2026-11-01 00:00+00' FROM range(5)")
    return DuckDBWarehouse(path)


def change(source: DuckDBWarehouse, *statements: str) -> None:
    with duckdb.connect(str(source.path)) as connection:
        for statement in statements:
            connection.execute(statement)


def test_as_many_rows_with_the_same_times_are_not_read_though_the_file_changed(tmp_path: Path) -> None:
    source = warehouse(tmp_path)
    first, frame = observe(source)
    before = Observation(frame.lazy(), NOON, first.version, first.tally)
    change(source, "CREATE TABLE other (a INT)")
    second, again = observe(source, before)
    assert (second.mode, second.rows_read) == ("unchanged", 0)
    assert again.equals(frame)
    change(source, "UPDATE t SET updated_at = TIMESTAMPTZ '2026-10-01 00:00+00' WHERE id = 1")
    assert observe(source, before)[0].mode != "unchanged", "an older time is a change too"


def observe(
    source: DuckDBWarehouse,
    before: Observation | None = None,
    columns: Sequence[str] | None = COLUMNS,
    key: str | None = "id",
) -> tuple[Refreshed, pl.DataFrame]:
    with refreshed(source, "t", columns, key=key, updated_at="updated_at", before=before) as found:
        return found, found.frame.collect().sort("updated_at", "email") if key is None else found.frame.collect().sort(
            key
        )


def as_observed(frame: pl.DataFrame, version: str | None = None) -> Observation:
    return Observation(frame.lazy(), NOON, version)


def test_the_first_observation_reads_everything(tmp_path: Path) -> None:
    found, frame = observe(warehouse(tmp_path))
    assert (found.mode, found.rows_read, frame.columns) == ("full", 5, ["id", "email", "updated_at"])


def test_an_unchanged_relation_is_not_read(tmp_path: Path) -> None:
    source = warehouse(tmp_path)
    first, frame = observe(source)
    second, again = observe(source, as_observed(frame, first.version))
    assert (second.mode, second.rows_read) == ("unchanged", 0)
    assert again.equals(frame)


def test_changes_and_deletions_are_folded_in(tmp_path: Path) -> None:
    source = warehouse(tmp_path)
    _, frame = observe(source)
    change(
        source,
        "UPDATE t SET email = 'new', updated_at = TIMESTAMPTZ '2026-11-01 13:00+00' WHERE id = 1",
        "INSERT INTO t VALUES (9, 'added', TIMESTAMPTZ '2026-11-01 11:30+00')",
        "DELETE FROM t WHERE id = 0",
    )
    found, now = observe(source, as_observed(frame))
    assert (found.mode, found.rows_read) == ("changes", 2)
    assert now["email"].to_list() == ["new", "u2", "u3", "u4", "added"]


def test_a_row_that_no_timestamp_tells_of_makes_it_read_everything(tmp_path: Path) -> None:
    source = warehouse(tmp_path)
    _, frame = observe(source)
    change(source, "INSERT INTO t VALUES (9, 'silent', NULL)")
    found, now = observe(source, as_observed(frame))
    assert (found.mode, found.reason) == ("full", "updated_at does not tell every change")
    assert "silent" in now["email"].to_list()


@pytest.mark.parametrize(("columns", "key"), [(("email", "id", "updated_at"), None), (("id",), "id")])
def test_without_a_key_or_with_other_columns_everything_is_read(
    tmp_path: Path, columns: Sequence[str], key: str | None
) -> None:
    source = warehouse(tmp_path)
    _, frame = observe(source)
    found, _ = observe(source, as_observed(frame), columns, key)
    assert found.mode == "full"


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.sampled_from(["put", "drop"]), st.integers(0, 7), st.integers(-30, 90)), max_size=6))
def test_any_edits_after_the_observation_give_what_a_full_read_gives(
    edits: list[tuple[str, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = warehouse(tmp_path_factory.mktemp("any"))
    first, frame = observe(source)
    statements = []
    for number, (kind, row, minutes) in enumerate(edits):
        statements.append(f"DELETE FROM t WHERE id = {row}")
        if kind == "put":
            at = (NOON + timedelta(minutes=minutes)).isoformat()
            statements.append(f"INSERT INTO t VALUES ({row}, 'edit{number}', TIMESTAMPTZ '{at}')")
    change(source, *statements)
    _, now = observe(source, Observation(frame.lazy(), NOON, first.version, first.tally))
    _, full = observe(source)
    assert now.equals(full)
