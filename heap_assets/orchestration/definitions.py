"""All assets, checks, sensors, schedules and jobs of a project as one `dg.Definitions`."""

import warnings

import dagster as dg

from heap_assets.alerts import configured_channels
from heap_assets.config import Settings
from heap_assets.orchestration.alert_sensors import alert_sensors
from heap_assets.orchestration.assets.exports import exports, exports_sensor
from heap_assets.orchestration.assets.heap import event_tables, people
from heap_assets.orchestration.assets.heap_connect import dumps, landed
from heap_assets.orchestration.assets.identity import identity
from heap_assets.orchestration.assets.profiles import profiles
from heap_assets.orchestration.assets.publish import GROUP as PUBLISH
from heap_assets.orchestration.assets.publish import publishing
from heap_assets.orchestration.assets.status import status_report, status_schedule
from heap_assets.orchestration.assets.sync import syncs
from heap_assets.orchestration.assets.waiting import ExplainingSensor, Reasons, waiting_sensor
from heap_assets.orchestration.assets.warehouse import warehouse_tables
from heap_assets.orchestration.checks import check_step
from heap_assets.orchestration.jobs import rebuilding_jobs, retention_job, retention_schedule, sync_jobs
from heap_assets.orchestration.manifest_sensor import manifest_sensor
from heap_assets.orchestration.resources import LakeResource, days
from heap_assets.orchestration.schedules import recency_job, schedules
from heap_assets.orchestration.ui_metadata import with_ui_metadata
from heap_assets.pipelines.behaviour import check_events
from heap_assets.pipelines.exports import is_exported
from heap_assets.pipelines.suites import hourly_checks, identity_checks, profile_checks
from heap_assets.pipelines.sync_checks import unknown_destinations
from heap_assets.pipelines.table import check_columns
from heap_assets.project import Project
from heap_assets.tables import AUDIENCES, AUDIT, DUMPS, EXPORTS, IDENTITY, PROFILES, SYNCS, WAREHOUSE
from heap_assets.versions import version_of

_AUTOMATION_SECONDS = 15
_PEOPLE = (IDENTITY, PROFILES, AUDIT, AUDIENCES)


def build_definitions(project: Project) -> dg.Definitions:
    """Return the definitions of a platform: assets, checks, sensors and schedules.

    Loading reads two local files and nothing else: no network, so every worker loads the same graph.
    """
    project.check_heap_columns()
    check_columns(project)
    for doubt in (*check_events(project), *unknown_destinations(project).values()):
        dg.get_dagster_logger().warning(doubt)
    with warnings.catch_warnings():
        # partitioned checks are in preview and backfill policies in beta: known, and tested here against this version
        for category in (dg.PreviewWarning, dg.BetaWarning):
            warnings.simplefilter("ignore", category)
        return _definitions(project)


def _definitions(project: Project) -> dg.Definitions:
    settings = project.settings
    run = settings.run
    partitions_def = days(settings.start_date)

    sensor_status = dg.DefaultSensorStatus.RUNNING if run.automation == "running" else dg.DefaultSensorStatus.STOPPED
    schedule_status = (
        dg.DefaultScheduleStatus.RUNNING if run.automation == "running" else dg.DefaultScheduleStatus.STOPPED
    )
    retention = retention_job(project)
    recency = recency_job(hourly_checks(project), status=schedule_status)
    exported = is_exported(project)
    arrivals: list[dg.AssetsDefinition | dg.AssetSpec] = (
        [landed(project, EXPORTS, "bigquery"), exports(project)]
        if exported
        else [landed(project, DUMPS, "parquet"), dumps(project)]
    )
    arrival_sensor = exports_sensor if exported else manifest_sensor
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = [
        *arrivals,
        event_tables(project),
        people(project),
        identity(project),
        *profiles(project),
        *syncs(project),
        status_report(project),
        *publishing(project),
        *warehouse_tables(project),
    ]
    return dg.Definitions(
        assets=with_ui_metadata(project, assets),
        asset_checks=[
            check_step("identity_checks", identity_checks(project), partitions_def, description="Judges the graph."),
            recency.step,
            check_step("profile_checks", profile_checks(project), partitions_def, description="Looks for duplicates."),
        ],
        resources={
            "lake": LakeResource(
                url=settings.lake.url,
                options=settings.lake.options,
                settings=version_of(settings.model_dump(mode="json")),
            ),
            "io_manager": dg.mem_io_manager,  # assets return nothing; the default would make folders for that
        },
        sensors=[
            arrival_sensor(project, interval_seconds=settings.heap.manifest_poll_seconds, status=sensor_status),
            *automation_sensors(project, sensor_status),
            waiting_sensor(project, status=sensor_status),
            *alert_sensors(configured_channels(settings.alerts), run.ui_url, status=sensor_status),
        ],
        schedules=[
            *schedules(project, schedule_status),
            recency.schedule,
            status_schedule(schedule_status),
            retention_schedule(retention, schedule_status),
        ],
        jobs=[*rebuilding_jobs(project), *sync_jobs(project), retention, recency.job],
        executor=_executor(settings),
    )


def automation_sensors(
    project: Project, status: dg.DefaultSensorStatus
) -> list[dg.AutomationConditionSensorDefinition]:
    """Return the sensors that run assets by their automation conditions."""
    sources = project.settings.sources
    reasons = Reasons(project)
    read = [WAREHOUSE, *(f"{source}/" for source in sources)]
    tables = dg.AssetSelection.groups("heap", "heap_events")
    people = dg.AssetSelection.groups("identity", "profiles")
    return [
        ExplainingSensor(
            "heap_tables_follow_dumps",
            why=reasons.of_tables,
            target=tables,
            default_status=status,
            minimum_interval_seconds=_AUTOMATION_SECONDS,
            description="Rebuilds the days of Heap's tables that a dump touched, late days included.",
        ),
        ExplainingSensor(
            "identity_follows_tables",
            why=reasons.of(*_PEOPLE, otherwise="the newest graph and what follows from it are built"),
            target=people,
            default_status=status,
            minimum_interval_seconds=_AUTOMATION_SECONDS,
            description="Resolves the newest day once its inputs are settled; profiles and audit follow.",
        ),
        ExplainingSensor(
            "first_reads_and_sends",
            why=reasons.of(*read, SYNCS, otherwise="what is to be read or sent waits for its schedule"),
            target=dg.AssetSelection.groups("warehouse", *sources, "sync"),
            default_status=status,
            minimum_interval_seconds=_AUTOMATION_SECONDS,
            description="Reads warehouse tables that were never read or whose time was missed, and gives each sync its "
            "first run; the schedules ask for everything else.",
        ),
        dg.AutomationConditionSensorDefinition(
            "publishing_follows_tables",
            target=dg.AssetSelection.groups(PUBLISH),
            default_status=status,
            minimum_interval_seconds=_AUTOMATION_SECONDS,
            description="Publishes the days whose tables were built anew, and renews the views on them.",
        ),
    ]


def _executor(settings: Settings) -> dg.ExecutorDefinition:
    """One process for a run by default: Polars is parallel by itself, and a process per step costs seconds each."""
    return dg.in_process_executor if settings.run.executor == "in_process" else dg.multiprocess_executor
