"""The checks of each asset, by the settings, and which of them block a sync."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from heap_assets.activation import connector_of
from heap_assets.config import WarehouseTable
from heap_assets.functions import ORDINAL
from heap_assets.identity import HEAP_IDENTITY, HEAP_USER_ID, Decision, Rules, Unusable
from heap_assets.pipelines.functions import declared_columns, function_of
from heap_assets.project import Project
from heap_assets.quality import (
    Cadence,
    Check,
    Thresholds,
    WarehouseKeys,
    blocking_checks,
    checks_for_analytics,
    checks_for_audiences,
    checks_for_decisions,
    checks_for_dumps,
    checks_for_event_table,
    checks_for_folded_table,
    checks_for_function,
    checks_for_identity,
    checks_for_message_table,
    checks_for_migrations,
    checks_for_profiles,
    checks_for_unified_events,
    checks_for_users,
    checks_for_warehouse_table,
    coming_check,
    delivery_recency_check,
    followed_check,
    recency_checks,
    unique_key_check,
)
from heap_assets.sources.heap_connect import built_in_columns
from heap_assets.sources.inbox import LIVE
from heap_assets.storage import Lake
from heap_assets.tables import (
    ACCOUNT_AUDIENCES,
    DUMPS,
    GRAPH,
    MIGRATIONS,
    PROFILES,
    UNIFIED_EVENTS,
    USERS,
    analytics_asset,
    heap_asset,
    is_heap_table,
    is_inbox_table,
    is_warehouse_table,
    model_asset,
    signal_asset,
    sync_asset,
    warehouse_asset,
    warehouse_table,
)
from heap_assets.values import PSEUDONYM

_HEAP_TYPES = (HEAP_IDENTITY, HEAP_USER_ID, "device_id")


def thresholds(project: Project) -> Thresholds:
    """Return the thresholds with those of `checks:` in place; SettingsError for a key that is no threshold."""
    return Thresholds.from_settings(project.settings.checks)


def checks_of(project: Project, asset: str) -> list[Check]:
    """Return the checks of one asset of the lake."""
    tolerated, rules = thresholds(project), project.rules_of_settings
    if asset == USERS:
        return checks_for_users(tolerated, [heap_asset(table) for table in project.event_tables])
    if asset == UNIFIED_EVENTS:
        return checks_for_unified_events(asset)
    if asset == MIGRATIONS:
        return checks_for_migrations(tolerated)
    if is_heap_table(asset):
        table = project.heap_tables[asset]
        custom = project.catalogue.tables[table].columns
        built_in = set(built_in_columns(table))
        return checks_for_event_table(
            asset,
            properties=[*(name for name in custom if name not in built_in), *declared_columns(project, table)],
            accepted=[name for name, column in custom.items() if column.pii],
            ordinal=[ORDINAL] if function_of(project, table) else [],
            thresholds=tolerated,
        )
    mapped = project.settings.source_tables.get(warehouse_table(asset))
    if mapped is not None and is_warehouse_table(asset):
        return checks_for_warehouse_table(
            asset,
            key=mapped.key,
            identifiers=plain_columns(project, asset),
            patterns={
                rule.type: f"(?:{rule.value_pattern})|{PSEUDONYM}" for rule in rules.identifiers if rule.value_pattern
            },
            normalisers={rule.type: rule.normaliser for rule in rules.identifiers},
            thresholds=tolerated,
        )
    if is_inbox_table(asset):
        return inbox_checks(project, asset)
    return [check for check in [*identity_checks(project), *profile_checks(project)] if check.asset == asset]


def inbox_checks(project: Project, asset: str) -> list[Check]:
    """Return the checks of a table of the inbox."""
    mapped = project.settings.source_tables[asset]
    if asset in project.settings.snapshot_tables:
        return checks_for_folded_table(asset, key=mapped.key, thresholds=thresholds(project))
    functions = checks_for_function(asset, thresholds(project)) if function_of(project, asset) else []
    return [*checks_for_message_table(asset, key=mapped.key, thresholds=thresholds(project)), *functions]


def dump_checks(project: Project) -> list[Check]:
    """Return the checks of `heap_connect/dumps`."""
    return checks_for_dumps(DUMPS, thresholds(project))


def identity_checks(project: Project) -> list[Check]:
    """Return the checks of `identity/*`."""
    rules = project.rules_of_settings
    judged = checks_for_identity(
        limits={rule.type: rule.max_per_profile for rule in rules.identifiers if rule.max_per_profile is not None},
        heap_types=[t for t in rules.types if t in _HEAP_TYPES],
        other_types=[t for t in rules.types if t not in _HEAP_TYPES],
        unique_types=_unique_types(rules),
        thresholds=thresholds(project),
    )
    identity = project.settings.identity
    decided = identity.decisions is not None or identity.decisions_table is not None
    return [*judged, *(checks_for_decisions(partial(_decisions, project)) if decided else [])]


def _decisions(project: Project, lake: Lake) -> tuple[Sequence[Decision], Sequence[Unusable]]:
    opened = project.with_lake(lake)
    return opened.rules_of_days.decisions, opened.unusable_decisions


def profile_checks(project: Project) -> list[Check]:
    """Return the checks of `profiles`, for duplicates above all, and of what follows from them."""
    rules = project.rules_of_settings
    tables = project.settings.snapshot_tables
    normalisers = {rule.type: rule.normaliser for rule in rules.identifiers}
    keys = [
        WarehouseKeys(warehouse_asset(name), table.key, plain_columns(project, warehouse_asset(name)), normalisers)
        for name, table in tables.items()
        if table.identifiers
    ]
    duplicates = checks_for_profiles(
        unique_types=_unique_types(rules),
        warehouse_keys=keys,
        thresholds=thresholds(project),
    )
    audiences = checks_for_audiences(thresholds(project)) if project.settings.profiles.audiences else []
    if ACCOUNT_AUDIENCES in project.settings.account_assets:
        audiences += checks_for_audiences(thresholds(project), ACCOUNT_AUDIENCES)
    functions = checks_for_function(PROFILES, thresholds(project)) if project.settings.functions.enrich else []
    remedy = "materialize the day again; if it stays, something else writes to the lake."
    firings = [unique_key_check(signal_asset(name), "firing_id", remedy) for name in project.signals]
    results = [check for name in project.settings.analytics for check in checks_for_analytics(analytics_asset(name))]
    once = "give the statement one row per key: GROUP BY it, or QUALIFY row_number() = 1."
    keyed = {model_asset(name): model.key for name, model in project.settings.models.items() if model.key}
    models = [replace(unique_key_check(asset, key, once), blocking=False) for asset, key in keyed.items()]
    return [*duplicates, *audiences, *functions, *firings, *results, *models]


def _unique_types(rules: Rules) -> list[str]:
    return [rule.type for rank, rule in enumerate(rules.identifiers) if not rules.sharing[rank]]


def loaded_cadence(project: Project) -> Cadence:
    """Return the expected interval between new days of Heap's tables, of identity and of profiles."""
    return Cadence.of_heap(project.settings.heap.cadence // timedelta(hours=1))


def table_cadence(table: WarehouseTable) -> Cadence:
    """Return how often a warehouse table is expected to change."""
    return Cadence(every=timedelta(hours=table.cadence_hours))


def hourly_checks(project: Project) -> list[Check]:
    """Return the recency checks: the age of the newest row of every table, and of the newest delivered day of syncs."""
    heap = loaded_cadence(project)
    tables = project.settings.read_tables
    timed = {name: table.updated_at or table.created_at for name, table in tables.items()}
    return [
        *recency_checks(
            {heap_asset(table): heap for table in project.event_tables},
            {
                USERS: heap,
                MIGRATIONS: heap,
                GRAPH: heap,
                PROFILES: heap,
                **{warehouse_asset(name): table_cadence(tables[name]) for name, time in timed.items() if not time},
            },
        ),
        *(
            check
            for name, time in timed.items()
            if time
            for check in recency_checks({warehouse_asset(name): table_cadence(tables[name])}, {}, time)
        ),
        *(coming_check(asset) for asset in project.message_tables),
        *(
            followed_check(sync_asset(name), LIVE, thresholds(project))
            for name, sync in project.settings.sync.items()
            if sync.live
        ),
        *(
            delivery_recency_check(sync_asset(name), heap, partial(_populating_until, project, name))
            for name, sync in project.settings.sync.items()
            if sync.scheduled
        ),
    ]


def _populating_until(project: Project, name: str) -> datetime | None:
    return connector_of(project, name).populating_until


def required_checks(project: Project, asset: str) -> list[str]:
    """Return the blocking checks that must have passed on a partition before anything is sent from it."""
    return blocking_checks(checks_of(project, asset), asset)


def plain_columns(project: Project, asset: str, types: Collection[str] | None = None) -> dict[str, str]:
    """Return column to strongest identifier type (of `types`, if given), without composites and nested paths."""
    columns: dict[str, str] = {}
    mappings = [m for m in project.snapshot_sources[asset].mappings if types is None or m.type in types]
    for mapping in sorted(mappings, key=lambda m: project.rules_of_settings.rank(m.type)):
        (column, *more) = mapping.columns
        if not more and "." not in column and "[" not in column:
            columns.setdefault(column, mapping.type)
    return columns
