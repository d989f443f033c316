"""Commands that only look leave no trace: not in a lake, not beside it, and not where there is no lake yet."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import dagster as dg
import pytest
from click.testing import CliRunner

from heap_assets.cli.main import _group as commands
from heap_assets.errors import HeapAssetsError
from heap_assets_tests.orchestration.company_platform import ROOT, World

READING = (
    "check",
    "preflight",
    "discover",
    "browse",
    "browse crm.contacts",
    "catalogue diff",
    "rejected",
    "usage",
    "rows profiles unique_keys",
    "rows sync/heap_user_properties --key 0123456789abcdef",
    "explain email:nobody@acme.test",
    "what-if email=1..2",
    "review --json",
    "model",
    "query",
    "query adoption",
    "query activation --sql",
    "signal list",
    "signal template",
    "signal preview browsing",
    "audience size",
    "audience explain hesitating_leads",
    "audience what-if hesitating_leads events[0].count.gte=1,2",
    "function test clean.js --table pageviews --day 2026-11-01",
    "prune --dry-run",
    "sync plan heap_user_properties",
    "sync plan heap_events --json",
    "sync runs heap_user_properties",
    "sync kinds",
    "sync kinds webhook",
    "sync rejected heap_user_properties",
    "sync check heap_user_properties",
    "sync why heap_user_properties ann@x.example",
    "sync qa heap_user_properties ann@x.example",
    "publish --dry-run",
    "erase list",
    "keys",
    "mask",
    "findings",
    "person shared",
    "person shared email:nobody@acme.test",
    "erase show er-2026-01-01-0",
    "erase proof er-2026-01-01-0",
    "sql",
    "sql select(1)",
    "status",
    "status --all --json",
    "docs --check",
    "labels diff file file",
    "labels plan production",
    "diff heap_assets.yaml",
    "schema --out -",
    "completion bash",
)
REPORTS = ("usage", "prune", "status", "sync plan", "check")
"""Commands whose JSON is one object: of several parts."""
AS_JSON = (
    *("preflight", "discover", "browse", "browse crm", "browse crm.contacts", "catalogue diff", "rejected", "usage"),
    *("what-if email=1..2", "prune --dry-run", "sync plan heap_user_properties", "sync runs heap_user_properties"),
    *(
        "sync kinds",
        "sync kinds webhook",
        "sync rejected heap_user_properties",
        "sql",
        "sql select(1)one",
        "erase list",
    ),
    *("sql select(timestamptz'2026-11-20T01:00:00+01:00')moment", "status", "check"),
)
WRITING = {
    *("bi", "init", "report", "reset", "demo", "dev", "live", "warm", "catalogue accept", "decide", "function new"),
    *("labels apply", "labels pull"),
    *("sync run", "sync confirm", "sync retry", "sync resend", "sync forget"),
    *("person export", "erase request", "erase confirm", "erase cancel", "erase run", "erase lift"),
}


def _leaves(group: click.Group, above: str = "") -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _leaves(command, f"{above}{name} ")
        else:
            yield f"{above}{name}"


def _tree(*folders: Path) -> dict[Path, tuple[int, int]]:
    """Return every file and folder with its size and time of last change."""
    found = {path: path.stat() for folder in folders for path in [folder, *folder.rglob("*")]}
    return {path: (told.st_size, told.st_mtime_ns) for path, told in found.items()}


def _contents(folder: Path) -> dict[Path, bytes]:
    """Return what every file holds: SQLite makes files beside a database while it is open, and removes them."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _typed(line: str) -> str:
    """Type a command; it may say that something is missing, but must not end in a traceback."""
    done = CliRunner().invoke(commands, line.split())
    if done.exception is not None and not isinstance(done.exception, SystemExit | HeapAssetsError):
        raise done.exception
    return done.stdout


@pytest.fixture
def settings(resolved: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the settings of the company, whose lake is still to be named, in a folder that is the current one."""
    text = (ROOT / "heap_assets.yaml").read_text().replace("${HEAP_ASSETS_DEMO:-./data/demo}/lake", "LAKE")
    assert "LAKE" in text
    (tmp_path / "heap_assets.yaml").write_text(text)
    shutil.copy(ROOT / "heap_catalogue.yaml", tmp_path)
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "clean.js").write_text("export default function transform(row) { return row; }")
    monkeypatch.setenv("HEAP_ASSETS_DEMO", str(resolved.company.folder))
    monkeypatch.delenv("HEAP_ASSETS_SETTINGS", raising=False)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "heap_assets.yaml"


def test_every_command_is_known_to_read_or_to_write() -> None:
    reading = {leaf for leaf in _leaves(commands) if any(line.split(" -")[0].startswith(leaf) for line in READING)}
    assert reading | WRITING == set(_leaves(commands))


def test_commands_that_read_make_no_lake(settings: Path, resolved: World) -> None:
    settings.write_text(settings.read_text().replace("LAKE", str(settings.parent / "deep" / "lake")))
    before = _tree(settings.parent, resolved.company.folder)
    for line in READING:
        _typed(line)
        assert _tree(settings.parent, resolved.company.folder) == before, line


def test_commands_that_read_change_nothing_in_a_lake(
    settings: Path, resolved: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Path(resolved.project.lake.store.url)
    settings.write_text(settings.read_text().replace("LAKE", str(lake)))
    home = settings.parent.with_name("home")
    home.mkdir()
    shutil.copy(ROOT / "dagster.yaml", home)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("profiles"))
    before, stored = _tree(settings.parent, lake, resolved.company.folder), _contents(home)
    for line in READING:
        told = _typed(line)
        if not line.startswith(("docs", "publish", "explain", "erase show", "erase proof", "labels")):
            assert told, line
        assert _tree(settings.parent, lake, resolved.company.folder) == before, line
        assert _contents(home) == stored, line
    stands = {one["asset"]: one["state"] for one in json.loads(_typed("status --json"))["assets"]}
    assert stands["profiles"] in ("ok", "not judged")


def test_json_is_a_list_of_objects_or_of_a_report_one_object(settings: Path, resolved: World) -> None:
    lake = Path(resolved.project.lake.store.url)
    settings.write_text(settings.read_text().replace("LAKE", str(lake)))
    listed: dict[str, list[dict[str, object]]] = {}
    for line in AS_JSON:
        printed = json.loads(_typed(f"{line} --json"))
        if line.startswith(REPORTS):
            assert isinstance(printed, dict), line
            continue
        assert all(isinstance(row, dict) for row in printed), line
        listed[line] = printed
    assert {"dataset", "tables"} == listed["browse"][0].keys()
    assert type(listed["browse"][0]["tables"]) is int
    assert [row["column"] for row in listed["browse crm.contacts"]][:1] == ["contact_id"]
    assert all(type(table["bytes"]) is int and table["columns"] for table in listed["discover"])
    assert listed["sql select(1)one"] == [{"one": 1}]
    assert {"table": "heap.pageviews"} in listed["sql"]
    [moment] = listed["sql select(timestamptz'2026-11-20T01:00:00+01:00')moment"]
    assert datetime.fromisoformat(str(moment["moment"])) == datetime(2026, 11, 20, tzinfo=UTC)


def test_diff_ends_with_status_1_only_if_asked_to_and_something_would_change(settings: Path, resolved: World) -> None:
    settings.write_text(settings.read_text().replace("LAKE", resolved.project.lake.store.url))
    other = settings.with_name("other.yaml")
    other.write_text(settings.read_text().replace("type: email, max_per_profile: 3", "type: email, max_per_profile: 1"))
    assert other.read_text() != settings.read_text()
    statuses = {}
    for file, options in ((settings, "--exit-code"), (other, "--exit-code"), (other, "--json")):
        done = CliRunner().invoke(commands, ["diff", str(file), options])
        statuses[file.name, options] = done.exit_code
    assert statuses == {
        (settings.name, "--exit-code"): 0,
        ("other.yaml", "--exit-code"): 1,
        ("other.yaml", "--json"): 0,
    }
    assert isinstance(json.loads(done.stdout), dict)
