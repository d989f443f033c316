"""Barriers between two profiles: links that a merge limit refused, and shared values linked to both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import polars as pl

from heap_assets.identity.explain.cluster import Identifier, Link, as_links
from heap_assets.identity.schemas import ENDS

MAX_PROFILES = 5_000
"""The search stops after this many profiles: a kiosk's visitors are no explanation."""


@dataclass(frozen=True)
class IdentityTables:
    """The tables of a day that are queried; all are filtered lazily.

    Attributes
    ----------
    links
        All links as of the day, with the schema of `identity/links`.
    graph, conflicts, shared
        `identity/graph`, `identity/conflicts`, `identity/shared` of the day.
    decisions
        Decisions in words, by id.
    """

    links: pl.LazyFrame
    graph: pl.LazyFrame
    conflicts: pl.LazyFrame
    shared: pl.LazyFrame
    decisions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """A link that was refused; `near` is on the profile that the search left, `far` on the next.

    `decision`: the `apart` decision that refused it, in words; else a merge limit did, which the others describe.
    """

    near: Identifier
    far: Identifier
    sources: tuple[str, ...]
    first_seen: datetime | None
    limited_type: str | None
    limit: int | None
    count_near: int | None
    count_far: int | None
    decision: str | None = None


@dataclass(frozen=True)
class SharedValue:
    """A value of several people that is linked to both profiles, and those links."""

    value: Identifier
    groups: int
    stronger_type: str
    near: Link
    far: Link


Barrier = Refused | SharedValue


@dataclass(frozen=True)
class Hop:
    """One step from a profile to another, over a barrier."""

    profile_near: str
    profile_far: str
    barrier: Barrier


@dataclass(frozen=True)
class Search:
    """The fewest hops between two profiles (empty: none found), and the radius that was searched."""

    hops: tuple[Hop, ...]
    radius: int


def search(tables: IdentityTables, start: str, end: str, max_hops: int = 3) -> Search:
    """Find how two profiles would be connected if nothing had been refused.

    Breadth first over profiles, refused links before shared values, so that the answer is the same every time.
    """
    came_by: dict[str, Hop] = {}
    frontier = [start]
    for radius in range(1, max_hops + 1):
        hops = list(_refused_links(tables, frontier))
        for target in (end, None):
            if not any(hop.profile_far == end for hop in hops):
                hops += _shared_values(tables, frontier, target)
        reached = []
        for hop in hops:
            if hop.profile_far not in came_by and hop.profile_far != start:
                came_by[hop.profile_far] = hop
                reached.append(hop.profile_far)
        if end in came_by:
            path: list[Hop] = []
            while end != start:
                path.insert(0, came_by[end])
                end = came_by[end].profile_near
            return Search(tuple(path), radius)
        if not reached or len(came_by) > MAX_PROFILES:
            return Search((), radius)
        frontier = reached
    return Search((), max_hops)


def barriers_between(tables: IdentityTables, a: str, b: str) -> list[Barrier]:
    """Return all barriers directly between two profiles: refused links, then shared values."""
    refused = [hop for hop in _refused_links(tables, [a]) if hop.profile_far == b]
    return [hop.barrier for hop in (*refused, *_shared_values(tables, [a], b))]


def barriers_of(tables: IdentityTables, profile_id: str) -> tuple[list[Refused], list[Link]]:
    """Return the refused links that touch a profile, and its links to shared values."""
    refused = [hop.barrier for hop in _refused_links(tables, [profile_id])]
    touching = _links_to_shared(tables, _members(tables, [profile_id])).collect()
    return [barrier for barrier in refused if isinstance(barrier, Refused)], as_links(touching)


def _refused_links(tables: IdentityTables, profiles: list[str]) -> Iterator[Hop]:
    touching = tables.conflicts.filter(pl.col("profile_a").is_in(profiles) | pl.col("profile_b").is_in(profiles))
    searched = set(profiles)
    for row in touching.collect().iter_rows(named=True):
        sides = [
            (row[f"profile_{end}"], Identifier(row[f"type_{end}"], row[f"value_{end}"]), row[f"count_{end}"])
            for end in ("a", "b")
        ]
        decision = row.get("decision")  # partitions of earlier versions have none
        if decision is not None:
            decision = tables.decisions.get(decision, f"apart by decision {decision}")
        link = (tuple(row["sources"]), row["first_seen"], row["limited_type"], row["limit"])
        for near, far in (sides, sides[::-1]):
            if near[0] in searched:
                yield Hop(near[0], far[0], Refused(near[1], far[1], *link, near[2], far[2], decision))


def _members(tables: IdentityTables, profiles: Iterable[str]) -> pl.LazyFrame:
    """Return type, value, profile_id of unshared members."""
    return tables.graph.filter(pl.col("profile_id").is_in(list(profiles)) & ~pl.col("shared")).select(
        type="identifier_type", value="identifier", profile_id="profile_id"
    )


def _links_to_shared(tables: IdentityTables, members: pl.LazyFrame) -> pl.LazyFrame:
    """Return links from members to shared values, with profile_id, shared_type, shared_value."""
    shared = tables.shared.select(type="identifier_type", value="identifier").unique()
    return pl.concat([_touching(tables.links, members, shared, *ends) for ends in (("a", "b"), ("b", "a"))])


def _touching(
    links: pl.LazyFrame, members: pl.LazyFrame, shared: pl.LazyFrame, member_end: str, shared_end: str
) -> pl.LazyFrame:
    return (
        links.join(
            shared, left_on=[f"type_{shared_end}", f"value_{shared_end}"], right_on=["type", "value"], how="semi"
        )
        .join(members, left_on=[f"type_{member_end}", f"value_{member_end}"], right_on=["type", "value"])
        .with_columns(shared_type=f"type_{shared_end}", shared_value=f"value_{shared_end}")
    )


def _shared_values(tables: IdentityTables, profiles: list[str], end: str | None) -> list[Hop]:
    """Return hops over shared values to one profile or, if None, to any."""
    near = _links_to_shared(tables, _members(tables, profiles)).collect()
    if near.is_empty():
        return []
    values = near.lazy().select(identifier_type="shared_type", identifier="shared_value").unique()
    # further rows of these values only
    restricted = replace(tables, shared=tables.shared.join(values, on=["identifier_type", "identifier"], how="semi"))
    if end is None:
        everyone = tables.graph.filter(pl.col("profile_id").is_not_null() & ~pl.col("shared"))
        members = everyone.select(type="identifier_type", value="identifier", profile_id="profile_id")
    else:
        members = _members(tables, [end])
    links_near, links_far = _by_value(near), _by_value(_links_to_shared(restricted, members).collect())
    reasons = restricted.shared.select("identifier_type", "identifier", "groups", "stronger_type").collect()
    groups_of = {Identifier(kind, value): (groups, stronger) for kind, value, groups, stronger in reasons.iter_rows()}
    hops: dict[tuple[Identifier, str, str], Hop] = {}
    for value in sorted(links_near):
        for profile_near, link_near in links_near[value]:
            for profile_far, link_far in links_far.get(value, []):
                if profile_near != profile_far:
                    barrier = SharedValue(value, *groups_of[value], link_near, link_far)
                    hops.setdefault((value, profile_near, profile_far), Hop(profile_near, profile_far, barrier))
    return list(hops.values())


def _by_value(rows: pl.DataFrame) -> dict[Identifier, list[tuple[str, Link]]]:
    """Return (profile, link) by the shared value at the link's other end, in order of the link's ends."""
    owners: dict[tuple[Identifier, Identifier], tuple[Identifier, str]] = {}
    keys = [*ENDS, "shared_type", "shared_value", "profile_id"]
    for type_a, value_a, type_b, value_b, kind, value, profile_id in rows.select(keys).unique().iter_rows():
        owners[Identifier(type_a, value_a), Identifier(type_b, value_b)] = (Identifier(kind, value), profile_id)
    links: dict[Identifier, list[tuple[str, Link]]] = defaultdict(list)
    for link in as_links(rows):
        value, profile_id = owners.get((link.a, link.b)) or owners[link.b, link.a]
        links[value].append((profile_id, link))
    return links
