"""docs/tutorial.md as it is read: its commands and files, in order, in an empty folder, up to the cohort at Heap.

Blocks marked `sh` are run by bash; those marked `yaml` are put into heap_assets.yaml where the text says so. Two
commands have tests of their own and are stood in for: `make demo` by its sample company, smaller, and `heap-assets dev`
by the same assets in this process (`heap_assets_tests/foreign` waits for a real one).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from heap_assets.cli.home import use_dagster_home
from heap_assets.demo import write_company
from heap_assets.demo.nights import DemoRun
from heap_assets.demo.server_process import ServerProcess, running_server
from heap_assets.orchestration.in_process import instance_of
from heap_assets.pipelines.catalogue import accept_first
from heap_assets.project import open_project

TUTORIAL = Path(__file__).parent.parent.parent / "docs" / "tutorial.md"
APP = "2463913201"
MERGED = "heap"
"""The section that the tutorial adds keys to; others it replaces."""


@dataclass
class Reader:
    """Somebody who follows the tutorial.

    Attributes
    ----------
    printed
        What each command printed, by its text.
    """

    folder: Path
    sample: Path
    heap: ServerProcess
    printed: dict[str, str] = field(default_factory=dict)

    def follow(self) -> None:
        for language, block in blocks():
            if language == "sh":
                self.run(block)
            elif language == "yaml":
                self.edit(block)
            elif "heap-assets dev" in block:
                self.wait_for_dev()

    def run(self, block: str) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=self.folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
        self.printed[block] = done.stdout

    def edit(self, block: str) -> None:
        path = self.folder / "heap_assets.yaml"
        settings, change = yaml.safe_load(path.read_text()), yaml.safe_load(block)
        for section, value in change.items():
            assert section in settings, f"init writes no section {section}"
            settings[section] = settings[section] | value if section == MERGED else value
        path.write_text(yaml.safe_dump(settings, sort_keys=False))

    def wait_for_dev(self) -> None:
        accept_first(open_project())
        with instance_of(use_dagster_home()) as instance:
            told: list[str] = []
            dev = DemoRun(self.sample, self.heap, told.append, instance)
            dev.open()
            dev.night(datetime.now(UTC).date() - timedelta(days=1))
            assert all(run.success for run in dev.sync_runs), told

    def answer(self, part: str) -> str:
        """Return what the one command that contains a text has printed."""
        [answer] = [printed for command, printed in self.printed.items() if part in command]
        return answer


def blocks() -> Iterator[tuple[str, str]]:
    """Yield language and text of each fenced block of the tutorial."""
    yield from re.findall(r"^```(\w+)\n(.*?)^```$", TUTORIAL.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    sample, folder = tmp_path / "clone" / "data" / "demo", tmp_path / "acme"
    folder.mkdir()
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    write_company(sample, people=60, days=3, seed=2, until=yesterday, faults=False)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("HEAP_ASSETS_SETTINGS", raising=False)
    monkeypatch.setenv("HEAP_ASSETS_DEMO", str(sample))
    monkeypatch.setenv("HEAP_APP_ID", APP)
    monkeypatch.setenv("DAGSTER_HOME", str(folder / ".dagster"))
    with running_server("heap", tmp_path / "servers" / "heap") as heap:
        monkeypatch.setenv("HEAP_BASE_URL", heap.base_url)
        yield Reader(folder, sample, heap)


@pytest.mark.slow
def test_the_tutorial_leads_to_a_cohort_at_heap(reader: Reader) -> None:
    reader.follow()

    users = reader.heap.state(app_id=APP)["users"].values()
    cohort = [one for one in users if one["properties"].get("Active Lead") == "true"]
    assert cohort, "nobody at Heap is in the cohort"
    assert any("Plan" in one["properties"] for one in users)
    for proposed in ("contact_id: crm_id", "email: email"):
        assert proposed in reader.answer("browse main.contacts")
    assert "customer_id, max_per_profile: 1" in reader.answer("browse main.customers")
    status = reader.answer("heap-assets status")
    assert re.search(r"sync/heap_user_properties +ok", status)
    assert "failed" not in status
    assert re.search(r"│ \d+ +┆ [1-9]\d* +┆ [1-9]\d* +│", reader.answer("active_leads from")), "people, plans, cohort"
    assert re.search(r"^  \d+ unchanged, \d+ held$", reader.answer("sync plan"), re.MULTILINE), "nothing is sent again"
    assert "crm_id:" in reader.answer("heap-assets explain")
