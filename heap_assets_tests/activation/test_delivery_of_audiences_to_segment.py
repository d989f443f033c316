"""Audiences at Segment: who entered and who left, each told once, as Track or as Identify."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from heap_assets.demo.server_process import ServerProcess
from heap_assets.errors import SettingsError
from heap_assets_tests.connectors import kit

SETTINGS = "kind: segment_audience\nwrite_key: ${SEGMENT_KEY}\nurl: %s\naudience: buyers\naudience_name: Big Buyers\n"
SCHEMA = {"id": pl.String, "buyers": pl.Boolean}


def deployment(folder: Path, server: ServerProcess, monkeypatch: pytest.MonkeyPatch, more: str = "") -> kit.Deployment:
    monkeypatch.setenv("SEGMENT_KEY", "wk-secret")
    return kit.Deployment.make(folder, SETTINGS % server.base_url + more)


def people(**inside: bool) -> list[dict[str, Any]]:
    return [{"id": name, "buyers": member} for name, member in inside.items()]


def calls(server: ServerProcess) -> list[dict[str, Any]]:
    return list(server.state()["events"].values())


def test_members_that_enter_and_leave_are_tracked_once_each(
    tmp_path: Path, segment: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = deployment(tmp_path, segment, monkeypatch)
    world.write(0, people(ann=True, bob=True, cid=False), SCHEMA)
    assert world.send(0, "r1").sent == 2
    assert world.send(0, "r2").requests == 0
    world.write(1, people(ann=True, bob=False, cid=True), SCHEMA)
    world.send(1, "r3")
    world.write(2, people(ann=True, bob=True, cid=True), SCHEMA)
    world.send(2, "r4")
    told = [(call["userId"], call["event"]) for call in calls(segment)]
    assert sorted(told) == [
        ("ann", "Audience Entered"), ("bob", "Audience Entered"), ("bob", "Audience Entered"),
        ("bob", "Audience Exited"), ("cid", "Audience Entered"),
    ]  # fmt: skip
    assert {str(call["properties"]) for call in calls(segment)} == {
        str({"audience_name": "Big Buyers", "audience_use": "target"})
    }
    assert not segment.state()["rejected"]


def test_as_identify_a_trait_is_true_for_members_and_false_for_who_left(
    tmp_path: Path, segment: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = deployment(tmp_path, segment, monkeypatch, "send: identify\nuse: suppress\n")
    world.write(0, people(ann=True, bob=True), SCHEMA)
    world.send(0, "r1")
    world.write(1, people(ann=True), SCHEMA)
    world.send(1, "r2")
    told = [(call["userId"], call["traits"]) for call in calls(segment)]
    assert told == [
        ("ann", {"suppress_Big Buyers": True}),
        ("bob", {"suppress_Big Buyers": True}),
        ("bob", {"suppress_Big Buyers": False}),
    ]


def test_an_audience_that_there_is_not_is_a_mistake_of_the_settings(
    tmp_path: Path, segment: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = deployment(tmp_path, segment, monkeypatch, "member: other\n".replace("member: other\n", ""))
    file = world.file
    file.write_text(file.read_text().replace("source: people", "source: profiles"))
    with pytest.raises(SettingsError, match=r"sync.it.audience is 'buyers', which is no audience. Audiences: none"):
        kit.Deployment(file).connector.check()
