"""The queue of what people should decide about identities, and writing a decision into the file of the settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from heap_assets.errors import MissingInputError, SettingsError
from heap_assets.identity import IdentityTables, append_decision, hashed_pairs, moved_often, parsed_identifiers, review
from heap_assets.pipelines.readiness import identity_inputs, identity_tables, tables_with
from heap_assets.pipelines.table import BuiltTable
from heap_assets.project import Project
from heap_assets.quality import IDLE_DECISIONS, decisions_hold
from heap_assets.storage import Inputs
from heap_assets.tables import CHANGES, CONFLICTS, GRAPH, PROFILES, SHARED

_MOVING_DAYS = timedelta(days=30)


def review_of_day(project: Project, day: date, tables: IdentityTables | None = None) -> pl.DataFrame:
    """Return what people should look at in the graph of a day, see :func:`heap_assets.identity.review`.

    Raises
    ------
    MissingInputError
        The graph of the day is not built.
    SettingsError
        `identity.review_by` is no trait.
    """
    rules = project.rules_of_days.on(day)
    key_types = [rule.type for rank, rule in enumerate(rules.identifiers) if not rules.sharing[rank]]
    known_tables = tables or identity_tables(project, day)
    return review(known_tables, rules, key_types, _worth(project, day), _moves(project, day))


def reviewed_table(project: Project, day: date) -> BuiltTable:
    """Return `identity/review` of a day; its notes are the numbers of entries by kind.

    Raises MissingInputError before the profiles of the day are made.
    """
    versions = {path: project.lake.versions(path).get(str(day)) for path in (GRAPH, CONFLICTS, SHARED, PROFILES)}
    if missing := [path for path, version in versions.items() if version is None]:
        raise MissingInputError(f"identity/review {day} waits: {', '.join(missing)} {day} is not built")
    links = project.timeline.links(day, identity_inputs(project, day).inputs, aggregate=False)
    entries = review_of_day(project, day, tables_with(project, day, links))
    settings = project.settings
    # the moves of days before are history, which does not make an old queue stale
    chosen = {
        "rules": project.rules_of_days.on(day).digest,
        "decisions": ",".join(sorted(one.id for one in project.rules_of_days.decisions)),
        "settings": f"{settings.identity.review_by}, {len(settings.sync)} syncs",
    }
    counts = Counter(entries["kind"].to_list())
    inputs = Inputs({**{f"{path}@{day}": version or "" for path, version in versions.items()}, **chosen})
    return BuiltTable(entries.lazy(), inputs, {"entries": entries.height, **dict(sorted(counts.items()))})


def _moves(project: Project, day: date) -> pl.LazyFrame:
    """Return the identifiers that changed their profile often up to a day."""
    lake = project.lake

    def of_days(path: str) -> dict[date, pl.LazyFrame]:
        days = [date.fromisoformat(key) for key in lake.partitions(path)]
        return {one: lake.scan(path, str(one)) for one in days if day - _MOVING_DAYS < one <= day}

    return moved_often(of_days(GRAPH), of_days(CHANGES))


def _worth(project: Project, day: date) -> pl.LazyFrame | None:
    """Return profile_id, money, syncs of the profiles of the day; None if they are not built."""
    trait = project.settings.identity.review_by
    if trait is not None and trait not in project.settings.profiles.traits:
        known_traits = ", ".join(project.settings.profiles.traits) or "none"
        raise SettingsError(f"identity.review_by is {trait!r}, expected a trait: {known_traits}")
    if str(day) not in project.lake.versions(PROFILES):
        return None
    profiles = project.lake.scan(PROFILES, str(day))
    columns = profiles.collect_schema()
    money = pl.lit(None, pl.Float64) if trait is None or trait not in columns else pl.col(trait)
    return profiles.select(
        "profile_id",
        money.cast(pl.Float64, strict=False).alias("money"),
        pl.when(pl.col("heap_identity").is_not_null()).then(len(project.settings.sync)).otherwise(0).alias("syncs"),
    )


def doubtful_decisions(project: Project) -> list[str]:
    """Return one line for each decision that the newest graph breaks, that touches nothing or cannot be followed.

    Before the first graph: the last of these only.
    """
    unusable = project.unusable_decisions
    days = project.lake.partitions(GRAPH)
    rows: Iterable[tuple[str, ...]] = [(one.id, one.kind, one.problem) for one in unusable]
    if days and project.rules_of_days.decisions:
        partition = project.lake.find(GRAPH, days[-1])
        idle = partition.notes.get(IDLE_DECISIONS, ()) if partition else ()
        graph, day = project.lake.scan(GRAPH, days[-1]), date.fromisoformat(days[-1])
        result = decisions_hold(graph, project.rules_of_days.decisions, day, unusable, idle)
        rows = [] if result.offenders is None else result.offenders.iter_rows()
    return [f"decision {name or 'without id'}: {kind}: {problem}" for name, kind, problem in rows]


def decide(project: Project, kind: str, identifiers: Sequence[str], about: Mapping[str, str]) -> int:
    """Write a decision into the file that `identity.decisions` names; returns how many rows it took.

    Raises SettingsError if the settings name no file, or the decision contradicts others: nothing is written then.
    """
    file = project.settings.identity.decisions
    if file is None:
        raise SettingsError(
            "identity.decisions names no file: write `decisions: decisions.csv` under `identity:` first"
        )
    rules = project.rules_of_settings
    if project.settings.identity.decisions_hashed:
        pairs = hashed_pairs(project.lake.store, parsed_identifiers(identifiers, kind, rules))
        identifiers = [":".join(pair) for pair in pairs]
    return append_decision(Path(file), rules, kind, identifiers, about)
