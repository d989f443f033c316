"""Identity tables, profiles, audiences and audit of a day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import polars as pl

from heap_assets.errors import MissingInputError
from heap_assets.identity import GRAPH as GRAPH_SCHEMA
from heap_assets.identity import AuditedTable, EngineChoice, Timeline, audit, audit_figures, changes
from heap_assets.pipelines.behaviour import window, with_behaviour_and_audiences
from heap_assets.pipelines.consent import consent_version, with_consent_of_day
from heap_assets.pipelines.decision_history import former_decisions, remember_decisions
from heap_assets.pipelines.events import Window
from heap_assets.pipelines.functions import enrichment_version
from heap_assets.pipelines.readiness import IdentityInputs, graph_inputs, identity_inputs
from heap_assets.pipelines.table import VALUES_LOST, VALUES_LOST_IN, BuiltTable
from heap_assets.profiles import (
    ENTERED,
    LEFT,
    SET_ASIDE,
    STAYED,
    Choose,
    TraitRule,
    TraitSource,
    golden_records,
    membership,
)
from heap_assets.project import Project
from heap_assets.quality import IDLE_DECISIONS
from heap_assets.storage import Inputs, Lake, Parts
from heap_assets.tables import (
    AUDIENCES,
    CHANGES,
    CONFLICTS,
    GRAPH,
    LINKS,
    PROFILES,
    SHARED,
    USERS,
    event_asset,
    warehouse_asset,
    warehouse_table,
)
from heap_assets.versions import version_of

REFUSED = "refused"
"""Note of `identity/links`: how many values were refused as identifiers, by source, column, type and reason."""


def identity_of_day(project: Project, day: date, engine: EngineChoice | None = None) -> dict[str, BuiltTable]:
    """Resolve identities as of the end of a day; MissingInputError names the inputs that are not built yet.

    `engine`: resolves in place of the one that the settings choose for this process.
    """
    day_inputs = identity_inputs(project, day)
    if day_inputs.waiting_for:
        raise MissingInputError(f"identity {day} waits: {'; '.join(day_inputs.waiting_for[:5])}")
    return resolved_tables(project, day_inputs, engine)


def resolved_tables(
    project: Project, day_inputs: IdentityInputs, engine: EngineChoice | None = None
) -> dict[str, BuiltTable]:
    """Resolve identities from the inputs that are built, of which some may be missing; returns asset path to table."""
    day = day_inputs.day
    timeline = project.timeline if engine is None else Timeline(project.lake.store, project.rules_of_days, engine)
    advanced = timeline.advance(day, day_inputs.inputs)
    resolution = advanced.resolution
    inputs = graph_inputs(project, day_inputs)
    previous_graph, previous_day, previous_version = _previous_graph(project, day)
    decisions = project.rules_of_days.on(day).decisions
    former = [] if previous_day is None else former_decisions(project, previous_day, decisions, resolution.graph)
    remember_decisions(project, day, decisions)
    notes = {**advanced.notes, "carried_forward": ", ".join(day_inputs.carried) or "nothing"}
    refused = advanced.refused.drop("day").collect().to_dicts()
    return {
        LINKS: BuiltTable(advanced.links, inputs, {**notes, REFUSED: refused}),
        GRAPH: BuiltTable(
            *(resolution.graph, inputs, {**notes, IDLE_DECISIONS: list(advanced.idle)}, resolution.write_graph),
            Parts(GRAPH_SCHEMA, resolution.graph_files, resolution.identifiers) if resolution.graph_files else None,
        ),
        CONFLICTS: BuiltTable(resolution.conflicts, inputs, notes),
        SHARED: BuiltTable(resolution.shared, inputs, notes),
        CHANGES: BuiltTable(
            changes(previous_graph, resolution.graph, decisions, former),
            Inputs({**inputs.versions, **previous_version}),
            notes,
        ),
    }


def figures(project: Project, path: str, day: date) -> dict[str, int]:
    """Return the figures of a stored identity table.

    Refused values by reason, profiles, conflicts by limit, shared values by type, changes by kind.
    """
    rows = project.lake.scan(path, str(day))
    if path == GRAPH:
        counts = rows.select(
            identifiers=pl.len(), profiles=pl.col("profile_id").drop_nulls().n_unique(), shared=pl.col("shared").sum()
        )
        return {name: int(value) for name, value in counts.collect().row(0, named=True).items()}
    if path == LINKS:
        partition = project.lake.find(LINKS, str(day))
        rows_refused = partition.notes.get(REFUSED, ()) if partition else ()
        refused = Counter[str]()
        for row in rows_refused:
            refused[f"refused_{row['reason']}"] += int(row["rows"])
        return dict(sorted(refused.items()))
    by = {CONFLICTS: ("conflicts_by_", "limited_type"), SHARED: ("shared_", "identifier_type"), CHANGES: ("", "kind")}
    if path not in by:
        return {}
    prefix, column = by[path]
    counts_by_value = rows.group_by(column).len().sort(column).collect()
    # a conflict without a limited type is one that a decision refused
    return {f"{prefix}{value or 'decision'}": int(count) for value, count in counts_by_value.iter_rows()}


def _previous_graph(project: Project, day: date) -> tuple[pl.LazyFrame | None, date | None, Mapping[str, Any]]:
    earlier = project.lake.newest_partition(GRAPH, day - timedelta(days=1))
    if earlier is None:
        return None, None, {}
    version = project.lake.versions(GRAPH)[str(earlier)]
    return project.lake.scan(GRAPH, str(earlier)), earlier, {f"{GRAPH}@{earlier}": version}


def profiles_of_day(project: Project, day: date) -> BuiltTable:
    """Return the golden records of a day; `MissingInputError` before its graph is resolved."""
    lake, traits = project.lake, project.settings.profiles.traits
    newest_days = newest_trait_days(project, day)
    tables = project.settings.snapshot_tables
    sources = {
        trait_name(asset): TraitSource(
            lake.scan(asset, str(newest)),
            project.snapshot_sources[asset],
            "last_modified" if asset == USERS else tables[trait_name(asset)].updated_at,
        )
        for asset, newest in newest_days.items()
    }
    usable_rules, missing = trait_rules(project, sources)
    golden = golden_records(
        lake.scan(GRAPH, str(day)),
        sources,
        usable_rules,
        project.rules,
        lake.scan(CONFLICTS, str(day)),
        merged_away(lake.scan(USERS, str(newest_days[USERS]))),
    )
    typed_profiles = _typed_as_before(
        lake, day, with_empty_traits(golden.frame, missing), {*missing, *golden.set_aside}
    )
    events_window = window(project, day)
    events = {f"{event_asset(table)}@{key}": version for table, key, version in event_versions(lake, events_window)}
    frame, failed_audiences, function_notes = with_behaviour_and_audiences(
        project, typed_profiles, lake.scan(GRAPH, str(day)), events_window
    )
    frame = with_consent_of_day(project, frame, day)
    return BuiltTable(
        frame,
        _inputs(project, day, newest_days, profiles_version(project), events),
        {
            "traits": len(traits),
            "traits_without_source": len(missing),
            SET_ASIDE: {**golden.set_aside, **failed_audiences},
            "unreadable_times": sum(golden.unreadable_times.values()),
            "unreadable_times_in": dict(golden.unreadable_times),
            VALUES_LOST: sum(golden.values_lost.values()),
            VALUES_LOST_IN: dict(golden.values_lost),
            **function_notes,
        },
    )


def profiles_version(project: Project) -> str:
    """Return a hash of the settings that profiles are computed from, without descriptions."""
    settings = project.settings.profiles
    traits = [[name, trait.sources, trait.choose] for name, trait in settings.traits.items()]
    behaviour: list[object] | None = None
    if activity := settings.behaviour:
        behaviour = [activity.days, [*activity.features.items()], *([activity.messages] if activity.messages else [])]
        behaviour += [activity.trends, activity.top_pages] if activity.trends or activity.top_pages else []
    scores = [[name, score.model_dump(exclude={"description"})] for name, score in settings.scores.items()]
    audiences = [one.declared for one in project.audiences]
    further = [*consent_version(project), *enrichment_version(project)]
    return version_of([traits, behaviour, *([scores] if scores else []), *further, audiences, project.rules.digest])


def audiences_of_day(project: Project, day: date) -> BuiltTable:
    """Return who is in which audience on a day, entered or left it; from the columns of `profiles`.

    Raises MissingInputError if the profiles of the day were not built, or before the settings had one of the audiences.
    """
    names, lake = list(project.settings.profiles.audiences), project.lake
    before, changed = _audiences_before(project, day)
    table = membership(
        members_by_columns(project, PROFILES, day, names),
        day,
        lake.scan(AUDIENCES, str(before)) if before else None,
        [lake.scan(CHANGES, key) for key in changed],
    ).collect()
    inputs = {f"{PROFILES}@{day}": lake.versions(PROFILES)[str(day)]}
    inputs |= {f"{AUDIENCES}@{before}": lake.versions(AUDIENCES)[str(before)]} if before else {}
    inputs |= {f"{CHANGES}@{key}": lake.versions(CHANGES)[key] for key in changed}
    return BuiltTable(table.lazy(), Inputs(inputs), sizes_of_audiences(table, names))


def members_by_columns(project: Project, path: str, day: date, names: Sequence[str]) -> pl.LazyFrame:
    """Return the members of audiences by their true/false columns: audience, and the first column of the table.

    Raises MissingInputError if the table was not built, or before the settings had one of the audiences.
    """
    if project.lake.find(path, str(day)) is None:
        raise MissingInputError(f"{path} {day} is not built")
    rows = project.lake.scan(path, str(day))
    columns = rows.collect_schema().names()
    if unknown := [name for name in names if name not in columns]:
        raise MissingInputError(f"{path} {day} is older than the audience {unknown[0]!r}: materialize it again")
    inside = rows.unpivot(names, index=columns[0], variable_name="audience", value_name="inside").filter("inside")
    return inside.select("audience", columns[0])


def _audiences_before(project: Project, day: date) -> tuple[date | None, list[str]]:
    """Return the newest day before whose audiences are built, and the days since of which changes of ids are known."""
    before = project.lake.newest_partition(AUDIENCES, day - timedelta(days=1))
    if before is None:
        return None, []
    return before, [key for key in project.lake.partitions(CHANGES) if str(before) < key <= str(day)]


def sizes_of_audiences(table: pl.DataFrame, names: Sequence[str]) -> dict[str, int]:
    """Return the members of each audience, and how many entered and left."""
    counts = {
        (audience, change): count for audience, change, count in table.group_by("audience", "change").len().rows()
    }
    sizes = {f"members_{name}": counts.get((name, ENTERED), 0) + counts.get((name, STAYED), 0) for name in names}
    for change in (ENTERED, LEFT):
        sizes |= {f"{change}_{name}": counts.get((name, change), 0) for name in names}
    return sizes


def audit_of_day(project: Project, day: date) -> BuiltTable:
    """Return the audit of a day in long form: metric, subject, value, share."""
    lake = project.lake
    newest_days = newest_trait_days(project, day)
    audited = {
        trait_name(asset): AuditedTable(lake.scan(asset, str(newest)), project.snapshot_sources[asset])
        for asset, newest in newest_days.items()
        if asset != USERS and project.snapshot_sources[asset].mappings  # others identify nobody
    }
    frame = audit(
        lake.scan(GRAPH, str(day)),
        lake.scan(CONFLICTS, str(day)),
        lake.scan(USERS, str(newest_days[USERS])),
        audited,
        project.rules,
        project.snapshot_sources[USERS],
    )
    report = frame.collect()
    return BuiltTable(report.lazy(), _inputs(project, day, newest_days, project.rules.digest), audit_figures(report))


def trait_rules(project: Project, sources: Collection[str]) -> tuple[list[TraitRule], list[str]]:
    """Return the traits that can be made from the tables that were read, and the names of the others."""
    rules = [
        TraitRule(name, tuple(s for s in trait.sources if s.partition(".")[0] in sources), Choose(trait.choose))
        for name, trait in project.settings.profiles.traits.items()
    ]
    return [rule for rule in rules if rule.sources], [rule.name for rule in rules if not rule.sources]


def newest_trait_days(project: Project, day: date) -> dict[str, date]:
    """Return the tables that may give traits, each with its newest day up to a day.

    Raises MissingInputError without Heap's users.
    """
    tables = project.settings.snapshot_tables
    assets = [USERS, *(warehouse_asset(name) for name in tables)]
    newest = {asset: project.lake.newest_partition(asset, day) for asset in assets}
    if newest[USERS] is None:
        raise MissingInputError(f"{USERS} has no partition up to {day}: materialize it first")
    return {asset: partition for asset, partition in newest.items() if partition is not None}


def merged_away(users: pl.LazyFrame) -> pl.Series:
    """Return the Heap identities of which every user has migrated into another one."""
    is_migrated = pl.col("migrated_to").is_not_null().all()
    identities = users.filter(pl.col("identity").is_not_null()).group_by("identity").agg(is_migrated)
    return identities.filter("migrated_to").select("identity").collect()["identity"]


def trait_name(asset: str) -> str:
    """Return what traits call a table."""
    return "users" if asset == USERS else warehouse_table(asset)


def with_empty_traits(frame: pl.LazyFrame, missing: list[str]) -> pl.LazyFrame:
    """Add null columns for traits whose tables were never read, because syncs map them."""
    null = pl.lit(None, dtype=pl.String)
    return frame.with_columns(null.alias(name) for trait in missing for name in (trait, f"{trait}__source"))


def _typed_as_before(lake: Lake, day: date, frame: pl.LazyFrame, empty: set[str]) -> pl.LazyFrame:
    """Give columns without values the type that they had when they had some: readers rely on it."""
    earlier = lake.newest_partition(PROFILES, day)
    previous_types = lake.scan(PROFILES, str(earlier)).collect_schema() if earlier and empty else {}
    return frame.with_columns(
        pl.lit(None, previous_types[name]).alias(name) for name in sorted(empty) if name in previous_types
    )


def event_versions(lake: Lake, events_window: Window) -> Iterator[tuple[str, str, str]]:
    """Yield table, day and version of all days of a window."""
    for table, keys in events_window.days.items():
        versions = lake.versions(event_asset(table)) if keys else {}
        yield from ((table, key, versions[key]) for key in keys)


def _inputs(
    project: Project,
    day: date,
    newest_days: dict[str, date],
    settings: str,
    events: Mapping[str, str] | None = None,
) -> Inputs:
    lake = project.lake
    partitions = {GRAPH: day, CONFLICTS: day} | newest_days
    versions = {f"{asset}@{partition}": lake.versions(asset)[str(partition)] for asset, partition in partitions.items()}
    return Inputs({**versions, **(events or {}), "settings": settings})
