"""A command whose other side is gone says so in one message and ends with status 1; it never answers from memory."""

from __future__ import annotations

import errno
import importlib
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from heap_assets import clock
from heap_assets.cli.main import main
from heap_assets.demo.server_process import running_server
from heap_assets.errors import SourceError
from heap_assets.project import load_settings
from heap_assets.project.project import open_project
from heap_assets_tests.foreign.deployment import s3_bucket, upload
from heap_assets_tests.pipelines.delivery_world import NOW, make_base
from heap_assets_tests.sources.heap_connect.dump_builders import Bucket, event
from heap_assets_tests.sources.warehouse import servers

main_module = importlib.import_module("heap_assets.cli.main")
_SETTINGS = """
start_date: 2026-01-01
lake: {lake}
heap: {{app_id: "1", source: {source}}}
identity: {{identifiers: [{{type: heap_identity}}, {{type: crm_id}}, {{type: heap_user_id, shared_above: 1}}]}}
{more}
"""
_FOLDER = "{kind: folder, path: ./bucket}"
Ran = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ran:
    """Run a command as the shell does; gives status, what it printed, and its message."""
    monkeypatch.setenv("HEAP_ASSETS_SETTINGS", str(tmp_path / "heap_assets.yaml"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["heap-assets", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def _write(folder: Path, *, lake: str = "./lake", source: str = _FOLDER, more: str = "") -> None:
    (folder / "heap_assets.yaml").write_text(_SETTINGS.format(lake=lake, source=source, more=more))


def _is_one_message(said: str) -> bool:
    return said.startswith("heap-assets: ") and said.count("\n") == 1


def test_a_warehouse(tmp_path: Path, ran: Ran) -> None:
    try:
        with servers.postgres_cluster() as address:
            tables = "{contacts: {relation: crm.contacts, key: id, identifiers: {id: crm_id}}}"
            dsn = f"dsn: 'postgresql://{address}/postgres'"
            warehouse = f"warehouse: {{kind: postgres, {dsn}, tables: {tables}}}"
            publish = f"publish: {{bi: {{kind: postgres, {dsn}, schema: pub, assets: [profiles]}}}}"
            _write(tmp_path, more=f"{warehouse}\n{publish}")
            status, printed, _ = ran("publish")
            assert (status, "unchanged" in printed) == (0, True), "nothing is built, and the target was asked"
            day = str(clock.newest_complete_day())
            open_project(load_settings()).lake.write("profiles", day, pl.DataFrame({"profile_id": ["1"]}))
            assert ran("publish")[0] == 0
            assert ran("browse")[0] == 0
            status, _, said = ran("browse", "crm.nothing")
            assert status == 2, "a name that is wrong is a mistake, not an outage"
    except servers.UnavailableError as missing:
        pytest.skip(f"{missing}: a stopped PostgreSQL was NOT tested")
    for command in (["browse"], ["browse", "crm.contacts"], ["check"]):
        status, printed, said = ran(*command)
        assert (status, printed) == (1, "")
        assert _is_one_message(said)
        assert "cannot be reached" in said
    for command in (["publish"], ["publish", "--dry-run"], ["preflight"]):
        status, printed, _ = ran(*command)
        assert (status, "unchanged" in printed, "cannot be reached" in printed) == (1, False, True)
    assets = {one["asset"]: one for one in json.loads(ran("status", "--json")[1])["assets"]}
    published = assets["publish/bi/profiles"]
    assert (published["state"], published["newest_day"], published["last"]) == ("not asked", day, "published")
    assert datetime.fromisoformat(published["last_at"]) <= datetime.now(UTC)
    assert "1 not asked" in ran("status")[1]


def test_a_bucket(tmp_path: Path, ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket(tmp_path / "made")
    bucket.dump(1, "2026-03-02T02:00:00", clicks=[event(1, "2026-03-01 10:00:00")])
    with s3_bucket() as (endpoint, client):
        upload(client, bucket.path, datetime(2026, 3, 2, 2, tzinfo=UTC))
        source = f"{{kind: s3, bucket: heap-rs3-foreign, region: us-east-1, endpoint_url: '{endpoint}'}}"
        _write(tmp_path, source=source)
        status, printed, _ = ran("discover")
        assert (status, "clicks" in printed) == (0, True)
        project = open_project(load_settings())
        assert len(project.landing.pending(project.source())) == 1
        assert "dumps      1 pending" in ran("status")[1]
        project.landing.land(project.source(), 1)
        for diff in (["catalogue", "diff"], ["catalogue", "diff", "--json"]):
            status, printed, _ = ran(*diff)
            assert (status, "clicks" in printed) == (1, True), "something was found"
        assert ran("catalogue", "accept")[0] == 0
        assert ran("catalogue", "diff")[0] == 0
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)  # between eight attempts
    status, printed, _ = ran("status")
    assert (status, "dumps      ? pending" in printed, "the source cannot be listed" in printed) == (1, True, True)
    status, printed, _ = ran("status", "--json")
    assert (status, json.loads(printed)["dumps"]["pending"]) == (1, None)
    for command in (["discover"], ["reset", "clicks", "--yes"]):
        status, printed, said = ran(*command)
        assert (status, printed) == (1, "")
        assert _is_one_message(said)
    assert project.landing.days("clicks"), "what could not land again is not forgotten"
    with pytest.raises(SourceError, match="heap-rs3-foreign"):
        project.landing.pending(project.source())


def test_a_lake(tmp_path: Path, ran: Ran) -> None:
    with s3_bucket() as (endpoint, _):
        options = f"{{aws_endpoint_url: '{endpoint}', aws_region: us-east-1}}"
        _write(tmp_path, lake=f"{{url: 's3://heap-rs3-foreign/lake', options: {options}}}")
        assert ran("catalogue", "diff")[0] == 0
        (tmp_path / "bucket/manifests").mkdir(parents=True)
        status, printed, _ = ran("preflight")
        assert (status, "ok     lake: writing" in printed) == (0, True)
    status, printed, said = ran("catalogue", "diff")
    assert (status, printed) == (1, "")
    assert _is_one_message(said)
    assert "the lake cannot be reached" in said
    status, printed, _ = ran("preflight")
    assert (status, "FAILED lake: writing" in printed) == (1, True)


def _refused_by_polars() -> None:
    options = {"aws_endpoint_url": "http://127.0.0.1:9", "aws_region": "us-east-1", "allow_http": "true"}
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "y"}
    retries = {"max_retries": 0, "retry_timeout_ms": 100}
    pl.scan_parquet("s3://b/x.parquet", storage_options={**options, **keys, **retries}).collect()


def _on_a_full_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/lake/heap/users/.tmp-1")


@pytest.mark.parametrize(
    ("act", "reason"),
    [(_refused_by_polars, "the lake cannot be reached"), (_on_a_full_disk, "No space left on")],
)
def test_what_fails_below_a_command_is_one_message(
    ran: Ran, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None], reason: str
) -> None:
    monkeypatch.setattr(main_module, "_group", lambda **_: act())
    status, printed, said = ran("rejected")
    assert (status, printed) == (1, "")
    assert _is_one_message(said)
    assert reason in said


def test_a_dump_that_its_source_has_no_more_is_not_forgotten(tmp_path: Path, ran: Ran) -> None:
    bucket = Bucket(tmp_path / "bucket")
    for dump in (1, 2):
        bucket.dump(dump, f"2026-03-0{dump + 1}T02:00:00", clicks=[event(dump, f"2026-03-0{dump} 10:00:00")])
    _write(tmp_path)
    project = open_project(load_settings())
    for dump in (1, 2):
        project.landing.land(project.source(), dump)
    (bucket.path / "manifests/sync_1.json").unlink()
    status, printed, said = ran("reset", "clicks", "--yes")
    assert (status, printed) == (1, "")
    assert "no longer has the dump 1: rows of clicks that stand would be lost" in said
    assert len(project.landing.days("clicks")) == 2


@pytest.mark.parametrize("there", [False, True], ids=["no folder", "an empty folder"])
def test_the_folder_of_a_disk_that_is_not_mounted(tmp_path: Path, ran: Ran, there: bool) -> None:
    _write(tmp_path, more="sync: {heap_user_properties: {properties: {Seen: first_seen}}}")
    (tmp_path / "bucket").mkdir()
    if there:
        (tmp_path / "lake").mkdir()
    sync = "heap_user_properties"
    for line in (
        *("catalogue accept", "rejected", "usage", "prune", "prune --dry-run"),
        *(f"sync {act} {sync}" for act in ("plan", "run", "retry", "runs", "rejected", "resend --yes")),
        f"sync forget --yes {sync} ann@acme.test",
    ):
        status, printed, said = ran(*line.split())
        assert (status, printed) == (2, ""), line
        assert _is_one_message(said)
        assert "there is no lake in" in said
    assert "there is no lake in" in ran("catalogue", "diff")[2]
    assert not list((tmp_path / "lake").glob("*"))


def test_a_lake_with_options_that_its_library_does_not_know(tmp_path: Path, ran: Ran) -> None:
    _write(tmp_path, lake="{url: 's3://bucket/lake', options: {aws_region: us-east-1, aws_allow_http: 'true'}}")
    status, _, said = ran("catalogue", "diff")
    assert status == 2
    assert "cannot be opened with these options: aws_region, aws_allow_http" in said


def test_a_destination(tmp_path: Path, ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEAP_ASSETS_NOW", NOW)
    base = make_base(tmp_path / "base")
    with running_server("heap", tmp_path / "heap", arguments=["--app-id", "11"]) as heap:
        world = base.copy(tmp_path / "world", "heap_user_properties: {properties: {Plan: plan}}", heap.base_url)
        monkeypatch.setenv("HEAP_ASSETS_SETTINGS", str(world.folder / "heap_assets.yaml"))
    status, printed, _ = ran("sync", "run", "heap_user_properties")
    assert status == 1
    assert "stopped, 0 sent" in printed
