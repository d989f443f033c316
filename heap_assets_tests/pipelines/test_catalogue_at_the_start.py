"""What a new deployment takes into its catalogue by itself, and where it is kept if the settings cannot be written."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from heap_assets.cli.main import _group as commands
from heap_assets.pipelines.catalogue import accept_automatically, accept_first
from heap_assets.pipelines.catalogue import missing as missing_tables
from heap_assets.pipelines.landing import first_dumps, land
from heap_assets.project import Project, load_catalogue, load_settings, parse_settings
from heap_assets.sources.heap_connect import Catalogue
from heap_assets.storage import Lake
from heap_assets_tests.sources.heap_connect.dump_builders import Bucket, event

_SETTINGS = """
start_date: 2026-01-01
lake: ./lake
heap:
  app_id: "1"
  source: {kind: folder, path: ./bucket}
identity:
  identifiers:
    - {type: heap_identity, max_per_profile: 2}
    - {type: heap_user_id, shared_above: 1}
"""
_NOBODY = 65534


class Start:
    """A bucket and a deployment that reads it; every platform is opened as a process of its own would."""

    def __init__(self, folder: Path) -> None:
        self.settings = parse_settings(_SETTINGS, folder / "heap_assets.yaml")
        self.bucket = Bucket(folder / "bucket")

    def project(self) -> Project:
        lake = Lake.open(self.settings.lake.url)
        return Project(self.settings, load_catalogue(self.settings, lake), lake)

    def land(self, dump: int) -> bool:
        """Land a dump, and return whether its check of the catalogue passed."""
        return land(self.project(), dump).results["catalogue_is_complete"].passed

    def catalogue(self) -> dict[str, list[str]]:
        known = self.project().catalogue.tables
        return {name: [c for c in table.columns if not c.endswith(("_id", "time"))] for name, table in known.items()}

    def dump_with_hidden_columns(self, dump: int, as_of: str) -> None:
        """Write a dump with a column that its manifest does not list, and one of another type than before."""
        self.bucket.dump(dump, as_of, clicks=[event(dump * 10, f"{as_of[:10]} 01:00:00", plan=7, secret="x")])
        path = self.bucket.path / f"manifests/sync_{dump}.json"
        document = json.loads(path.read_text())
        document["tables"][0]["columns"].remove("secret")
        self.bucket.manifest(dump, as_of, document)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    monkeypatch.setenv("HEAP_ASSETS_NOW", "2026-05-05T02:00:00Z")
    made = Start(tmp_path)
    made.bucket.dump(1, "2026-05-02 00:30", clicks=[event(1, "2026-05-01 01:00:00", plan="pro")])
    made.dump_with_hidden_columns(2, "2026-05-03 00:30")
    return made


def test_all_that_the_first_dumps_hold_is_taken_and_nothing_of_later_ones(start: Start) -> None:
    assert accept_first(start.project()) is not None
    assert start.catalogue() == {"clicks": ["plan"]}
    assert start.land(1)
    assert start.land(2), "what is taken by itself is no news"
    accept_automatically(start.project())
    assert start.catalogue() == {"clicks": ["plan", "secret", "plan__long"]}

    start.bucket.dump(3, "2026-05-04 00:30", clicks=[event(30, "2026-05-03 01:00:00", later="x")])
    assert not start.land(3)
    assert accept_automatically(start.project()) is None
    assert missing_tables(start.project()).columns == {"clicks": ("later",)}


def test_a_first_dump_that_lands_after_a_later_one_is_still_taken(start: Start) -> None:
    accept_first(start.project())
    start.bucket.dump(3, "2026-05-04 00:30", clicks=[event(30, "2026-05-03 01:00:00", later="x")])
    start.land(1)
    start.land(3)
    accept_automatically(start.project())
    start.land(2)
    accept_automatically(start.project())
    assert start.catalogue() == {"clicks": ["plan", "secret", "plan__long"]}


def test_a_column_that_was_removed_by_hand_stays_out(start: Start) -> None:
    accept_first(start.project())
    start.land(1)
    start.land(2)
    accept_automatically(start.project())
    path = start.settings.catalogue
    path.write_text(path.read_text().replace("    secret:\n      description: ''\n      pii: false\n", ""))
    assert start.catalogue() == {"clicks": ["plan", "plan__long"]}
    assert accept_automatically(start.project()) is None
    assert start.catalogue() == {"clicks": ["plan", "plan__long"]}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b"\xff"])
def test_a_damaged_list_of_the_first_dumps_is_named_and_stops_no_landing(
    start: Start, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    accept_first(start.project())
    (start.bucket.path.parent / "lake/_catalogue/first_dumps.json").write_bytes(content)
    start.land(1)
    assert not start.land(2), "what nobody can tell to be of the first dumps is reported"
    assert accept_automatically(start.project()) is None
    assert "first_dumps.json is damaged" in caplog.text
    assert missing_tables(start.project()).columns == {"clicks": ("secret", "plan__long")}


def test_who_starts_at_the_same_time_loses_nothing_of_what_another_stored(start: Start) -> None:
    late = start.project()
    accept_first(start.project())
    start.land(1), start.land(2)
    accept_automatically(start.project())
    before = first_dumps(start.project())
    accept_first(late)  # as a process that read an empty catalogue, and listed the source for long
    after = first_dumps(start.project())
    assert before is not None
    assert after is not None
    assert after.offered == before.offered


@pytest.fixture
def read_only(start: Start) -> Iterator[Path]:
    """Give a settings folder that cannot be written, of a deployment with a lake that can; root gives up its rights."""
    is_root = os.getuid() == 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(start.bucket.path, folder / "bucket")
        (folder / "settings").mkdir()
        (folder / "lake").mkdir()
        text = _SETTINGS.replace("./", "../")
        (folder / "settings" / "heap_assets.yaml").write_text(text)
        (folder / "settings").chmod(0o555)
        if is_root:
            os.chown(folder / "lake", _NOBODY, -1)
            os.setresuid(_NOBODY, _NOBODY, 0)
        try:
            yield folder / "settings"
        finally:
            if is_root:
                os.setresuid(0, 0, 0)
            (folder / "settings").chmod(0o755)


def test_a_catalogue_that_cannot_be_written_is_kept_in_the_lake_and_printed(
    read_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEAP_ASSETS_SETTINGS", str(read_only / "heap_assets.yaml"))
    settings = load_settings()
    with pytest.raises(PermissionError):
        settings.catalogue.touch()
    assert _printed("diff") == "the catalogue knows everything that was landed\n"
    lake = Lake.open(settings.lake.url)
    news = accept_first(Project(settings, load_catalogue(settings, lake), lake))
    assert news is not None
    assert news.uri.endswith("_catalogue/heap_catalogue.yaml")

    told, whole = _printed("diff", status=1), _printed("diff", "--file")
    assert f"{settings.catalogue} cannot be written" in told
    assert "+++ b/heap_catalogue.yaml" in told
    assert [line[1:] for line in told.splitlines() if line.startswith("+") and "+++" not in line] == whole.splitlines()
    assert Catalogue.parse(whole.encode(), "printed") == load_catalogue(settings, lake) == news.catalogue

    commit = read_only / "heap_catalogue.yaml"
    _as_owner(read_only, lambda: commit.write_text(whole))
    assert _printed("diff") == "the catalogue knows everything that was landed\n"


def _printed(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(commands, ["catalogue", *arguments])
    assert done.exit_code == status, done.exception
    return done.stdout


def _as_owner(folder: Path, write: Callable[[], object]) -> None:
    """Do what whoever deploys the settings does: write into a folder that the platform can only read."""
    user = os.getuid()
    os.setresuid(folder.stat().st_uid, folder.stat().st_uid, 0 if folder.stat().st_uid == 0 else user)
    folder.chmod(0o755)
    write()
    folder.chmod(0o555)
    os.setresuid(user, user, folder.stat().st_uid)
