"""Erasing while others write, killed anywhere, two people who share a device, many requests at once."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pytest

from heap_assets.activation import SyncSpec
from heap_assets.activation.engine.lease import Lease
from heap_assets.demo.server_process import ServerProcess
from heap_assets.pipelines import delivery, erasure
from heap_assets.pipelines.erasure_walk import LakeWalk
from heap_assets.privacy import Journal, Named, Requests, State
from heap_assets.storage import Store
from heap_assets_tests.pipelines.delivery_world import DAY, World, users
from heap_assets_tests.privacy.canary import BOB, CANARIES, CRM, USERS, ZOE, copied, places_of

KILLS = int(os.environ.get("HEAP_ASSETS_ERASURE_KILLS", "3"))
REQUESTS = int(os.environ.get("HEAP_ASSETS_ERASURE_REQUESTS", "200"))
"""100 and 1000 in the long form."""
SYNC = "heap_user_properties: {properties: {Plan: plan}}"


def confirmed(world: World, *pairs: tuple[str, str]) -> str:
    request = erasure.request_erasure(world.project, pairs or (("email", ZOE),), request_id="er-2026-11-21-fixed")
    erasure.confirm(world.project, request.id, "dpo")
    return request.id


def proof_of(world: World, request: str) -> dict[str, Any]:
    return {k: v for k, v in erasure.proof(world.project, request).items() if k not in ("requested_at", "confirmed_at")}


def test_killed_at_any_moment_and_run_again_the_proof_is_the_same(canary_base: World, tmp_path: Path) -> None:
    """The same request under the same key, in copies of one lake."""
    prepared = copied(canary_base, tmp_path / "prepared")
    request = confirmed(prepared)
    started = time.monotonic()
    _erase_in_process(copied(prepared, tmp_path / "whole"))
    seconds = time.monotonic() - started
    whole = World(tmp_path / "whole", "{}")
    expected = proof_of(whole, request)
    stones = expected.pop("tombstones")
    assert len(stones) == 5
    chance = random.Random(7)
    killed = 0
    for number in range(KILLS):
        world = copied(prepared, tmp_path / f"killed{number}")
        for _ in range(chance.randint(1, 2)):
            killed += _erase_in_process(world, chance.uniform(0.0, seconds * 0.6))
        result = erasure.run(world.project, "again")
        assert result.requests in ({request: "complete"}, {}), result
        proof = proof_of(world, request)
        assert len(proof.pop("tombstones")) == 5
        assert proof == expected
        assert places_of(world.folder / "lake", *CANARIES) == {}
        shutil.rmtree(world.folder)
    assert killed >= KILLS // 2, "half were killed while they were at work"


def test_no_file_that_a_killed_run_may_leave_holds_the_person(
    canary_base: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the rows of others name her, which is known only once her own are gone."""
    world = copied(canary_base, tmp_path / "world")
    confirmed(world)
    staged = tmp_path / "staged"
    staged.mkdir()
    staging, replace = Store.staging, Store.replace

    def copy(path: Path) -> None:
        if path.exists() and path.suffix == ".parquet":
            shutil.copy(path, staged / f"{uuid4()}.parquet")

    @contextmanager
    def copied_staging(self: Store, key: str) -> Iterator[Path]:
        with staging(self, key) as path:
            yield path
            copy(path)

    def copied_replace(self: Store, key: str, path: Path, expected: Any) -> bool:
        copy(path)
        return replace(self, key, path, expected)

    monkeypatch.setattr(Store, "staging", copied_staging)
    monkeypatch.setattr(Store, "replace", copied_replace)
    old = world.folder / "lake" / "heap" / ".tmp-0-old.parquet"
    old.write_bytes(ZOE.encode())
    os.utime(old, (0, 0))
    erasure.run(world.project, "run")
    assert len(list(staged.iterdir())) > 10
    assert places_of(staged, ZOE, CRM) == {}
    assert places_of(world.folder / "lake", *CANARIES) == {}


def _erase_in_process(world: World, after: float | None = None) -> bool:
    settings = str(world.folder / "heap_assets.yaml")
    command = [sys.executable, "-m", "heap_assets_tests.privacy.erase_process", settings]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return True
        assert process.returncode == 0
        return False


def test_a_dump_that_lands_meanwhile_does_not_bring_the_person_back(canary_base: World, tmp_path: Path) -> None:
    world = copied(canary_base, tmp_path / "world")
    world.project.landing.reset("signup")
    request = confirmed(world)
    project = world.choose("{}").project
    errors: list[BaseException] = []

    def land() -> None:
        try:
            for manifest in project.landing.pending(project.source()):
                project.landing.land(project.source(), manifest)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=land)
    thread.start()
    erasure.run(world.project, "run")
    thread.join()
    assert not errors
    for _ in range(2):
        erasure.run(world.project, "run")
    assert Requests(world.lake.store).get(request).state is State.COMPLETE
    assert places_of(world.folder / "lake", *CANARIES) == {}


def test_what_others_write_while_the_lake_is_walked_is_read_again(
    canary_base: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolution that began before the erasure writes its graph once the walk has passed it."""
    world = copied(canary_base, tmp_path / "world")
    graph = world.lake.scan("identity/graph", str(DAY)).collect()
    confirmed(world)
    walked = LakeWalk.run
    rounds: list[int] = []

    def walk_and_be_overtaken(self: LakeWalk, clean: dict[str, str] | None = None) -> Any:
        walk = walked(self, clean)
        if not rounds:
            world.lake.write("identity/graph", str(DAY), graph)
        rounds.append(walk.rewritten)
        return walk

    monkeypatch.setattr(LakeWalk, "run", walk_and_be_overtaken)
    erasure.run(world.project, "run")
    assert len(rounds) > 2
    assert places_of(world.folder / "lake", *CANARIES) == {}


def test_a_sync_that_is_sending_leaves_the_request_open(
    canary_base: World, tmp_path: Path, heap: ServerProcess
) -> None:
    world = copied(canary_base, tmp_path / "world", SYNC, heap.base_url)
    heap.seed([ZOE, BOB, "ann@x.example", "cat@x.example"], app_id="11")
    assert delivery.send(world.project, "heap_user_properties", DAY, "run").report.sent == 4
    assert "_sync/heap_user_properties" in str(places_of(world.folder / "lake", ZOE)[ZOE])
    request = confirmed(world)
    spec = SyncSpec("heap_user_properties")
    with Lease(world.lake.store, "heap_user_properties", "a run", spec.lease_ttl):
        result = erasure.run(world.project, "run")
    assert result.requests == {request: "erasing"}
    assert list(result.unsettled) == ["_sync/heap_user_properties"]
    assert erasure.run(world.project, "run").requests == {request: "complete"}
    assert places_of(world.folder / "lake", *CANARIES) == {}
    again = delivery.send(world.project, "heap_user_properties", DAY, "later", delivery.RunOptions(force=True))
    assert again.report.sent == 0


def test_one_of_two_people_who_share_a_device_is_erased(canary_base: World, tmp_path: Path) -> None:
    """User 900 is Ann's visitor of the CRM; here Zoe's contact names it too, so that it is shared."""
    world = copied(canary_base, tmp_path / "world")
    contacts = world.lake.scan("warehouse/contacts", str(DAY)).collect()
    both = contacts.with_columns(visitor=pl.when(pl.col("email") == ZOE).then(pl.lit("900")).otherwise("visitor"))
    world.write("warehouse/contacts", DAY, both)
    world.write("heap/users", DAY, users(*((one, ZOE) for one in USERS)))
    for table in ("signup", "users"):
        world.project.landing.reset(table)
    shutil.rmtree(world.folder / "lake" / "_landing")
    world.choose("{}").resolve(DAY)
    request = erasure.request_erasure(world.project, [("email", ZOE)])
    assert request.plan is not None
    assert [(one.identifier, one.why) for one in request.plan.left] == [("900", "shared")]
    erasure.confirm(world.project, request.id, "dpo")
    erasure.run(world.project, "run")
    assert places_of(world.folder / "lake", *CANARIES) == {}
    signup = world.lake.scan("heap/events/signup", str(DAY)).collect()
    assert signup["user_id"].to_list() == [1, 2]
    after = world.lake.scan("warehouse/contacts", str(DAY)).collect()
    assert after.filter(pl.col("visitor") == "900")["email"].to_list() == ["ann@x.example"]


def test_many_requests_are_one_pass(canary_base: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = copied(canary_base, tmp_path / "world")
    named = [("email", f"person{number}@y.example") for number in range(REQUESTS - 1)] + [("email", ZOE)]
    ids = [f"er-{number:04d}" for number in range(REQUESTS)]
    wishes = [erasure.Wish(Named((pair,)), request_id=one) for one, pair in zip(ids, named, strict=True)]
    erasure.take_in(world.project, wishes)
    erasure.confirm_all(world.project, ids, "dpo")
    requests = Requests(world.lake.store)
    walks: list[int] = []
    walked = LakeWalk.run
    monkeypatch.setattr(LakeWalk, "run", lambda self, clean=None: walks.append(1) or walked(self, clean))
    result = erasure.run(world.project, "run")
    assert set(result.requests.values()) == {"complete"}
    assert len(walks) <= 3
    assert places_of(world.folder / "lake", *CANARIES) == {}
    assert len(requests.all()) == REQUESTS
    journal = Journal(world.lake.store, requests.get(ids[-1]).batch)
    assert {name for entry in journal.entries() for name in entry.rows} == {ids[-1]}
    assert erasure.proof(world.project, "er-0001")["places"] == {}


def test_a_request_is_not_closed_before_its_proof_is_written(
    canary_base: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = copied(canary_base, tmp_path / "world")
    request = confirmed(world)

    def full(*_: Any) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(erasure, "write_proofs", full)
        with pytest.raises(OSError, match="full"):
            erasure.run(world.project, "run")
    assert erasure.run(world.project, "again").requests == {request: "complete"}
    assert erasure.proof(world.project, request)["state"] == "complete"
