"""Sensors that tell at the same time tell once; one that is killed at any step is followed by one who tells it."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alert_receivers import Inbox, http_receiver

from heap_assets.alerts import Alarm, Kind, Message, Outbox
from heap_assets.alerts.channels import WebhookChannel
from heap_assets.storage import Store

TELLING = """
import os, sys
from heap_assets.alerts import Alarm, Kind, Message, Outbox
from heap_assets.alerts.channels import WebhookChannel
from heap_assets.storage import Store

def tell(url, lake, kind, recovered, dies_at):
    store, changes = Store(lake), 0

    def counted(method):
        def call(*arguments):
            nonlocal changes
            changes += 1
            if changes == dies_at:
                os.kill(os.getpid(), 9)
            return method(*arguments)
        return call

    for name in ("write", "update", "delete"):
        setattr(store, name, counted(getattr(store, name)))
    alarms = [Alarm(Kind(kind), f"asset{n}", "unique_keys", recovered=recovered == "True") for n in range(3)]
    Outbox(store, [WebhookChannel(url=url, name="ops")], {}).send_if_new(Message("A run has ended", tuple(alarms)))
    print(changes, flush=True)

print("ready", flush=True)
for line in sys.stdin:
    lake, kind, recovered, dies_at = line.split()
    if (child := os.fork()) == 0:
        tell(sys.argv[1], lake, kind, recovered, int(dies_at))
        os._exit(0)
    if os.waitpid(child, 0)[1] == 9:
        print("killed", flush=True)
"""


class Sensor:
    """A process that tells what it is asked to, and may be killed at the n-th change that it makes."""

    def __init__(self, inbox: Inbox) -> None:
        command = [sys.executable, "-c", TELLING, inbox.url]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.said() == "ready"

    def ask(self, lake: Path, kind: Kind, *, recovered: bool = False, dies_at: int = 0) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{lake} {kind.value} {recovered} {dies_at}\n")
        self.process.stdin.flush()

    def said(self) -> str:
        """Return how many changes it made, or that it was killed."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        self.process.communicate(timeout=30)


def test_sensors_that_tell_at_once_tell_once(tmp_path: Path) -> None:
    with http_receiver() as inbox:
        sensors = [Sensor(inbox) for _ in range(3)]
        for kind, recovered in [(Kind.CHECK_WARNED, False), (Kind.CHECK_FAILED, False), (Kind.CHECK_FAILED, True)] * 5:
            before = len(inbox.bodies)
            for sensor in sensors:
                sensor.ask(tmp_path, kind, recovered=recovered)
            assert all(sensor.said().isdigit() for sensor in sensors)
            sensors[0].ask(tmp_path, kind, recovered=recovered)  # what stood behind another's message is sent next
            assert sensors[0].said().isdigit()
            told = [alarm for message in inbox.json()[before:] for alarm in message["alarms"]]  # type: ignore[attr-defined]
            assert sorted(alarm["subject"] for alarm in told) == ["asset0", "asset1", "asset2"]
            assert {alarm["recovered"] for alarm in told} == {recovered}
        for sensor in sensors:
            sensor.end()


def test_what_a_killed_sensor_began_to_tell_is_told(tmp_path: Path) -> None:
    with http_receiver() as inbox:
        sensor = Sensor(inbox)
        sensor.ask(tmp_path / "undisturbed", Kind.CHECK_FAILED)
        changes = int(sensor.said())
        assert changes >= 7
        for dies_at in range(1, changes + 1):
            lake, before = tmp_path / f"lake{dies_at}", len(inbox.bodies)
            sensor.ask(lake, Kind.CHECK_FAILED, dies_at=dies_at)
            assert sensor.said() == "killed"
            store = Store(str(lake))
            again = Outbox(store, [WebhookChannel(url=inbox.url, name="ops")], {})
            alarms = [Alarm(Kind.CHECK_FAILED, f"asset{n}", "unique_keys") for n in range(3)]
            again.send_if_new(Message("A run has ended", tuple(alarms)))
            _minutes_pass(store)
            again.deliver()
            told = [alarm for message in inbox.json()[before:] for alarm in message["alarms"]]  # type: ignore[attr-defined]
            twice = 2 if dies_at == changes else 1  # sent, and killed before that was noted
            assert sorted(alarm["subject"] for alarm in told) == sorted(["asset0", "asset1", "asset2"] * twice)
            assert again.waiting() == 0
        sensor.end()


@pytest.mark.parametrize("hours", [-1, 1000])
def test_a_claim_of_a_clock_that_is_wrong_holds_nothing_up(tmp_path: Path, hours: int) -> None:
    store = Store(str(tmp_path))
    with http_receiver() as inbox:
        inbox.status = 503
        outbox = Outbox(store, [WebhookChannel(url=inbox.url, name="ops")], {})
        outbox.send_if_new(Message("A run has ended", (Alarm(Kind.CHECK_FAILED, "asset", "unique_keys"),)))
        inbox.status = 200
        _minutes_pass(store, timedelta(hours=hours), claim="another's")
        Outbox(store, outbox.channels, {}).deliver()
        assert outbox.waiting() == 0
        assert inbox.bodies


def _minutes_pass(store: Store, ago: timedelta = timedelta(minutes=-6), claim: str | None = None) -> None:
    """Let every claim on a message be of another time than it is."""
    for info in store.list("_alerts/outbox"):
        body = json.loads(store.read(info.key))
        if claim or "since" in body:
            more = {"sending": claim} if claim else {}
            since = (datetime.now(UTC) + ago).isoformat()
            store.write(info.key, json.dumps({**body, **more, "since": since}).encode())
