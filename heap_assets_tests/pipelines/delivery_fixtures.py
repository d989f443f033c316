"""Servers and worlds for the tests of delivery; imported by name where they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from heap_assets import clock
from heap_assets.demo.server_process import ServerProcess, running_server
from heap_assets_tests.pipelines.delivery_world import APP, NOW, WRITE_KEY, World, make_base

Worlds = Callable[[str], World]


@pytest.fixture(scope="session")
def heap_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server("heap", tmp_path_factory.mktemp("heap"), arguments=["--app-id", APP]) as server:
        yield server


@pytest.fixture
def heap(heap_process: ServerProcess) -> ServerProcess:
    """A local Heap that knows the three people of the lake."""
    heap_process.fail()
    heap_process.reset()
    heap_process.seed(["ann@x.example", "bob@x.example", "cat@x.example"], app_id=APP)
    return heap_process


@pytest.fixture(scope="session")
def segment_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server("segment", tmp_path_factory.mktemp("segment"), arguments=["--write-key", WRITE_KEY]) as server:
        yield server


@pytest.fixture
def segment(segment_process: ServerProcess) -> ServerProcess:
    segment_process.fail()
    segment_process.reset()
    return segment_process


@pytest.fixture(autouse=True)
def at_three_in_the_morning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(clock.VARIABLE, NOW)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> World:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(clock.VARIABLE, NOW)
        return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def worlds(base: World, tmp_path: Path, heap_process: ServerProcess) -> Worlds:
    """Make a world of its own with the syncs given as YAML."""
    return lambda syncs: base.copy(tmp_path / "world", syncs, heap_process.base_url)
