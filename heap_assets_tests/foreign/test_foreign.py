"""A company that nobody here designed for, from an empty folder to profiles at Heap, with real processes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from heap_assets.privacy.texts import is_searchable
from heap_assets_tests.foreign.company import MAY_FAIL
from heap_assets_tests.foreign.elsewhere import Vendors, vendors
from heap_assets_tests.foreign.scenario import Scenario, scenario
from heap_assets_tests.privacy.canary import places_of
from heap_assets_tests.sources.warehouse import servers

pytestmark = pytest.mark.slow

SEED = int(os.environ.get("FOREIGN_SEED", "1"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    try:
        with servers.postgres_cluster() as postgres:
            folder = tmp_path_factory.mktemp("foreign")
            with scenario(folder, postgres, seed=SEED, via="s3", hour=9, people=150, days=8) as made:
                yield made
    except servers.UnavailableError as missing:
        pytest.skip(f"{missing}: the foreign company was NOT tested")


@pytest.fixture(scope="module")
def elsewhere(world: Scenario) -> Iterator[Vendors]:
    with vendors(world) as servers_of_vendors:
        yield servers_of_vendors


def test_from_an_empty_folder_to_profiles_at_heap(world: Scenario, elsewhere: Vendors) -> None:
    world.first_night()
    _holds(world, elsewhere)


def test_a_second_night_that_was_killed_half_way_comes_to_the_same(world: Scenario, elsewhere: Vendors) -> None:
    world.second_night()
    _holds(world, elsewhere)


def test_a_person_is_erased_and_no_byte_of_them_is_left(world: Scenario) -> None:
    """The last one: the truth of the company has the person still."""
    if not world.seconds:
        world.first_night()
    erase = world.deployment.command
    known = [one for one in world.company.people if one.identity and one.contact and one.customer]
    person, other = known[0], known[-1]
    assert set(places_of(world.deployment.lake, person.email, other.email)) == {person.email, other.email}
    request = json.loads(erase("erase", "request", f"email:{person.email}", "--json"))
    identifiers = {one.partition(":")[2] for one in request["identifiers"]}
    assert {person.email, person.identity, person.contact, str(person.customer)} <= identifiers
    erase("erase", "confirm", request["request"], "--yes")
    result = json.loads(erase("erase", "run", "--json"))
    assert result["requests"] == {request["request"]: "complete"}, result["unsettled"]
    told = [value for value in identifiers if is_searchable(value)]
    assert person.email in told
    assert places_of(world.deployment.lake, *told) == {}
    assert places_of(world.deployment.lake, other.email)


def _holds(world: Scenario, elsewhere: Vendors) -> None:
    assert world.differences() == {}
    people = world.people()
    assert (people.precision, people.recall) == (1.0, 1.0), people.text()
    failed = {asset: checks - MAY_FAIL for asset, checks in world.failed_checks.items()}
    assert {asset: checks for asset, checks in failed.items() if checks} == world.company.planted_failures()
    elsewhere.send()
    assert elsewhere.differences() == {}
