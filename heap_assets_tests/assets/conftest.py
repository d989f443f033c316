"""The company is written and landed once; each test that changes something takes a copy of its lake."""

from __future__ import annotations

import pytest

from heap_assets.demo import Company, write_company
from heap_assets_tests.assets.company_platform import World, make_world, yesterday


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
