"""Manifests and selections: only what a manifest names, ids as numbers, keys always."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from dump_builders import Bucket, event, landing_in, touch
from hypothesis import given
from hypothesis import strategies as st

from heap_assets.errors import SourceError
from heap_assets.sources.heap_connect import (
    Catalogue,
    FolderSource,
    ManifestError,
    Selection,
    discover,
    parse_manifest,
    preflight,
)


def test_dump_ids_are_numbers_and_other_files_are_no_manifests(tmp_path: Path) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    names = [
        "sync_9.json",
        "sync_10.json",
        "sync_010.json",
        "sync_x.json",
        "property_definitions.json",
        "sync_3.json.bak",
    ]
    for name in names:
        (folder / name).write_text("{}")
    touch(folder / "sync_10.json", "2026-01-01T00:00:00")
    touch(folder / "sync_010.json", "2026-01-02T00:00:00")
    (tmp_path / "manifests_old").mkdir()
    (tmp_path / "manifests_old" / "sync_1.json").write_text("{}")
    found = FolderSource(tmp_path).manifests()
    assert [(m.dump_id, m.key) for m in found] == [(9, "manifests/sync_9.json"), (10, "manifests/sync_010.json")]


def test_a_source_never_reads_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "bucket").mkdir()
    with pytest.raises(SourceError, match="outside"):
        FolderSource(tmp_path / "bucket").read("s3://b/../secret")


def test_two_writes_in_one_second_are_two_versions(tmp_path: Path) -> None:
    path = tmp_path / "manifests" / "sync_1.json"
    path.parent.mkdir()
    source = FolderSource(tmp_path)
    seen = set()
    for nanosecond in (1, 2, 3):
        path.write_text("{}")
        os.utime(path, ns=(10**18 + nanosecond, 10**18 + nanosecond))
        seen.add(source.manifests()[0].etag)
    assert len(seen) == 3


def test_unknown_keys_are_ignored_and_a_table_listed_twice_is_one() -> None:
    document = {
        "dump_id": "7",
        "made_up": 1,
        "property_definitions": ["anything"],
        "tables": [
            {"name": "a", "files": ["s3://b/1"], "columns": ["x"], "incremental": True, "more": {}},
            {"name": "a", "files": ["s3://b/2", "s3://b/1"], "columns": None, "incremental": False},
            {"name": "b", "files": None},
        ],
    }
    a, b = parse_manifest(json.dumps(document).encode(), "m", 7).tables
    assert (a.files, a.columns, a.incremental) == (("s3://b/1", "s3://b/2"), ("x",), False)
    assert (b.files, b.incremental) == ((), True)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "not JSON"),
        ("", "not JSON"),
        ("[]", "list"),
        ('{"dump_id": 8, "tables": []}', "dump_id 8"),
        ('{"dump_id": 7.0, "tables": []}', "dump_id 7.0"),
        ('{"dump_id": 7}', "no list of tables"),
        ('{"dump_id": "²", "tables": []}', "dump_id '²'"),
        ('{"dump_id": true, "tables": []}', "dump_id True"),
        ("[" * 100_000, "RecursionError"),
        ('{"dump_id": ' + "7" * 5_000 + "}", "not JSON"),
    ],
)
def test_a_bad_manifest_says_what_is_wrong(document: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        parse_manifest(document.encode(), "manifests/sync_7.json", 7)


@pytest.mark.parametrize(
    ("entry", "name", "problem"),
    [
        ('{"files": []}', "(table 1)", "entry 1 of tables has no name"),
        ("null", "(table 1)", "entry 1 of tables has no name"),
        ('{"name": "a", "files": [1]}', "a", "the files of table 'a' are not a list of addresses"),
        ('{"name": "a", "files": ["\\ud800"]}', "a", "not a list of addresses"),
        ('{"name": "\\ud800"}', "\\ud800", "the name of table 1 is no Unicode text"),
    ],
)
def test_a_table_that_is_listed_wrongly_stops_no_other(entry: str, name: str, problem: str) -> None:
    document = f'{{"tables": [{entry}, {{"name": "good", "files": ["f"]}}]}}'
    bad, good = parse_manifest(document.encode(), "manifests/sync_7.json", 7).tables
    assert (bad.name, bad.files, good.problem) == (name, (), None)
    assert problem in (bad.problem or "")


@given(st.binary(max_size=60))
def test_any_bytes_are_a_manifest_or_a_manifest_error(data: bytes) -> None:
    with suppress(ManifestError):
        assert parse_manifest(data, "m", 1).dump_id == 1


def test_an_unreadable_manifest_does_not_stop_the_next(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.manifest(1, "2026-03-02T02:00:00", "{broken")
    bucket.dump(2, "2026-03-03T02:00:00", a=[event(1, "2026-03-02 10:00:00")])
    landing = landing_in(tmp_path / "lake")
    first, second = [landing.land(bucket.source, m) for m in landing.pending(bucket.source)]
    assert [t.table for t in first.failed] == ["(manifest)"]
    assert second.failed == []
    assert landing.pending(bucket.source) == []
    assert landing.reports().filter(state="failed")["table"].to_list() == ["(manifest)"]
    bucket.dump(1, "2026-03-02T02:00:00", a=[event(2, "2026-03-01 10:00:00")])
    assert [landing.land(bucket.source, m).failed for m in landing.pending(bucket.source)] == [[]]


def test_keys_are_always_selected() -> None:
    selection = Selection(columns={"a*": ["x", "!xy"]})
    assert selection.chosen("abc", ["event_id", "user_id", "time", "x", "y"]) == ["event_id", "user_id", "time", "x"]
    assert selection.chosen("b", ["event_id", "y"]) == ["event_id", "y"]
    assert Selection(columns={"*": ["!pii_*"]}).chosen("a", ["time", "pii_x", "y"]) == ["time", "y"]


def test_exclusions_win_and_metadata_is_no_table() -> None:
    selection = Selection(("mg_*", "signup"), ("mg_test*",))
    names = ["mg_a", "mg_test_b", "signup", "other"]
    assert [n for n in names if selection.takes_table(n)] == ["mg_a", "signup"]
    assert selection.takes_table("users")
    assert Selection(("signup",), ("*",)).takes_table("user_migrations"), "without them nobody is identified"
    assert not Selection().takes_table("_event_metadata")
    assert Selection().takes_table("_key_events_pm__order")


def test_discover_tells_tables_columns_types_and_news(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(
        1, "2026-03-02T02:00:00", a=[event(1, "2026-03-01 10:00:00", plan="x")], b=[event(2, "2026-03-01 1:00:00")]
    )
    bucket.dump(2, "2026-03-03T02:00:00", full=["a"], a=[event(1, "2026-03-01 10:00:00", age=3)])
    bucket.manifest(3, "2026-03-04T02:00:00", "?")
    landing = landing_in(tmp_path / "lake", selection=Selection(("a",)))
    landing.land(bucket.source, 1)
    catalogue = Catalogue()
    catalogue = catalogue.accept(catalogue.missing(landing))
    found = discover(bucket.source, Selection(("a",)), catalogue)
    tables = found.tables.select("table", "dumps", "full_resyncs", "selected", "new").rows()
    assert tables == [("a", 2, 1, True, False), ("b", 1, 0, False, True)]
    assert found.tables["bytes"].min() > 0
    news = found.columns.filter("new").select("table", "column", "type").rows()
    assert ("a", "age", "long") in news
    assert ("a", "plan", None) not in news
    assert list(found.unreadable) == [3]


def test_preflight_of_a_folder(tmp_path: Path) -> None:
    assert [v.passed for v in preflight(FolderSource(tmp_path / "nowhere"))] == [False]
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(1, "2026-03-02T02:00:00", a=[event(1, "2026-03-01 10:00:00")])
    assert [v.passed for v in preflight(bucket.source)] == [True, True, True]
    bucket.file(1, "a").write_bytes(b"no avro")
    assert [v.step for v in preflight(bucket.source) if not v.passed] == ["file header"]
