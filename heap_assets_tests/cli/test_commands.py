"""The command line on real files: in a process of its own, or in this one where only what is said matters."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import click
import polars as pl
import pytest
from click.testing import CliRunner

from heap_assets.cli.main import _group as commands
from heap_assets.demo import Company, write_company
from heap_assets.errors import HeapAssetsError
from heap_assets.project import load_settings
from heap_assets.project.project import Project, open_project
from heap_assets.storage import Lake
from heap_assets_tests.sources.heap_connect.dump_builders import Bucket, event

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Company:
    return write_company(
        tmp_path_factory.mktemp("co"), people=40, days=4, seed=2, until=datetime.now(UTC).date() - timedelta(days=1)
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "heap_assets.yaml", tmp_path)
    shutil.copy(ROOT / "heap_catalogue.yaml", tmp_path)
    return tmp_path


def heap_assets(folder: Path, company: Company, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(folder, *arguments, HEAP_ASSETS_DEMO=str(company.folder))


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    environment.pop("HEAP_ASSETS_SETTINGS", None)
    command = [sys.executable, "-m", "heap_assets.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


Typed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Typed:
    """The same without a process, which takes seconds to import what it needs."""

    def call(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(folder)
        monkeypatch.delenv("HEAP_ASSETS_SETTINGS", raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        done = CliRunner().invoke(commands, list(arguments))
        if isinstance(done.exception, HeapAssetsError):  # what `main` ends with its message and status 2
            return subprocess.CompletedProcess([], 2, done.stdout, str(done.exception))
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return subprocess.CompletedProcess([], done.exit_code, done.stdout, done.stderr)

    return call


def test_init_writes_a_file_that_says_what_is_still_missing(tmp_path: Path, company: Company, typed: Typed) -> None:
    written = heap_assets(tmp_path, company, "init")
    assert written.returncode == 0, written.stderr
    assert (tmp_path / "heap_assets.yaml").is_file()
    checked = typed(tmp_path, "check")
    assert checked.returncode == 2
    assert "heap.app_id needs the environment variable HEAP_APP_ID" in checked.stderr
    understood = typed(tmp_path, "check", HEAP_APP_ID="1").stdout
    assert "no event table is known yet: `heap-assets dev` takes in what the source holds" in understood
    again = typed(tmp_path, "init")
    assert again.returncode == 2
    assert "--force" in again.stderr


def test_check_prints_what_was_understood(folder: Path, company: Company) -> None:
    result = heap_assets(folder, company, "check")
    assert result.returncode == 0, result.stderr
    for part in ("environment 2463913201", "crm_contacts", "crm.contacts by contact_id", "heap_user_properties: Plan"):
        assert part in result.stdout
    assert (
        '{"user_properties": {"deal_stage": {"exists": true}}, "events": [{"type": "pageviews", "count": {"gte": 3}'
        in (result.stdout)
    )
    [first, second] = re.findall(r"^  (?:crm_contacts|product_users) +", result.stdout, re.MULTILINE)
    assert len(first) == len(second), "columns are aligned"


@pytest.mark.parametrize(
    ("wrong", "right", "parts"),
    [
        ("{contact_id: crm_id, email: email}", "{contactid: crm_id}", ["crm_contacts", "'contactid'", "'contact_id'"]),
        ("[billing_customers.plan]", "[billing_customers.plann]", ["profiles.traits.plan.from[0]", "'plan'"]),
        (
            "from: [billing_customers.plan], choose: newest",
            "from: [billing_customers.plan], choose: sum",
            ["profiles.traits.plan.choose is 'sum', which needs a number; billing_customers.plan holds a text"],
        ),
        ("Health: health", "Health: helth", ["sync.heap_account_properties.properties.Health is 'helth'", "'health'"]),
        ("event_key: ticket_id", "event_key: ticketid", ["sync.heap_events.event_key", "'ticket_id'"]),
        (
            "  segment_identify:\n",
            "  segment_track: {write_key: k, url: http://localhost, properties: {Path: paht}}\n  segment_identify:\n",
            ["sync.segment_track.properties.Path is 'paht'", "pageviews"],
        ),
        (
            "  segment_identify:\n",
            "  segment_track: {write_key: k, url: http://localhost, tracking_plan: plan.json}\n  segment_identify:\n",
            ["sync.segment_track", "plan.json", "does not exist"],
        ),
        ("  segment_identify:\n", "  custom: {destination: acme}\n  segment_identify:\n", ["'acme' is not known"]),
        ("relation: crm.accounts", "relation: crm.acounts", ["crm_accounts", "crm.acounts", "crm.accounts"]),
    ],
)
def test_check_names_a_column_that_the_table_does_not_have(
    folder: Path, company: Company, typed: Typed, wrong: str, right: str, parts: list[str]
) -> None:
    file = folder / "heap_assets.yaml"
    text = file.read_text()
    assert wrong in text
    file.write_text(text.replace(wrong, right))
    result = typed(folder, "check", HEAP_ASSETS_DEMO=str(company.folder))
    assert result.returncode == 2
    assert all(part in result.stderr for part in parts), result.stderr


def test_check_passes_in_a_new_lake_and_says_what_it_could_not_judge(
    folder: Path, company: Company, typed: Typed
) -> None:
    file = folder / "heap_assets.yaml"
    forward = "  segment_track: {write_key: k, url: http://localhost, properties: {Path: path}}\n  segment_identify:\n"
    file.write_text(file.read_text().replace("  segment_identify:\n", forward))
    (folder / "heap_catalogue.yaml").unlink()
    result = typed(folder, "check", HEAP_ASSETS_DEMO=str(company.folder))
    assert result.returncode == 0, result.stderr
    assert "no event table is known yet: whether Heap has what is asked for (" in result.stdout
    assert "sync.segment_track) shows with the first dump" in result.stdout


def test_preflight_discover_and_browse_say_what_there_is(folder: Path, company: Company, typed: Typed) -> None:
    tried = heap_assets(folder, company, "preflight")
    assert tried.returncode == 0, tried.stdout + tried.stderr
    assert "newest manifest" in tried.stdout
    assert "the database is empty" not in tried.stdout, "what would mend a failure is said of failures only"
    typed = partial(typed, HEAP_ASSETS_DEMO=str(company.folder))
    tables = [line.split()[:2] for line in typed(folder, "discover").stdout.splitlines()]
    assert ["pageviews", "event"] in tables, "a table is one line, whatever the width of the terminal"
    assert "crm" in typed(folder, "browse").stdout
    missed = typed(folder, "browse", "crn")
    assert (missed.returncode, missed.stdout) == (2, "")
    assert "no dataset 'crn'. There are: billing, crm, product, support" in missed.stderr
    browsed = typed(folder, "browse", "crm.contacts")
    assert "relation: crm.contacts" in browsed.stdout
    assert "email" in browsed.stdout
    assert re.search(r"^sampled: \d+ rows read$", browsed.stderr, re.MULTILINE)


def test_questions_before_anything_was_built_say_what_to_do(folder: Path, company: Company, typed: Typed) -> None:
    asked = typed(folder, "explain", "email:ann@acme.io", HEAP_ASSETS_DEMO=str(company.folder))
    assert asked.returncode == 2
    assert "materialize the identity group first" in asked.stderr


def test_the_demo_is_not_played_with_somebodys_own_settings(tmp_path: Path, typed: Typed) -> None:
    own = "start_date: 2026-01-01\nlake: ./lake\nheap: {app_id: '1', source: {kind: s3, bucket: heap-rs3-acme}}\n"
    (tmp_path / "heap_assets.yaml").write_text(own + "identity: {identifiers: [{type: heap_user_id}]}\n")
    for arguments in (["demo"], ["demo", "--faults"]):
        refused = typed(tmp_path, *arguments)
        assert refused.returncode == 2
        assert "is not the demo's" in refused.stderr
    named = typed(tmp_path, "demo", HEAP_ASSETS_SETTINGS=str(tmp_path / "mine.yaml"))
    assert named.returncode == 2
    assert "mine.yaml does not exist, and $HEAP_ASSETS_SETTINGS names it" in named.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heap_assets.yaml"]


def test_what_cannot_be_landed_is_shown_with_file_block_and_reason(folder: Path, tmp_path: Path, typed: Typed) -> None:
    bucket = Bucket(tmp_path / "company" / "bucket")
    bad = event(2, "2026-11-20 10:00:00") | {"time": "yesterday"}
    bucket.dump(
        1, "2026-11-21T01:00:00", clicks=[event(1, "2026-11-20 10:00:00"), bad], broken=[event(3, "2026-11-20")]
    )
    broken = bucket.file(1, "broken")
    broken.write_bytes(broken.read_bytes()[:-20])
    settings = (
        "start_date: 2026-01-01\nlake: ./lake\nheap: {app_id: '1', source: {kind: folder, path: ./company/bucket}}\n"
    )
    (folder / "heap_assets.yaml").write_text(settings + "identity: {identifiers: [{type: heap_user_id}]}\n")
    there = open_project(load_settings(folder / "heap_assets.yaml"))
    there.landing.land(there.source(), 1)

    shown = typed(folder, "rejected").stdout

    [file] = [line for line in shown.splitlines() if line.startswith("broken")]
    assert f"{broken.name}  0 " in " ".join(file.split(" ")), file
    assert "cut short" in file
    assert "clicks  time is not a time  1" in shown
    assert "yesterday" not in shown, "values are personal data: on request only"
    assert "yesterday" in typed(folder, "rejected", "clicks", "--content").stdout

    used = typed(folder, "usage").stdout
    assert re.match(r"\d{4}-\d{2}  2 of 1,000,000 rows \(0\.0%\)", used), used
    assert re.search(r"\d{4}-\d{2}-\d{2} +\d{4}-\d{2} +2 +yes", used), "the first seven days are marked"

    misspelt = typed(folder, "reset", "click")  # is told before it is asked anything
    assert misspelt.returncode == 2
    assert "has a table 'click'. Tables: broken, clicks. Did you mean 'clicks'?" in misspelt.stderr
    assert "1 dumps will land again" in typed(folder, "reset", "clicks", "--yes").stdout


def test_a_start_date_that_is_moved_back_takes_in_what_was_left_out(tmp_path: Path, typed: Typed) -> None:
    bucket, variables = Bucket(tmp_path / "bucket"), {"HEAP_APP_ID": "11", "HEAP_ASSETS_NOW": "2026-03-08T03:00:00Z"}
    rows = [event(day, f"2026-03-0{day} 10:00:00") for day in range(1, 7)]
    bucket.dump(1, "2026-03-07T02:00:00", clicks=rows[:3])
    bucket.dump(2, "2026-03-08T02:00:00", clicks=rows[3:])
    (tmp_path / "mine").mkdir()
    made = typed(tmp_path / "mine", "init", "--folder", str(bucket.path), **variables)
    assert "start_date is 2026-03-0" in made.stdout, made.stderr
    settings = tmp_path / "mine/heap_assets.yaml"

    def starting(day: str) -> Project:
        settings.write_text(re.sub(r"(?m)^start_date: \S+", f"start_date: {day}", settings.read_text()))
        return open_project(load_settings(settings), settings)

    def land(project: Project) -> list[str]:
        for manifest in project.landing.pending(project.source()):
            project.landing.land(project.source(), manifest)
        return [day.isoformat() for day in project.landing.days("clicks")]

    assert land(starting("2026-03-03")) == [f"2026-03-0{day}" for day in range(3, 7)]
    assert json.loads(typed(tmp_path / "mine", "status", "--json").stdout)["dumps"]["pending"] == []
    project = starting("2026-03-01")
    assert json.loads(typed(tmp_path / "mine", "status", "--json").stdout)["dumps"]["pending"] == [1]
    assert land(project) == [f"2026-03-0{day}" for day in range(1, 7)]


def test_sql_writes_lists_structs_and_bytes_as_csv(tmp_path: Path, folder: Path, typed: Typed) -> None:
    row = pl.DataFrame({"a": [[1, 2]], "b": [{"n": 2**53 + 1, "s": "é"}], "c": [b"\xff"], "d": [1.5]})
    Lake.open(str(tmp_path / "lake")).write("heap/events/odd", "2026-11-01", row)
    done = typed(folder, "sql", "--csv", "select a, b, c, d from heap.events_odd", HEAP_ASSETS_DEMO=str(tmp_path))
    assert done.stdout == 'a,b,c,d\n"[1,2]","{""n"":9007199254740993,""s"":""é""}",/w==,1.5\n', done.stderr


@pytest.mark.parametrize("group", ["sync", "catalogue"])
def test_the_help_of_a_group_cuts_no_sentence_off(tmp_path: Path, typed: Typed, group: str) -> None:
    shown = " ".join(typed(tmp_path, group, "--help").stdout.split())
    found = commands.get_command(click.Context(commands), group)
    assert isinstance(found, click.Group)
    assert all(" ".join(str(one.help).partition("\n\n")[0].split()) in shown for one in found.commands.values())


def test_a_command_that_a_text_names_exists() -> None:
    """What a check says mends it, and what the docs say, is there to be typed."""
    texts = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "heap_assets").rglob("*.py")]
    named = {
        (path.name, match[1], match[2])
        for path in texts
        for match in re.finditer(r"`heap-assets ([a-z-]+)(?: ([a-z][a-z-]*))?", path.read_text())
    }
    assert len(named) > 20

    for path, command, below in sorted(named, key=str):
        found = commands.get_command(click.Context(commands), command)
        assert found is not None, f"{path} names `heap-assets {command}`"
        if isinstance(found, click.Group) and below:
            assert below in found.commands, f"{path} names `heap-assets {command} {below}`"


@pytest.mark.parametrize("number", ["-1", "²", "9" * 20, "1" * 5000])
def test_a_number_that_nothing_can_count_to_is_a_mistake(number: str) -> None:
    for line in ("rejected --rows", "usage --days", "discover --dumps", "rows profiles unique_keys --rows"):
        refused = CliRunner().invoke(commands, [*line.split(), number])
        assert refused.exit_code == 2, refused.output
        assert "Invalid value for" in refused.output
