"""A landing that stops half way: what no record says landed is pending, and every failure is told without a value."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from dump_builders import START, Bucket, Clock, event, land_all, landing_in

from heap_assets.errors import DamagedFileError, SourceError
from heap_assets.sources.heap_connect import FolderSource, Landing, LandingConfig, Selection, build_event_day
from heap_assets.sources.heap_connect.records import TableState
from heap_assets.sources.heap_connect.sources import _log_skipped_manifest
from heap_assets.storage import Store

TABLES = [f"t{number:02d}" for number in range(12)]


class Stopped(KeyboardInterrupt):
    """Ends a landing as a signal does."""


class StoppingSource(FolderSource):
    """Stops when it is asked for a file of one table."""

    def __init__(self, path: Path, table: str, error: BaseException) -> None:
        super().__init__(path)
        self.table, self.error = table, error

    def fetch(self, uri: str, target: Path, etag: str) -> Path:
        if f"/{self.table}/" in uri:
            raise self.error
        return super().fetch(uri, target, etag)


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    made = Bucket(tmp_path / "bucket")
    rows = {name: [event(n, "2026-03-01 10:00:00")] for n, name in enumerate(TABLES, 1)}
    made.dump(1, "2026-03-02T02:00:00", **rows)
    return made


def record_path(lake: Path) -> Path:
    [path] = lake.rglob("_dumps/*.json")
    return path


def test_tables_that_a_stopped_landing_did_not_come_to_are_pending(bucket: Bucket, tmp_path: Path) -> None:
    stopping = StoppingSource(bucket.path, "t06", Stopped())
    with pytest.raises(Stopped):
        landing_in(tmp_path / "lake", workers=1).land(stopping, 1)
    landing = landing_in(tmp_path / "lake")
    assert landing.tables() == TABLES[:6]
    assert [manifest.dump_id for manifest in landing.pending(bucket.source)] == [1]
    [report] = land_all(landing, bucket)
    assert [table.table for table in report.tables] == TABLES[6:]
    assert landing.tables() == TABLES
    assert landing.pending(bucket.source) == []


def test_a_manifest_written_anew_is_pending_until_its_last_table_landed(bucket: Bucket, tmp_path: Path) -> None:
    landing = landing_in(tmp_path / "lake", workers=1)
    land_all(landing, bucket)
    rows = {name: [event(n, "2026-03-01 11:00:00")] for n, name in enumerate(TABLES, 100)}
    bucket.dump(1, "2026-03-02T03:00:00", **rows)
    with pytest.raises(Stopped):
        landing.land(StoppingSource(bucket.path, "t06", Stopped()), 1)
    again = landing_in(tmp_path / "lake", recheck_dumps=0)
    land_all(again, bucket)
    ids = [build_event_day(again, name, START.replace(month=3)).frame.collect()["event_id"].item() for name in TABLES]
    assert ids == list(range(100, 112))


def test_records_of_former_versions_that_lack_tables_heal_by_themselves(bucket: Bucket, tmp_path: Path) -> None:
    landing = landing_in(tmp_path / "lake")
    land_all(landing, bucket)
    path = record_path(tmp_path / "lake")
    record = json.loads(path.read_bytes())
    del record["outstanding"], record["unannounced"]
    path.write_text(json.dumps(record))
    complete = landing_in(tmp_path / "lake")
    assert complete.pending(bucket.source) == []
    assert json.loads(path.read_bytes())["outstanding"] == [], "the manifest is read once"

    del record["tables"][3:]
    path.write_text(json.dumps(record))
    healed = landing_in(tmp_path / "lake")
    [report] = land_all(healed, bucket)
    assert [table.table for table in report.tables] == TABLES[3:]
    assert healed.tables() == TABLES


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("ann@example.com"), "RuntimeError"),
        (MemoryError("ann@example.com"), r"MemoryError \(memory ran out\)"),
        (OSError(errno.ENOSPC, "ann@example.com"), r"OSError \(No space left on device\)"),
        (pl.exceptions.ComputeError("ann@example.com"), r"polars.exceptions.ComputeError"),
        (pl.exceptions.PanicException("ann@example.com"), r"PanicException"),
    ],
)
def test_an_error_that_nobody_expected_ends_one_table(
    bucket: Bucket, tmp_path: Path, error: BaseException, told: str
) -> None:
    clock = Clock()
    landing = landing_in(tmp_path / "lake", clock=clock)
    report = landing.land(StoppingSource(bucket.path, "t06", error), 1)
    [failed] = report.failed
    assert failed.failure is not None
    assert re.search(rf"landing stopped with .*{told}.* at sources/heap_connect/", failed.failure.reason)
    assert "ann@example.com" not in str(landing.reports().to_dicts())
    assert landing.tables() == [name for name in TABLES if name != "t06"]
    assert landing.pending(bucket.source) == []
    clock.forward(minutes=6)
    land_all(landing, bucket)
    assert landing.tables() == TABLES


def test_days_are_reported_until_somebody_says_that_they_were_passed_on(bucket: Bucket, tmp_path: Path) -> None:
    landing = landing_in(tmp_path / "lake", workers=1)
    with pytest.raises(Stopped):
        landing.land(StoppingSource(bucket.path, "t06", Stopped()), 1, confirm_later=True)
    report = landing.land(bucket.source, 1, confirm_later=True)
    assert set(report.touched) == set(TABLES), "also days of tables that landed before the stop"
    assert [manifest.dump_id for manifest in landing.pending(bucket.source)] == [1]
    again = landing.land(bucket.source, 1, confirm_later=True)
    assert (again.tables, again.touched) == ([], report.touched)
    landing.confirm(1, again.touched)
    assert landing.pending(bucket.source) == []


def test_a_damaged_record_is_named_and_its_dump_lands_anew(
    bucket: Bucket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bucket.dump(2, "2026-03-03T02:00:00", other=[event(99, "2026-03-02 10:00:00")])
    land_all(landing_in(tmp_path / "lake"), bucket)
    path = next((tmp_path / "lake").rglob("_dumps/*1.json"))
    path.write_bytes(path.read_bytes()[:500])
    landing = landing_in(tmp_path / "lake")
    assert landing.tables() == ["other"]
    assert landing.damaged_records() == [str(path)]
    assert str(path) in caplog.text
    assert [manifest.dump_id for manifest in landing.pending(bucket.source)] == [1]
    land_all(landing, bucket)
    assert landing.tables() == sorted([*TABLES, "other"])
    assert landing.damaged_records() == []


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch, *, after: int) -> Iterator[None]:
    """Let every write of a record fail after the first ones."""
    update, calls = Store.update, iter(range(10_000))

    def _update(self: Store, key: str, change: Callable[[bytes | None], bytes | None]) -> None:
        if next(calls) >= after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        update(self, key, change)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "update", _update)
        yield


def test_a_landed_part_in_which_a_bit_was_flipped_is_named(bucket: Bucket, tmp_path: Path) -> None:
    landing = landing_in(tmp_path / "lake")
    land_all(landing, bucket)
    day = date(2026, 3, 1)
    assert build_event_day(landing, "t03", day).frame.collect().height == 1
    [part] = [path for path in (tmp_path / "lake").rglob("*.parquet") if "/t03/" in str(path)]
    whole = part.read_bytes()
    for at in (5, len(whole) // 2, len(whole) - 30):
        part.write_bytes(whole[:at] + bytes([whole[at] ^ 8]) + whole[at + 1 :])
        os.utime(part, (at, at))
        with pytest.raises(DamagedFileError, match=f"{part} is damaged.*heap-assets reset"):
            build_event_day(landing, "t03", day).frame.collect()
    assert build_event_day(landing, "t04", day).frame.collect().height == 1
    landing.reset("t03")
    land_all(landing, bucket)
    assert build_event_day(landing, "t03", day).frame.collect().height == 1


@pytest.mark.parametrize("after", [0, 1])
def test_a_record_that_cannot_be_written_leaves_its_dump_pending(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    landing = landing_in(tmp_path / "lake")
    with full_disk(monkeypatch, after=after), pytest.raises(OSError, match="No space left"):
        landing.land(bucket.source, 1)
    assert [manifest.dump_id for manifest in landing.pending(bucket.source)] == [1]
    land_all(landing, bucket)
    assert landing.tables() == TABLES


def test_two_landings_of_one_dump_lose_nothing_of_each_other(bucket: Bucket, tmp_path: Path) -> None:
    both = [Landing(Store(str(tmp_path / "lake")), LandingConfig(START, Selection((half,)))) for half in ("t0*", "t1*")]
    records = [landing.records() for landing in both]
    assert records == [{}, {}]
    for landing in both:
        landing.land(bucket.source, 1)
    states = {name: table.state for name, table in both[0].records()[1].tables.items()}
    assert states == dict.fromkeys(TABLES, TableState.LANDED)


@pytest.mark.parametrize(
    "table", ["_dumps", "..", ".", "a/../../b", "x" * 300, "a\x00b", "Sign Up", "café", "a#b", ".tmp-x"]
)
def test_a_table_may_be_called_anything(tmp_path: Path, table: str) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(1, "2026-03-02T02:00:00", plain=[event(1, "2026-03-01 10:00:00")])
    document = json.loads((bucket.path / "manifests/sync_1.json").read_text())
    document["tables"].append({**document["tables"][0], "name": table})
    bucket.manifest(1, "2026-03-02T02:00:00", document)
    landing = landing_in(tmp_path / "lake")
    land_all(landing, bucket)
    again = landing_in(tmp_path / "lake")
    assert again.tables() == sorted(["plain", table])
    assert build_event_day(again, table, START.replace(month=3)).frame.collect()["event_id"].to_list() == [1]
    assert {path.name for path in tmp_path.iterdir()} == {"bucket", "lake"}
    assert again.pending(bucket.source) == []


@pytest.mark.parametrize("dump_id", [0, 2**63 - 1])
def test_the_smallest_and_the_largest_dump_land_beside_others(tmp_path: Path, dump_id: int) -> None:
    bucket = Bucket(tmp_path / "bucket")
    bucket.dump(5, "2026-03-02T02:00:00", a=[event(1, "2026-03-01 10:00:00")], full=[])
    bucket.dump(dump_id, "2026-03-03T02:00:00", a=[event(1, "2026-03-01 10:00:00"), event(2, "2026-03-01 10:00:00")])
    landing = landing_in(tmp_path / "lake")
    assert not any(report.failed for report in land_all(landing, bucket))
    assert build_event_day(landing, "a", START.replace(month=3)).frame.collect()["event_id"].to_list() == [1, 2]
    assert landing.index()["dump_id"].to_list() == sorted([5, dump_id])


@pytest.mark.parametrize("name", ["sync_²", "sync_9223372036854775808", f"sync_{'7' * 200}", "sync_-1", "sync_1e3"])
def test_a_manifest_without_a_dump_number_stops_no_other(
    bucket: Bucket, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    _log_skipped_manifest.cache_clear()  # it is logged once a process
    (bucket.path / f"manifests/{name}.json").write_text("{}")
    landing = landing_in(tmp_path / "lake")
    assert [manifest.dump_id for manifest in landing.pending(bucket.source)] == [1]
    assert ascii(name)[1:-1] in caplog.text


def test_a_manifest_that_cannot_be_looked_at_stops_no_other(bucket: Bucket, tmp_path: Path) -> None:
    path = bucket.path / "manifests/sync_2.json"
    path.symlink_to("x" * 300)  # longer than a name may be
    landing = landing_in(tmp_path / "lake")
    good, bad = [landing.land(bucket.source, manifest) for manifest in landing.pending(bucket.source)]
    assert (good.dump_id, good.failed) == (1, [])
    [failure] = [table.failure for table in bad.failed]
    assert failure is not None
    assert "manifests/sync_2.json" in failure.reason
    path.unlink()
    bucket.dump(2, "2026-03-03T02:00:00", t00=[event(20, "2026-03-02 10:00:00")])
    [report] = land_all(landing, bucket)
    assert (report.dump_id, str(report.as_of)[:10], report.failed) == (2, "2026-03-03", [])


def test_a_source_that_has_nothing_any_more_is_not_one_from_which_all_has_landed(
    bucket: Bucket, tmp_path: Path
) -> None:
    landing = landing_in(tmp_path / "lake")
    land_all(landing, bucket)
    assert landing.pending(bucket.source) == []
    (bucket.path / "manifests").rename(tmp_path / "unmounted")
    for ask in (landing.pending, landing.waiting):
        with pytest.raises(SourceError, match="has no dump any more, though 1 landed from it"):
            ask(bucket.source)


def test_a_folder_of_manifests_that_may_not_be_read_is_not_an_empty_one(bucket: Bucket) -> None:
    code = (
        "import os, sys; from pathlib import Path; from heap_assets.sources.heap_connect import FolderSource; "
        "os.getuid() or os.setuid(65534); FolderSource(Path(sys.argv[1])).manifests()"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(bucket.path, folder / "bucket")
        (folder / "bucket/manifests").chmod(0o311)
        done = subprocess.run([sys.executable, "-c", code, str(folder / "bucket")], capture_output=True, text=True)
        (folder / "bucket/manifests").chmod(0o755)
    assert "SourceError: listing manifests/ in folder" in done.stderr
    assert "Permission denied" in done.stderr


def test_a_time_of_modification_that_no_calendar_has_stops_its_own_dump_alone(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        bucket = Bucket(Path(folder))
        for dump in (1, 2):
            bucket.dump(dump, f"2026-03-0{dump + 1}T02:00:00", a=[event(dump, f"2026-03-0{dump} 10:00:00")])
        path = bucket.path / "manifests/sync_1.json"
        os.utime(path, (0, 1 << 40))
        if path.stat().st_mtime < 1 << 40:
            pytest.skip("this file system keeps no such times")
        landing = landing_in(tmp_path / "lake")
        bad, good = [landing.land(bucket.source, manifest) for manifest in landing.pending(bucket.source)]
        assert (good.dump_id, good.failed) == (2, [])
        assert "manifests/sync_1.json: its time of modification" in str(bad.failed[0].failure)


@pytest.mark.parametrize(
    "uri", ["../../etc/passwd", "/etc/passwd", "a\x00b", "x" * 5000, "loop", "s3://other/../../etc/passwd"]
)
def test_an_address_that_leads_nowhere_fails_its_table(bucket: Bucket, tmp_path: Path, uri: str) -> None:
    (bucket.path / "loop").symlink_to(bucket.path / "loop")
    document = json.loads((bucket.path / "manifests/sync_1.json").read_text())
    document["tables"][6]["files"] = [uri]
    bucket.manifest(1, "2026-03-02T02:00:00", document)
    landing = landing_in(tmp_path / "lake")
    [report] = land_all(landing, bucket)
    [failed] = report.failed
    assert failed.table == "t06"
    assert failed.failure is not None
    assert not any(ord(c) < 32 for c in failed.failure.reason)
    assert landing.tables() == [name for name in TABLES if name != "t06"]
