"""What Dagster is told of a sync that a command ran: the day is materialized, and its checks have results."""

from collections.abc import Sequence

import dagster as dg

from heap_assets.orchestration.assets.sync_metadata import metadata_of
from heap_assets.orchestration.checks import asset_key, evaluation
from heap_assets.pipelines.delivery import Delivery
from heap_assets.project import Project
from heap_assets.quality import Check, StoredVerdict
from heap_assets.tables import sync_asset


def report_delivery(
    instance: dg.DagsterInstance,
    project: Project,
    name: str,
    delivery: Delivery,
    verdicts: Sequence[tuple[Check, StoredVerdict]],
) -> None:
    """Report a delivery without a run: a materialization if the day arrived, else an observation, and its checks."""
    key, day = asset_key(sync_asset(name)), str(delivery.day)
    metadata = {"by": f"heap-assets sync run {name}", **metadata_of(project, name, delivery)}
    kind = dg.AssetMaterialization if delivery.arrived else dg.AssetObservation
    instance.report_runless_asset_event(kind(key, partition=day, metadata=metadata))
    for check, stored in verdicts:
        instance.report_runless_asset_event(evaluation(check, stored, day))
