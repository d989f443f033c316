"""The command line, run as a user runs it: real process, real files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from heap_assets.demo import Company, write_company

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
    environment = {**os.environ, "HEAP_ASSETS_DEMO": str(company.folder)}
    environment.pop("HEAP_ASSETS_SETTINGS", None)
    command = [sys.executable, "-m", "heap_assets.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_init_writes_a_file_that_says_what_is_still_missing(tmp_path: Path, company: Company) -> None:
    written = heap_assets(tmp_path, company, "init")
    assert written.returncode == 0, written.stderr
    assert (tmp_path / "heap_assets.yaml").is_file()
    checked = heap_assets(tmp_path, company, "check")
    assert checked.returncode == 2
    assert "heap.app_id needs the environment variable HEAP_APP_ID" in checked.stderr
    again = heap_assets(tmp_path, company, "init")
    assert again.returncode == 2
    assert "--force" in again.stderr


def test_check_prints_what_was_understood(folder: Path, company: Company) -> None:
    result = heap_assets(folder, company, "check")
    assert result.returncode == 0, result.stderr
    for part in ("environment 2463913201", "crm_contacts", "crm.contacts by contact_id", "heap_user_properties: Plan"):
        assert part in result.stdout


@pytest.mark.parametrize(
    ("wrong", "right", "parts"),
    [
        ("{contact_id: crm_id, email: email}", "{contactid: crm_id}", ["crm_contacts", "'contactid'", "'contact_id'"]),
        ("[billing_customers.plan]", "[billing_customers.plann]", ["profiles.traits.plan.from[0]", "'plan'"]),
        ("relation: crm.accounts", "relation: crm.acounts", ["crm_accounts", "crm.acounts", "crm.accounts"]),
    ],
)
def test_check_names_a_column_that_the_table_does_not_have(
    folder: Path, company: Company, wrong: str, right: str, parts: list[str]
) -> None:
    file = folder / "heap_assets.yaml"
    text = file.read_text()
    assert wrong in text
    file.write_text(text.replace(wrong, right))
    result = heap_assets(folder, company, "check")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert all(part in result.stderr for part in parts), result.stderr


def test_preflight_discover_and_browse_say_what_there_is(folder: Path, company: Company) -> None:
    tried = heap_assets(folder, company, "preflight")
    assert tried.returncode == 0, tried.stdout + tried.stderr
    assert "newest manifest" in tried.stdout
    assert "pageviews" in heap_assets(folder, company, "discover").stdout
    assert "crm" in heap_assets(folder, company, "browse").stdout
    proposal = heap_assets(folder, company, "browse", "crm.contacts").stdout
    assert "relation: crm.contacts" in proposal
    assert "email" in proposal


def test_questions_before_anything_was_built_say_what_to_do(folder: Path, company: Company) -> None:
    asked = heap_assets(folder, company, "explain", "email:ann@acme.io")
    assert asked.returncode == 2
    assert "materialize the identity group first" in asked.stderr
