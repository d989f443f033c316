"""What takes minutes: a destination that is down or slow for long, a lake in S3, micro-batches of a real daemon.

`HEAP_ASSETS_LIVE_SECONDS=600`.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from heap_assets.sources.inbox import read_parts, stored_parts
from heap_assets_tests.end_to_end.dagster_process import dagster_dev
from heap_assets_tests.live.conftest import LIVE
from heap_assets_tests.live.inbox_world import INBOX, KEY, SYNC, InboxWorld, build, identify
from heap_assets_tests.live.receiver import Receiver
from heap_assets_tests.live.service_process import Service, ServiceInThread, start_service
from heap_assets_tests.pipelines import delivery_world
from heap_assets_tests.pipelines.delivery_world import DAY, NOW, at, why
from heap_assets_tests.s3_server import s3_server

SECONDS = int(os.environ["HEAP_ASSETS_LIVE_SECONDS"])
_PEOPLE = 200


class Posting:
    """Somebody who posts at a rate, and remembers the newest plan of each person that was answered 200."""

    def __init__(self, address: str, rate: float) -> None:
        self._address, self._rate = address, rate
        self.newest: dict[str, str] = {}
        self.statuses: set[int] = set()
        self.seconds: list[float] = []
        self._stopped = threading.Event()

    def run(self) -> None:
        begun = time.monotonic()
        with httpx.Client(base_url=self._address, auth=(KEY, ""), timeout=30) as client:
            for number in itertools.count():
                if self._stopped.wait(max(begun + number / self._rate - time.monotonic(), 0)):
                    return
                person, plan = f"c-{number % _PEOPLE}", f"plan{number}"
                sent = time.monotonic()
                call = identify(10 * _PEOPLE + number, person, plan=plan)
                status = client.post("/v1/identify", json=call).status_code
                self.seconds.append(time.monotonic() - sent)
                self.statuses.add(status)
                self.newest[person] = plan

    @contextmanager
    def going_on(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()

    def has_arrived(self, receiver: Receiver) -> bool:
        return all(receiver.state.get(person) == {"Plan": plan} for person, plan in self.newest.items())

    @property
    def p95(self) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * 0.95)]


@pytest.fixture
def service(world: InboxWorld, receiver: Receiver) -> Iterator[Service]:
    world.choose(SYNC.replace("RECEIVER", receiver.url))
    everybody = [identify(number, f"c-{number}", plan="free") for number in range(10 * _PEOPLE)]
    world.post(*everybody, received=at(DAY, 20))
    build(world, judge=True)
    assert world.run(["sync/crm"], DAY).success  # of ten people one changes, again and again: the guard lets that be
    file = Path(world.folder) / "heap_assets.yaml"
    running = start_service(file, {"HEAP_ASSETS_NOW": NOW, "HEAP_ASSETS_TEST_WRITE_KEY": KEY})
    yield running
    running.kill()


def megabytes(service: Service) -> float:
    pages = int(Path(f"/proc/{service.process.pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)


def until(holds: Callable[[], bool], seconds: float = 120.0) -> float:
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < seconds
        time.sleep(0.1)
    return round(time.monotonic() - begun, 1)


def test_a_destination_that_is_down_for_long_gets_the_newest_values_once_it_is_back(
    world: InboxWorld, receiver: Receiver, service: Service
) -> None:
    del world
    receiver.status = 503
    posting, memory = Posting(service.address, 50), []
    with posting.going_on():
        for _ in range(10):
            time.sleep(SECONDS / 10)
            memory.append(megabytes(service))
    waiting = f"heap_assets_live_queue_length {float(len(posting.newest))}\n"
    until(lambda: waiting in httpx.get(f"{service.address}/metrics").text)
    refused = receiver.calls
    receiver.status = 200
    back = until(lambda: posting.has_arrived(receiver))
    print(
        f"down for {SECONDS} s: {len(posting.seconds)} calls answered {posting.statuses}, {refused} refused sends, "
        f"all {len(posting.newest)} people {back} s after it was back; memory {memory} MB"
    )
    assert posting.statuses == {200}
    assert memory[-1] - memory[2] < 100


def test_a_slow_destination_slows_no_answer_and_gets_the_newest_values(
    world: InboxWorld, receiver: Receiver, service: Service
) -> None:
    del world
    receiver.delay = 2.0
    posting = Posting(service.address, 50)
    with posting.going_on():
        time.sleep(SECONDS / 10)
    behind = until(lambda: posting.has_arrived(receiver))
    print(
        f"slow: {len(posting.seconds)} calls, p95 of answers {posting.p95:.3f} s, all there {behind} s after the last"
    )
    assert posting.statuses == {200}


def test_micro_batches_of_a_real_daemon_take_less_than_a_minute(
    world: InboxWorld, receiver: Receiver, tmp_path: Path
) -> None:
    world.more = "live: {port: 0, follow: dagster}"
    world.choose(SYNC.replace("RECEIVER", receiver.url))
    file = world.folder / "heap_assets.yaml"
    environment = {"HEAP_ASSETS_NOW": NOW, "HEAP_ASSETS_TEST_WRITE_KEY": KEY, "HEAP_ASSETS_SETTINGS": str(file)}
    service = start_service(file, environment)
    with ExitStack() as stack:
        stack.callback(service.kill)
        dagster = stack.enter_context(dagster_dev(tmp_path / "dagster", environment))
        repository = dagster.ask(
            "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"
        )["repositoriesOrError"]["nodes"][0]
        started = dagster.ask(
            """mutation($s: SensorSelector!) { startSensor(sensorSelector: $s) { __typename } }""",
            s={
                "repositoryName": repository["name"],
                "repositoryLocationName": repository["location"]["name"],
                "sensorName": "messages_to_follow",
            },
        )
        assert started["startSensor"]["__typename"] == "Sensor"
        seconds = []
        for number in range(3):
            call = identify(number, "c-ann", plan=f"gold{number}")
            assert httpx.post(f"{service.address}/v1/identify", json=call, auth=(KEY, "")).status_code == 200
            seconds.append(until(lambda n=number: receiver.state["c-ann"] == {"Plan": f"gold{n}"}))
            time.sleep(7 * number)
        receiver.status = 503
        call = identify(9, "c-bob", plan="silver")
        assert httpx.post(f"{service.address}/v1/identify", json=call, auth=(KEY, "")).status_code == 200
        refused = receiver.calls
        until(lambda: receiver.calls >= refused + 3)
        receiver.status = 200
        back = until(lambda: receiver.state["c-bob"] == {"Plan": "silver"}, 180)
    print(f"micro-batches: {seconds} s from the answer to the destination, {back} s after it was back")
    assert max(seconds) < 60


def test_the_live_loop_on_a_lake_in_s3(
    tmp_path: Path, receiver: Receiver, now: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server() as options:
        client: Any = boto3.client(
            "s3",
            endpoint_url=options["aws_endpoint_url"],
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket="live")
        lake = f"lake: {{url: s3://live/lake, options: {{{', '.join(f'{k}: {v!r}' for k, v in options.items())}}}}}"
        text = delivery_world.SETTINGS.replace("lake: ./lake", lake.replace("{", "{{").replace("}", "}}"))
        monkeypatch.setattr("heap_assets_tests.live.inbox_world.SETTINGS", text)

        class Own(InboxWorld):
            inbox = INBOX + "  spool: ./spool\n  roll_seconds: 1\n"

        world = Own(tmp_path / "world", SYNC.replace("RECEIVER", receiver.url), more=LIVE)
        world.write_day(DAY)
        world.resolve(DAY)
        result = world.run(["sync/crm"], DAY)
        assert result.success, why(result)
        for round_number in range(2):
            service = ServiceInThread(world.folder / "heap_assets.yaml", world.project)
            call = identify(round_number, "c-ann", plan=f"gold{round_number}")
            assert httpx.post(f"{service.address}/v1/identify", json=call, auth=(KEY, "")).status_code == 200
            seconds = until(lambda n=round_number: receiver.state["c-ann"] == {"Plan": f"gold{n}"})
            service.stop()
            parts = stored_parts(world.lake.store, "identify")
            assert len(read_parts(world.lake.store, parts).collect()) == round_number + 1
            print(f"a lake in S3: at the destination {seconds} s after the answer")
