"""Columns come, go and change type; the catalogue learns them; a selection decides what is loaded."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from dump_builders import Bucket, event, land_all, landing_in, user
from hypothesis import given
from hypothesis import strategies as st

from heap_assets.errors import MissingInputError
from heap_assets.sources.heap_connect import Catalogue, build_event_day, build_users
from heap_assets.sources.heap_connect.merging import Columns, origin_of, widened
from heap_assets.sources.heap_connect.records import Delivery, DumpRecord, TableRecord, TableState
from heap_assets.sources.heap_connect.tables import TableError, placed_in

MARCH_1, MARCH_2 = date(2026, 3, 1), date(2026, 3, 2)


def test_columns_come_go_and_change_type(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(1, "2026-03-02T02:00:00", a=[event(1, "2026-03-01 10:00:00", old="o", age=1)])
    bucket.dump(2, "2026-03-03T02:00:00", a=[event(2, "2026-03-02 10:00:00", new="n", age="two")])
    bucket.dump(3, "2026-03-04T02:00:00", a=[event(3, "2026-03-02 11:00:00", old=None, age=3)])
    landing = landing_in(tmp_path / "lake")
    reports = land_all(landing, bucket)
    assert reports[1].new_columns == {"a": ("new",)}
    first, second = (build_event_day(landing, "a", day).frame.collect() for day in (MARCH_1, MARCH_2))
    assert first.columns[4:] == ["old", "age"]
    assert second.select("age", "age__string").rows() == [(None, "two"), (3, None)]
    asked = build_event_day(landing, "a", MARCH_1, ["new", "never", "age"]).frame.collect()
    assert asked.schema == {
        "event_id": pl.Int64(),
        "user_id": pl.Int64(),
        "session_id": pl.Int64(),
        "time": pl.Datetime("us", "UTC"),
        "new": pl.String(),
        "never": pl.String(),
        "age": pl.Int64(),
    }


def test_heaps_own_columns_are_text_whatever_a_file_says(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(1, "2026-03-02T02:00:00", a=[event(1, "2026-03-01 10:00:00", app_version=3, custom=4)])
    landing = landing_in(tmp_path / "lake")
    land_all(landing, bucket)
    assert build_event_day(landing, "a", MARCH_1).frame.collect().row(0)[4:] == ("3", 4)


def test_a_table_that_never_landed_says_why(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(1, "2026-03-02T02:00:00", a=[event(1, "2026-03-01 10:00:00")])
    bucket.file(1, "a").unlink()
    landing = landing_in(tmp_path / "lake")
    (report,) = land_all(landing, bucket)
    assert report.failed[0].failure is not None
    with pytest.raises(TableError, match=r"a has not landed: .*part-00000.*does not exist"):
        build_event_day(landing, "a", MARCH_1)
    with pytest.raises(MissingInputError, match="b is in no dump"):
        build_event_day(landing, "b", MARCH_1)
    with pytest.raises(TableError, match="build_users"):
        build_event_day(landing, "users", MARCH_1)


def test_selecting_a_table_later_lands_it_from_all_dumps(tmp_path: Path) -> None:
    from heap_assets.sources.heap_connect import Selection

    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(1, "2026-03-02T02:00:00", a=[event(1, "2026-03-01 10:00:00")], b=[event(2, "2026-03-01 10:00:00")])
    first = landing_in(tmp_path / "lake", selection=Selection(("a",)))
    land_all(first, bucket)
    assert first.tables() == ["a"]
    later = landing_in(tmp_path / "lake", selection=Selection(("*",)))
    (report,) = land_all(later, bucket)
    assert [t.table for t in report.tables] == ["b"]


def test_the_catalogue_learns_what_landed_and_keeps_what_people_wrote(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(
        1,
        "2026-03-02T02:00:00",
        sign_up=[event(1, "2026-03-01 10:00:00", ip="1.2.3.4", work_email="x")],
        users=[user(1, email="e")],
    )
    landing = landing_in(tmp_path / "lake")
    land_all(landing, bucket)
    path = tmp_path / "heap_catalogue.yaml"
    catalogue = Catalogue.load(path)
    assert set(catalogue.missing(landing).tables) == {"sign_up", "users"}
    catalogue.accept(catalogue.missing(landing)).save(path)
    catalogue = Catalogue.load(path)
    assert not catalogue.missing(landing)
    known = catalogue.tables["sign_up"]
    assert known.display_name == "Sign up"
    assert [name for name, column in known.columns.items() if column.pii] == ["ip", "work_email"]
    path.write_text(path.read_text().replace("display_name: Sign up", "display_name: Sign Up - Click"))
    bucket.dump(2, "2026-03-03T02:00:00", sign_up=[event(2, "2026-03-02 10:00:00", plan="x")])
    land_all(landing, bucket)
    catalogue = Catalogue.load(path)
    assert catalogue.missing(landing).columns == {"sign_up": ("plan",)}
    accepted = catalogue.accept(catalogue.missing(landing), ["sign_up"])
    assert accepted.tables["sign_up"].display_name == "Sign Up - Click"
    assert "plan" in accepted.tables["sign_up"].columns


ACCEPTING = """
import sys
from heap_assets.sources.heap_connect import Catalogue, Missing
print("ready", flush=True)
sys.stdin.readline()
for number in range(10):
    news = Missing({f"{sys.argv[2]}_{number}": ("event_id",)}, {})
    Catalogue.update(sys.argv[1], lambda current: current.accept(news))
"""


def test_tables_that_several_accept_at_once_are_all_taken_in(tmp_path: Path) -> None:
    path = tmp_path / "heap_catalogue.yaml"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ACCEPTING, path, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in ("a", "b")
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
    assert set(Catalogue.load(path).tables) == {f"{name}_{number}" for name in "ab" for number in range(10)}
    assert [path.name for path in tmp_path.iterdir()] == ["heap_catalogue.yaml"]


def test_files_of_one_dump_may_differ_in_their_schemas(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    files = [
        [event(1, "2026-03-01 10:00:00", plan="x", seats=1)],
        [event(2, "2026-03-01 11:00:00", plan=7, extra=True, seats=1.5)],
        [event(3, "2026-03-01 12:00:00")],
    ]
    bucket.dump(1, "2026-03-02T02:00:00", a=files)
    landing = landing_in(tmp_path / "lake")
    [report] = land_all(landing, bucket)
    assert not report.failed
    built = build_event_day(landing, "a", MARCH_1).frame.collect()
    assert built.select("event_id", "plan", "plan__long", "extra").rows() == [
        (1, "x", None, None),
        (2, None, 7, True),
        (3, None, None, None),
    ]
    seats = built.select(c for c in built.columns if c.startswith("seats"))
    assert [next((v for v in row if v is not None), None) for row in seats.rows()] == [1, 1.5, None]


def test_values_of_another_type_come_with_their_column_accepted_or_not(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(1, "2026-03-02T02:00:00", a=[event(1, "2026-03-01 10:00:00", age=1, more=1)], users=[user(1, age=1)])
    bucket.dump(
        2, "2026-03-03T02:00:00", a=[event(2, "2026-03-02 10:00:00", age="two", more=2)], users=[user(2, age="x")]
    )
    bucket.dump(3, "2026-03-04T02:00:00", a=[event(3, "2026-03-02 11:00:00", age=2.5, more="no")])
    landing = landing_in(tmp_path / "lake")
    land_all(landing, bucket)
    built = build_event_day(landing, "a", MARCH_2, ["age"])
    ages = built.frame.collect().select("event_id", "age", "age__string", "age__double")
    assert ages.rows() == [(2, None, "two", None), (3, None, None, 2.5)]
    assert "more" not in built.frame.collect_schema()
    assert built.notes["other_types"] == "age__string, age__double"
    assert build_event_day(landing, "a", MARCH_1, ["age"]).frame.collect_schema().names()[4:] == ["age"]
    users = build_users(landing, date(2026, 3, 2), ["email", "age"])
    assert users.frame.select("age", "age__string").collect().rows() == [(1, None), (None, "x")]
    assert users.notes["other_types"] == "age__string"


def test_the_catalogue_knows_columns_of_another_type(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(1, "2026-03-02T02:00:00", a=[event(1, "2026-03-01 10:00:00", age=1)])
    landing = landing_in(tmp_path / "lake")
    land_all(landing, bucket)
    catalogue = Catalogue().accept(Catalogue().missing(landing))
    bucket.dump(2, "2026-03-03T02:00:00", a=[event(2, "2026-03-02 10:00:00", age="two", new="n")])
    land_all(landing, bucket)
    missing = catalogue.missing(landing)
    assert missing.columns == {"a": ("new", "age__string")}
    assert missing.other_types == {"a": {"age__string": "age"}}
    accepted = catalogue.accept(missing)
    assert not accepted.missing(landing)
    columns = accepted.columns("a")
    assert columns is not None
    assert build_event_day(landing, "a", MARCH_2, columns).frame.collect().columns == columns


NAMES = st.sampled_from(["a", "a__long", "a__string", "a__string_", "a__double", "a__long__string"])
TYPES = st.sampled_from([pl.Int64(), pl.Float64(), pl.String(), pl.Boolean(), pl.List(pl.Int64())])


@given(st.lists(st.dictionaries(NAMES, TYPES, min_size=1), max_size=6))
def test_a_column_holds_the_values_of_one_property_only_and_all_fit(files: list[dict[str, pl.DataType]]) -> None:
    columns, held = Columns(), dict[str, str]()
    for schema in files:
        placed = columns.add(schema)
        assert len(set(placed.values())) == len(schema)
        for name, under in placed.items():
            assert widened(columns.dtypes[under], schema[name]) == columns.dtypes[under]
            assert held.setdefault(under, name) == name
            plain = under.removeprefix("property_")
            assert plain == name or origin_of(plain, [name]) == name
    assert columns.origins == {under: name for under, name in held.items() if under != name}


@given(st.lists(st.lists(st.dictionaries(NAMES, TYPES, min_size=1), min_size=1, max_size=3), max_size=4))
def test_so_does_one_of_files_that_were_put_together_dump_by_dump(
    dumps: list[list[dict[str, pl.DataType]]],
) -> None:
    table, held = Columns(), dict[str, str]()
    for files in dumps:
        dump = Columns()
        in_dump = [dump.add(schema) for schema in files]
        in_table = table.add(dump.dtypes, dump.origins)
        for schema, placed in zip(files, in_dump, strict=True):
            for name in schema:
                under = in_table[placed[name]]
                assert held.setdefault(under, name) == name
                assert widened(table.dtypes[under], schema[name]) == table.dtypes[under]


@given(st.lists(st.dictionaries(NAMES, TYPES | st.just(pl.Null()), min_size=1), min_size=1, max_size=4), st.data())
def test_a_schema_that_comes_again_is_placed_as_it_was(
    schemas: list[dict[str, pl.DataType]], data: st.DataObject
) -> None:
    order = data.draw(st.lists(st.sampled_from(schemas), max_size=8))
    dump = DumpRecord(1, "", "", datetime(2026, 3, 1, tzinfo=UTC))
    deliveries = [Delivery(dump, TableRecord("a", TableState.LANDED, schema=schema)) for schema in order]
    once, every_time = Columns(), Columns()
    assert [names for _, names in placed_in(once, deliveries)] == [every_time.add(schema) for schema in order]
    assert (once.dtypes, once.origins) == (every_time.dtypes, every_time.origins)


@pytest.mark.parametrize(
    ("order", "names"),
    [
        (["number", "both", "text"], {"text": "age__string_", "real": "age__string"}),
        (["number", "text", "both"], {"text": "age__string", "real": "property_age__string"}),
        (["mixed", "text", "both"], {"text": "age__string", "real": "property_age__string"}),
        (["both", "mixed"], {"text": "age__string_", "real": "age__string"}),
    ],
)
def test_a_property_called_like_the_values_of_another_type_shares_no_column_with_them(
    tmp_path: Path, order: list[str], names: dict[str, str]
) -> None:
    dumps = {
        "number": [{"age": 1}],
        "text": [{"age": "one"}],
        "both": [{"age": 2, "age__string": "real"}],
        "mixed": [[{"age": 3}], [{"age": "one"}]],  # two files of one dump
    }
    bucket, number = Bucket(tmp_path / "bucket"), 0
    for dump, kind in enumerate(order, 1):
        files = dumps[kind] if isinstance(dumps[kind][0], list) else [dumps[kind]]
        rows = []
        for file in files:
            number += 1
            rows.append([event(number, "2026-03-02 10:00:00", **row) for row in file])
        bucket.dump(dump, f"2026-03-{2 + dump:02}T02:00:00", a=rows)
    landing = landing_in(tmp_path / "lake")
    land_all(landing, bucket)
    built = build_event_day(landing, "a", MARCH_2, None).frame.collect()
    assert built[names["text"]].drop_nulls().unique().to_list() == ["one"]
    assert built[names["real"]].drop_nulls().to_list() == ["real"]
    catalogue = Catalogue({}).accept(Catalogue({}).missing(landing))
    assert {*names.values(), "age"} <= set(catalogue.columns("a") or ())
