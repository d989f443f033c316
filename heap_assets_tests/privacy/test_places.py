"""The register of places knows every folder of state, every table and every object that the platform makes."""

from __future__ import annotations

import dagster as dg
import pytest

from heap_assets import tables
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.privacy import PLACES, UNREGISTERED, place_of, unregistered
from heap_assets.storage import state_keys
from heap_assets_tests.pipelines.delivery_world import World

TABLES = [
    value
    for name, value in vars(tables).items()
    if name.isupper()
    and isinstance(value, str)
    and not value.endswith("/")
    and name != "WAREHOUSE_SOURCE"
    and not name.endswith("_COLUMN")
]


@pytest.mark.parametrize("folder", state_keys.ALL)
def test_every_folder_of_state_is_registered(folder: str) -> None:
    assert place_of(f"{folder}/anything.json") is not UNREGISTERED


@pytest.mark.parametrize("table", TABLES)
def test_every_table_of_ours_is_registered_by_name_and_not_as_a_source(table: str) -> None:
    assert place_of(f"{table}/2026-01-01.parquet") in PLACES


def test_every_asset_is_registered(canary_base: World) -> None:
    definitions = build_definitions(canary_base.project)
    keys = {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}
    assert len(keys) > 10
    assert not list(unregistered(f"{key}/2026-01-01.parquet" for key in keys))
    assert dg.AssetKey(["profiles"]) in definitions.resolve_asset_graph().get_all_asset_keys()


def test_every_object_of_a_lake_is_registered(canary_base: World) -> None:
    keys = [info.key for info in canary_base.lake.store.list()]
    assert len(keys) > 50
    assert not list(unregistered(keys))


def test_a_new_table_that_nobody_registered_is_noticed(canary_base: World) -> None:
    new = "loyalty"
    assert list(unregistered([f"{new}/2026-01-01.parquet", f"_{new}/state.json"])) == [
        f"{new}/2026-01-01.parquet",
        f"_{new}/state.json",
    ]
