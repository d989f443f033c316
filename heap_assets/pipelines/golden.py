"""Profiles and audit of a day, from the graph and the tables that stand on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date

import polars as pl

from heap_assets.errors import MissingInputError
from heap_assets.identity import AuditedTable, audit, audit_figures
from heap_assets.pipelines.behaviour import Window, window, with_what_they_did
from heap_assets.pipelines.table import VALUES_LOST, VALUES_LOST_IN, Made
from heap_assets.profiles import SET_ASIDE, Choose, TraitRule, TraitSource, golden_records
from heap_assets.project import Project
from heap_assets.storage import Inputs, Lake
from heap_assets.tables import CONFLICTS, GRAPH, PROFILES, USERS, heap_asset, warehouse_asset, warehouse_table
from heap_assets.versions import version_of


def profiles_of_day(project: Project, day: date) -> Made:
    """Return the golden records of a day; `MissingInputError` before its graph is resolved."""
    lake, traits = project.lake, project.settings.profiles.traits
    standing = _standing(project, day)
    tables = project.settings.source_tables
    sources = {
        _trait_name(asset): TraitSource(
            lake.scan(asset, str(found)),
            project.snapshot_sources[asset],
            "last_modified" if asset == USERS else tables[_trait_name(asset)].updated_at,
        )
        for asset, found in standing.items()
    }
    rules = [
        TraitRule(name, tuple(s for s in trait.sources if s.partition(".")[0] in sources), Choose(trait.choose))
        for name, trait in traits.items()
    ]
    kept = [rule for rule in rules if rule.sources]
    made = golden_records(
        lake.scan(GRAPH, str(day)),
        sources,
        kept,
        project.rules,
        lake.scan(CONFLICTS, str(day)),
        _merged_away(lake.scan(USERS, str(standing[USERS]))),
    )
    missing = [rule.name for rule in rules if not rule.sources]
    whole = _typed_as_before(lake, day, _with_empty_traits(made.frame, missing), {*missing, *made.set_aside})
    seen = window(project, day)
    events = {f"{heap_asset(table)}@{key}": version for table, key, version in _event_versions(lake, seen)}
    frame, doubtful = with_what_they_did(project, whole, lake.scan(GRAPH, str(day)), seen)
    return Made(
        frame,
        _inputs(project, day, standing, profiles_version(project), events),
        {
            "traits": len(traits),
            "traits_without_source": len(missing),
            SET_ASIDE: {**made.set_aside, **doubtful},
            "unreadable_times": sum(made.unreadable_times.values()),
            "unreadable_times_in": dict(made.unreadable_times),
            VALUES_LOST: sum(made.values_lost.values()),
            VALUES_LOST_IN: dict(made.values_lost),
        },
    )


def profiles_version(project: Project) -> str:
    """Return a name for what the settings say of profiles, as far as it makes their content.

    Descriptions and marks are no part of it: to edit one rebuilds nothing.
    """
    chosen = project.settings.profiles
    traits = [[name, trait.sources, trait.choose] for name, trait in chosen.traits.items()]
    behaviour = [chosen.behaviour.days, [*chosen.behaviour.features.items()]] if chosen.behaviour else None
    return version_of([traits, behaviour, project.audiences, project.rules.digest])


def audiences_of_day(project: Project, day: date) -> Made:
    """Return who is in which audience on a day: audience, profile_id; from the columns of `profiles`.

    Raises
    ------
    MissingInputError
        If the profiles of the day were not built, or before the settings had one of the audiences.
    """
    names = list(project.settings.profiles.audiences)
    profiles = project.lake.scan(PROFILES, str(day))
    if unknown := [name for name in names if name not in profiles.collect_schema()]:
        raise MissingInputError(f"{PROFILES} {day} is older than the audience {unknown[0]!r}: materialize it again")
    rows = (
        profiles.select("profile_id", *names)
        .unpivot(names, index="profile_id", variable_name="audience", value_name="inside")
        .filter("inside")
        .select("audience", "profile_id")
        .sort("audience", "profile_id")
        .collect()
    )
    sizes = {f"members_{name}": rows.filter(pl.col("audience") == name).height for name in names}
    return Made(rows.lazy(), Inputs({f"{PROFILES}@{day}": project.lake.versions(PROFILES)[str(day)]}), sizes)


def audit_of_day(project: Project, day: date) -> Made:
    """Return the audit of a day in long form: metric, subject, value, share."""
    lake = project.lake
    standing = _standing(project, day)
    audited = {
        _trait_name(asset): AuditedTable(lake.scan(asset, str(found)), project.snapshot_sources[asset])
        for asset, found in standing.items()
        if asset != USERS and project.snapshot_sources[asset].mappings  # others identify nobody
    }
    frame = audit(
        lake.scan(GRAPH, str(day)),
        lake.scan(CONFLICTS, str(day)),
        lake.scan(USERS, str(standing[USERS])),
        audited,
        project.rules,
        project.snapshot_sources[USERS],
    )
    report = frame.collect()
    return Made(report.lazy(), _inputs(project, day, standing, project.rules.digest), audit_figures(report))


def _standing(project: Project, day: date) -> dict[str, date]:
    tables = project.settings.source_tables
    assets = [USERS, *(warehouse_asset(name) for name in tables)]
    standing = {asset: project.lake.newest_partition(asset, day) for asset in assets}
    if standing[USERS] is None:
        raise MissingInputError(f"{USERS} has no partition up to {day}: materialize it first")
    return {asset: found for asset, found in standing.items() if found is not None}


def _merged_away(users: pl.LazyFrame) -> pl.Series:
    """Return the Heap identities of which every user has migrated into another one."""
    gone = pl.col("migrated_to").is_not_null().all()
    named = users.filter(pl.col("identity").is_not_null()).group_by("identity").agg(gone)
    return named.filter("migrated_to").select("identity").collect()["identity"]


def _trait_name(asset: str) -> str:
    return "users" if asset == USERS else warehouse_table(asset)


def _with_empty_traits(frame: pl.LazyFrame, missing: list[str]) -> pl.LazyFrame:
    """A trait whose tables were never read is null: its column stands all the same, syncs map it."""
    nothing = pl.lit(None, dtype=pl.String)
    return frame.with_columns(nothing.alias(name) for trait in missing for name in (trait, f"{trait}__source"))


def _typed_as_before(lake: Lake, day: date, frame: pl.LazyFrame, empty: set[str]) -> pl.LazyFrame:
    """Give columns that are null for everybody the type that they had when they were not: readers rely on it."""
    earlier = lake.newest_partition(PROFILES, day)
    known = lake.scan(PROFILES, str(earlier)).collect_schema() if earlier and empty else {}
    return frame.with_columns(pl.lit(None, known[name]).alias(name) for name in sorted(empty) if name in known)


def _event_versions(lake: Lake, seen: Window) -> Iterator[tuple[str, str, str]]:
    for table, keys in seen.days.items():
        versions = lake.versions(heap_asset(table)) if keys else {}
        yield from ((table, key, versions[key]) for key in keys)


def _inputs(
    project: Project,
    day: date,
    standing: dict[str, date],
    settings: str,
    events: Mapping[str, str] | None = None,
) -> Inputs:
    lake = project.lake
    wanted = {GRAPH: day, CONFLICTS: day} | standing
    versions = {f"{asset}@{found}": lake.versions(asset)[str(found)] for asset, found in wanted.items()}
    return Inputs({**versions, **(events or {}), "settings": settings})
