"""The company is written and landed once; each test that changes something takes a copy of its lake."""

from __future__ import annotations

import pytest

from heap_assets.demo import Company, write_company
from heap_assets.demo.nights import runs_for
from heap_assets.pipelines.readiness import unbuilt_days
from heap_assets_tests.orchestration.company_platform import IDENTITY, World, make_world, why, yesterday


@pytest.fixture(scope="session")
def company(tmp_path_factory: pytest.TempPathFactory) -> Company:
    folder = tmp_path_factory.mktemp("company")
    return write_company(folder, people=80, days=6, seed=3, until=yesterday(), faults=False)


@pytest.fixture(scope="session")
def world(company: Company, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Everything up to profiles of the newest day, built."""
    made = make_world(company, tmp_path_factory.mktemp("world"))
    for dump in company.dump_ids.values():
        assert made.land(dump).success
    return made


@pytest.fixture(scope="session")
def resolved(world: World) -> World:
    """The same with every table, identity, profiles and audit of the newest day built."""
    newest = str(world.company.until)
    for assets, first, last in runs_for(unbuilt_days(world.project)):
        world.run(assets, str(first), str(last))
    warehouse = [f"warehouse/{name}" for name in world.project.settings.warehouse.tables]  # type: ignore[union-attr]
    assert world.run(["heap/users", "heap/user_migrations", *warehouse], newest).success
    result = world.run([*IDENTITY, "profiles", "audit", "identity/review"], newest)
    assert result.success, why(result)
    return world
