"""Group `sync`: what has been sent to Heap, Segment and others, one partition a day of data."""

from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import dagster as dg
from pydantic import Field

from heap_assets.checks.freshness import policy_for
from heap_assets.checks.partition_check import asset_key
from heap_assets.destinations import Progress, Status, SyncReport
from heap_assets.errors import DeliveryError
from heap_assets.io import LakeResource
from heap_assets.names import PROFILES, USERS, sync_asset
from heap_assets.platform import Platform
from heap_assets.settings.sync import Sync
from heap_assets.steps import delivery
from heap_assets.steps.suites import loaded_cadence

_NOTHING_SENT = (Status.BLOCKED, Status.REFUSED, Status.NEEDS_CONFIRMATION, Status.STOPPED)


class SyncConfig(dg.Config):
    """What a person may choose in the launchpad for one run."""

    dry_run: bool = Field(default=False, description="Show what would be sent; send nothing")
    confirm: bool = Field(default=False, description="Send although the guard asks for confirmation")
    force: bool = Field(default=False, description="Send although a newer day was delivered already")


def syncs(
    loaded: Platform,
    platform: Callable[[LakeResource], Platform],
    partitions_def: dg.DailyPartitionsDefinition,
    required_checks: Callable[[str], list[str]],
) -> list[dg.AssetsDefinition]:
    """Return one asset per sync of the settings."""
    return [
        _sync(loaded, platform, partitions_def, name, sync, required_checks(delivery.input_asset(sync)))
        for name, sync in loaded.settings.sync.items()
    ]


def _sync(
    loaded: Platform,
    platform: Callable[[LakeResource], Platform],
    partitions_def: dg.DailyPartitionsDefinition,
    name: str,
    sync: Sync,
    required_checks: list[str],
) -> dg.AssetsDefinition:
    source = delivery.input_asset(sync)

    @dg.asset(
        key=asset_key(sync_asset(name)),
        deps=[asset_key(source), *([asset_key(USERS)] if source == PROFILES else [])],
        description=_about(name, sync, source),
        group_name="sync",
        kinds={_vendor(sync.kind or name)},
        owners=[loaded.settings.run.owner],
        tags={"destination": _vendor(sync.kind or name)},
        metadata={"dagster/column_lineage": property_lineage(sync, source)},
        partitions_def=partitions_def,
        backfill_policy=dg.BackfillPolicy.single_run(),
        freshness_policy=policy_for("sync", loaded_cadence(loaded)),
        pool=f"sync_{_vendor(sync.kind or name)}",
    )
    def send(context: dg.AssetExecutionContext, config: SyncConfig, lake: LakeResource) -> Iterator[Any]:
        there = platform(lake)
        *older, newest = context.partition_keys
        if config.dry_run:
            context.log.info("dry run: nothing is sent")
            report, _ = delivery.plan(there, name, date.fromisoformat(newest), force=config.force)
        else:
            report = delivery.send(
                there,
                name,
                date.fromisoformat(newest),
                context.run_id,
                required_checks=required_checks,
                confirmed=config.confirm,
                force=config.force,
                progress=lambda seen: context.log.info(_progress(seen)),
            )
        for day in older:
            context.add_asset_metadata({"status": str(Status.SUPERSEDED), "newer_day": newest}, partition_key=day)
        context.add_asset_metadata(_metadata(report), partition_key=newest)
        if report.status in _NOTHING_SENT:
            raise dg.Failure(
                f"sync/{name} {newest}: {report.status}: {report.reason}",
                metadata=_metadata(report),
                allow_retries=False,
            )
        yield dg.MaterializeResult()

    return send


def property_lineage(sync: Sync, source: str) -> dg.TableColumnLineage:
    """Return, for every property that is sent, the column it comes from."""
    return dg.TableColumnLineage(
        {prop: [dg.TableColumnDep(asset_key(source), column)] for prop, column in sync.properties.items()}
    )


def _about(name: str, sync: Sync, source: str) -> str:
    properties = ", ".join(f"`{prop}`" for prop in sync.properties) or "nothing"
    return (
        f"Sends {properties} from `{source}` by `{sync.kind or name}`.\n\n"
        "Only what changed is sent, compared with what the destination has acknowledged. Nothing is sent while a "
        "blocking check of the input has failed, is missing or judged another version."
    )


def _vendor(kind: str) -> str:
    return kind.partition("_")[0]


def _progress(seen: Progress) -> str:
    return str(seen)


def _metadata(report: SyncReport) -> dict[str, Any]:
    plain: dict[str, Any] = {k: v for k, v in report.as_dict().items() if isinstance(v, bool | int | float | str)}
    for skipped in ("sync", "run_id", "day"):
        plain.pop(skipped)
    for name in ("rejections", "invalid_reasons", "held_reasons"):
        if reasons := getattr(report, name):
            records = [dg.TableRecord({"reason": reason, "rows": rows}) for reason, rows in reasons.items()]
            plain[name] = dg.MetadataValue.table(records)
    if report.sample:
        records = [dg.TableRecord({"key_hash": key, "reason": reason}) for key, reason in report.sample]
        plain["rejected_sample"] = dg.MetadataValue.table(records)
    if report.new_properties:
        plain["new_properties"] = ", ".join(report.new_properties)
    return plain


__all__ = ["DeliveryError", "SyncConfig", "syncs"]
