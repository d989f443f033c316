"""A service that is stopped while something is under way ends it first, and waits for no destination that is away."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from heap_assets.live import LiveLoop
from heap_assets.live.threads import to_its_end
from heap_assets.pipelines.live_profiles import LiveProfiles
from heap_assets.sources.inbox import segments
from heap_assets.storage import Store
from heap_assets_tests.live.inbox_world import InboxWorld, arrival, identify
from heap_assets_tests.live.receiver import Receiver
from heap_assets_tests.live.service_process import WEB_KEY, landed, opened, serving, write_settings
from heap_assets_tests.pipelines.delivery_world import DAY, at

pytestmark = pytest.mark.usefixtures("now")


def stopped_when(loop: LiveLoop, holds: Callable[[], bool], release: Callable[[], None] = lambda: None) -> float:
    """Run a loop until something holds, and stop it; returns the seconds that stopping took."""

    async def run() -> float:
        running = asyncio.create_task(loop.run())
        async with asyncio.timeout(20):
            while not holds():
                await asyncio.sleep(0.02)
        begun = time.monotonic()
        running.cancel()
        asyncio.get_running_loop().call_later(0.3, release)
        await asyncio.gather(running, return_exceptions=True)
        return time.monotonic() - begun

    return asyncio.run(run())


def test_a_step_that_is_under_way_ends_before_what_it_uses_is_closed(
    world: InboxWorld, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun, goes_on = threading.Event(), threading.Event()
    apply = LiveProfiles.apply

    def slow_apply(profiles: LiveProfiles, messages: dict[str, object]) -> object:
        if messages:
            begun.set()
            assert goes_on.wait(10)
        return apply(profiles, messages)  # type: ignore[arg-type]

    monkeypatch.setattr(LiveProfiles, "apply", slow_apply)
    loop = LiveLoop(world.project, 0.1)
    call = identify(1, "c-ann", plan="gold")
    with caplog.at_level(logging.WARNING):
        loop.step()
        loop.arrived([arrival(call)])
        stopped_when(loop, begun.is_set, goes_on.set)
    assert caplog.messages == []
    assert (loop.messages, loop.queue_length) == (1, 1)
    assert receiver.state["c-ann"] == {"Plan": "pro"}
    world.post(call, received=at(DAY, 22))  # it is on disk, and goes out with the next start
    LiveLoop(world.project, 0.1).step()
    assert receiver.state["c-ann"] == {"Plan": "gold"}


def test_a_call_that_waits_for_a_destination_ends_with_the_service(world: InboxWorld, receiver: Receiver) -> None:
    receiver.status = 429  # for as long as a quarter of an hour it would be tried again
    loop = LiveLoop(world.project, 0.1)
    loop.arrived([arrival(identify(1, "c-ann", plan="gold"))])
    assert stopped_when(loop, lambda: receiver.calls > 2) < 5
    assert loop.queue_length == 1
    calls, receiver.status = receiver.calls, 200
    time.sleep(0.5)
    assert receiver.calls == calls


def test_a_segment_that_is_on_its_way_into_the_lake_goes_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, landings = threading.Event(), []
    land = segments.land_segment

    def slow_land(store: Store, path: Path) -> int:
        landings.append(path.name)
        begun.set()
        time.sleep(0.5)
        return land(store, path)

    monkeypatch.setattr(segments, "land_segment", slow_land)
    file = write_settings(tmp_path, inbox="  roll_seconds: 0.2")
    with serving(file) as service:
        for number in range(2):
            event = {"userId": "u", "event": "Paid", "messageId": f"m{number}", "writeKey": WEB_KEY}
            assert httpx.post(f"{service.address}/v1/track", json=event).status_code == 200
            assert begun.wait(10)
    assert len(landings) == len(set(landings)) == 2
    assert sorted(landed(opened(file), "track")["message_id"]) == ["m0", "m1"]
    assert list((tmp_path / "lake/_inbox/spool").iterdir()) == []


def test_a_task_that_is_cancelled_waits_for_its_thread_and_keeps_what_it_raised() -> None:
    async def cancelled_while_it_works() -> BaseException | None:
        begun = threading.Event()

        def work() -> None:
            begun.set()
            time.sleep(0.1)
            raise ValueError("as found")

        task = asyncio.create_task(to_its_end(work))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as cancelled:
            return cancelled.__cause__
        return None

    assert str(asyncio.run(cancelled_while_it_works())) == "as found"
