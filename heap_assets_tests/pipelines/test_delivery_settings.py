"""Each kind of sync has its own keys; a mistake is one message that names key, value and what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from heap_assets.config.models import Settings
from heap_assets.errors import SettingsError
from heap_assets.project import parse_settings
from heap_assets_tests.pipelines.delivery_world import SETTINGS


def parse(*syncs: str) -> Settings:
    text = SETTINGS.format(heap="http://127.0.0.1:9") + "\n".join(f"  {line}" for line in syncs)
    return parse_settings(text, Path("/somewhere/heap_assets.yaml"))


@pytest.mark.parametrize(
    ("sync", "parts"),
    [
        ("push: {properties: {Plan: plan}}", ["sync.push", "a kind", "heap_user_properties", "custom"]),
        ("heap_user_properties: {propertis: {Plan: plan}}", ["sync.heap_user_properties.propertis", "'properties'"]),
        ("heap_user_properties: {properties: {Plan: plan}, event_name: X}", ["event_name is not a known key"]),
        ("heap_user_properties: {properties: {Plan: plann}}", ["'plann'", "is no trait"]),
        ("heap_user_properties: {source: contacts, properties: {Plan: plan}}", ["which column of contacts"]),
        ("heap_events: {source: orders, properties: {Total: total}}", ["either event_name", "event_name_column"]),
        ("heap_events: {source: order, event_name: X}", ["sync.heap_events.source is 'order'", "Tables: contacts"]),
        ("heap_events: {source: orders, event_name: X, since: soon}", ["sync.heap_events.since", "'soon'"]),
        ("heap_identify: {enabled: true, stands_days: 3}", ["stands_days is 3", "14"]),
        ("segment_identify: {properties: {Plan: plan}}", ["sync.segment_identify.write_key is missing"]),
        ("segment_track: {write_key: k, user_id: mail}", ["'mail'", "Declared: heap_identity"]),
        ("segment_group: {write_key: k, source: accounts, properties: {S: size}}", ["member_trait or member_column"]),
        ("webhook: {url: 'http://x', mode: insert, source: orders}", ["event_name"]),
        ("webhook: {url: 'http://x', mode: insert}", ["profiles are upserted"]),
        ("x: {kind: webhook, url: 'http://x', key: mail}", ["sync.x addresses people by 'mail'"]),
    ],
)
def test_a_mistake_names_its_key(sync: str, parts: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(sync)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_are_kinds_unless_a_kind_is_given() -> None:
    settings = parse(
        "heap_user_properties: {properties: {Plan: plan}}",
        "crm: {kind: heap_events, source: orders, event_name_column: email, since: 2026-11-02}",
    )
    assert {name: sync.kind for name, sync in settings.sync.items()} == {
        "heap_user_properties": "heap_user_properties",
        "crm": "heap_events",
    }
    assert [sync.vendor for sync in settings.sync.values()] == ["heap", "heap"]


def test_what_is_switched_off_has_no_schedule() -> None:
    settings = parse("heap_identify: {}", "heap_user_properties: {properties: {Plan: plan}, schedule: null}")
    assert not any(sync.scheduled for sync in settings.sync.values())
    assert parse("heap_identify: {enabled: true}").sync["heap_identify"].scheduled


def test_the_tracking_plan_lies_beside_the_settings_and_secrets_are_hidden() -> None:
    settings = parse("segment_track: {write_key: s3cret-key, url: 'http://localhost:1', tracking_plan: plan.json}")
    assert str(getattr(settings.sync["segment_track"], "tracking_plan", "")) == "/somewhere/plan.json"
    assert "s3cret-key" not in repr(settings)
