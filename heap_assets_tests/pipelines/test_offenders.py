"""Whatever a check shows as a hash leads back to its row: from a planted fault, through the command, to the row."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from heap_assets.cli.main import _group as commands
from heap_assets.errors import HeapAssetsError
from heap_assets.pipelines.offenders import offenders_of
from heap_assets.pipelines.suites import checks_of
from heap_assets.project import load_settings
from heap_assets.project.project import Project, open_project
from heap_assets.quality import result_store
from heap_assets.quality.engine import CheckContext
from heap_assets.quality.results import hashed

DAY = "2026-11-20"
EVENTS, CONTACTS = "heap/events/signup", "warehouse/contacts"
_SETTINGS = """
start_date: 2026-11-01
lake: ./lake
heap: {app_id: "1", source: {kind: folder, path: ./bucket}}
warehouse:
  kind: duckdb
  path: ./warehouse.duckdb
  tables:
    contacts: {relation: crm.contacts, key: contact_id, identifiers: {contact_id: crm_id, email: email}}
identity:
  identifiers:
    - {type: heap_identity, max_per_profile: 2}
    - {type: crm_id, max_per_profile: 1}
    - {type: email, max_per_profile: 3, normalise: email}
    - {type: heap_user_id, shared_above: 1}
"""
_CATALOGUE = "signup: {display_name: Signed up, columns: {plan: {description: '', pii: false}}}\n"
_NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def _graph() -> pl.DataFrame:
    rows = [
        ("crm_id", "c-1", "p1", False),
        ("email", "ann@acme.example", "p1", False),
        ("crm_id", "c-2", "p2", False),
        ("email", "billing@acme.example", "p1", False),
        ("email", "shared@acme.example", None, True),
        ("heap_user_id", "1", "p1", False),
        ("heap_user_id", "2", "p2", False),
        *(("heap_user_id", str(1000 + n), "p3", False) for n in range(101)),
    ]
    return pl.DataFrame(rows, schema=["identifier_type", "identifier", "profile_id", "shared"], orient="row")


FAULTS = {
    EVENTS: pl.DataFrame(
        {"event_id": [1, 1], "user_id": [1, 1], "session_id": [1, 1], "time": [_NOON, _NOON], "plan": ["a", "b"]}
    ),
    "heap/users": pl.DataFrame(
        {
            "user_id": [1, 1, 2, 77],
            "identity": ["ann", "ann", "bob", None],
            "migrated_to": pl.Series([None] * 4, dtype=pl.Int64),
        }
    ),
    "heap/user_migrations": pl.DataFrame(
        {"from_user_id": [1, 8, 9], "to_user_id": [2, 9, 8], "resolved_to": [2, 8, 8], "cycle": [False, True, True]}
    ),
    CONTACTS: pl.DataFrame(
        {
            "contact_id": ["c-1", "c-1", "c-2"],
            "email": ["ann@acme.example", "ann@acme.example", "Billing@acme.example "],
            "note": ["first", "second", "names two people"],
        }
    ),
    "identity/graph": _graph(),
    "identity/conflicts": pl.DataFrame(
        {
            "type_a": ["crm_id"],
            "value_a": ["c-2"],
            "type_b": ["email"],
            "value_b": ["billing@acme.example"],
            "profile_a": ["p2"],
            "profile_b": ["p1"],
        }
    ),
    "profiles": pl.DataFrame(
        {
            "profile_id": ["p1", "p2", "p2"],
            "heap_identities": [["ann", "anna"], ["ann"], ["ann"]],
            "heap_user_ids": [[1, 77], [2], [2]],
        }
    ),
}
SHOW_KEYS = {
    EVENTS: {"unique_keys"},
    "heap/users": {"unique_keys"},
    "heap/user_migrations": {"no_cycles"},
    CONTACTS: {"unique_keys"},
    "identity/graph": {"not_over_merged", "migrations_followed"},
    "identity/conflicts": {"claimed_by_one"},
    "profiles": {
        "unique_keys",
        "one_profile_per_identity",
        "one_identity_per_profile",
        "no_anonymous_twins",
        "unique_identifiers_not_shared",
        "one_profile_per_contacts_key",
    },
}
"""All checks of tables that show values of rows: a new one is planted here."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    (tmp_path / "heap_assets.yaml").write_text(_SETTINGS)
    (tmp_path / "heap_catalogue.yaml").write_text(_CATALOGUE)
    monkeypatch.setenv("HEAP_ASSETS_SETTINGS", str(tmp_path / "heap_assets.yaml"))
    made = open_project(load_settings())
    for asset, rows in FAULTS.items():
        made.lake.write(asset, DAY, rows)
    for asset in FAULTS:
        _judge(made, asset)
    return made


def _judge(project: Project, asset: str) -> None:
    version = result_store.partition_version(project.lake, asset, DAY)
    for check in checks_of(project, asset):
        if check.evaluate is not None and check.partitioned:
            result = check.evaluate(CheckContext(project.lake, asset, DAY, check.name))
            result_store.record(
                project.lake.store,
                result,
                asset=asset,
                check=check.name,
                partition=DAY,
                version=version,
                severity=check.severity,
                blocking=check.blocking,
            )


def _shown(*arguments: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(commands, ["rows", *arguments, "--json"])
    if isinstance(done.exception, HeapAssetsError):
        raise done.exception
    assert done.exit_code == 0, done.exception
    records: list[dict[str, Any]] = json.loads(done.stdout)
    return records


def test_every_hash_that_a_check_shows_leads_to_its_rows(project: Project) -> None:
    secret, shown = result_store.hash_key(project.lake.store), dict[str, set[str]]()
    for result in result_store.newest(project.lake.store):
        if result.hashes:
            shown.setdefault(result.asset, set()).add(result.check)
        for key in result.hashes:
            offender = offenders_of(project, result.asset, result.check, DAY, [key]).offenders[0]
            cells = [cell if isinstance(cell, list) else [cell] for cell in offender.values.values()]
            assert key in {hashed(value, secret) for cell in cells for value in cell}
            assert offender.rows, f"{result.asset} {result.check} shows {offender.values} and no row of it"
    assert shown == SHOW_KEYS


def test_a_hash_alone_finds_the_check_that_shows_it(project: Project) -> None:
    key = hashed("c-1", result_store.hash_key(project.lake.store)) or ""
    [record] = _shown("--key", key)
    assert (record["asset"], record["check"]) == (CONTACTS, "unique_keys")
    assert [row["note"] for row in record["rows"][CONTACTS]] == ["first", "second"]


def test_a_shared_inbox_leads_to_the_records_that_name_it_however_they_spell_it(project: Project) -> None:
    [record] = _shown("identity/conflicts", "claimed_by_one")
    assert record["offender"]["identifier"]["value"] == "billing@acme.example"
    assert [row["contact_id"] for row in record["rows"][CONTACTS]] == ["c-2"]
    assert record["rows"]["identity/conflicts"][0]["value_a"] == "c-2"


def test_a_row_that_names_two_people_leads_to_both_profiles(project: Project) -> None:
    [record] = _shown("profiles", "one_profile_per_contacts_key")
    assert record["rows"][CONTACTS][0]["note"] == "names two people"
    assert {row["profile_id"] for row in record["rows"]["profiles"]} == {"p1", "p2"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["profiles", "uniqe_keys"], "profiles has no check 'uniqe_keys'.*Did you mean 'unique_keys'"),
        (["warehouse/nothing", "unique_keys"], "warehouse/nothing has no check"),
        (["profiles", "unique_keys", "--day", "2026-11-19"], "has not judged profiles 2026-11-19"),
        (["--key", "0123456789ab"], "nothing is shown as that hash"),
        (["profiles", "traits_made"], "traits_made shows no row of profiles"),
    ],
)
def test_what_leads_nowhere_is_said(project: Project, arguments: list[str], message: str) -> None:
    with pytest.raises(HeapAssetsError, match=message):
        _shown(*arguments)


def test_values_of_rows_are_json_with_every_digit(project: Project) -> None:
    strange = pl.DataFrame(
        {
            "contact_id": ["c-1", "c-1"],
            "rate": [float("nan"), 0.1],
            "price": pl.Series([Decimal("1.10"), None], dtype=pl.Decimal(38, 9)),
            "at": pl.Series([1_767_225_600_123_456_789, None], dtype=pl.Int64).cast(pl.Datetime("ns")),
            "raw": [b"\xff", None],
            "address": [{"city": "Oslo"}, None],
        }
    )
    project.lake.write(CONTACTS, DAY, strange)
    done = CliRunner().invoke(commands, ["rows", CONTACTS, "unique_keys", "--json"])
    assert done.exit_code == 0, done.exception
    assert (
        '"rate":"nan","price":1.100000000,"at":"2026-01-01T00:00:00.123456789","raw":"/w==","address":{"city":"Oslo"}'
        in done.stdout
    )
    [record] = json.loads(done.stdout)
    assert record["rows"][CONTACTS][1] == {"contact_id": "c-1", "rate": 0.1}


def test_a_day_that_was_built_again_is_said_to_be(project: Project) -> None:
    project.lake.write(CONTACTS, DAY, FAULTS[CONTACTS].with_columns(note=pl.lit("later")))
    done = CliRunner().invoke(commands, ["rows", CONTACTS, "unique_keys"])
    assert "was built again since unique_keys judged it" in done.stderr
    assert '"note":"later"' in done.stdout
