"""Group `profiles`: golden records, audit and audiences; and `identity/review`, what people should decide about."""

from collections.abc import Iterator, Mapping
from datetime import date
from functools import partial
from typing import Any

import dagster as dg
import polars as pl

from heap_assets.analytics import Chart
from heap_assets.identity import audit_text
from heap_assets.orchestration.assets.table_step import Days
from heap_assets.orchestration.automation import Condition, by_cron, follows_graph
from heap_assets.orchestration.checks import LAKE, asset_key, lake_of
from heap_assets.orchestration.column_types import table_schema
from heap_assets.orchestration.failures import raising_failures
from heap_assets.orchestration.resources import days, partition_metadata
from heap_assets.orchestration.schedules import policy_for
from heap_assets.pipelines.account_audiences import account_audiences_of_day
from heap_assets.pipelines.account_profiles import account_profiles_of_day
from heap_assets.pipelines.analytics import CHART, analytics_of_day
from heap_assets.pipelines.behaviour import column_sources
from heap_assets.pipelines.models import columns_of_model, inputs_of, model_of_day
from heap_assets.pipelines.people import audiences_of_day, audit_of_day, profiles_of_day
from heap_assets.pipelines.reviewing import reviewed_table
from heap_assets.pipelines.signals import signal_of_day
from heap_assets.pipelines.suites import loaded_cadence
from heap_assets.project import Project
from heap_assets.tables import (
    ACCOUNT_AUDIENCES,
    ACCOUNT_PROFILES,
    AUDIENCES,
    AUDIT,
    CONFLICTS,
    GRAPH,
    LINKS,
    PROFILES,
    REVIEW,
    SHARED,
    USERS,
    analytics_asset,
    event_asset,
    is_model,
    is_signal,
    model_asset,
    signal_asset,
    warehouse_asset,
)

_ABOUT_PROFILES = (
    "One row per person: identifiers, Heap identities, and traits by survivorship, each with the source that gave it."
)
_ABOUT_AUDIT = (
    "How well it fits together: match rate per table, partial and duplicate profiles, anonymous twins, and what a "
    "join on one identifier would have got wrong."
)

_ABOUT_REVIEW = (
    "What people should look at, the most important first: links that limits refused, values that several people "
    "claim, profiles at a limit, identifiers that change their profile often; each with the decision that would settle "
    "it.\n\n"
    "`heap-assets review --walk` goes through it."
)
_ABOUT_AUDIENCES = (
    "Who is in which audience, who left it, and since when: one row per audience and person, by the definitions in the "
    "settings."
)


_ABOUT_ACCOUNTS = (
    "One row per account: what all its people did together, its score, its lifecycle stage, and the audiences of "
    "accounts that it is in."
)

_ABOUT_ACCOUNT_AUDIENCES = (
    "Which account is in which audience of accounts, which left it, and since when: one row per audience and account."
)


_ABOUT_SIGNALS = (
    "Firings of a signal whose time is on the day, each with the person it is about; a firing is kept once it was "
    "computed, so rebuilding a day adds what is missing and repeats nothing."
)


_ABOUT_MODELS = "A model of one's own, as of the end of the day; `heap-assets model` shows a sample."
_ABOUT_ANALYTICS = (
    "A result over events and people as of the end of the day, with a chart in its metadata; "
    "`heap-assets query` gives it with other parameters, and its SQL."
)


def profiles(project: Project) -> list[dg.AssetsDefinition]:
    """Return `profiles`, `audit`, `identity/review`, each signal, and `audiences` if the settings name any."""
    tables = project.settings.snapshot_tables
    sources = [GRAPH, CONFLICTS, USERS, *(warehouse_asset(name) for name in tables)]
    assets = [
        _day_asset(project, PROFILES, sources, _ABOUT_PROFILES),
        _day_asset(project, AUDIT, sources, _ABOUT_AUDIT),
        _day_asset(project, REVIEW, [LINKS, GRAPH, CONFLICTS, SHARED, PROFILES], _ABOUT_REVIEW, "identity"),
    ]
    for name, signal in project.signals.items():
        about = f"{_ABOUT_SIGNALS} This one: {signal.kind}, {signal.event}."
        assets.append(_day_asset(project, signal_asset(name), [PROFILES], about, "signals"))
    for name, model in project.settings.models.items():
        about, read = model.description or _ABOUT_MODELS, inputs_of(project, name)
        condition = by_cron(model.schedule) if model.schedule else None
        assets.append(_day_asset(project, model_asset(name), read, about, "models", condition))
    for name, definition in project.settings.analytics.items():
        about = f"{_ABOUT_ANALYTICS} This one: {definition.get('kind')}."
        assets.append(_day_asset(project, analytics_asset(name), [PROFILES], about, "analytics"))
    if project.settings.profiles.audiences:
        assets.append(_day_asset(project, AUDIENCES, [PROFILES], _ABOUT_AUDIENCES))
    if (accounts := project.settings.accounts) is not None:
        of_accounts = {
            ACCOUNT_PROFILES: ([PROFILES, warehouse_asset(accounts.table)], _ABOUT_ACCOUNTS),
            ACCOUNT_AUDIENCES: ([ACCOUNT_PROFILES], _ABOUT_ACCOUNT_AUDIENCES),
        }
        assets += [_day_asset(project, path, *of_accounts[path]) for path in project.settings.account_assets]
    return assets


_CONSTANT = ("traits",)
"""Figures that the settings decide: texts, which are not plotted."""
_BUILDERS = {
    PROFILES: profiles_of_day,
    AUDIT: audit_of_day,
    AUDIENCES: audiences_of_day,
    REVIEW: reviewed_table,
    ACCOUNT_PROFILES: account_profiles_of_day,
    ACCOUNT_AUDIENCES: account_audiences_of_day,
}


def _day_asset(
    project: Project,
    path: str,
    deps: list[str],
    description: str,
    group: str = "profiles",
    condition: Condition | None = None,
) -> dg.AssetsDefinition:
    names, key = project.names, asset_key(path, project.names)
    metadata: dict[str, Any] = {
        "dagster/table_name": path.replace("/", "."),
        "dagster/uri": project.lake.store.uri(path),
    }
    if path == PROFILES:
        metadata["dagster/column_lineage"] = trait_lineage(project)

    @dg.asset(
        key=key,
        deps=[asset_key(dep, names) for dep in deps],
        description=description,
        group_name=names.group(group),
        kinds={"polars", "parquet"},
        tags={"personal_data": ""} if path in (PROFILES, REVIEW) or is_signal(path) else {},
        metadata=metadata,
        partitions_def=days(project.settings.first_day),
        backfill_policy=dg.BackfillPolicy.multi_run(project.settings.run.days_per_run),
        automation_condition=condition or follows_graph(names),
        freshness_policy=policy_for("identity", loaded_cadence(project)),
        pool=names.name(path.replace("/", "_")),
        required_resource_keys={names.name(LAKE)},
        output_required=False,  # a day whose inputs are not there yet is named and left out, and the others go on
    )
    @raising_failures
    def build(context: dg.AssetExecutionContext) -> Iterator[Any]:
        opened, step_days = project.with_lake(lake_of(context, names)), Days(context, path, key)
        for day in context.partition_keys:
            step_days.build(day, partial(_build_day, opened, path, day))
        yield from step_days.results()

    return build


def _build_day(project: Project, path: str, day: str) -> dict[str, Any]:
    name = path.rpartition("/")[2]
    by_group = {"signals": signal_of_day, "analytics": analytics_of_day, "models": model_of_day}
    named = by_group.get(path.partition("/")[0])
    builder = partial(named, name=name) if named is not None else _BUILDERS[path]
    table_day = builder(project, day=date.fromisoformat(day))
    written = project.lake.write(path, day, table_day.frame, table_day.inputs, notes=table_day.notes)
    lineage = _model_lineage(project, name, date.fromisoformat(day)) if is_model(path) else {}
    figures = {name: value for name, value in written.partition.notes.items() if isinstance(value, int | float)}
    return (
        (_audit_metadata(project, day) if path == AUDIT else {})
        | _chart_metadata(written.partition.notes)
        | partition_metadata(written.partition)
        | {name: f"{value}" if name in _CONSTANT else value for name, value in figures.items()}
        | {"status": str(written.status), **lineage}
        | {"dagster/column_schema": table_schema(project.lake.scan(path, day).collect_schema())}
    )


def _model_lineage(project: Project, name: str, day: date) -> dict[str, Any]:
    """Return the columns of a model with those that its SQL makes them of."""
    deps = {
        column: [dg.TableColumnDep(asset_key(asset, project.names), source) for asset, source in pairs]
        for column, pairs in columns_of_model(project, name, day).items()
        if pairs
    }
    return {"dagster/column_lineage": dg.TableColumnLineage(deps)} if deps else {}


def _chart_metadata(notes: Mapping[str, Any]) -> dict[str, Any]:
    chart = notes.get(CHART)
    return {"chart": dg.MetadataValue.md(Chart(**chart).markdown())} if isinstance(chart, Mapping) else {}


def _audit_metadata(project: Project, day: str) -> dict[str, Any]:
    """Return the audit for people: a few lines, and how many profiles have how many identifiers."""
    rows = project.lake.scan(AUDIT, day).collect()
    sizes = rows.filter(pl.col("metric") == "profile_size").select("subject", "value", "share")
    return {
        "in_words": dg.MetadataValue.md(audit_text(rows)),
        "profile_sizes": dg.MetadataValue.table(
            [
                dg.TableRecord({"identifiers": bin_, "profiles": int(value), "share": f"{share or 0:.2%}"})
                for bin_, value, share in sizes.iter_rows()
            ],
            schema=dg.TableSchema([dg.TableColumn(name) for name in ("identifiers", "profiles", "share")]),
        ),
    }


def trait_lineage(project: Project) -> dg.TableColumnLineage:
    """Return, for every trait, behaviour and audience, the source columns it can come from."""
    settings = project.settings.profiles
    traits = {name: [_source(project, text) for text in trait.sources] for name, trait in settings.traits.items()}
    computed = {
        name: [
            dg.TableColumnDep(asset_key(event_asset(table), project.names), column) for table, column in sorted(pairs)
        ]
        for name, pairs in column_sources(project).items()
    }
    for audience in project.audiences:
        conditions = (name for name, _ in audience.traits)
        computed[audience.name] += [dep for name in conditions for dep in traits.get(name, computed.get(name, []))]
    return dg.TableColumnLineage({**traits, **computed})


def _source(project: Project, text: str) -> dg.TableColumnDep:
    table, _, column = text.partition(".")
    asset = USERS if table == "users" else warehouse_asset(table)
    return dg.TableColumnDep(asset_key(asset, project.names), column.partition(".")[0])
