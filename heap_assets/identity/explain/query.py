"""Looking up an identifier: as the rules read it, and as the tables have it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import polars as pl

from heap_assets.errors import HeapAssetsError, did_you_mean
from heap_assets.identity.explain.blockers import IdentityTables
from heap_assets.identity.explain.cluster import Identifier
from heap_assets.identity.normalise import normalised, reason
from heap_assets.identity.rules import Rules


class QueryError(HeapAssetsError):
    """A query that is no identifier `type:value`; the message shows the right form."""


class Outcome(StrEnum):
    """The kinds of answer."""

    PROFILE = "profile"
    """Of a query for one identifier: it is on a profile."""
    JOINED = "joined"
    LIMIT = "limit"
    """Two profiles: a merge limit refused the link between them."""
    SHARED = "shared"
    """Only a shared value connects them, or one of them is a shared value."""
    BLOCKED = "blocked"
    """One of them is no identifier by the rules."""
    UNKNOWN = "unknown"
    """One of them is in no table."""
    UNCONNECTED = "unconnected"
    """Two profiles without any link, refused link or shared value between them."""


@dataclass(frozen=True)
class Lookup:
    """An identifier of a query, and what the tables have of it.

    Attributes
    ----------
    why_not
        Why it is no identifier by the rules (`blocked`, `junk`, `pattern`, …), or None.
    in_graph
        Whether the graph has it.
    similar
        Identifiers of the graph that differ in case or outer blanks only, if the graph does not have it.
    elsewhere
        The same value under other types, on other profiles: values of different types are never compared.
    """

    identifier: Identifier
    why_not: str | None = None
    in_graph: bool = False
    profile_id: str | None = None
    shared: bool = False
    groups: int = 0
    stronger_type: str | None = None
    similar: tuple[Identifier, ...] = ()
    elsewhere: tuple[Identifier, ...] = ()


def look_up(query: str, tables: IdentityTables, rules: Rules) -> Lookup:
    """Look up `type:value` in the graph, after normalisation; the value may hold colons.

    Raises QueryError: there is no type, or none that the rules know.
    """
    kind, colon, raw_value = query.partition(":")
    if not colon or not raw_value:
        raise QueryError(f"{query!r} has no type; ask for type:value, such as email:ADDRESS.")
    if kind not in rules.types:
        hint = did_you_mean(kind, rules.types)
        raise QueryError(f"unknown identifier type {kind!r}; types are {', '.join(rules.types)}.{hint}")
    raw = Identifier(kind, raw_value)
    rule = rules[raw.type]
    value, why_not = (
        pl.DataFrame({"v": [raw.value]})
        .select(v=normalised(pl.col("v"), rule.normaliser))
        .select("v", why=reason(pl.col("v"), rule, rules))
        .row(0)
    )
    identifier = Identifier(raw.type, value)
    if why_not is not None:
        return Lookup(identifier, why_not, elsewhere=_elsewhere(raw, value, None, tables, rules))
    of_type = tables.graph.filter(pl.col("identifier_type") == raw.type)
    row = of_type.filter(pl.col("identifier") == value).select("profile_id", "shared").collect()
    if row.is_empty():
        alike = pl.col("identifier").str.strip_chars().str.to_lowercase() == value.strip().lower()
        similar = of_type.filter(alike).select("identifier").sort("identifier").head(5).collect()
        return Lookup(
            identifier,
            similar=tuple(Identifier(raw.type, same) for same in similar["identifier"]),
            elsewhere=_elsewhere(raw, value, None, tables, rules),
        )
    profile_id, shared = row.row(0)
    if not shared:
        elsewhere = _elsewhere(raw, value, profile_id, tables, rules)
        return Lookup(identifier, in_graph=True, profile_id=profile_id, elsewhere=elsewhere)
    why = tables.shared.filter((pl.col("identifier_type") == raw.type) & (pl.col("identifier") == value))
    reasons = why.select("groups", "stronger_type").sort("groups", descending=True).collect()
    groups, stronger = reasons.row(0) if reasons.height else (0, None)
    return Lookup(identifier, in_graph=True, profile_id=profile_id, shared=True, groups=groups, stronger_type=stronger)


def _elsewhere(
    raw: Identifier, normalised_value: str | None, profile_id: str | None, tables: IdentityTables, rules: Rules
) -> tuple[Identifier, ...]:
    """Find a value, raw or normalised by its type, under other types on other profiles; strongest type first."""
    other_rules = [rule for rule in rules.identifiers if rule.type != raw.type]
    normalised_values = pl.DataFrame({"v": [raw.value, normalised_value]}).select(
        normalised(pl.col("v"), rule.normaliser).alias(rule.type) for rule in other_rules
    )
    same = [
        (pl.col("identifier_type") == rule.type)
        & pl.col("identifier").is_in(normalised_values[rule.type].drop_nulls().to_list())
        for rule in other_rules
    ]
    if not same:
        return ()
    rows = tables.graph.filter(pl.any_horizontal(same), pl.col("profile_id").ne_missing(profile_id)).collect()
    matches = {Identifier(kind, value) for kind, value in rows.select("identifier_type", "identifier").iter_rows()}
    return tuple(sorted(matches, key=lambda identifier: rules.rank(identifier.type)))
