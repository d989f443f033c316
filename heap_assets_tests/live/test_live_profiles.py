"""Live profiles equal the batch day computed from the same messages: random streams, cut at random points."""

from __future__ import annotations

import os
import random
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from heap_assets.pipelines.live_profiles import LiveProfiles
from heap_assets.sources.inbox import read_parts, stored_parts
from heap_assets_tests.examples import examples
from heap_assets_tests.live.inbox_world import INBOX, InboxWorld, build
from heap_assets_tests.pipelines.delivery_world import BEFORE, DAY, NOW, at

SEEDS = int(os.environ.get("HEAP_ASSETS_LIVE_SEEDS", examples(8)))
PEOPLE = ["c-ann", "c-bob", "c-cat", "c-dan", "c-eve", "c-fay", "c-gus"]
VISITORS = [f"v{n}" for n in range(9)]
EMAILS = ["ann@x.example", "bob@x.example", "eve@y.example", "desk@y.example", "gus@y.example"]


class AskingWorld(InboxWorld):
    """A world whose profiles have everything that messages can decide: activity, scores, audiences, consent."""

    inbox = INBOX.replace("plan: text}", "plan: text, opted_in: boolean}")


ASKED = """\
  behaviour: {days: 10, features: {paid: inbox/track/Paid, looked: inbox/page}, messages: [inbox/track, inbox/page]}
  scores: {interest: {weights: {inbox/track/Seen: 2, pageviews: 5}, most: 3}}
  audiences:
    big: {events: [{type: inbox/track/Paid, properties: {total: {gte: 50}}, within_days: 1}]}
    lookers: {user_properties: {plan: pro}, exclude_events: [{type: inbox/page, within_days: 5}]}
    payers: {sequences: [{steps: [{type: inbox/track/Seen}, {type: inbox/track/Paid}], within_days: 2}]}
"""
CONSENT = """\
privacy:
  consent:
    purposes: [news, ads]
    sources: [{table: inbox/users, columns: {news: opted_in}}, {table: contacts, columns: {ads: plan}, granted: [pro]}]
"""


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEAP_ASSETS_NOW", NOW)
    monkeypatch.setenv("HEAP_ASSETS_TEST_WRITE_KEY", "wk-live-profiles-8812")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with Heap's and the CRM's tables of two days."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEAP_ASSETS_NOW", NOW)
        patch.setenv("HEAP_ASSETS_TEST_WRITE_KEY", "wk-live-profiles-8812")
        folder = tmp_path_factory.mktemp("base")
        world = AskingWorld(folder, "{}", profiles=ASKED, more=CONSENT)
        for day in (BEFORE, DAY):
            world.write_day(day)
        return folder


def stream(dice: random.Random, size: int) -> list[dict[str, Any]]:
    """Return calls of people on shared devices, with aliases, changing traits, repeated and late messages."""
    calls: list[dict[str, Any]] = []
    for number in range(size):
        day = dice.choice([DAY, DAY, DAY, BEFORE])
        stamp = (at(day, dice.randrange(24)) + timedelta(minutes=dice.randrange(60))).isoformat()
        call: dict[str, Any] = {"messageId": f"m{number}", "timestamp": stamp}
        kind = dice.choice(["track", "identify", "identify", "group", "alias", "page"])
        person, visitor = dice.choice(PEOPLE), dice.choice(VISITORS)
        if kind == "identify":
            traits: dict[str, Any] = {"plan": dice.choice(["free", "pro", None])}
            traits |= {"opted_in": dice.random() < 0.7} if dice.random() < 0.5 else {}
            if dice.random() < 0.5:
                traits["email"] = dice.choice(EMAILS)
            call |= {"userId": person, "traits": traits}
            call |= {"anonymousId": visitor} if dice.random() < 0.5 else {}
        elif kind == "alias":
            call |= {"userId": person, "previousId": visitor}
        elif kind == "group":
            call |= {"userId": person, "groupId": dice.choice(["acme", "globex"])}
        else:
            call |= {"event": dice.choice(["Seen", "Paid"]), "properties": {"total": dice.randrange(100)}}
            call |= {"anonymousId": visitor} | ({"userId": person} if dice.random() < 0.4 else {})
        calls.append({"type": kind, **call})
        if dice.random() < 0.1:
            calls.append(dice.choice(calls))
    return calls


def own_world(base: Path, folder: Path) -> InboxWorld:
    shutil.copytree(base / "lake", folder / "lake", copy_function=os.link)
    return AskingWorld(folder, "{}", profiles=ASKED, more=CONSENT)


def parts_since(world: InboxWorld, known: set[str]) -> dict[str, pl.DataFrame]:
    """Return the messages that came since, by the asset of their table."""
    news: dict[str, pl.DataFrame] = {}
    for asset, table in world.project.message_tables.items():
        parts = [part for part in stored_parts(world.lake.store, table.name) if part.info.key not in known]
        known |= {part.info.key for part in parts}
        if parts:
            news[asset] = read_parts(world.lake.store, parts).collect()
    return news


@pytest.mark.parametrize("seed", range(SEEDS))
def test_live_profiles_equal_the_batch_day_of_the_same_messages(base: Path, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    world = own_world(base, tmp_path / "world")
    calls = stream(dice, dice.choice([10, 40, 80]))
    cut = dice.randrange(len(calls) + 1)
    if cut:
        world.post(*calls[:cut], received=at(DAY, 23))
    build(world)
    landed = dice.randrange(cut, len(calls) + 1)
    if landed > cut:  # came between the batch and the start of the service
        world.post(*calls[cut:landed], received=at(DAY, 23) + timedelta(minutes=1))
    live = LiveProfiles(world.project)
    known: set[str] = set()
    parts_since(world, known)
    live.apply(live.backlog)
    position = landed
    while position < len(calls):
        size = dice.randint(1, 15)
        world.post(*calls[position : position + size], received=at(DAY, 23) + timedelta(minutes=2 + position))
        live.apply(parts_since(world, known))
        position += size
    build(world)
    expected = world.lake.scan("profiles", str(DAY)).collect()
    assert_frame_equal(live.profiles, expected, check_column_order=False)


def test_changes_name_the_people_before_and_now(base: Path, tmp_path: Path) -> None:
    world = own_world(base, tmp_path / "world")
    build(world)
    live = LiveProfiles(world.project)
    known: set[str] = set()
    moment = at(DAY, 12)
    call = {"messageId": "i1", "type": "identify", "userId": "c-ann", "timestamp": moment.isoformat()}
    world.post(call | {"traits": {"plan": "gold"}}, received=moment)
    changed = live.apply(parts_since(world, known))
    assert changed is not None
    assert changed.before["plan"].to_list() == ["pro"]
    assert changed.now["plan"].to_list() == ["gold"]
    merge = {
        "messageId": "a1",
        "type": "identify",
        "userId": "c-zoe",
        "anonymousId": "v1",
        "timestamp": at(DAY, 13).isoformat(),
    }
    world.post(merge, {**merge, "messageId": "a2", "userId": "c-ann"}, received=at(DAY, 13))
    split = live.apply(parts_since(world, known))
    assert split is not None
    assert len(split.now) == 2
    again = live.apply(
        {"inbox/identify": read_parts(world.lake.store, stored_parts(world.lake.store, "identify")).collect()}
    )
    assert again is None
