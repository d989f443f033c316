from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from heap_assets_tests.live.inbox_world import KEY, SYNC, InboxWorld, copy_of
from heap_assets_tests.live.receiver import Receiver, receiving
from heap_assets_tests.pipelines.delivery_fixtures import heap, heap_process
from heap_assets_tests.pipelines.delivery_world import DAY, NOW, why

__all__ = ["heap", "heap_process"]
collect_ignore = [] if "HEAP_ASSETS_LIVE_SECONDS" in os.environ else ["test_long_forms.py"]
"""Minutes long: only where their length is named."""
LIVE = "live: {port: 0}"
SENT = {f"c-{name}": {"Plan": "pro"} for name in ("ann", "bob", "cat", "dan")}
"""What the first run sends."""


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEAP_ASSETS_NOW", NOW)
    monkeypatch.setenv("HEAP_ASSETS_TEST_WRITE_KEY", KEY)


@pytest.fixture(scope="session")
def one_receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


@pytest.fixture(scope="session")
def sent_base(tmp_path_factory: pytest.TempPathFactory, one_receiver: Receiver) -> InboxWorld:
    """A resolved day with a live sync that has had its first run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEAP_ASSETS_NOW", NOW)
        patch.setenv("HEAP_ASSETS_TEST_WRITE_KEY", KEY)
        one_receiver.restart({})
        folder = tmp_path_factory.mktemp("sent")
        world = InboxWorld(folder / "world", SYNC.replace("RECEIVER", one_receiver.url), more=LIVE)
        world.write_day(DAY)
        world.resolve(DAY)
        result = world.run(["sync/crm"], DAY)
        assert result.success, why(result)
        assert one_receiver.state == SENT
        return world


@pytest.fixture
def receiver(one_receiver: Receiver) -> Receiver:
    """A receiver that has what the first run sent."""
    one_receiver.restart(SENT)
    return one_receiver


@pytest.fixture
def world(tmp_path: Path, sent_base: InboxWorld, receiver: Receiver, now: None) -> InboxWorld:
    """A resolved day with a live sync that has had its first run."""
    return copy_of(sent_base, tmp_path / "world", SYNC.replace("RECEIVER", receiver.url), more=LIVE)
