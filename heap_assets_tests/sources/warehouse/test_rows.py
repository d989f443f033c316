"""A system that is read by calls: everything at first, then what it says has changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from heap_assets.sources.warehouse import DELETED, RelationMissingError, RowsWarehouse, WarehouseError, family_of
from heap_assets.sources.warehouse.refresh import Observation, Refreshed, refreshed

SCHEMA = pl.Schema(
    {
        "id": pl.Int64,
        "email": pl.String,
        "at": pl.Datetime("us", "UTC"),
        "tags": pl.List(pl.String),
        "address": pl.Struct({"city": pl.String, "lines": pl.List(pl.Struct({"text": pl.String}))}),
    }
)


def at(day: int, hour: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, tzinfo=UTC)


@dataclass
class System:
    rows: dict[int, tuple[str, datetime]] = field(default_factory=dict)
    asked: list[datetime | None] = field(default_factory=list)

    def read(self, table: str, since: datetime | None) -> Iterator[pl.DataFrame]:
        assert table == "people"
        self.asked.append(since)
        for key, (email, changed) in self.rows.items():
            if since is None or changed >= since:
                row = {"id": key, "email": email, "at": changed, "tags": ["a"], "address": {"city": "x", "lines": []}}
                yield pl.DataFrame([row], schema=SCHEMA)

    @property
    def warehouse(self) -> RowsWarehouse:
        return RowsWarehouse("crm", lambda: {"people": SCHEMA}, self.read)

    def refresh(self, before: Observation | None, path: Path) -> tuple[Refreshed, Observation]:
        with refreshed(self.warehouse, "crm.people", None, key="id", updated_at="at", previous=before) as result:
            result.frame.collect().write_parquet(path)
        return result, Observation(pl.scan_parquet(path), at(20))


def emails(observation: Observation) -> dict[int, str]:
    return dict(observation.rows.select("id", "email").collect().iter_rows())


def test_everything_then_what_changed_then_nothing(tmp_path: Path) -> None:
    system = System({1: ("a@x", at(1)), 2: ("b@x", at(10)), 3: ("c@x", at(2))})
    first, seen = system.refresh(None, tmp_path / "1")
    assert (first.mode, first.rows_read, emails(seen)) == ("full", 3, {1: "a@x", 2: "b@x", 3: "c@x"})
    system.rows |= {1: ("new@x", at(11)), 4: ("d@x", at(12))}
    del system.rows[3]
    second, seen = system.refresh(seen, tmp_path / "2")
    assert (second.mode, second.rows_read) == ("changes", 3)
    assert emails(seen) == {1: "new@x", 2: "b@x", 3: "c@x", 4: "d@x"}
    third, seen = system.refresh(seen, tmp_path / "3")
    assert (third.mode, third.rows_read) == ("unchanged", 0)
    assert system.asked == [None, at(9, 23), at(11, 23)], "an hour before the newest that was known"
    whole, seen = system.refresh(None, tmp_path / "4")
    assert (whole.mode, emails(seen)) == ("full", {1: "new@x", 2: "b@x", 4: "d@x"}), "what is gone shows in a full read"


def test_without_a_time_of_change_everything_is_read_each_time(tmp_path: Path) -> None:
    system = System({1: ("a@x", at(1))})
    _, seen = system.refresh(None, tmp_path / "1")
    with refreshed(system.warehouse, "crm.people", None, key="id", previous=seen) as again:
        assert again.mode == "full"
    assert system.asked == [None, None]


def test_columns_and_samples_are_those_of_a_warehouse(tmp_path: Path) -> None:
    warehouse = System({n: (f"{n}@x", at(1)) for n in range(5)}).warehouse
    columns = warehouse.columns("people")
    families = [family_of(columns, path) for path in ("id", "email", "at", "address.city", "tags")]
    assert families == ["number", "text", "time", "text", None]
    assert [path for column in columns for path in column.paths()][-3:] == [
        "address.city", "address.lines[]", "address.lines[].text",
    ]  # fmt: skip
    sample = warehouse.sample("crm.people", 2).frame
    assert sample is not None
    assert sample.height == 2
    assert [permission.passed for permission in warehouse.preflight()] == [True]
    reading = warehouse.read("crm.people", ["email"], tmp_path / "some.parquet")
    assert (reading.columns, pl.read_parquet(tmp_path / "some.parquet").columns) == (("email",), ["email"])
    with pytest.raises(RelationMissingError, match=r"crm has no table 'crm.persons'.*Did you mean 'crm.people'"):
        warehouse.columns("crm.persons")


def test_rows_of_other_types_are_an_error_that_quotes_none_of_them(tmp_path: Path) -> None:
    def read(table: str, since: datetime | None) -> Iterator[pl.DataFrame]:
        yield pl.DataFrame({"id": ["ann@secret.example"]})

    warehouse = RowsWarehouse("crm", lambda: {"people": pl.Schema({"id": pl.Int64})}, read)
    with pytest.raises(WarehouseError, match=r"crm\.people: its rows are not of its columns") as caught:
        warehouse.read("people", None, tmp_path / "none.parquet")
    assert "ann@" not in str(caught.value)
    assert not (tmp_path / "none.parquet").exists()


def test_the_last_row_of_a_record_counts_and_a_deleted_one_leaves_the_table(tmp_path: Path) -> None:
    schema = pl.Schema({"id": pl.Int64, "name": pl.String, "at": pl.Datetime("us", "UTC")})
    frames: list[list[tuple[int, str, bool]]] = [
        [(1, "a", False), (2, "b", False), (3, "c", False), (4, "d", False)],
        [(2, "b2", False), (3, "c", True), (4, "d", True), (4, "d2", False), (9, "i", True)],
    ]

    def read(table: str, since: datetime | None) -> Iterator[pl.DataFrame]:
        for frame in frames:
            rows = [{"id": id, "name": name, "at": at(10), DELETED: deleted} for id, name, deleted in frame]
            yield pl.DataFrame(rows, schema={**schema, DELETED: pl.Boolean})

    warehouse = RowsWarehouse("crm", lambda: {"people": schema}, read, {"people": "id"})
    reading = warehouse.read("people", ["name"], tmp_path / "1.parquet")
    assert pl.read_parquet(tmp_path / "1.parquet").rows() == [("a",), ("b2",), ("d2",)]
    assert reading.rows == 3
    assert reading.deleted is not None
    assert sorted(reading.deleted) == [3, 9]
    with refreshed(warehouse, "people", None, key="id", updated_at="at") as result:
        result.frame.collect().write_parquet(tmp_path / "2.parquet")
    observed = Observation(pl.scan_parquet(tmp_path / "2.parquet"), at(20))
    frames[:] = [[(1, "a", True)]]
    with refreshed(warehouse, "people", None, key="id", updated_at="at", previous=observed) as result:
        assert (result.mode, result.rows_read) == ("changes", 1)
        assert sorted(result.frame.collect()["name"]) == ["b2", "d2"]
        result.frame.collect().write_parquet(tmp_path / "3.parquet")
    observed = Observation(pl.scan_parquet(tmp_path / "3.parquet"), at(20))
    with refreshed(warehouse, "people", None, key="id", updated_at="at", previous=observed) as result:
        assert result.mode == "unchanged", "it is deleted already"
