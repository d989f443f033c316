"""Values that the file can hold and the platform cannot use: one message each, with its line."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from heap_assets.errors import SettingsError
from heap_assets.project import parse_settings
from heap_assets_tests.config.test_settings import GOOD, parse

SYNC = "sync:\n"
EVENTS = "  heap_events: {source: crm_contacts, event_name: x,"
DUCKDB = "  kind: duckdb\n  path: ./warehouse.duckdb\n"


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        (SYNC, EVENTS + " schedule: every day}", ["schedule is 'every day'", "cron"]),
        (SYNC, EVENTS + " schedule: '0 0 31 2 *'}", ["schedule", "cron"]),
        (SYNC, EVENTS + " schedule: '* * * * * *'}", ["schedule", "five"]),
        (SYNC, EVENTS + " since: 2999-01-01}", ["since is 2999-01-01", "ahead"]),
        (SYNC, "  heap_events: {source: heap, event_name: x}", ["source is 'heap'", "only segment_track"]),
        (SYNC, "  webhook: {url: 'http://localhost', source: heap, properties: {a: b}}", ["source is 'heap'"]),
    ],
)  # fmt: skip
def test_a_sync_that_cannot_run(old: str, new: str, parts: list[str]) -> None:
    refused(GOOD.replace(old, f"{old}{new}\n"), ["line 22", *parts])


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("start_date: 2026-01-01", "start_date: 2999-01-01", ["line 2", "2999-01-01", "today is"]),
        ("start_date: 2026-01-01", "start_date: 20260101", ["start_date is 20260101", "a day such as"]),
        ("lake: ./data/lake", "lake: ./data/lake\nlake: ./other", ["line 4", "'lake' stands twice, first on line 3"]),
        ("profiles:\n", "profiles:\n  behaviour: {dayz: 3}\n", ["behaviour.dayz", "Did you mean 'days'?"]),
        ("  kind: duckdb\n", "  kind: duckdb\n  datasetz: [a]\n", ["warehouse.datasetz", "Did you mean 'datasets'?"]),
        (SYNC, "run: {warehouse_schedule: nightly}\nsync:\n", ["run.warehouse_schedule is 'nightly'", "cron"]),
    ],
)
def test_a_value_that_no_part_of_the_platform_can_use(old: str, new: str, parts: list[str]) -> None:
    refused(GOOD.replace(old, new), parts)


def test_text_stays_as_it_is_written_where_text_is_meant() -> None:
    blocked = "{type: crm_id, blocked: [NO, 01234, 1.10, 12:30],"
    settings = parse(GOOD.replace('app_id: "11"', "app_id: 0011").replace("{type: crm_id,", blocked))
    assert settings.heap.app_id == "0011"
    assert settings.identity.identifiers[1].blocked == ["NO", "01234", "1.10", "12:30"]
    assert settings.start_date == date(2026, 1, 1)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        (SYNC, "sync:\n  segment_track: {write_key: hunter2}\n", "sync.segment_track.write_key"),
        (SYNC, "sync:\n  segment_track: {write_key: '${NOT_SET:-hunter2}'}\n", "sync.segment_track.write_key"),
        (SYNC, "sync:\n  webhook: {url: 'https://a.example/hunter2'}\n", "sync.webhook.url"),
        (SYNC, "sync:\n  webhook: {url: '${H}', secret: hunter2}\n", "sync.webhook.secret"),
        (SYNC, "sync:\n  webhook: {url: '${H}', headers: {X-Key: hunter2}}\n", "sync.webhook.headers.X-Key"),
        (SYNC, "sync:\n  custom: {destination: d, options: {api_token: hunter2}}\n", "sync.custom.options.api_token"),
        (SYNC, "alerts: [{kind: slack, url: 'https://hooks.slack.com/services/hunter2'}]\nsync:\n", "alerts[0].url"),
        (SYNC, "alerts: [{kind: webhook, url: 'https://u:hunter2@a.example'}]\nsync:\n", "alerts[0].url"),
        ("  app_id:", "  deletion_key: hunter2\n  app_id:", "heap.deletion_key"),
        ("{kind: folder, path: ./bucket}", "{kind: s3, bucket: heap-rs3-acme, external_id: hunter2}", "external_id"),
        ("lake: ./data/lake", "lake: {url: 's3://b', options: {aws_secret_access_key: hunter2}}", "lake.options"),
        (DUCKDB, "  kind: postgres\n  dsn: postgresql://u:hunter2@h/d\n", "warehouse.dsn"),
        (DUCKDB, "  kind: postgres\n  dsn: postgresql://u:hun/ter2@h/d\n", "warehouse.dsn"),
        (DUCKDB, "  kind: postgres\n  dsn: host=h user=u password=hunter2\n", "warehouse.dsn"),
        (DUCKDB, "  kind: postgres\n  dsn: 'postgresql://h/d?user=u&password=hunter2'\n", "warehouse.dsn"),
        (DUCKDB, "  kind: postgres\n  dsn: '${NOT_SET:-postgresql://u:hunter2@h/d}'\n", "warehouse.dsn"),
        (DUCKDB, '  kind: bigquery\n  project: p\n  credentials: \'{"private_key": "hunter2"}\'\n', "credentials"),
        (DUCKDB, "  kind: bigquery\n  project: p\n  credentials: {private_key: hunter2}\n", "warehouse.credentials"),
    ],
)
def test_a_secret_may_not_stand_in_the_file(monkeypatch: pytest.MonkeyPatch, old: str, new: str, key: str) -> None:
    monkeypatch.setenv("H", "https://a.example")
    message = refused(
        GOOD.replace(old, new.replace("2}\n", "2, properties: {p: plan}}\n") if "url" in new else new), [key]
    )
    assert "hunter2" not in message
    assert "ter2" not in message


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (SYNC, "sync:\n  segment_track: {write_key: '${H}'}\n"),
        (SYNC, "sync:\n  segment_track: {write_key: local, url: 'http://127.0.0.1:7312'}\n"),
        (SYNC, "sync:\n  webhook: {url: 'https://a.example/${H}', properties: {p: plan}}\n"),
        (DUCKDB, "  kind: postgres\n  dsn: postgresql://u@h/d\n"),
        (DUCKDB, "  kind: postgres\n  dsn: postgresql://u:${H}@h/d\n"),
        (DUCKDB, "  kind: postgres\n  dsn: host=h user=u password=${H}\n"),
        (DUCKDB, "  kind: bigquery\n  project: p\n  credentials: ./key.json\n"),
        ("lake: ./data/lake", "lake: {url: 's3://b', options: {aws_region: eu-west-1, aws_allow_http: true}}"),
    ],
)
def test_what_is_no_secret_may(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    monkeypatch.setenv("H", "hunter2")
    assert "hunter2" not in repr(parse(GOOD.replace(old, new)))


def refused(text: str, parts: list[str]) -> str:
    """Return the message that the settings are refused with: one line, with all of `parts`."""
    with pytest.raises(SettingsError) as caught:
        parse_settings(text, Path("/somewhere/heap_assets.yaml"))
    message = str(caught.value)
    assert all(part in message for part in ["heap_assets.yaml, line ", *parts]), message
    assert "\n" not in message
    return message
