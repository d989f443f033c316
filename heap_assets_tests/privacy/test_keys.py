"""Credentials that are too old are told, by the settings or by their own end; production is refused elsewhere."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from heap_assets import clock
from heap_assets.cli.keys import keys
from heap_assets.config.load import PATH_VARIABLE
from heap_assets.errors import SettingsError
from heap_assets.project import parse_settings

SETTINGS = """
start_date: 2026-01-01
lake: ./lake
heap: {app_id: "11", source: {kind: folder, path: ./bucket}, environment: development, production_app_ids: ["22"]}
identity: {identifiers: [{type: heap_identity}]}
"""
KEYS = """
privacy:
  keys:
    CRM_KEY_OF_TESTS: {issued: 2026-08-01}
    GOOGLE_KEY_OF_TESTS: {issued: 2026-11-01, expires: 2026-11-25}
    TOKEN_OF_TESTS: {issued: 2026-11-01}
"""


def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> tuple[int, dict[str, tuple[int | None, str]]]:
    file = tmp_path / "heap_assets.yaml"
    file.write_text(text)
    monkeypatch.setenv(PATH_VARIABLE, str(file))
    run = CliRunner().invoke(keys, ["--json"])
    return run.exit_code, {row["key"]: (row["days_left"], row["why"]) for row in json.loads(run.output)}


def test_age_end_and_a_tokens_own_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(clock.VARIABLE, "2026-11-20T03:00:00+00:00")
    claims = base64.urlsafe_b64encode(json.dumps({"exp": 1_764_000_000 + 31_536_000}).encode()).decode().rstrip("=")
    monkeypatch.setenv("TOKEN_OF_TESTS", f"header.{claims}.signature")
    status, states = said(tmp_path, monkeypatch, SETTINGS + KEYS)
    assert status == 1
    assert states == {
        "CRM_KEY_OF_TESTS": (-21, "90 days after it was issued"),
        "GOOGLE_KEY_OF_TESTS": (5, "expires"),
        "TOKEN_OF_TESTS": (4, "its own end"),
    }
    assert said(tmp_path, monkeypatch, SETTINGS + KEYS.replace("2026-08-01", "2026-11-01"))[0] == 0
    status, states = said(tmp_path, monkeypatch, SETTINGS + "privacy: {keys: {CRM_KEY_OF_TESTS: {}}}\n")
    assert (status, states["CRM_KEY_OF_TESTS"]) == (1, (None, "neither issued nor expires is set"))


def test_the_environment_of_production_is_refused_in_another_deployment() -> None:
    file = Path("heap_assets.yaml")
    parse_settings(SETTINGS, file)
    parse_settings(SETTINGS.replace("development", "production").replace('app_id: "11"', 'app_id: "22"'), file)
    with pytest.raises(SettingsError, match="is the environment of production, and this deployment is development"):
        parse_settings(SETTINGS.replace('app_id: "11"', 'app_id: "22"'), file)
    with pytest.raises(SettingsError, match="is none of production_app_ids"):
        parse_settings(SETTINGS.replace("development", "production"), file)
