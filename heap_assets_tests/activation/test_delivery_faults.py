"""What goes wrong at the other side, and what must be true afterwards."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from pathlib import Path

import delivery_kit as kit
import polars as pl
import pytest

from heap_assets.activation import LeaseHeldError, Retry, Status, changelog, deliver, rejected, retry_rejected, runs
from heap_assets.activation.connectors.heap import HeapApp
from heap_assets.activation.connectors.heap_user_properties import HeapUserProperties
from heap_assets.demo.server_process import ServerProcess, running_server
from heap_assets.storage import Store


def assert_delivered(heap: ServerProcess, rows: pl.DataFrame) -> None:
    expected = {key: {"Plan": plan, "Seats": seats} for key, plan, seats in rows.iter_rows()}
    assert kit.properties(heap) == expected


@pytest.mark.parametrize(
    "order",
    [
        {"status": 429, "retry_after": 0.05, "every": 3},
        {"status": 429, "every": 2},
        {"status": 500, "every": 3},
        {"status": 503, "retry_after": 0.05, "every": 4},
        {"kind": "reset", "every": 3},
        {"kind": "drop", "every": 3},
        {"kind": "half", "every": 3},
        {"kind": "slow", "seconds": 0.3, "every": 5},
    ],
    ids=lambda order: f"{order.get('kind', '')}{order.get('status', '')}{'-wait' if 'retry_after' in order else ''}",
)
def test_every_row_arrives_whatever_happens_on_the_way(
    heap: ServerProcess, lake: Store, order: dict[str, object]
) -> None:
    heap.fail(order)
    report = kit.send(heap, lake, kit.people(200), batch_rows=20)
    assert (report.status, report.sent) == (Status.SUCCEEDED, 200)
    assert_delivered(heap, kit.people(200))
    kit.assert_ledger_is_the_log(lake)


def test_a_hanging_call_times_out_and_is_tried_again(heap: ServerProcess, lake: Store) -> None:
    heap.fail({"kind": "hang", "next": 2})
    report = kit.send(heap, lake, kit.people(100), batch_rows=20, retry=Retry(4, 0.02, 0.1, timeout=0.4))
    assert report.status == Status.SUCCEEDED
    assert report.retried == 2
    assert_delivered(heap, kit.people(100))


def test_429_uses_no_attempt(heap: ServerProcess, lake: Store) -> None:
    heap.fail({"status": 429, "retry_after": 0.01, "next": 25})
    report = kit.send(heap, lake, kit.people(10), concurrency=1)
    assert (report.status, report.throttled, report.retried) == (Status.SUCCEEDED, 25, 0)


def test_a_long_retry_after_is_cut(heap: ServerProcess, lake: Store) -> None:
    heap.fail({"status": 429, "retry_after": 3600, "next": 1})
    begun = time.monotonic()
    report = kit.send(heap, lake, kit.people(10), retry=Retry(4, 0.02, 0.1, longest_retry_after=0.2, timeout=2))
    assert report.status == Status.SUCCEEDED
    assert 0.2 <= time.monotonic() - begun < 10


def test_nothing_but_429_ends_the_run_some_day(heap: ServerProcess, lake: Store) -> None:
    heap.fail({"status": 429, "retry_after": 0.05})
    report = kit.send(heap, lake, kit.people(10), retry=Retry(4, 0.02, 0.1, throttled_for=0.5, timeout=2))
    assert report.status == Status.STOPPED
    assert "429" in str(report.reason)


def test_one_bad_row_of_a_thousand_is_isolated_without_being_named(heap: ServerProcess, lake: Store) -> None:
    heap.fail({"kind": "refuse_rows", "match": "^u417@", "status": 400, "say_which": False})
    report = kit.send(heap, lake, kit.people(1000))
    assert (report.status, report.sent, report.rejected) == (Status.PARTIAL, 999, 1)
    assert report.requests <= 25
    assert_delivered(heap, kit.people(1000).filter(pl.col("key") != "u417@x.example"))
    assert len(report.sample) == 1
    assert "u417" not in str(report)


def test_bad_rows_that_the_answer_names_cost_one_more_call(heap: ServerProcess, lake: Store) -> None:
    heap.fail({"kind": "refuse_rows", "match": "^u4[0-9]?@", "status": 400, "say_which": True})
    report = kit.send(heap, lake, kit.people(100))
    assert (report.sent, report.rejected, report.requests) == (89, 11, 2)


def test_a_batch_that_is_too_large_is_split(heap: ServerProcess, lake: Store) -> None:
    heap.fail({"kind": "refuse_batch", "larger_than": 30, "status": 413})
    report = kit.send(heap, lake, kit.people(100))
    assert (report.status, report.sent) == (Status.SUCCEEDED, 100)


def test_a_broken_mapping_stops_the_run_soon(heap: ServerProcess, lake: Store) -> None:
    heap.fail({"kind": "refuse_rows", "match": ".", "status": 400})
    report = kit.send(heap, lake, kit.people(5000), concurrency=1)
    assert report.status == Status.STOPPED
    assert "mapping" in str(report.reason)
    assert report.requests < 100
    assert report.aborted >= 4000


@pytest.mark.parametrize("status", [401, 403, 404])
def test_refused_credentials_stop_the_run_and_what_was_done_is_kept(
    heap: ServerProcess, lake: Store, status: int
) -> None:
    heap.fail({"status": status, "skip": 2})
    report = kit.send(heap, lake, kit.people(100), batch_rows=10, concurrency=1)
    assert (report.status, report.sent, report.aborted) == (Status.STOPPED, 20, 80)
    assert str(status) in str(report.reason)
    heap.fail()
    rest = kit.send(heap, lake, kit.people(100), batch_rows=10)
    assert (rest.status, rest.sent, rest.unchanged) == (Status.SUCCEEDED, 80, 20)


def test_a_dead_host_stops_the_run_and_what_was_done_is_kept(heap: ServerProcess, lake: Store) -> None:
    heap.fail({"kind": "dead", "skip": 3})
    report = kit.send(heap, lake, kit.people(100), batch_rows=10, concurrency=2)
    assert (report.status, report.sent) == (Status.STOPPED, 30)
    assert report.unknown + report.aborted == 70
    heap.fail()
    assert kit.send(heap, lake, kit.people(100), batch_rows=10).status == Status.SUCCEEDED
    assert_delivered(heap, kit.people(100))


def test_nobody_listening_leaves_rows_aborted_not_unknown(lake: Store) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = HeapUserProperties(HeapApp(kit.APP, base_url=f"http://127.0.0.1:{free.getsockname()[1]}"))
        report = deliver(kit.spec(), nowhere, kit.people(5).lazy(), lake, kit.DAY, "r")
    assert (report.status, report.unknown, report.aborted) == (Status.STOPPED, 0, 5)


def test_a_server_that_dies_and_returns_misses_nothing(tmp_path: Path, lake: Store) -> None:
    with running_server("heap", tmp_path / "heap") as mortal:
        mortal.fail({"kind": "exit", "skip": 3, "next": 1})
        report = kit.send(mortal, lake, kit.people(100), batch_rows=10, concurrency=2)
        assert report.status == Status.STOPPED
        port = int(mortal.base_url.rsplit(":", 1)[-1])
    with running_server("heap", tmp_path / "heap", port=port) as reborn:
        assert kit.send(reborn, lake, kit.people(100), batch_rows=10).status == Status.SUCCEEDED
        assert_delivered(reborn, kit.people(100))


def test_a_value_in_flight_is_sent_again_even_if_it_went_back(heap: ServerProcess, lake: Store) -> None:
    """Sent "new", no answer; the source is back to "old", which the ledger knows: the destination may hold "new"."""
    kit.send(heap, lake, kit.people(5, plan="old"))
    heap.fail({"kind": "drop"})
    lost = kit.send(heap, lake, kit.people(5, plan="new"))
    assert (lost.status, lost.unknown) == (Status.STOPPED, 5)
    assert kit.properties(heap)["u0@x.example"]["Plan"] == "new"
    heap.fail()
    report = kit.send(heap, lake, kit.people(5, plan="old"))
    assert (report.sent, report.recovered) == (5, 5)
    assert kit.properties(heap)["u0@x.example"]["Plan"] == "old"


def test_a_merge_corrected_after_it_was_sent_leaves_nothing_on_the_wrong_person(
    heap: ServerProcess, lake: Store
) -> None:
    wrong = pl.DataFrame({"key": ["ann", "bob"], "plan": ["bobs plan", "bobs plan"], "seats": [9, 9]})
    right = pl.DataFrame({"key": ["ann", "bob"], "plan": [None, "bobs plan"], "seats": [None, 9]})
    kit.send(heap, lake, wrong)
    kit.send(heap, lake, right)
    assert kit.properties(heap) == {
        "ann": {"Plan": "(none)", "Seats": "(none)"},
        "bob": {"Plan": "bobs plan", "Seats": 9},
    }


def test_rejected_rows_are_tried_again_with_their_newest_values_but_ever_less_often(
    heap: ServerProcess, lake: Store
) -> None:
    heap.fail({"kind": "refuse_rows", "match": "^u3@", "status": 422})
    for number in range(3):
        report = kit.send(heap, lake, kit.people(10), run=f"r{number}")
        assert report.rejected == 1
    waiting = kit.send(heap, lake, kit.people(10), run="r3")
    assert (waiting.rejected, waiting.waiting, waiting.requests) == (0, 1, 0)
    assert waiting.status == Status.PARTIAL

    table = rejected(lake, kit.spec())
    assert table["failures"].to_list() == [3]
    assert "HTTP 422" in table["reason"][0]

    changed = kit.people(10).with_columns(plan=pl.lit("other"))
    assert kit.send(heap, lake, changed, run="r4", confirmed=True).rejected == 1, "a new value is tried at once"

    heap.fail()
    assert retry_rejected(lake, kit.spec(), "operator") == 1
    healed = kit.send(heap, lake, changed, run="r5")
    assert (healed.sent, healed.waiting, healed.status) == (1, 0, Status.SUCCEEDED)
    assert not len(rejected(lake, kit.spec()))
    kit.assert_ledger_is_the_log(lake)


def test_two_runs_at_once_the_second_fails_at_once_and_names_the_first(heap: ServerProcess, lake: Store) -> None:
    heap.fail({"kind": "slow", "seconds": 1.0, "next": 1})
    first = threading.Thread(target=kit.send, args=(heap, lake, kit.people(10), "the-first-run"))
    first.start()
    try:
        deadline = time.monotonic() + 10
        while not lake.list("_sync/users/lease") and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(LeaseHeldError, match="the-first-run"):
            kit.send(heap, lake, kit.people(10), "the-second-run")
    finally:
        first.join()
    assert runs(lake, "users")["run_id"].to_list() == ["the-first-run"]


def test_an_interrupted_run_stops_sending_before_its_lease_is_gone(heap: ServerProcess, lake: Store) -> None:
    heap.fail({"kind": "slow", "seconds": 0.1})

    def interrupt_once_it_sends() -> None:
        deadline = time.monotonic() + 30
        while not kit.requests(heap) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    interrupter = threading.Thread(target=interrupt_once_it_sends)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        kit.send(heap, lake, kit.people(800), batch_rows=10)
    interrupter.join()
    sent = kit.requests(heap)
    time.sleep(0.3)
    assert kit.requests(heap) == sent
    assert runs(lake, "users")["status"].to_list() == ["stopped"]
    heap.fail()
    assert kit.send(heap, lake, kit.people(800)).status == Status.SUCCEEDED
    assert_delivered(heap, kit.people(800))


def test_an_interrupt_while_workers_start_stops_those_that_have_begun(
    heap: ServerProcess, lake: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    heap.fail({"kind": "slow", "seconds": 0.1})
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        if thread.name == "deliver-1":
            raise KeyboardInterrupt
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        kit.send(heap, lake, kit.people(800), batch_rows=10, concurrency=2)
    sent = kit.requests(heap)
    time.sleep(0.3)
    assert kit.requests(heap) == sent
    assert runs(lake, "users")["status"].to_list() == ["stopped"]


def test_a_call_that_may_have_arrived_stays_unknown_when_another_worker_stops_the_run(
    heap: ServerProcess, lake: Store
) -> None:
    heap.fail({"kind": "drop", "next": 1}, {"status": 403})
    report = kit.send(heap, lake, kit.people(40), batch_rows=10, concurrency=2)
    assert (report.status, report.unknown) == (Status.STOPPED, 10)
    heap.fail()
    assert kit.send(heap, lake, kit.people(40)).sent == 40


def test_nothing_personal_or_secret_is_logged_or_reported(
    heap: ServerProcess, lake: Store, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    rows = pl.DataFrame({"key": ["planted.person@x.example"], "plan": ["planted-value"], "seats": [1]})
    long = pl.DataFrame({"key": ["planted.long@x.example"], "plan": ["planted-value" * 200], "seats": [1]})
    heap.fail({"kind": "refuse_rows", "match": "planted", "status": 400})
    report = kit.send(heap, lake, pl.concat([rows, long]))
    assert (report.rejected, report.invalid) == (1, 1)
    heap.fail({"kind": "dead"})
    stopped = kit.send(heap, lake, rows.with_columns(plan=pl.lit("planted-value-2")))
    seen = [str(report), str(report.as_dict()), str(stopped), caplog.text, *capfd.readouterr()]
    seen += [runs(lake, "users").write_json(), changelog(lake, "users").write_json()]
    assert not [text for text in seen if "planted" in text]
    stored = b"".join(lake.read(info.key) for info in lake.list("_sync"))
    assert b"planted-value" not in stored
