"""The rules of `privacy.rules` for the rows of a deployment: applied while they land, and counted beforehand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from heap_assets.config import MaskingRule
from heap_assets.errors import SettingsError, SourceError
from heap_assets.privacy import Masker, MaskRule, SelectorError, parsed_selector, privacy_key
from heap_assets.sources.heap_connect import keys_of
from heap_assets.tables import SNAPSHOT_TABLES

if TYPE_CHECKING:
    from heap_assets.project.project import Project

_LANDED_KEYS = ("event_id", "user_id", "session_id", "time", "joindate", "last_modified", "from_user_id", "to_user_id")
"""Columns that say which a row is, and when it happened; `identity` may be hashed, and nothing else."""


def masking_rules(rules: list[MaskingRule]) -> list[MaskRule]:
    """Return the rules of the settings; SettingsError, naming the key, for a selector that cannot be matched."""
    parsed = []
    for number, rule in enumerate(rules):
        try:
            selector = None if rule.selector is None else parsed_selector(rule.selector)
        except SelectorError as error:
            raise SettingsError(f"privacy.rules[{number}].selector: {error}") from error
        parsed.append(MaskRule(rule.action, tuple(rule.tables), tuple(rule.columns), tuple(rule.kinds), selector))
    return parsed


def masked(project: Project, table: str, rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Return rows of a table as they may land, and the number of cells that rules have changed.

    Raises SourceError if a rule refuses the table: it names the column and the number of values, and no value.
    """
    settings = project.settings.privacy
    if not settings.rules:
        return rows, 0
    rules = masking_rules(settings.rules)
    keys = {*_LANDED_KEYS, *(keys_of(table) if table in SNAPSHOT_TABLES else ())} - {"identity"}
    masker = Masker(rules, privacy_key(project.lake.store, settings.key_bytes), sorted(keys))
    hits = masker.applied(table, rows)
    for (number, column), count in hits.cells.items():
        if rules[number].action == "fail":
            raise SourceError(f"privacy.rules[{number}] refuses {table}: {count} values of its column {column}")
    if settings.pseudonyms and hits.pseudonyms:
        _keep(Path(settings.pseudonyms), hits.pseudonyms.items())
    return hits.rows, sum(hits.cells.values())


def _keep(folder: Path, pairs: object) -> None:
    """Add values and their pseudonyms to the folder of the map, a file of its own for what is new."""
    frame = pl.DataFrame(list(pairs), schema={"value": pl.String, "pseudonym": pl.String}, orient="row")  # type: ignore[call-overload]
    frame = frame.sort("value")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = hashlib.sha256(frame["pseudonym"].str.join("").item().encode()).hexdigest()[:32]
    new = folder / f".{name}.new"
    frame.write_parquet(new)
    new.replace(folder / f"{name}.parquet")


def would_mask(project: Project, table: str, rows: pl.DataFrame) -> Iterator[tuple[int, str, str, int]]:
    """Yield number of the rule, action, column and number of cells that the rules are about; nothing is changed."""
    rules = masking_rules(project.settings.privacy.rules)
    masker = Masker(
        rules, privacy_key(project.lake.store, project.settings.privacy.key_bytes, keep=False), _LANDED_KEYS
    )
    for (number, column), count in masker.applied(table, rows).cells.items():
        yield number, rules[number].action, column, count
