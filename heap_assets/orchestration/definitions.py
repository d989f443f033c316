"""All assets, checks, sensors, schedules and jobs of a project as one `dg.Definitions`."""

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg

from heap_assets.alerts import configured_channels
from heap_assets.config import Settings
from heap_assets.orchestration.alert_sensors import alert_sensors
from heap_assets.orchestration.assets.exports import exports, exports_schedule, exports_sensor
from heap_assets.orchestration.assets.heap import event_tables, people
from heap_assets.orchestration.assets.heap_connect import dumps, landed
from heap_assets.orchestration.assets.identity import identity
from heap_assets.orchestration.assets.inbox import GROUP as INBOX
from heap_assets.orchestration.assets.inbox import inbox_tables
from heap_assets.orchestration.assets.labels import labels, labels_schedules
from heap_assets.orchestration.assets.privacy import (
    erasure_job,
    erasure_schedule,
    erasures,
    policies,
    policy_job,
    policy_schedule,
)
from heap_assets.orchestration.assets.profiles import profiles
from heap_assets.orchestration.assets.publish import GROUP as PUBLISH
from heap_assets.orchestration.assets.publish import publishing
from heap_assets.orchestration.assets.reports import report_schedules, reports
from heap_assets.orchestration.assets.reverse_etl import GROUP as REVERSE_ETL
from heap_assets.orchestration.assets.reverse_etl import reverse_etl
from heap_assets.orchestration.assets.status import status_report, status_schedule
from heap_assets.orchestration.assets.sync import syncs
from heap_assets.orchestration.assets.unified_events import unified_events
from heap_assets.orchestration.assets.waiting import ExplainingSensor, Reasons, waiting_sensor
from heap_assets.orchestration.assets.warehouse import warehouse_tables
from heap_assets.orchestration.checks import LAKE, check_step
from heap_assets.orchestration.groups import Groups
from heap_assets.orchestration.jobs import rebuilding_jobs, retention_job, retention_schedule, sync_jobs
from heap_assets.orchestration.live import micro_batch_job, micro_batch_sensor
from heap_assets.orchestration.manifest_sensor import manifest_schedule, manifest_sensor
from heap_assets.orchestration.pools import sleep_while_waiting
from heap_assets.orchestration.resources import LakeResource, days
from heap_assets.orchestration.run_alarms import Own
from heap_assets.orchestration.schedules import recency_job, schedules
from heap_assets.orchestration.ui_metadata import with_ui_metadata
from heap_assets.pipelines.account_profiles import check_accounts
from heap_assets.pipelines.analytics import check_analytics
from heap_assets.pipelines.behaviour import check_events
from heap_assets.pipelines.catalogue import with_first_tables
from heap_assets.pipelines.exports import engine_of_export, is_exported
from heap_assets.pipelines.functions import check_functions
from heap_assets.pipelines.models import check_models
from heap_assets.pipelines.signals import check_signals
from heap_assets.pipelines.suites import hourly_checks, identity_checks, profile_checks
from heap_assets.pipelines.sync_checks import unknown_destinations
from heap_assets.pipelines.table import check_columns
from heap_assets.project import PLAIN_NAMES, Names, Project, check_environment, open_project
from heap_assets.tables import AUDIENCES, AUDIT, DUMPS, EXPORTS, IDENTITY, PROFILES, SYNCS, WAREHOUSE
from heap_assets.versions import version_of

_AUTOMATION_SECONDS = 15
_MOST_ASSETS = 400
"""Of one sensor: Dagster refuses to evaluate more than 500 in the process that knows our conditions."""
_PEOPLE = (IDENTITY, PROFILES, AUDIT, AUDIENCES)


def load_definitions(file: Path | None = None, names: Names = PLAIN_NAMES) -> dg.Definitions:
    """Return the definitions that a settings file (the one in use unless given) and its catalogue describe.

    A deployment whose catalogue is empty takes in what the source holds first (`heap.tables.accept`).
    """
    sleep_while_waiting()
    with _without_garbage_collection():
        project = replace(open_project(file=file), names=names)
        if "://" not in project.settings.lake.url:  # the runs ask a lake that lies elsewhere: loading needs no network
            check_environment(project)
        return build_definitions(with_first_tables(project))


def build_definitions(project: Project) -> dg.Definitions:
    """Return the definitions of a project: assets, checks, sensors, schedules and jobs.

    Loading reads two local files and nothing else: no network, so every worker loads the same graph. Definitions with
    names of their own go beside those of others: they bring no executor, and no resource under a usual name.
    """
    project.check_heap_columns()
    check_columns(project)
    check_functions(project)
    check_signals(project)
    check_analytics(project)
    check_models(project)
    check_accounts(project)
    for doubt in (*check_events(project), *unknown_destinations(project).values()):
        dg.get_dagster_logger().warning(doubt)
    with warnings.catch_warnings(), _without_garbage_collection():
        # partitioned checks are in preview and backfill policies in beta: known, and tested here against this version
        for category in (dg.PreviewWarning, dg.BetaWarning):
            warnings.simplefilter("ignore", category)
        own = _definitions(project)
        if project.names != PLAIN_NAMES:
            return own
        # assets return nothing; the default I/O manager would make folders for that
        io_manager: Any = dg.mem_io_manager
        alone = dg.Definitions(resources={"io_manager": io_manager}, executor=_executor(project.settings))
        return dg.Definitions.merge(own, alone)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Thousands of assets and checks are made and kept: looking for garbage among them takes as long as making them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _definitions(project: Project) -> dg.Definitions:
    settings, names = project.settings, project.names
    run = settings.run
    partitions_def = days(settings.first_day)

    sensor_status = dg.DefaultSensorStatus.RUNNING if run.automation == "running" else dg.DefaultSensorStatus.STOPPED
    schedule_status = (
        dg.DefaultScheduleStatus.RUNNING if run.automation == "running" else dg.DefaultScheduleStatus.STOPPED
    )
    retention = retention_job(project)
    erasing, looking = erasure_job(names), policy_job(names)
    recency = recency_job(hourly_checks(project), names=names, status=schedule_status)
    exported = is_exported(project)
    arrivals: list[dg.AssetsDefinition | dg.AssetSpec] = (
        [landed(project, EXPORTS, engine_of_export(project)), exports(project)]
        if exported
        else [landed(project, DUMPS, "parquet"), dumps(project)]
    )
    arrival_sensor, arrival_schedule = (
        (exports_sensor, exports_schedule) if exported else (manifest_sensor, manifest_schedule)
    )
    micro_batch = micro_batch_job(project)
    follow_status = sensor_status if settings.live.follow == "dagster" else dg.DefaultSensorStatus.STOPPED
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = [
        *arrivals,
        event_tables(project),
        people(project),
        identity(project),
        *profiles(project),
        *syncs(project),
        status_report(project),
        *publishing(project),
        *reverse_etl(project),
        *warehouse_tables(project),
        *inbox_tables(project),
        *unified_events(project),
        *reports(project),
        *labels(project),
        erasures(project),
        *policies(project),
    ]
    by_group = Groups(project, assets)
    by_group.check_names(project)
    own = Own(names, None if names == PLAIN_NAMES else by_group.keys())
    return dg.Definitions(
        assets=with_ui_metadata(project, assets),
        asset_checks=[
            check_step("identity_checks", identity_checks(project), partitions_def, "Judges the graph.", names=names),
            recency.step,
            check_step("profile_checks", profile_checks(project), partitions_def, "Looks for duplicates.", names=names),
        ],
        resources={
            names.name(LAKE): LakeResource(
                url=settings.lake.url,
                options=settings.lake.options,
                settings=version_of(settings.model_dump(mode="json")),
                key_prefix=names.key_prefix,
            ).definition()
        },
        sensors=[
            arrival_sensor(project, interval_seconds=settings.heap.manifest_poll_seconds, status=sensor_status),
            *automation_sensors(project, by_group, sensor_status),
            *([micro_batch_sensor(project, micro_batch, status=follow_status)] if micro_batch else []),
            waiting_sensor(project, status=sensor_status),
            *alert_sensors(
                project.lake.store,
                configured_channels(settings.alerts),
                run.ui_url,
                own,
                status=sensor_status,
                allowed=project.allowed_hosts,
            ),
        ],
        schedules=[
            *schedules(project, schedule_status),
            *arrival_schedule(project, status=schedule_status),
            *report_schedules(project, schedule_status),
            *labels_schedules(project, schedule_status),
            recency.schedule,
            status_schedule(names, schedule_status),
            retention_schedule(names, retention, schedule_status),
            erasure_schedule(names, erasing, schedule_status),
            policy_schedule(names, looking, schedule_status),
        ],
        jobs=[
            *rebuilding_jobs(project, by_group),
            *sync_jobs(project),
            *([micro_batch] if micro_batch else []),
            retention,
            recency.job,
            erasing,
            looking,
        ],
    )


def automation_sensors(
    project: Project, by_group: Groups, status: dg.DefaultSensorStatus
) -> list[dg.AutomationConditionSensorDefinition]:
    """Return the sensors that run assets by their automation conditions."""
    sources = project.settings.sources
    reasons = Reasons(project)
    read = [WAREHOUSE, *(f"{source}/" for source in sources)]
    name = project.names.name

    def follow(sensor: str, *groups: str, why: Callable[[], str], description: str) -> list[ExplainingSensor]:
        return [
            ExplainingSensor(
                name(f"{sensor}_{number}" if number > 1 else sensor),
                why=why,
                target=target,
                default_status=status,
                minimum_interval_seconds=_AUTOMATION_SECONDS,
                description=description,
            )
            for number, target in enumerate(by_group.selections(*groups, most=_MOST_ASSETS), 1)
        ]

    sensors: list[dg.AutomationConditionSensorDefinition] = [
        *follow(
            "heap_tables_follow_dumps",
            *("heap_events", "heap_users"),
            why=reasons.of_tables,
            description="Rebuilds the days of Heap's tables that a dump touched, late days included.",
        ),
        *follow(
            "identity_follows_tables",
            *("identity", "profiles", "signals", "analytics", "models", "unified", "status"),
            why=reasons.of(*_PEOPLE, otherwise="the newest graph and what follows from it are built"),
            description="Resolves the newest day once its inputs are settled; profiles, audit and status page follow.",
        ),
        *follow(
            "first_reads_and_sends",
            *("warehouse", *sources, "sync"),
            why=reasons.of(*read, SYNCS, otherwise="what is to be read or sent waits for its schedule"),
            description="Reads warehouse tables that were never read or whose time was missed, and gives each sync its "
            "first run; the schedules ask for everything else.",
        ),
    ]
    if project.settings.inbox:
        sensors += follow(
            "inbox_tables_follow_messages",
            INBOX,
            why=lambda: "every day with messages is built, being built, or failed",
            description="Builds the days of the inbox's tables that messages came for, late days included.",
        )
    if project.settings.publish:
        sensors += follow(
            "publishing_follows_tables",
            PUBLISH,
            why=lambda: "every day that was built is published, being published, or failed to be",
            description="Publishes the days whose tables were built anew, and renews the views on them.",
        )
    if project.settings.reverse_etl:
        sensors += follow(
            "reverse_etl_follows_tables",
            REVERSE_ETL,
            why=lambda: "every sync of another tool was started since what it reads was built",
            description="Starts the syncs of Hightouch and Census whose tables were built or published anew.",
        )
    return sensors


def _executor(settings: Settings) -> dg.ExecutorDefinition:
    """One process for a run by default: Polars is parallel by itself, and a process per step costs seconds each."""
    return dg.in_process_executor if settings.run.executor == "in_process" else dg.multiprocess_executor
