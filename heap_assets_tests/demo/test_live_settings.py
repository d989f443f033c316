"""The demo's settings with an inbox are the demo's settings, with an inbox."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from heap_assets.demo import live
from heap_assets.demo.live import live_settings, people_of
from heap_assets.errors import MissingInputError
from heap_assets.project import open_project

ROOT = Path(__file__).parent.parent.parent


def test_the_demo_goes_live_by_an_inbox_and_a_sync_that_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEAP_ASSETS_DEMO", str(tmp_path))
    project = open_project(file=live_settings(ROOT / "heap_assets.yaml", tmp_path))
    assert project.settings.inbox is not None
    assert [name for name, sync in project.settings.sync.items() if sync.live] == ["heap_user_properties"]
    assert project.settings.profiles.traits["plan"].sources == ["inbox/users.plan", "billing_customers.plan"]
    project.check_heap_columns()
    with pytest.raises(MissingInputError, match="run `heap-assets demo` first"):
        people_of(project)


def test_people_of_the_demo_do_not_fail_when_the_service_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(live.WRITE_KEY_VARIABLE, "wk-demo")
    monkeypatch.setattr(live, "_SECONDS", 0.01)
    stopped = threading.Event()
    threading.Timer(0.3, stopped.set).start()
    live.post_events("http://127.0.0.1:9", [("c-1", "ann@x.example")], stopped)
