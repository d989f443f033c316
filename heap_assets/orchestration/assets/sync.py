"""Group `sync`: what has been sent to Heap, Segment and others, one partition a day of data."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
from pydantic import BaseModel, Field

from heap_assets.activation import LeaseHeldError, Mode, Progress, Status, connector_of, salt
from heap_assets.errors import DeliveryError, HeapAssetsError
from heap_assets.orchestration.assets.sync_metadata import (
    description,
    metadata_of,
    planned_rows,
    progress_line,
    property_lineage,
    property_types,
    why_metadata,
)
from heap_assets.orchestration.assets.table_step import materializations, note_wait
from heap_assets.orchestration.automation import never_sent
from heap_assets.orchestration.checks import LAKE, StepChecks, asset_key, check_specs, lake_of
from heap_assets.orchestration.failures import raising_failures
from heap_assets.orchestration.resources import days
from heap_assets.orchestration.schedules import policy_for
from heap_assets.pipelines import delivery
from heap_assets.pipelines.delivery import Delivery, RunOptions
from heap_assets.pipelines.suites import loaded_cadence
from heap_assets.pipelines.sync_checks import results_of, superseded_result, sync_checks, undelivered_result
from heap_assets.pipelines.sync_gate import built_days, confirmation_hint, remember_shown, waits_for_confirmation
from heap_assets.pipelines.sync_why import key_of, why
from heap_assets.project import Names, Project
from heap_assets.tables import sync_asset

GROUP = "sync"
_SECONDS_BETWEEN_LINES = 5.0
_SHOWN_REASON = 500


class SyncConfig(BaseModel):
    """What a person may choose in the launchpad for one run."""

    dry_run: bool = Field(default=False, description="Show what would be sent; send nothing")
    confirm: bool = Field(default=False, description="Send although the guard asks for confirmation")
    force: bool = Field(default=False, description="Send although a newer day was delivered already")
    full_resend: bool = Field(default=False, description="Send every known key again (not for events)")
    retry_rejected: bool = Field(default=False, description="Try rejected rows at once, however often they failed")
    why: str = Field(
        default="", description="Hash of a key, as tables here show it: say what became of it; send nothing"
    )
    rejected_since: str = Field(default="", description="Of those, only the ones refused since then: 2026-11-20T08:00")

    @property
    def options(self) -> RunOptions:
        """Return the options of the delivery; DeliveryError if `rejected_since` is no time."""
        retry = self.retry_rejected or bool(self.rejected_since)
        return RunOptions(self.confirm, self.force, self.full_resend, retry, _moment(self.rejected_since))


_CONFIG_SCHEMA = {
    name: dg.Field(field.annotation, is_required=False, description=field.description)
    for name, field in SyncConfig.model_fields.items()
}
"""Without defaults: the launchpad would show them in place of those of a job, until a partition is chosen."""


def syncs(project: Project) -> list[dg.AssetsDefinition]:
    """Return one asset per sync of the settings."""
    return [_sync(project, name) for name in project.settings.sync]


def step_name(name: str, names: Names) -> str:
    """Return the name of a sync's step, under which a run is configured."""
    return names.name("sync__" + re.sub(r"\W", "_", name))


def _sync(project: Project, name: str) -> dg.AssetsDefinition:
    sync, inputs = project.settings.sync[name], connector_of(project, name).all_inputs
    names, checks = project.names, sync_checks(project, name)
    spec = dg.AssetSpec(
        asset_key(sync_asset(name), names),
        deps=[asset_key(path, names) for path in inputs],
        description=description(name, sync, inputs),
        group_name=names.group(GROUP),
        kinds={sync.vendor},
        tags={"destination": sync.vendor},
        metadata={"dagster/column_lineage": property_lineage(project, name)},
        automation_condition=never_sent(project) if sync.scheduled else None,
        freshness_policy=policy_for("sync", loaded_cadence(project)) if sync.scheduled else None,
        skippable=True,  # a dry run sends nothing and materializes nothing
    )

    partitions_def = days(project.settings.first_day)

    @dg.multi_asset(
        name=step_name(name, names),
        specs=[spec],
        check_specs=check_specs(checks, partitions_def, names),
        partitions_def=partitions_def,
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=names.name(f"sync_{sync.vendor}"),
        required_resource_keys={names.name(LAKE)},
        config_schema=_CONFIG_SCHEMA,
        description=f"Sends to {sync.vendor} what `sync.{name}` in the settings says.",
    )
    @raising_failures
    def send(context: dg.AssetExecutionContext) -> Iterator[Any]:
        config = SyncConfig(**context.op_execution_context.op_config)
        if not (context.has_partition_key or context.has_partition_key_range):
            raise dg.Failure(f"{sync_asset(name)} sends the rows of a day: choose one, as the partition of the run")
        deployed = project.with_lake(lake_of(context, names))
        if not context.selected_asset_keys:
            # the button "Execute" of a check must not send anything
            step = StepChecks(context, deployed.lake, checks, names)
            yield from step.re_evaluate(sync_asset(name), context.partition_keys)
            yield from step.finish()
            return
        if config.why:
            _say_why(context, deployed, name, config.why)
            return
        if config.dry_run:
            yield from _dry_run(context, deployed, name, config)
            return
        delivery.check_options(deployed, name, config.options)
        if not config.confirm and waits_for_confirmation(deployed, name):
            yield from _dry_run(context, deployed, name, config)
            remember_shown(deployed, name, date.fromisoformat(max(context.partition_keys)))
            context.log.warning("sync/%s has never sent to this destination: %s", name, confirmation_hint(name))
            return
        step = StepChecks(context, deployed.lake, checks, names)
        yield from _Run(context, deployed, name, step).go(config.options)

    return send


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise DeliveryError(f"rejected_since is {text!r}; expected a time such as 2026-11-20T08:00 (UTC)") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@dataclass
class _Run:
    """One run over one or several days: events send each day, upserts the newest one."""

    context: dg.AssetExecutionContext
    project: Project
    name: str
    checks: StepChecks
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    superseded: list[str] = field(default_factory=list)

    @property
    def key(self) -> dg.AssetKey:
        return asset_key(sync_asset(self.name), self.project.names)

    def go(self, options: RunOptions) -> Iterator[Any]:
        error = self._deliver(options)
        asset = sync_asset(self.name)
        yield from self._materializations()
        for day in self.superseded:
            yield from self.checks.evaluate(asset, day, superseded_result(max(self.deliveries)))
        for day, sent in self.deliveries.items():
            yield from self.checks.evaluate(asset, day, results_of(self.project, self.name, sent))
        if error is not None and not isinstance(error[1], LeaseHeldError):
            yield from self.checks.evaluate(asset, error[0], undelivered_result(str(error[1])[:_SHOWN_REASON]))
        yield from self.checks.finish()
        if error is not None:
            raise error[1]
        self._fail_if_undelivered()

    def _deliver(self, options: RunOptions) -> tuple[str, HeapAssetsError] | None:
        """Send day by day, and return the error that ended it, if any.

        A day that was not built, or whose checks did not pass, is left out; one that the destination did not take
        is the last.
        """
        *older, newest = self._sendable_days()
        events = connector_of(self.project, self.name).mode is Mode.INSERT
        for day in [*older, newest] if events else [newest]:
            try:
                sent = delivery.send(
                    self.project,
                    self.name,
                    date.fromisoformat(day),
                    self.context.run.run_id,
                    options,
                    progress=_progress_logger(self.context),
                )
            except HeapAssetsError as error:
                return day, error
            self.deliveries[day] = sent
            self._log_report(day, sent)
            if not sent.arrived and sent.report.status is not Status.BLOCKED:
                break
        if not events and self.deliveries[newest].arrived:
            self.superseded = older
        return None

    def _sendable_days(self) -> list[str]:
        """Return the days that can be sent, and report what the others wait for; all of them if none can be sent.

        Then the gate fails the run, because somebody requested it.
        """
        days = list(self.context.partition_keys)
        built = built_days(self.project, self.name)
        if len(sendable := [day for day in days if day in built]) in (0, len(days)):
            return days
        for day in sorted({*days} - {*sendable}):
            note_wait(self.context, self.key, day, f"what it reads has not been built for {day}")
        return sendable

    def _materializations(self) -> Iterator[Any]:
        """Report the days that arrived."""
        metadata: dict[str, Mapping[str, Any]] = {
            day: {"status": str(Status.SUPERSEDED), "newer_day": max(self.deliveries)} for day in self.superseded
        }
        metadata |= {
            day: metadata_of(self.project, self.name, sent) | property_types(self.project, self.name, day)
            for day, sent in self.deliveries.items()
            if sent.arrived
        }
        yield from materializations(self.context, self.key, metadata)

    def _log_report(self, day: str, sent: Delivery) -> None:
        report = sent.report
        self.context.log.info(
            "%s %s: %s, %s sent, %s unchanged, %s empty, %s rejected, %s invalid, %s held in %s requests",
            *(sync_asset(self.name), day, report.status, f"{report.sent:,}", f"{report.unchanged:,}"),
            *(f"{report.empty:,}", report.rejected, report.invalid, report.held, report.requests),
        )
        for table, reason in sent.left_out.items():
            self.context.log.warning("%s %s leaves out %s: %s", sync_asset(self.name), day, table, reason)

    def _fail_if_undelivered(self) -> None:
        lost = {day: sent for day, sent in self.deliveries.items() if not sent.arrived}
        if not lost:
            return
        asks = any(sent.report.status is Status.NEEDS_CONFIRMATION for sent in lost.values())
        shown = metadata_of(self.project, self.name, next(iter(lost.values())))
        raise dg.Failure(
            "\n".join(
                f"{sync_asset(self.name)} {day}: {sent.report.status}: {sent.report.reason}"
                for day, sent in lost.items()
            )
            + (f"; {confirmation_hint(self.name)}" if asks else ""),
            metadata={name: value for name, value in shown.items() if value not in (0, "") and name != "recent_runs"},
            allow_retries=False,
        )


def _dry_run(
    context: dg.AssetExecutionContext, project: Project, name: str, config: SyncConfig
) -> Iterator[dg.AssetObservation]:
    """Observe what would be sent: a dry run is no materialization, or the day would look delivered."""
    salt(project.lake.store)  # so that `heap-assets rows` finds the hashes of the observation
    for day in context.partition_keys:
        planned, rows = delivery.plan(project, name, date.fromisoformat(day), force=config.force)
        metadata = metadata_of(project, name, planned) | planned_rows(rows)
        key = asset_key(sync_asset(name), project.names)
        context.log_event(dg.AssetObservation(key, partition=day, metadata=metadata))
        context.log.info("dry run: %s %s would send %s rows", sync_asset(name), day, f"{planned.report.planned:,}")
    yield from ()


def _say_why(context: dg.AssetExecutionContext, project: Project, name: str, key_hash: str) -> None:
    """Observe what became of one key. It is asked for by its hash: Dagster keeps the configuration of every run."""
    for day in context.partition_keys:
        moment = date.fromisoformat(day)
        facts = list(why(project, name, key_of(project, name, key_hash, moment), moment))
        for fact in facts:
            context.log.info("%s: %s", fact.subject, fact.statement)
        key = asset_key(sync_asset(name), project.names)
        context.log_event(dg.AssetObservation(key, partition=day, metadata=why_metadata(key_hash, facts)))


def _progress_logger(context: dg.AssetExecutionContext) -> Callable[[Progress], None]:
    """Return what logs how far a delivery is, every few seconds."""
    last = time.monotonic()

    def log_progress(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            context.log.info(progress_line(progress))

    return log_progress
