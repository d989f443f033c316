"""A mistake in heap_assets.yaml is one message that names the key, the value and what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from heap_assets.config.models import Settings
from heap_assets.errors import SettingsError
from heap_assets.project import load_settings, parse_settings

GOOD = """
start_date: 2026-01-01
lake: ./data/lake
heap:
  app_id: "11"
  source: {kind: folder, path: ./bucket}
warehouse:
  kind: duckdb
  path: ./warehouse.duckdb
  tables:
    crm_contacts: {relation: crm.contacts, key: contact_id, identifiers: {email: email, contact_id: crm_id}}
identity:
  identifiers:
    - {type: heap_identity, max_per_profile: 2}
    - {type: crm_id, max_per_profile: 1}
    - {type: email, max_per_profile: 3, normalise: email}
    - {type: heap_user_id, shared_above: 1}
profiles:
  traits:
    plan: {from: [crm_contacts.plan]}
sync:
  heap_user_properties: {properties: {Plan: plan}}
"""


def parse(text: str) -> Settings:
    return parse_settings(text, Path("/somewhere/heap_assets.yaml"))


def test_a_good_file_is_understood() -> None:
    settings = parse(GOOD)
    assert settings.identity.types == ["heap_identity", "crm_id", "email", "heap_user_id"]
    assert settings.lake.url == "/somewhere/data/lake"


@pytest.mark.parametrize(
    ("wrong", "right", "parts"),
    [
        ("app_id:", "ap_id:", ["heap.ap_id", "not a known key", "Did you mean 'app_id'?"]),
        ('app_id: "11"', "app_id: acme", ["heap.app_id is 'acme'", "digits"]),
        ("{email: email, contact", "{email: emial, contact", ["crm_contacts", "'emial'", "Did you mean 'email'?"]),
        ("from: [crm_contacts.plan]", "from: [crm.plan]", ["profiles.traits.plan.from[0]", "'crm.plan'", "Tables:"]),
        ("{Plan: plan}", "{Plan: plann}", ["sync.heap_user_properties.properties.Plan", "'plann'", "Traits:"]),
        ("normalise: email", "normalise: mail", ["identity.identifiers[2].normalise is 'mail'", "'lower'"]),
        ("relation: crm.contacts", "relation: contacts", ["crm_contacts.relation is 'contacts'", "schema.table"]),
        ("start_date: 2026-01-01", "start_date: 2026-13-01", ["line 2", "no such date", "month"]),
        (
            "sync:\n",
            "sync:\n  webhook: {url: 'ftp://user:pw@a', properties: {p: plan}}\n",
            ["sync.webhook.url", "https://"],
        ),
        (
            "sync:\n",
            "sync:\n  heap_events: {source: crm_contacts}\n",
            ["line 22: sync.heap_events: either event_name"],
        ),
        ("start_date: 2026-01-01", "start_date: soon", ["start_date is 'soon'"]),
        ("lake: ./data/lake\n", "", ["lake is missing"]),
        ("type: crm_id", "type: email", ["identity.identifiers", "email", "twice"]),
        (
            "{kind: folder, path: ./bucket}",
            '{kind: s3, bucket: "s3://heap-rs3-acme/manifests"}',
            ["heap.source.bucket", "bucket name only", "'heap-rs3-acme'"],
        ),
        ('app_id: "11"', 'app_id: "11"\n  plan: growth\n  cadence_hours: 2', ["cadence_hours is 2", "growth"]),
        ("[crm_contacts.plan]", "[users.Plan]", ["users.Plan", "comes back"]),
        (
            'app_id: "11"',
            'app_id: "11"\n  tables: {leave_out: {pageviews: {path: {like: /admin}}}}',
            ["heap.tables.leave_out.pageviews.path.like", "unknown operator 'like'", "exists"],
        ),
        ('app_id: "11"', 'app_id: "11"\n  tables: {leave_out: {users: {email: x}}}', ["leave_out.users", "snapshot"]),
        ('app_id: "11"', 'app_id: "11"\n  tables: {leave_out: {clicks: {}}}', ["leave_out.clicks", "every row"]),
    ],
)
def test_a_mistake_is_one_message_with_its_path(wrong: str, right: str, parts: list[str]) -> None:
    assert wrong in GOOD
    with pytest.raises(SettingsError) as caught:
        parse(GOOD.replace(wrong, right))
    assert all(part in str(caught.value) for part in ["heap_assets.yaml", *parts]), str(caught.value)
    assert "\n" not in str(caught.value)
    assert "pw@" not in str(caught.value), "an address may hold a secret"


def test_variables_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    text = GOOD.replace('app_id: "11"', "app_id: ${HEAP_APP_ID}")
    with pytest.raises(SettingsError, match=r"heap\.app_id needs the environment variable HEAP_APP_ID"):
        parse(text)
    monkeypatch.setenv("HEAP_APP_ID", "42")
    assert parse(text).heap.app_id == "42"


def test_a_variable_may_have_a_default() -> None:
    assert parse(GOOD.replace('app_id: "11"', "app_id: ${NOT_SET:-77}")).heap.app_id == "77"


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    text = GOOD.replace("sync:\n", "sync:\n  webhook: {url: 'https://example.com', secret: [hunter2]}\n")
    with pytest.raises(SettingsError) as caught:
        parse(text)
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv("HOOK", "hunter2")
    hook = "sync:\n  webhook: {url: 'https://a.example/${HOOK}', secret: '${HOOK}'}\n"
    parsed = parse(GOOD.replace("sync:\n", hook))
    assert "hunter2" not in repr(parsed)


def test_no_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="heap-assets init"):
        load_settings(tmp_path / "heap_assets.yaml")
