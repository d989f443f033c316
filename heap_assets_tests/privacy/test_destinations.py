"""Destinations are asked by their own calls, looked up first where that matters, and polled until they are done."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from heap_assets.activation import Log, connector_of, fold
from heap_assets.activation.engine.log import INTENT_SCHEMA, OUTCOME_SCHEMA
from heap_assets.demo.server_process import ServerProcess
from heap_assets.pipelines import erasure
from heap_assets.privacy import Requests, State
from heap_assets.project import open_project, parse_settings
from heap_assets_tests.connectors.servers.core import ManualClock, VendorServer
from heap_assets_tests.connectors.servers.deletion_calls import DeletionCalls
from heap_assets_tests.connectors.servers.deletions import DAY as A_DAY
from heap_assets_tests.connectors.servers.deletions import AmplitudeDeletion, MixpanelDeletion, SegmentDeletion
from heap_assets_tests.pipelines.delivery_world import DAY, World
from heap_assets_tests.privacy.canary import BOB, CANARIES, ZOE, copied, places_of

COMMON = "source: contacts, key: email, properties: {plan: plan}"
KINDS = {
    "braze_users": "base_url: '{url}', api_key: token, identifier: email",
    "iterable_users": "base_url: '{url}', api_key: token, project: email, match: upsert",
    "intercom_contacts": "base_url: '{url}', token: token, workspace: w, identifier: email",
    "hubspot_contacts": "base_url: '{url}', token: token, hub_id: 1, key_property: email, match: upsert",
    "mparticle_users": "base_url: '{url}', api_key: k, api_secret: s, deletion_url: '{url}/v3', deletion_key: token, "
    "deletion_secret: secret, identity: email",
    "optimizely_profiles": "base_url: '{url}', api_key: token, identifier: email",
    "amplitude_users": "base_url: '{url}', api_key: key, secret_key: secret, deletion_url: '{url}'",
    "mixpanel_users": "base_url: '{url}', token: token, project_id: 1, deletion_token: oauth, deletion_url: '{url}'",
    "segment_identify": "url: '{url}', write_key: wk, deletion_token: token, deletion_url: '{url}', user_id: email",
}
OF_DAYS = {
    "amplitude_users": AmplitudeDeletion,
    "mixpanel_users": MixpanelDeletion,
    "segment_identify": SegmentDeletion,
}
POLLED = {*OF_DAYS, "mparticle_users", "optimizely_profiles"}


def sync(kind: str, url: str) -> str:
    common = COMMON if kind != "segment_identify" else "properties: {plan: plan}"
    return f"{kind}: {{{common}, {KINDS[kind].format(url=url)}}}"


@pytest.fixture(params=KINDS)
def destination(request: pytest.FixtureRequest) -> Iterator[tuple[str, VendorServer]]:
    kind = request.param
    server: VendorServer = (
        OF_DAYS[kind](clock=ManualClock(), limits=[]) if kind in OF_DAYS else DeletionCalls({ZOE: "4711", BOB: "4712"})
    )
    with server:
        yield kind, server


def sent(world: World, name: str, *keys: str) -> None:
    """Write into the ledger of a sync that keys were acknowledged."""
    connector = connector_of(world.project, name)
    log = Log(world.lake.store, connector.ledger_folder(claim=True), 1)
    batch, now = log.batch(), datetime.now(UTC)
    facts: dict[str, Any] = {"batch": batch, "op": "upsert", "day": DAY, "mapping": "m", "run_id": "r", "fence": 1}
    rows = [{**facts, "row": number, "key": key, "at": now} for number, key in enumerate(keys)]
    log.append(batch, "intent", pl.DataFrame(rows, schema=INTENT_SCHEMA))
    answers = [
        {"batch": batch, "row": number, "status": "acknowledged", "attempt": 1, "answered_at": now}
        for number in range(len(keys))
    ]
    log.append(batch, "outcome", pl.DataFrame(answers, schema=OUTCOME_SCHEMA))
    log.save(fold(log), 1000)


def ask(world: World) -> str:
    request = erasure.request_erasure(world.project, [("email", ZOE)])
    erasure.confirm(world.project, request.id, "dpo")
    erasure.run(world.project, "run")
    return request.id


def test_a_destination_is_asked_and_polled_until_it_is_done(
    canary_base: World, tmp_path: Path, destination: tuple[str, VendorServer]
) -> None:
    kind, server = destination
    world = copied(canary_base, tmp_path / "world", sync(kind, server.url))
    sent(world, kind, ZOE, BOB)
    request = ask(world)
    answer = erasure.proof(world.project, request)["destinations"][kind]
    assert (answer["asked"], server.violations) == (1, []), answer
    expected = {"braze_users": "complete"}.get(kind, "pending" if kind in POLLED else "requested")
    assert answer["state"] == expected, answer
    assert places_of(world.folder / "lake", *CANARIES) == {}
    if kind in POLLED:
        assert Requests(world.lake.store).get(request).state is State.WAITING
        assert erasure.run(world.project, "later").requests == {request: "waiting"}
        if kind in OF_DAYS:
            server.clock.advance(40 * A_DAY)  # type: ignore[attr-defined]
        else:
            server.done = True  # type: ignore[attr-defined]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(erasure, "write_proofs", _full)
            with pytest.raises(OSError, match="full"):
                erasure.run(world.project, "killed")
        assert Requests(world.lake.store).get(request).state is State.WAITING, "its proof is not written"
        assert erasure.run(world.project, "later").requests == {request: "complete"}
        proof = erasure.proof(world.project, request)
        assert (proof["state"], proof["destinations"][kind]["state"]) == ("complete", "complete")
    assert server.deleted == {ZOE}  # type: ignore[attr-defined]


def _full(*_: Any) -> None:
    raise OSError("the disk is full")


def test_hubspot_is_never_given_an_address_that_it_does_not_have(canary_base: World, tmp_path: Path) -> None:
    with DeletionCalls({BOB: "4712"}) as server:
        world = copied(canary_base, tmp_path / "world", sync("hubspot_contacts", server.url))
        sent(world, "hubspot_contacts", ZOE)
        request = ask(world)
        answer = erasure.proof(world.project, request)["destinations"]["hubspot_contacts"]
    assert (answer["state"], answer["note"]) == ("complete", "no contact has this key")
    assert server.blocked == server.deleted == set()


def test_a_destination_that_does_not_answer_is_asked_again(canary_base: World, tmp_path: Path) -> None:
    with DeletionCalls({ZOE: "4711"}) as server:
        url = server.url
        world = copied(canary_base, tmp_path / "world", sync("braze_users", url))
        sent(world, "braze_users", ZOE)
        world.choose(sync("braze_users", url).replace("api_key: token", "api_key: wrong-token"))
        request = ask(world)
        assert Requests(world.lake.store).get(request).state is State.ERASING
        assert server.deleted == set()
        world.choose(sync("braze_users", url))
        assert erasure.run(world.project, "later").requests == {request: "complete"}
        assert server.deleted == {ZOE}
    assert places_of(world.folder / "lake", *CANARIES) == {}


def test_nobody_is_asked_who_never_got_the_person_or_must_not_be_asked(canary_base: World, tmp_path: Path) -> None:
    with DeletionCalls({ZOE: "4711", BOB: "4712"}) as server:
        syncs = sync("braze_users", server.url) + "\n"
        syncs += sync("intercom_contacts", server.url).replace("workspace: w", "workspace: w, erase: false") + "\n"
        syncs += f"webhook: {{url: '{server.url}', {COMMON}}}"
        world = copied(canary_base, tmp_path / "world", syncs)
        sent(world, "braze_users", BOB)
        sent(world, "intercom_contacts", ZOE)
        sent(world, "webhook", ZOE)
        answers = erasure.proof(world.project, ask(world))["destinations"]
    assert server.calls == []
    assert answers["braze_users"]["state"] == "nothing_sent"
    assert answers["intercom_contacts"]["note"] == "sync.intercom_contacts.erase is false: ask its administrator"
    assert answers["webhook"]["state"] == "requested"


def test_heap_is_asked_by_identity_and_by_its_own_ids(
    canary_base: World, tmp_path: Path, heap: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    heap.seed([ZOE, BOB], app_id="11")
    monkeypatch.setenv("ERASURE_KEY", "deletion-key-of-tests")
    folder = tmp_path / "world"
    world = copied(canary_base, folder, "{}", heap.base_url)
    text = (
        (folder / "heap_assets.yaml")
        .read_text()
        .replace('app_id: "11"', 'app_id: "11"\n  deletion_key: ${ERASURE_KEY}')
    )
    world.project = open_project(parse_settings(text, folder / "heap_assets.yaml"))
    request = ask(world)
    assert Requests(world.lake.store).get(request).state is State.WAITING
    assert erasure.run(world.project, "later").requests == {request: "complete"}
    answer = erasure.proof(world.project, request)["destinations"]["Heap"]
    assert (answer["asked"], len(answer["requests"])) == (3, 1)
    assert ZOE not in heap.state()["users"]
    assert BOB in heap.state()["users"]
    assert os.environ["ERASURE_KEY"] not in str(answer)
