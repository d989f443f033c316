"""Nothing that was answered 200 is lost: killed services, full disks, torn files, two services on one lake."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from heap_assets.live.commit import GroupCommit
from heap_assets.sources.inbox import Arrival, SegmentWriter, SpoolError, parts_version, read_records, stored_parts
from heap_assets.sources.inbox.parts import put_together, read_parts
from heap_assets.storage import Store
from heap_assets_tests.live.service_process import (
    WEB_KEY,
    landed,
    opened,
    running,
    serving,
    start_service,
    write_settings,
)

KILLS = int(os.environ.get("HEAP_ASSETS_LIVE_KILLS", "2"))


def test_every_event_that_was_answered_200_is_in_the_lake_once_however_often_the_service_is_killed(
    tmp_path: Path,
) -> None:
    file = write_settings(tmp_path, inbox="  roll_seconds: 0.2")
    answered: set[str] = set()
    pause = random.Random(20)
    for round_number in range(KILLS):
        service = start_service(file)
        stopped = threading.Event()
        senders = [
            threading.Thread(target=_send, args=(service.address, f"{round_number}-{n}", answered, stopped))
            for n in range(4)
        ]
        for sender in senders:
            sender.start()
        time.sleep(pause.uniform(0.1, 1.2))
        service.kill()
        stopped.set()
        for sender in senders:
            sender.join()
    with running(file) as service:
        assert httpx.get(f"{service.address}/healthz").json()["status"] == "ok"
        assert service.stop() == 0
    project = opened(file)
    ids = landed(project, "track")["message_id"]
    assert len(answered) > 20 * KILLS
    assert answered <= set(ids)
    assert ids.is_unique().all()
    assert list((tmp_path / "lake/_inbox/spool").iterdir()) == []


def _send(address: str, prefix: str, answered: set[str], stopped: threading.Event) -> None:
    with httpx.Client(base_url=address, auth=(WEB_KEY, "")) as client:
        for number in range(100_000):
            if stopped.is_set():
                return
            event = {"userId": f"u{number}", "event": "Paid", "messageId": f"{prefix}-{number}"}
            try:
                if client.post("/v1/track", json=event).status_code == 200:
                    answered.add(event["messageId"])
            except httpx.HTTPError:
                return


def _arrival(number: int) -> Arrival:
    message = {"table": "track", "message_id": f"m{number}", "time": 1_700_000_000_000_000, "body": {"n": number}}
    return Arrival("web", datetime(2026, 1, 5, tzinfo=UTC), [message])


@pytest.fixture
def writer(tmp_path: Path) -> SegmentWriter:
    return SegmentWriter(Store(str(tmp_path / "lake")), tmp_path / "spool", 0.0, 1 << 20)


def test_a_torn_record_and_all_after_it_are_not_read(tmp_path: Path, writer: SegmentWriter) -> None:
    for number in range(3):
        writer.append([_arrival(number).record()])
    (segment,) = (tmp_path / "spool").iterdir()
    whole = segment.read_bytes()
    assert len(list(read_records(segment))) == 3
    for size in range(len(whole)):
        segment.write_bytes(whole[:size])
        assert len(list(read_records(segment))) == size * 3 // len(whole)
    third = len(whole) // 3
    segment.write_bytes(whole[: third + 20] + b"\0" + whole[third + 21 :])
    assert len(list(read_records(segment))) == 1


def test_a_full_disk_keeps_what_was_answered_and_nothing_of_what_was_not(
    tmp_path: Path, writer: SegmentWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.append([_arrival(1).record()])
    real = os.write

    def half_written(descriptor: int, data: bytes) -> int:
        if len(data) > 4:
            return real(descriptor, bytes(data[:4]))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", half_written)
    with pytest.raises(SpoolError, match="No space left"):
        writer.append([_arrival(2).record()])
    monkeypatch.undo()
    writer.append([_arrival(3).record()])
    writer.close_segment()
    assert writer.land() == 2
    store = Store(str(tmp_path / "lake"))
    ids = read_parts(store, stored_parts(store, "track")).collect()["message_id"]
    assert sorted(ids) == ["m1", "m3"]


def test_the_endpoint_answers_503_on_a_full_disk_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    file = write_settings(tmp_path, inbox="  spool: spool")
    with serving(file) as service, httpx.Client(base_url=service.address, auth=(WEB_KEY, "")) as client:
        (tmp_path / "spool").write_text("a file where the folder should be")
        event = {"userId": "u", "event": "Paid", "messageId": "m1"}
        answer = client.post("/v1/track", json=event)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert client.get("/healthz").status_code == 503
        (tmp_path / "spool").unlink()
        assert client.post("/v1/track", json=event).status_code == 200
        assert client.get("/healthz").status_code == 200


def test_segments_that_were_landed_before_a_kill_are_landed_again_to_the_same_parts(
    tmp_path: Path, writer: SegmentWriter
) -> None:
    store = Store(str(tmp_path / "lake"))
    writer.append([_arrival(number).record() for number in range(5)])
    writer.close_segment()
    (segment,) = (tmp_path / "spool").iterdir()
    copy = segment.read_bytes()
    writer.land()
    before = parts_version(stored_parts(store, "track"))
    segment.write_bytes(copy)
    successor = SegmentWriter(store, tmp_path / "spool", 0.0, 1 << 20)
    assert successor.take_over() == 1
    successor.land()
    assert parts_version(stored_parts(store, "track")) == before


def test_a_service_leaves_the_open_segments_of_another_that_lives(tmp_path: Path, writer: SegmentWriter) -> None:
    writer.append([_arrival(1).record()])
    other = SegmentWriter(Store(str(tmp_path / "lake")), tmp_path / "spool", 0.0, 1 << 20)
    assert other.take_over() == 0
    assert writer.take_over() == 0


def test_two_services_on_one_lake_keep_all_that_either_answered(tmp_path: Path) -> None:
    file = write_settings(tmp_path, inbox="  roll_seconds: 0.2")
    with running(file) as first, running(file) as second:
        for number in range(40):
            url = (first, second)[number % 2].address
            event = {"userId": "u", "event": "Paid", "messageId": f"m{number}", "writeKey": WEB_KEY}
            assert httpx.post(f"{url}/v1/track", json=event).status_code == 200
        assert (first.stop(), second.stop()) == (0, 0)
    ids = landed(opened(file), "track")["message_id"]
    assert sorted(ids) == sorted(f"m{number}" for number in range(40))


def test_many_small_parts_become_one_with_the_same_messages(tmp_path: Path, writer: SegmentWriter) -> None:
    store = Store(str(tmp_path / "lake"))
    for number in range(40):
        writer.append([_arrival(number).record()])
        writer.close_segment()
        writer.land()
    parts = put_together(store, stored_parts(store, "track"))
    assert len(parts) == len(stored_parts(store, "track")) == 1
    assert sorted(read_parts(store, parts).collect()["message_id"]) == sorted(f"m{n}" for n in range(40))


def test_calls_that_arrive_together_are_flushed_together(writer: SegmentWriter) -> None:
    committed: list[int] = []

    async def many() -> int:
        commit = GroupCommit(writer, 1 << 20, lambda arrivals: committed.append(len(arrivals)))
        await asyncio.gather(*(commit.keep(_arrival(number)) for number in range(500)))
        return commit.groups

    assert asyncio.run(many()) <= 3
    assert sum(committed) == 500
