"""Requests of a run that has begun, of one that was killed at its end, and as older versions wrote them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from heap_assets.errors import DamagedFileError, MissingInputError
from heap_assets.pipelines import erasure
from heap_assets.pipelines.erasure_proofs import stored_proofs, write_proofs
from heap_assets.privacy import Named, Plan, Request, Requests, State, begun, closed
from heap_assets.storage import Store
from heap_assets_tests.pipelines.delivery_world import World
from heap_assets_tests.privacy.canary import CANARIES, ZOE, copied, places_of

PAIRS = (("email", "ann@x.example"), ("phone", "4711"), ("phone", "4712"))
AT = datetime(2026, 1, 1, tzinfo=UTC)


def confirmed(number: int) -> Request:
    plan = Plan(PAIRS, (), 3)
    return Request(f"er-{number}", AT, Named(PAIRS[:1], PAIRS[1:]), state=State.CONFIRMED, plan=plan, confirmed_at=AT)


@pytest.fixture
def requests(tmp_path: Path) -> Requests:
    log = Requests(Store(str(tmp_path / "lake")))
    for number in (1, 2):
        assert log.add(confirmed(number))
    return log


def test_one_object_says_of_all_requests_that_a_run_has_begun(requests: Requests) -> None:
    first, second = (begun(confirmed(number), "eb-1", ["stone"], {"heap": {"keys": ["k"]}}) for number in (1, 2))
    requests.begin("eb-1", {"er-1": first})
    assert requests.get("er-1") == first
    assert requests.get("er-2") == confirmed(2)
    requests.begin("eb-1", {"er-2": second})
    assert requests.some(["er-2", "er-1"]) == {"er-2": second, "er-1": first}
    assert requests.all() == [first, second]
    with pytest.raises(MissingInputError):
        requests.some(["er-3"])
    ended = closed(first, State.COMPLETE)
    requests.write_ended([ended])
    assert requests.all() == [ended, second]
    requests.forget_begun("eb-1", ["er-1"])
    assert requests.all() == [ended, second]
    requests.forget_begun("eb-1", ["er-2"])
    assert (requests.batches(), requests.get("er-2")) == ({}, confirmed(2))


def test_what_a_request_says_itself_of_a_destination_is_newer_than_what_the_run_began_with(requests: Requests) -> None:
    request = begun(confirmed(1), "eb-1", ["stone"], {"heap": {"state": "to_ask"}, "new": {"state": "to_ask"}})
    requests.begin("eb-1", {"er-1": request})
    requests.write_ended([replace(request, destinations={"heap": {"state": "pending"}})])
    assert requests.get("er-1").destinations == {"heap": {"state": "pending"}, "new": {"state": "to_ask"}}


def test_a_damaged_object_of_a_run_is_told(requests: Requests) -> None:
    requests.store.write("_privacy/begun/eb-1.json", b"{")
    with pytest.raises(DamagedFileError, match="restore it"):
        requests.all()


def test_a_request_and_a_proof_of_an_older_version_are_read(requests: Requests) -> None:
    document = json.loads(requests.store.read("_privacy/requests/er-1.json"))
    assert document["plan"]["identifiers"] == {"email": ["ann@x.example"], "phone": ["4711", "4712"]}
    document["plan"]["identifiers"] = PAIRS
    document["named"] = {"person": PAIRS[:1], "also": PAIRS[1:]}
    requests.store.write("_privacy/requests/er-1.json", json.dumps(document | {"batch": "eb-1"}).encode())
    request = requests.get("er-1")
    assert request == replace(confirmed(1), batch="eb-1")
    requests.store.write("_privacy/proofs/er-1.json", b'{"request": "er-1", "state": "complete"}')
    assert stored_proofs(requests.store, [request])["er-1"]["state"] == "complete"
    write_proofs(requests.store, "eb-1", [{"request": "er-2", "state": "erasing"}])
    write_proofs(requests.store, "eb-1", [{"request": "er-1", "state": "waiting"}])
    both = stored_proofs(requests.store, [request, replace(confirmed(2), batch="eb-1")])
    assert {one: proof["state"] for one, proof in both.items()} == {"er-1": "waiting", "er-2": "erasing"}


def test_a_run_that_was_killed_at_its_very_end_leaves_nothing_of_the_person(
    canary_base: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = copied(canary_base, tmp_path / "world")
    request = erasure.request_erasure(world.project, [("email", ZOE)])
    erasure.confirm(world.project, request.id, "dpo")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Requests, "forget_begun", killed)
        with pytest.raises(KeyboardInterrupt):
            erasure.run(world.project, "killed")
    log = Requests(world.lake.store)
    assert log.get(request.id).state is State.COMPLETE
    with pytest.raises(MissingInputError, match="complete"):
        erasure.cancel(world.project, request.id)
    assert erasure.run(world.project, "again").requests == {}
    assert log.batches() == {}
    assert places_of(world.folder / "lake", *CANARIES) == {}
