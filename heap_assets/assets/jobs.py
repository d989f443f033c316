"""Jobs for what people do by hand with syncs; everything else is a button on the assets themselves."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from heap_assets.assets.sync import GROUP, step_name
from heap_assets.checks.partition_check import asset_key
from heap_assets.platform import Platform
from heap_assets.steps.suites import hourly_checks


def sync_jobs(loaded: Platform) -> list[UnresolvedAssetJobDefinition]:
    """Return the jobs over all syncs; none if there is no sync."""
    if not loaded.settings.sync:
        return []
    return [
        _job(
            loaded,
            "dry_run_of_all_syncs",
            {"dry_run": True},
            "Shows what every sync would send of a day: counts, new property names, a sample with hashed keys. "
            "Sends nothing and materializes nothing; look at the observations of the assets.",
        ),
        _job(
            loaded,
            "retry_rejected_rows",
            {"retry_rejected": True},
            "Sends a day by every sync and tries rejected rows at once, however often they failed: after an outage, or "
            "when the destination was taught to take them.",
        ),
    ]


def _job(
    loaded: Platform,
    name: str,
    config: Mapping[str, Any],
    description: str,
) -> UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        name,
        selection=_syncs_and_their_own_checks(loaded),
        config={"ops": {step_name(sync): {"config": dict(config)} for sync in loaded.settings.sync}},
        description=description,
    )


def _syncs_and_their_own_checks(loaded: Platform) -> dg.AssetSelection:
    """The hourly check of recency belongs to the assets too, but not to a run that sends."""
    hourly = [dg.AssetCheckKey(asset_key(check.asset), check.name) for check in hourly_checks(loaded)]
    return dg.AssetSelection.groups(GROUP) - dg.AssetSelection.checks(*hourly)
