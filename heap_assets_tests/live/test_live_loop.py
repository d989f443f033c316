"""Events in, changed profiles out: gate, guard, lease, destinations that are slow or away, killed services."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest

from heap_assets.activation import Log, fold
from heap_assets.activation.engine.lease import Lease
from heap_assets.errors import SettingsError
from heap_assets.live import LiveLoop
from heap_assets.pipelines.live_profiles import LiveProfiles
from heap_assets.sources.inbox import read_parts, stored_parts
from heap_assets_tests.live.inbox_world import FOLDED, INBOX_ASSETS, KEY, SYNC, InboxWorld, arrival, build, identify
from heap_assets_tests.live.receiver import Receiver, receiving
from heap_assets_tests.live.service_process import Service, ServiceInThread, start_service
from heap_assets_tests.pipelines.delivery_world import BEFORE, DAY, NOW, at, contacts, why

pytestmark = pytest.mark.usefixtures("now")


def test_a_changed_profile_arrives_and_an_unchanged_one_does_not(world: InboxWorld, receiver: Receiver) -> None:
    loop = LiveLoop(world.project, 0.1)
    loop.step()
    calls = receiver.calls
    loop.arrived([arrival(identify(1, "c-ann", plan="gold"), identify(2, "c-new", plan="free"))])
    loop.step()
    assert (receiver.state["c-ann"], receiver.state["c-new"]) == ({"Plan": "gold"}, {"Plan": "free"})
    assert receiver.calls == calls + 1
    loop.arrived([arrival(identify(3, "c-ann", plan="gold"))])
    loop.step()
    assert (receiver.calls, loop.queue_length) == (calls + 1, 0)
    assert loop.gauges()["latency_seconds_p95"] < 10


def test_the_log_of_live_sends_folds_to_the_ledger_and_a_run_finds_nothing_left(
    world: InboxWorld, receiver: Receiver
) -> None:
    loop = LiveLoop(world.project, 0.1)
    for number in range(6):
        loop.arrived([arrival(identify(number, f"c-{number % 3}", plan=f"plan{number}"))])
        loop.step()
    assert loop._delivery is not None
    loop._delivery.close()
    log = Log(world.lake.store, loop._delivery.syncs[0].sender.spec.folder)
    ledger = log.ledger().frame.sort("key")
    assert fold(log).frame.sort("key").select(sorted(ledger.columns)).equals(ledger.select(sorted(ledger.columns)))
    world.post(*[identify(n, f"c-{n % 3}", plan=f"plan{n}") for n in range(6)], received=at(DAY, 22))
    assert world.run(INBOX_ASSETS, BEFORE, DAY).success
    assert world.run(FOLDED, DAY).success
    world.resolve(DAY)
    calls = receiver.calls
    result = world.run(["sync/crm"], DAY)
    assert result.success, why(result)
    assert receiver.calls == calls
    assert {key: receiver.state[key] for key in ("c-0", "c-1", "c-2")} == {
        f"c-{n % 3}": {"Plan": f"plan{n}"} for n in (3, 4, 5)
    }


def test_while_a_check_blocks_changes_wait_and_go_out_when_it_passes(world: InboxWorld, receiver: Receiver) -> None:
    world.judge("profiles", DAY, passed=False)
    loop = LiveLoop(world.project, 0.1)
    loop.arrived([arrival(identify(1, "c-ann", plan="gold"))])
    loop.step()
    assert receiver.state["c-ann"] == {"Plan": "pro"}
    assert (loop.queue_length, "checks did not pass" in loop.state) == (1, True)
    world.judge("profiles", DAY)
    assert loop._delivery is not None
    loop._delivery.syncs[0]._gate = (-1e9, "")
    loop.step()
    assert (receiver.state["c-ann"], loop.queue_length) == ({"Plan": "gold"}, 0)


def test_a_destination_that_is_away_gets_the_newest_values_when_it_is_back(
    world: InboxWorld, receiver: Receiver
) -> None:
    loop = LiveLoop(world.project, 0.1)
    loop.step()
    assert loop._delivery is not None
    sender = loop._delivery.syncs[0].sender
    sender.spec = replace(sender.spec, retry=replace(sender.spec.retry, attempts=1, first_wait=0.01))
    receiver.status = 500
    for number in range(3):
        loop.arrived([arrival(identify(number, "c-ann", plan=f"plan{number}"))])
        loop.step()
    assert (receiver.state["c-ann"], loop.queue_length) == ({"Plan": "pro"}, 1)
    receiver.status = 200
    loop.step()
    assert (receiver.state["c-ann"], loop.queue_length) == ({"Plan": "plan2"}, 0)


def test_a_destination_that_is_slow_delays_no_other(
    world: InboxWorld, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heap_assets.live.follower._PATIENCE_SECONDS", 3.0)  # a busy machine is no slow destination
    with receiving() as slow:
        crm = SYNC.replace("RECEIVER", receiver.url)
        other = SYNC.replace("crm:", "slow:").replace("RECEIVER", slow.url)
        world.choose(f"{crm}\n{other}")
        assert world.run(["sync/slow"], DAY).success
        loop = LiveLoop(world.project, 0.1)
        loop.step()
        assert loop._delivery is not None
        slow.held = threading.Event()
        for number in range(3):
            loop.arrived([arrival(identify(number, "c-ann", plan=f"plan{number}"))])
            loop.step()
        assert receiver.state["c-ann"] == {"Plan": "plan2"}
        assert (slow.state["c-ann"], loop.queue_length) == ({"Plan": "pro"}, 2)
        slow.held.set()
        loop._delivery.close()
        assert slow.state["c-ann"] == {"Plan": "plan0"}
        loop._profiles = None  # as for a new base, which takes over what waits
        loop.step()
        assert (slow.state["c-ann"], loop.queue_length) == ({"Plan": "plan2"}, 0)


def test_a_run_and_the_live_loop_never_both_send_and_hand_over_without_loss(
    world: InboxWorld, receiver: Receiver
) -> None:
    loop = LiveLoop(world.project, 0.1)
    loop.arrived([arrival(identify(1, "c-ann", plan="gold"))])
    loop.step()
    assert loop._delivery is not None
    folder = loop._delivery.syncs[0].sender.spec.folder
    with Lease(world.lake.store, folder, "run-1", timedelta(minutes=2)):
        loop.arrived([arrival(identify(2, "c-ann", plan="silver"))])
        loop.step()
        assert (receiver.state["c-ann"], loop.queue_length) == ({"Plan": "gold"}, 1)
        assert "a run of the sync is sending" in loop.state
    loop.step()
    assert (receiver.state["c-ann"], loop.queue_length) == ({"Plan": "silver"}, 0)


def test_the_guard_stops_a_loss_of_values_that_no_run_would_send(world: InboxWorld, receiver: Receiver) -> None:
    world.choose(SYNC.replace("RECEIVER", receiver.url).replace("live: true", "live: true, guard: {max_changed: 0.2}"))
    people = [identify(n, f"c-{n}", plan="free") for n in range(60)]
    world.post(*people, received=at(DAY, 20))
    build(world, judge=True)
    assert world.run(["sync/crm"], DAY).success
    loop = LiveLoop(world.project, 0.1)
    loop.step()
    for start in range(100, 130, 5):
        if start == 110:
            assert loop._delivery is not None
            loop._delivery.close()
            loop = LiveLoop(world.project, 0.1)  # as after a restart: what was changed before it counts
        loop.arrived([arrival(*(identify(n, f"c-{n - 100}", plan="oops") for n in range(start, start + 5)))])
        loop.step()
    changed = [key for key, values in receiver.state.items() if values == {"Plan": "oops"}]
    assert 5 <= len(changed) <= 13
    assert "would change within 24 hours" in loop.state
    assert loop.queue_length > 0
    # a run has a guard of its own: what came before it is not counted any more
    assert loop._delivery is not None
    loop._delivery.close()
    assert world.run(["sync/crm"], DAY).success
    loop = LiveLoop(world.project, 0.1)
    loop.arrived([arrival(*(identify(n, f"c-{n - 200}", plan="later") for n in range(250, 260)))])
    loop.step()
    assert loop.queue_length == 0
    assert receiver.state["c-59"] == {"Plan": "later"}


def test_the_guard_does_not_count_what_a_destination_that_is_away_did_not_take(
    world: InboxWorld, receiver: Receiver
) -> None:
    world.choose(SYNC.replace("RECEIVER", receiver.url).replace("live: true", "live: true, guard: {max_changed: 0.2}"))
    world.post(*(identify(n, f"c-{n}", plan="free") for n in range(60)), received=at(DAY, 20))
    build(world, judge=True)
    assert world.run(["sync/crm"], DAY).success
    loop = LiveLoop(world.project, 0.1)
    loop.step()
    assert loop._delivery is not None
    sender = loop._delivery.syncs[0].sender
    sender.spec = replace(sender.spec, retry=replace(sender.spec.retry, attempts=1, first_wait=0.01))
    receiver.status = 500
    for number in range(30):
        loop.arrived([arrival(identify(number, f"c-{number % 6}", plan=f"plan{number}"))])
        loop.step()
    receiver.status = 200
    loop.step()
    assert loop.queue_length == 0
    assert {receiver.state[f"c-{n}"]["Plan"] for n in range(6)} == {f"plan{24 + n}" for n in range(6)}


def test_a_new_base_is_taken_up_without_losing_what_is_not_in_it(world: InboxWorld, receiver: Receiver) -> None:
    loop = LiveLoop(world.project, 0.1)
    loop.arrived([arrival(identify(1, "c-ann", plan="gold"))])
    loop.step()
    world.write("warehouse/contacts", DAY, contacts("basic"))
    world.resolve(DAY)
    loop._checked_at = -1e9
    loop.step()
    loop.arrived([arrival(identify(2, "c-bob", plan="silver"))])
    loop.step()
    assert (receiver.state["c-ann"], receiver.state["c-bob"]) == ({"Plan": "gold"}, {"Plan": "silver"})


def test_what_comes_while_a_base_is_loaded_is_not_lost_however_long_that_takes(
    world: InboxWorld, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = LiveLoop(world.project, 0.1)
    read = LiveProfiles.__init__

    def slow_read(profiles: LiveProfiles, *arguments: Any) -> None:
        read(profiles, *arguments)
        for number, person in enumerate(("c-ann", "c-bob")):
            loop.arrived([arrival(identify(number, person, plan="gold"))])

    monkeypatch.setattr(LiveProfiles, "__init__", slow_read)
    monkeypatch.setattr("heap_assets.live.follower._LANDING_SECONDS", -60.0)  # as if it took longer than landing does
    loop.step()
    assert (receiver.state["c-ann"], receiver.state["c-bob"]) == ({"Plan": "gold"}, {"Plan": "gold"})


def test_people_who_are_suppressed_meanwhile_are_sent_no_more(world: InboxWorld, receiver: Receiver) -> None:
    suppressed = world.folder / "suppressed.csv"
    suppressed.write_text("identifier_type,identifier\n")
    world.suppressed = "suppressed.csv"
    world.choose(SYNC.replace("RECEIVER", receiver.url))
    loop = LiveLoop(world.project, 0.1)
    loop.step()
    suppressed.write_text("identifier_type,identifier\ncrm_id,c-ann\n")
    world.choose(SYNC.replace("RECEIVER", receiver.url))
    world.resolve(DAY)
    loop._checked_at = -1e9
    loop.arrived([arrival(identify(1, "c-ann", plan="gold"), identify(2, "c-bob", plan="gold"))])
    loop.step()
    assert (receiver.state["c-ann"], receiver.state["c-bob"]) == ({"Plan": "pro"}, {"Plan": "gold"})


def test_what_another_service_takes_in_is_followed_from_the_lake(world: InboxWorld, receiver: Receiver) -> None:
    loop = LiveLoop(world.project, 0.1, own_writer="own")
    loop.arrived([arrival(identify(5, "c-ann", plan="gold"))])
    loop.step()
    older, newer = identify(4, "c-ann", plan="old"), identify(6, "c-ann", plan="newest")
    world.post(older, identify(7, "c-bob", plan="silver"), received=at(DAY, 22))
    loop._polled_at = -1e9
    loop.step()
    assert (receiver.state["c-ann"], receiver.state["c-bob"]) == ({"Plan": "gold"}, {"Plan": "silver"})
    world.post(newer, received=at(DAY, 22))
    loop._polled_at = -1e9
    loop.step()
    assert receiver.state["c-ann"] == {"Plan": "newest"}


EVENTS = """\
paid:
  {kind: webhook, mode: insert, source: inbox/track, key: user_id, event_name_column: event, url: RECEIVER, live: true,
   properties: {Total: total}, since: beginning}"""


def test_messages_go_out_as_events_once_and_a_run_finds_nothing_left(world: InboxWorld, receiver: Receiver) -> None:
    def paid(number: int) -> dict[str, Any]:
        return identify(number, "c-ann") | {"type": "track", "event": "Paid", "properties": {"total": number}}

    world.post(paid(0), received=at(DAY, 21))
    build(world, judge=True)
    world.choose(EVENTS.replace("RECEIVER", receiver.url))
    loop = LiveLoop(world.project, 0.1)
    loop.step()
    loop.arrived([arrival(paid(1), paid(2)), arrival(paid(1))])
    loop.step()
    assert [row["Total"] for _, _, row in receiver.arrivals] == [1, 2]
    assert loop._delivery is not None
    sender = loop._delivery.syncs[0].sender
    sender.spec = replace(sender.spec, retry=replace(sender.spec.retry, attempts=1, first_wait=0.01))
    receiver.status = 500
    loop.arrived([arrival(paid(3))])
    loop.step()
    assert (len(receiver.arrivals), loop.queue_length) == (2, 1)
    receiver.status = 200
    loop._profiles = None  # as after a new base
    loop.arrived([arrival(paid(2), paid(4))])
    loop.step()
    assert sorted(row["Total"] for _, _, row in receiver.arrivals) == [1, 2, 3, 4]
    assert loop.queue_length == 0
    loop._delivery.close()
    world.post(*map(paid, range(1, 5)), received=at(DAY, 22))
    build(world, judge=True)
    result = world.run(["sync/paid"], DAY)
    assert result.success, why(result)
    assert sorted(row["Total"] for _, _, row in receiver.arrivals) == [0, 1, 2, 3, 4]


CONSENT = """
privacy:
  consent:
    purposes: [marketing]
    sources: [{table: inbox/users, columns: {marketing: opt_in}, at: said_at}]
"""


def test_messages_of_people_without_consent_do_not_go_out(world: InboxWorld, receiver: Receiver) -> None:
    def paid(number: int) -> dict[str, Any]:
        return identify(number, "c-ann") | {"type": "track", "event": "Paid", "properties": {"total": number}}

    def says(number: int, answer: str, said_at: str = "") -> dict[str, Any]:
        plain = identify(number, "c-ann")
        return plain | {"traits": {"opt_in": answer, "said_at": said_at or plain["timestamp"]}}

    after_it_went = "2099-01-01T00:00:00Z"
    world.post(paid(0), received=at(DAY, 21))
    world.inbox = world.inbox.replace("email: text,", "email: text, opt_in: text, said_at: text,")
    world.more = CONSENT
    world.choose(EVENTS.replace("RECEIVER", receiver.url).replace("since:", "purpose: marketing, since:"))
    build(world, judge=True)
    loop = LiveLoop(world.project, 0.1)
    loop.step()
    loop.arrived([arrival(paid(1))])
    loop.step()
    assert loop._delivery is not None
    assert (receiver.arrivals, loop._delivery.syncs[0].blocked_by) == ([], "")
    loop.arrived([arrival(says(2, "yes"), paid(3))])
    loop.step()
    assert [row["Total"] for _, _, row in receiver.arrivals] == [3]
    loop.arrived([arrival(says(4, "no", after_it_went), paid(5), paid(1))])
    loop.step()
    assert [row["Total"] for _, _, row in receiver.arrivals] == [3]
    assert loop._delivery is not None
    loop._delivery.close()
    messages = [paid(1), says(2, "yes"), paid(3), says(4, "no", after_it_went), paid(5)]
    world.post(*messages, received=at(DAY, 22))
    build(world, judge=True)
    result = world.run(["sync/paid"], DAY)
    assert result.success, why(result)
    assert [row["Total"] for _, _, row in receiver.arrivals] == [3]
    checks = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert checks["nobody_without_consent"]


@pytest.mark.parametrize("source", ["inbox/users, key: user_id, mode: upsert", "contacts, mode: insert, event_name: x"])
def test_a_live_sync_follows_messages_and_nothing_else(world: InboxWorld, source: str) -> None:
    with pytest.raises(SettingsError, match=r"sync\.it\.live is true, but it sends .* by key or from another source"):
        world.choose(f"it: {{kind: webhook, url: 'http://127.0.0.1:9/', live: true, source: {source}}}")


KILLS = int(os.environ.get("HEAP_ASSETS_LIVE_KILLS", "1"))


def test_a_clock_that_goes_back_loses_nothing(
    world: InboxWorld, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = ServiceInThread(world.folder / "heap_assets.yaml", world.project)
    for number, hour in enumerate((23, 21, 22, 20)):
        monkeypatch.setenv("HEAP_ASSETS_NOW", at(DAY, hour).isoformat())
        call = identify(number, "c-ann", plan=f"plan{number}")
        assert httpx.post(f"{service.address}/v1/identify", json=call, auth=(KEY, "")).status_code == 200
        _until(lambda n=number: receiver.state["c-ann"] == {"Plan": f"plan{n}"}, service)
    service.stop()
    parts = stored_parts(world.lake.store, "identify")
    assert sorted(read_parts(world.lake.store, parts).collect()["message_id"]) == ["i0", "i1", "i2", "i3"]


def test_a_service_started_again_with_an_earlier_clock_goes_on(world: InboxWorld, receiver: Receiver) -> None:
    file = world.folder / "heap_assets.yaml"
    for number, hour in enumerate((23, 20)):
        service = start_service(file, {"HEAP_ASSETS_NOW": at(DAY, hour).isoformat(), "HEAP_ASSETS_TEST_WRITE_KEY": KEY})
        call = identify(number, "c-ann", plan=f"plan{number}")
        assert httpx.post(f"{service.address}/v1/identify", json=call, auth=(KEY, "")).status_code == 200
        _until(lambda n=number: receiver.state.get("c-ann") == {"Plan": f"plan{n}"}, service)
        assert service.stop() == 0


def test_every_changed_profile_arrives_however_often_the_service_is_killed(
    world: InboxWorld, receiver: Receiver
) -> None:
    file = world.folder / "heap_assets.yaml"
    dice = random.Random(3)
    newest: dict[str, str] = {}
    number = 0
    for round_number in range(KILLS + 1):
        service = start_service(file, {"HEAP_ASSETS_NOW": NOW, "HEAP_ASSETS_TEST_WRITE_KEY": KEY})
        with httpx.Client(base_url=service.address, auth=(KEY, "")) as client:
            until = time.monotonic() + dice.uniform(0.5, 3.0)
            while time.monotonic() < until:
                number += 1
                person, plan = f"c-{number % 7}", f"plan{number}"
                call = identify(number, person, plan=plan) | {"messageId": f"r{number}"}
                if client.post("/v1/identify", json=call).status_code == 200:
                    newest[person] = plan
                time.sleep(0.01)
        if round_number < KILLS:
            service.kill()
    _until(lambda: all(receiver.state.get(key) == {"Plan": plan} for key, plan in newest.items()), service)
    assert service.stop() == 0


def _until(holds: Callable[[], bool], service: Service | ServiceInThread, seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, httpx.get(f"{service.address}/metrics").text[-1500:]
        time.sleep(0.1)
