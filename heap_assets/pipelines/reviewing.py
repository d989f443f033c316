"""The queue of what people should decide about identities, and writing a decision into the file of the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl

from heap_assets.errors import SettingsError
from heap_assets.identity import IdentityTables, append_decision, review
from heap_assets.pipelines.readiness import identity_tables
from heap_assets.project import Project
from heap_assets.tables import PROFILES


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
    return review(tables or identity_tables(project, day), rules, key_types, _worth(project, day))


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


def decide(project: Project, kind: str, identifiers: Sequence[str], about: Mapping[str, str]) -> int:
    """Write a decision into the file that `identity.decisions` names; returns how many rows it took.

    Raises SettingsError if the settings name no file, or the decision contradicts others: nothing is written then.
    """
    file = project.settings.identity.decisions
    if file is None:
        raise SettingsError(
            "identity.decisions names no file: write `decisions: decisions.csv` under `identity:` first"
        )
    return append_decision(Path(file), replace(project.rules_of_days, decisions=()), kind, identifiers, about)
