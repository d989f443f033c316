"""What Heap's plan does not cover is refused when settings are loaded, with its reason and the way to allow it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from heap_assets.errors import SettingsError
from heap_assets.project import parse_settings
from heap_assets.project.plan import shortest_gap

FILE = """
start_date: 2026-01-01
lake: ./lake
heap: {{app_id: "1", {heap}}}
identity: {{identifiers: [{{type: heap_identity}}, {{type: email}}]}}
profiles: {{traits: {{plan: {{from: [users.plan], choose: first_present}}}}}}
sync:
  {sync}
publish: {publish}
reverse_etl: {reverse}
"""
FOLDER = "source: {kind: folder, path: ./bucket}"
PROFILES = "properties: {tier: plan}"
TO_HEAP = f"heap_user_properties: {{{PROFILES}}}"


def text_of(heap: str, sync: str = TO_HEAP, publish: str = "{}", reverse: str = "{}") -> str:
    return FILE.format(
        heap=heap if "source" in heap else f"{heap}, {FOLDER}", sync=sync, publish=publish, reverse=reverse
    )


REFUSED = [
    (
        "plan: growth",
        f"amplitude_users: {{api_key: '${{DSN}}', key: email, {PROFILES}}}",
        {},
        "destinations",
        "limited integ",
    ),
    ("plan: pro", f"own: {{kind: custom, destination: x, {PROFILES}}}", {}, "custom", "they need premier"),
    ("plan: growth, source: {kind: bigquery, project: p, dataset: d}", TO_HEAP, {}, "sql", "no Heap Connect SQL"),
    (
        *("plan: growth", "a: {kind: heap_account_properties, source: profiles, key: email, properties: {tier: plan}}"),
        *({}, "api", "basic API access"),
    ),
    (
        *("plan: growth", f"heap_user_properties: {{{PROFILES}, schedule: '0 6,18 * * *'}}"),
        *(
            {},
            "frequency",
            "sync.heap_user_properties.schedule is '0 6,18 * * *': some of its ticks are 12 hours apart",
        ),
    ),
    (
        *("plan: pro", f"heap_user_properties: {{{PROFILES}, schedule: '*/15 * * * *'}}"),
        *({}, "frequency", "are 15 minutes apart, but the pro plan exports once an hour"),
    ),
    (
        *("plan: growth", TO_HEAP),
        *(
            {"publish": "{dwh: {kind: postgres, dsn: '${DSN}', schedule: '@hourly'}}"},
            "frequency",
            "publish.dwh.schedule",
        ),
    ),
    (
        *("plan: growth", TO_HEAP),
        *(
            {"reverse": "{crm: {kind: census, token: '${DSN}', sync: 1, reads: [profiles], schedule: '@hourly'}}"},
            *("frequency", "reverse_etl.crm.schedule"),
        ),
    ),
]


@pytest.mark.parametrize(("heap", "sync", "more", "beyond", "reason"), REFUSED, ids=[entry[3] for entry in REFUSED])
def test_what_the_plan_does_not_cover(
    heap: str,
    sync: str,
    more: dict[str, str],
    beyond: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DSN", "postgresql://db.example/x")
    path = tmp_path / "heap_assets.yaml"
    with pytest.raises(SettingsError) as error:
        parse_settings(text_of(heap, sync, **more), path)
    assert reason in str(error.value)
    assert str(error.value).endswith(f"If the contract allows it: heap.beyond_plan: [{beyond}]")
    parse_settings(text_of(f"{heap}, beyond_plan: [{beyond}]", sync, **more), path)
    unwritten = heap.replace("plan: growth, ", "").replace("plan: growth", "").replace("plan: pro", "")
    parse_settings(text_of(unwritten or "region: us", sync, **more), path)


@pytest.mark.parametrize(
    ("plan", "crons"),
    [
        ("growth", {"segment": "0 9 * * *", "heap_user_properties": "0 9 * * *"}),
        ("pro", {"segment": "0 * * * *", "heap_user_properties": "0 * * * *"}),
        ("premier", {"segment": "* * * * *", "heap_user_properties": "0 * * * *", "by_hand": None, "own": "5 4 * * *"}),
    ],
)
def test_the_cadence_of_a_destination_within_the_plan(
    plan: str, crons: dict[str, str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSN", "a-write-key")
    syncs = [TO_HEAP, "segment: {kind: segment_identify, write_key: '${DSN}', properties: {tier: plan}}"]
    syncs += [f"by_hand: {{kind: heap_user_properties, {PROFILES}, schedule: null}}"]
    syncs += [f"own: {{kind: heap_user_properties, {PROFILES}, schedule: '5 4 * * *'}}"]
    settings = parse_settings(text_of(f"plan: {plan}", "\n  ".join(syncs)), tmp_path / "heap_assets.yaml")
    assert {name: settings.sync_schedule(name) for name in crons} == crons


@pytest.mark.parametrize(
    ("cron", "minutes"),
    [("* * * * *", 1), ("*/7 * * * *", 4), ("0 5 * * *", 1440), ("0 5 1 * *", 28 * 1440), ("@hourly", 60)],
)
def test_the_shortest_gap_of_a_schedule(cron: str, minutes: int) -> None:
    assert shortest_gap(cron) == timedelta(minutes=minutes)
