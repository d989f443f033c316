"""Runs of toy assets, and what Dagster kept of their checks."""

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from check_toys import LakeResource

from heap_assets.storage import Lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.open(str(tmp_path / "lake"))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def run(lake: Lake, instance: dg.DagsterInstance) -> Callable[..., dg.ExecuteInProcessResult]:
    """Materialize one partition, or a range the way that backfills of assets with a `BackfillPolicy` do."""

    def _run(assets: list[object], first: str, last: str | None = None, selection: object = None) -> object:
        tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last or first}
        return dg.materialize(
            assets,  # type: ignore[arg-type]
            resources={"lake": LakeResource(url=lake.store.url)},
            instance=instance,
            raise_on_error=False,
            selection=selection,  # type: ignore[arg-type]
            **({"tags": tags} if last else {"partition_key": first}),  # type: ignore[arg-type]
        )

    return _run  # type: ignore[return-value]


@pytest.fixture
def kept(instance: dg.DagsterInstance) -> Callable[[str, str], dict[str | None, list[str]]]:
    """Return what Dagster kept of a check: partition to execution states, planned ones too."""

    def _kept(asset: str, check: str) -> dict[str | None, list[str]]:
        key = dg.AssetCheckKey(dg.AssetKey(asset.split("/")), check)
        states: dict[str | None, list[str]] = {}
        for found in instance.event_log_storage.get_asset_check_execution_history(key, limit=100):
            states.setdefault(found.partition, []).append(found.status.value)
        return states

    return _kept
