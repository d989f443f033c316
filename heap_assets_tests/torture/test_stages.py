"""Stopped anywhere in any way and done again, every stage leaves what an undisturbed one leaves.

The short form: a few points of each stage. `make torture` tries them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from heap_assets.demo.server_process import ServerProcess, running_server
from heap_assets_tests.sources.warehouse.servers import UnavailableError
from heap_assets_tests.torture.delivery import APP, delivery_base
from heap_assets_tests.torture.publishing import TARGETS, publishing_base
from heap_assets_tests.torture.stages import STAGES
from heap_assets_tests.torture.trials import ERRORS, FILE_SIZE, Base, Trial, make_base, run_trial, trials
from heap_assets_tests.torture.zygote import Zygote

SEED = 14


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server("heap", tmp_path_factory.mktemp("heap"), arguments=["--app-id", APP]) as started:
        yield started


@pytest.fixture(scope="module")
def zygote(server: ServerProcess) -> Iterator[Zygote]:
    with Zygote(server.base_url) as started:
        yield started


@pytest.fixture(scope="module")
def base(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_base(zygote, tmp_path_factory.mktemp("torture"))


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_is_made_good(zygote: Zygote, base: Base, stage: str) -> None:
    for trial in trials(base, stage, ["SIGKILL"], 3, Random(SEED)):
        outcome, wrong = run_trial(zygote, base, trial)
        assert outcome.ended == "killed", trial
        assert not wrong, (trial, wrong)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_in_which_a_call_fails_is_made_good(zygote: Zygote, base: Base, stage: str) -> None:
    chance = Random(SEED)
    for kind in chance.sample(ERRORS, 2):
        for trial in trials(base, stage, [kind], 1, chance):
            _, wrong = run_trial(zygote, base, trial)
            assert not wrong, (trial, wrong)


@pytest.mark.parametrize("kib", [2, 8])
def test_a_landing_that_cannot_write_large_files_is_made_good(zygote: Zygote, base: Base, kib: int) -> None:
    _, wrong = run_trial(zygote, base, Trial("landing", FILE_SIZE, kib))
    assert not wrong


@pytest.mark.parametrize("kind", TARGETS)
def test_a_publication_that_is_stopped_is_made_good(zygote: Zygote, base: Base, kind: str, tmp_path: Path) -> None:
    chance = Random(SEED)
    try:
        with TARGETS[kind]() as target:
            published = publishing_base(zygote, tmp_path, base, kind, target)
            for trial in [
                *trials(published, kind, ["SIGKILL"], 3, chance),
                *trials(published, kind, chance.sample(ERRORS, 2), 1, chance),
            ]:
                _, wrong = run_trial(zygote, published, trial)
                assert not wrong, (trial, wrong)
    except UnavailableError as missing:
        pytest.skip(f"{missing}: publishing was NOT stopped")


def test_a_sync_that_is_stopped_is_made_good(zygote: Zygote, server: ServerProcess, tmp_path: Path) -> None:
    sync, chance = delivery_base(zygote, tmp_path, server), Random(SEED)
    for trial in [
        *trials(sync, "delivery", ["SIGKILL"], 3, chance),
        *trials(sync, "delivery", chance.sample(ERRORS, 3), 1, chance),
    ]:
        _, wrong = run_trial(zygote, sync, trial)
        assert not wrong, (trial, wrong)
