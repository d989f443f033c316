from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import delivery_kit as kit
import pytest

from heap_assets.demo.server_process import ServerProcess, running_server
from heap_assets.storage import Store


@pytest.fixture(scope="session")
def heap_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server("heap", tmp_path_factory.mktemp("heap"), arguments=["--app-id", kit.APP]) as server:
        yield server


@pytest.fixture
def heap(heap_process: ServerProcess) -> ServerProcess:
    heap_process.configure(limits=True, window_scale=1, window="sliding", retry_after=True, bulk_invalid="reject")
    heap_process.reset()
    return heap_process


@pytest.fixture(scope="session")
def segment_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(
        "segment", tmp_path_factory.mktemp("segment"), arguments=["--write-key", "wk-secret"]
    ) as server:
        yield server


@pytest.fixture
def segment(segment_process: ServerProcess) -> ServerProcess:
    segment_process.configure(limits=True, window_scale=1)
    segment_process.reset()
    return segment_process


@pytest.fixture
def lake(tmp_path: Path) -> Store:
    return kit.store(tmp_path)
