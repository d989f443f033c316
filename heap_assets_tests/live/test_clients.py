"""Clients as they are: slow, idle by the thousand, too many at once, and people who watch the page."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from heap_assets_tests.live.inbox_world import KEY, InboxWorld, identify
from heap_assets_tests.live.receiver import Receiver
from heap_assets_tests.live.service_process import (
    SERVER_KEY,
    WEB_KEY,
    ServiceInThread,
    running,
    serving,
    write_settings,
)

IDLE = int(os.environ.get("HEAP_ASSETS_LIVE_IDLE", "1000"))
LIMITS = "  limits: {messages_per_second: 20}"


def _connect(address: str) -> socket.socket:
    host, _, port = address.rpartition("//")[2].partition(":")
    return socket.create_connection((host, int(port)), timeout=10)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(write_settings(tmp_path_factory.mktemp("clients"), inbox=LIMITS)) as service:
        yield service.address


def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    with serving(write_settings(tmp_path, inbox="  limits: {body_seconds: 0.5}")) as service:
        with _connect(service.address) as connection:
            connection.sendall(b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            assert b" 408 " in connection.recv(1000).split(b"\r\n")[0]
        with _connect(service.address) as connection:  # one that goes away half-way is forgotten
            connection.sendall(b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert httpx.get(f"{service.address}/healthz").status_code == 200


@pytest.fixture
def idle_address(address: str, tmp_path: Path) -> Iterator[str]:
    """A service that has its open files for itself, if both ends of all connections are too many for one process."""
    if IDLE <= 1000:
        yield address
        return
    with running(write_settings(tmp_path)) as service:
        yield service.address


def test_idle_connections_do_not_keep_others_out(idle_address: str) -> None:
    address = idle_address
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(IDLE, hard - 200)
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(count):
            stack.enter_context(_connect(address))
        event = {"userId": "u", "event": "Seen", "writeKey": WEB_KEY}
        begun = time.monotonic()
        assert httpx.post(f"{address}/v1/track", json=event, timeout=60).status_code == 200
        assert httpx.get(f"{address}/healthz", timeout=60).status_code == 200
        print(f"{count} idle connections: a call and a look at its health took {time.monotonic() - begun:.2f} s")


def test_calls_beyond_the_connections_are_refused_until_some_are_closed(tmp_path: Path) -> None:
    with serving(write_settings(tmp_path, inbox="  limits: {connections: 6}")) as service:
        event = {"userId": "u", "event": "Seen", "writeKey": WEB_KEY}
        with contextlib.ExitStack() as stack:
            for _ in range(6):
                stack.enter_context(_connect(service.address))
            assert httpx.post(f"{service.address}/v1/track", json=event).status_code == 503
        time.sleep(0.2)
        assert httpx.post(f"{service.address}/v1/track", json=event).status_code == 200


def test_garbage_is_answered_and_the_next_call_is_taken(address: str) -> None:
    for garbage in (b"\0" * 500, b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/track HTTP/1.1\r\nContent-Length: x\r\n\r\n"):
        with _connect(address) as connection:
            connection.sendall(garbage)
            answer = connection.recv(1000)
            assert answer == b"" or b" 4" in answer.split(b"\r\n")[0]
    assert httpx.get(f"{address}/healthz").status_code == 200


def test_a_burst_of_ten_times_the_rate_is_taken_and_more_is_put_off(address: str) -> None:
    async def burst(count: int) -> list[httpx.Response]:
        async with httpx.AsyncClient(auth=(WEB_KEY, ""), timeout=60) as client:
            event = {"userId": "u", "event": "Seen"}
            calls = [client.post(f"{address}/v1/track", json=event | {"messageId": f"b{n}"}) for n in range(count)]
            return await asyncio.gather(*calls)

    time.sleep(0.5)
    began = time.monotonic()
    answers = asyncio.run(burst(300))
    refilled = 20 * (time.monotonic() - began)
    statuses = [answer.status_code for answer in answers]
    assert 190 <= statuses.count(200) <= 201 + refilled
    assert statuses.count(200) + statuses.count(429) == 300
    other_key = httpx.post(f"{address}/v1/track", json={"userId": "u", "event": "Seen"}, auth=(SERVER_KEY, ""))
    assert other_key.status_code == 200
    assert all(int(a.headers["Retry-After"]) >= 1 for a in answers if a.status_code == 429)


def test_the_page_shows_what_came_who_changed_and_what_went_out_without_a_value_of_anybody(
    world: InboxWorld,
    receiver: Receiver,
) -> None:
    service = ServiceInThread(Path(world.folder) / "heap_assets.yaml", world.project)
    page = httpx.get(f"{service.address}/")
    assert "EventSource" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    call = identify(1, "c-ann", plan="hidden-plan", email="ann@x.example")
    assert httpx.post(f"{service.address}/v1/identify", json=call, auth=(KEY, "")).status_code == 200
    with httpx.stream("GET", f"{service.address}/events", timeout=30) as stream:
        lines = (line for line in stream.iter_lines() if '"sent": {"crm": 1}' in line)
        step = next(lines)
        assert '"identify": 1' in step
        assert '"changed": ["' in step
        assert "plan" in step
        for value in ("hidden-plan", "c-ann", "ann@"):
            assert value not in step
        begun = time.monotonic()
        service.stop()
        assert time.monotonic() - begun < 4.5
    assert receiver.state["c-ann"] == {"Plan": "hidden-plan"}
