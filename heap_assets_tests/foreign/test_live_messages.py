"""Messages on top of the foreign company: live profiles equal its batch day. `HEAP_ASSETS_FOREIGN_LIVE=3`: companies.

Messages are as messy as the company: addresses as people type them, shared devices, late and repeated calls, inboxes
that many read, people whom nobody knows.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from polars.testing import assert_frame_equal

from heap_assets import clock
from heap_assets.pipelines import delivery
from heap_assets.pipelines.inbox import folded_day, message_day, unbuilt_inbox_days
from heap_assets.pipelines.live_profiles import LiveProfiles
from heap_assets.pipelines.people import identity_of_day, profiles_of_day
from heap_assets.pipelines.suites import required_checks
from heap_assets.pipelines.table import Task
from heap_assets.project import Project, open_project
from heap_assets.quality import CheckResult, Severity, result_store
from heap_assets.tables import PROFILES
from heap_assets_tests.foreign.deployment import SYNC
from heap_assets_tests.foreign.people import BAD_EMAILS, Person, typed_by_somebody
from heap_assets_tests.foreign.scenario import Scenario, scenario
from heap_assets_tests.live.service_process import start_service
from heap_assets_tests.sources.inbox.test_messages_tables import post
from heap_assets_tests.sources.warehouse import servers

SEEDS = int(os.environ["HEAP_ASSETS_FOREIGN_LIVE"])
KEY = "wk-foreign-live-7d20"
_CALLS = 1_500
_FOLDED = ("inbox/users", "inbox/accounts")
_INBOX: Mapping[str, Any] = {
    "sources": {"web": {"kind": "tracking", "write_keys": ["${FOREIGN_WRITE_KEY}"]}},
    "identifiers": {"user_id": "heap_identity", "anonymous_id": "device", "previous_id": "device"},
    "tables": {
        "identify": {
            "columns": {"email": "text", "plan": "text", "contact": "text", "seats": "integer"},
            "identifiers": {"email": "email", "contact": "crm_id"},
        },
        "track": {"columns": {"total": "number"}},
    },
    "limits": {"messages_per_second": 100_000},
}


@pytest.fixture(params=range(1, SEEDS + 1))
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scenario]:
    """A company whose profiles are at Heap, with an inbox in its settings and a sync that is live."""
    try:
        with (
            servers.postgres_cluster() as postgres,
            scenario(tmp_path, postgres, seed=request.param, via="folder", hour=9, people=300, days=8) as made,
        ):
            made.first_night()
            for name, value in (made.deployment.environment | {"FOREIGN_WRITE_KEY": KEY}).items():
                monkeypatch.setenv(name, value)
            _take_messages_in(made.deployment.folder / "heap_assets.yaml")
            yield made
    except servers.UnavailableError as missing:
        pytest.skip(f"{missing}: the foreign company was NOT tested")


def _take_messages_in(file: Path) -> None:
    settings = yaml.safe_load(file.read_text())
    settings |= {"inbox": dict(_INBOX), "live": {"port": 0}}
    settings["identity"]["identifiers"] += [{"type": "device", "max_per_profile": 5, "shared_above": 1}]
    traits = settings["profiles"]["traits"]
    traits["plan"]["from"] = ["inbox/users.plan", *traits["plan"]["from"]]
    traits["seats"] = {"from": ["inbox/users.seats"], "choose": "newest"}
    settings["sync"][SYNC] |= {"live": True, "guard": {"max_changed": 1.0, "max_removed": 1.0}}
    file.write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))


def calls_of(world: Scenario, day: date) -> list[dict[str, Any]]:
    """Return calls of the company's people, on this day and the two before."""
    dice, people = random.Random(world.seed), world.company.people
    calls: list[dict[str, Any]] = []
    for number in range(_CALLS):
        moment = datetime.combine(day, time_of_day(), UTC) - timedelta(days=dice.choice([0, 0, 0, 1, 2]))
        stamp = (moment + timedelta(seconds=dice.randrange(86_400), microseconds=number)).isoformat()
        person = dice.choice(people)
        device = f"kiosk-{dice.randrange(3)}" if dice.random() < 0.05 else f"d-{person.number}-{dice.randrange(2)}"
        call = {"messageId": f"m{number}", "timestamp": stamp} | _said(dice, person, device)
        calls.append(call)
        if dice.random() < 0.1:
            calls.append(dice.choice(calls))
    return calls


def _said(dice: random.Random, person: Person, device: str) -> dict[str, Any]:
    known = {"userId": person.identity} if person.identity and dice.random() < 0.7 else {}
    kind = dice.choice(["identify", "identify", "track", "page", "alias", "group"])
    if kind == "identify":
        emails = [*(typed_by_somebody(dice, e) for e in (person.email, *person.more_emails)), person.inbox]
        traits: dict[str, Any] = {"plan": dice.choice(["free", "pro", "team", None]), "seats": dice.randrange(9)}
        traits |= {"email": dice.choice([*emails, *emails, *BAD_EMAILS])} if dice.random() < 0.5 else {}
        traits |= {"contact": person.contact} if person.contact and dice.random() < 0.3 else {}
        return {"type": kind, "anonymousId": device, **known, "traits": traits}
    if kind == "alias":
        return {"type": kind, "previousId": device, "userId": person.identity or f"nobody-{person.number}"}
    if kind == "group":
        return {"type": kind, "anonymousId": device, **known, "groupId": f"firm{person.firm}"}
    return {"type": kind, "anonymousId": device, **known, "event": "Paid", "properties": {"total": dice.random()}}


def build(project: Project, day: date, scratch: Path) -> None:
    """Compute the batch day as its assets do; their checks pass."""
    assets = set()
    for _ in range(2):
        for asset, days in unbuilt_inbox_days(project).items():
            for one in sorted(days):
                make = folded_day if asset in _FOLDED else message_day
                if asset not in _FOLDED or one <= day:
                    rows = make(Task(project, one, scratch), asset)
                    project.lake.write(asset, str(one), rows.frame, rows.inputs, notes=rows.notes)
                    assets.add(asset)
    for asset, table in identity_of_day(project, day).items():
        project.lake.write(asset, str(day), table.frame, table.inputs, notes=table.notes)
        assets.add(asset)
    profiles = profiles_of_day(project, day)
    project.lake.write(PROFILES, str(day), profiles.frame, profiles.inputs, notes=profiles.notes)
    for asset in (*assets, PROFILES):
        for check in required_checks(project, asset) if project.lake.find(asset, str(day)) else ():
            version = result_store.partition_version(project.lake, asset, str(day))
            result_store.record(
                *(project.lake.store, CheckResult(True)),
                asset=asset,
                check=check,
                partition=str(day),
                version=version,
                severity=Severity.ERROR,
                blocking=True,
            )


def test_live_profiles_of_a_foreign_company_equal_its_batch_day(world: Scenario, tmp_path: Path) -> None:
    file = world.deployment.folder / "heap_assets.yaml"
    project = open_project(file=file)
    day = project.lake.newest_partition(PROFILES, clock.today())
    assert day is not None
    calls = calls_of(world, day)
    half = len(calls) // 2
    post(project.lake.store, *calls[: half // 2], received=clock.now())
    build(project, day, tmp_path)
    confirmed = delivery.RunOptions(confirmed=True)
    assert not delivery.send(project, SYNC, day, "first", confirmed).report.rejected
    before = project.lake.scan(PROFILES, str(day)).collect()

    post(project.lake.store, *calls[half // 2 : half], received=clock.now())  # between the batch and the service
    service = start_service(file)
    try:
        _post_all(service.address, calls[half:])
        sent = _until_followed(service.address, len(calls) - half)
    finally:
        assert service.stop() == 0
    project = open_project(file=file)
    live = LiveProfiles(project)
    live.apply(live.backlog)
    build(project, day, tmp_path)
    expected = project.lake.scan(PROFILES, str(day)).collect()
    assert_frame_equal(live.profiles, expected, check_column_order=False)
    report = delivery.send(project, SYNC, day, "second", confirmed).report
    print(
        f"seed {world.seed}: {len(calls)} calls, {len(before)} people before and {len(expected)} after; "
        f"{sent:.0f} rows sent live; "
        f"the run after the service: {report.sent} sent, {report.unchanged} unchanged, {report.held} held"
    )
    assert sent
    assert (report.sent, report.rejected) == (0, 0)


def _post_all(address: str, calls: list[dict[str, Any]]) -> None:
    def post_some(part: list[dict[str, Any]]) -> None:
        with httpx.Client(base_url=address, auth=(KEY, ""), timeout=30) as client:
            for call in part:
                assert client.post(f"/v1/{call['type']}", json=call).status_code == 200

    threads = [threading.Thread(target=post_some, args=(calls[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _until_followed(address: str, messages: int) -> float:
    """Wait until so many messages are followed and nothing waits; returns how many rows were sent."""
    deadline = time.monotonic() + 120
    waiting = ("queue_length", "waiting_bytes")
    while True:
        lines = dict(
            line.rsplit(" ", 1) for line in httpx.get(f"{address}/metrics").text.splitlines() if line[:1] != "#"
        )
        figures = {name: float(lines[f"heap_assets_live_{name}"]) for name in (*waiting, "followed_messages")}
        if figures["followed_messages"] == messages and not any(figures[name] for name in waiting):
            return float(lines["heap_assets_live_sent_rows"])
        assert time.monotonic() < deadline, figures
        time.sleep(0.5)
