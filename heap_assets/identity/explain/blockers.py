"""What stands between two profiles: links that a merge limit refused, and shared values that both were seen with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from heap_assets.identity.explain.cluster import Identifier, Link, as_links
from heap_assets.identity.shapes import ENDS

MAX_PROFILES = 5_000
"""The search stops where it would look at more profiles than this: a kiosk's visitors are no explanation."""


@dataclass(frozen=True)
class IdentityTables:
    """The tables of a day that questions are asked of; all are filtered lazily.

    Attributes
    ----------
    links
        In the shape of `identity/links`, all links as of the day.
    graph, conflicts, shared
        `identity/graph`, `identity/conflicts`, `identity/shared` of the day.
    """

    links: pl.LazyFrame
    graph: pl.LazyFrame
    conflicts: pl.LazyFrame
    shared: pl.LazyFrame


@dataclass(frozen=True)
class Refused:
    """A link that would have broken a merge limit; `near` is on the profile the search came from, `far` on the next."""

    near: Identifier
    far: Identifier
    sources: tuple[str, ...]
    first_seen: datetime | None
    limited_type: str
    limit: int
    count_near: int
    count_far: int


@dataclass(frozen=True)
class SharedValue:
    """A value of several people that both profiles were seen with, and the links by which they were."""

    value: Identifier
    groups: int
    stronger_type: str
    near: Link
    far: Link


Barrier = Refused | SharedValue


@dataclass(frozen=True)
class Crossing:
    """One step from a profile to another, over a barrier."""

    profile_near: str
    profile_far: str
    barrier: Barrier


@dataclass(frozen=True)
class Search:
    """The fewest crossings between two profiles (empty: none found), and how far was looked."""

    crossings: tuple[Crossing, ...]
    hops: int


def search(tables: IdentityTables, start: str, end: str, max_hops: int = 3) -> Search:
    """Find how two profiles would be connected if nothing had been refused.

    Breadth first over profiles, refused links before shared values, so that the answer is the same every time.
    """
    came_by: dict[str, Crossing] = {}
    frontier = [start]
    for hop in range(1, max_hops + 1):
        found = list(_refused_links(tables, frontier))
        if not any(crossing.profile_far == end for crossing in found):
            found += _shared_values(tables, frontier, end)
        if not any(crossing.profile_far == end for crossing in found):
            found += _shared_values(tables, frontier, None)
        reached = []
        for crossing in found:
            if crossing.profile_far not in came_by and crossing.profile_far != start:
                came_by[crossing.profile_far] = crossing
                reached.append(crossing.profile_far)
        if end in came_by:
            return Search(_way_back(came_by, start, end), hop)
        if not reached or len(came_by) > MAX_PROFILES:
            return Search((), hop)
        frontier = reached
    return Search((), max_hops)


def barriers_between(tables: IdentityTables, a: str, b: str) -> list[Barrier]:
    """Return everything that stands directly between two profiles: refused links, then shared values."""
    refused = [crossing for crossing in _refused_links(tables, [a]) if crossing.profile_far == b]
    return [crossing.barrier for crossing in (*refused, *_shared_values(tables, [a], b))]


def barriers_of(tables: IdentityTables, profile_id: str) -> tuple[list[Refused], list[Link]]:
    """Return the refused links that touch a profile, and its links to shared values."""
    refused = [crossing.barrier for crossing in _refused_links(tables, [profile_id])]
    touching = _links_to_shared(tables, _members(tables, [profile_id])).collect()
    return [barrier for barrier in refused if isinstance(barrier, Refused)], as_links(touching)


def _way_back(came_by: Mapping[str, Crossing], start: str, end: str) -> tuple[Crossing, ...]:
    steps = []
    while end != start:
        steps.append(came_by[end])
        end = came_by[end].profile_near
    return tuple(reversed(steps))


def _refused_links(tables: IdentityTables, profiles: list[str]) -> Iterator[Crossing]:
    touching = tables.conflicts.filter(pl.col("profile_a").is_in(profiles) | pl.col("profile_b").is_in(profiles))
    known = set(profiles)
    for row in touching.collect().iter_rows(named=True):
        a, b = Identifier(row["type_a"], row["value_a"]), Identifier(row["type_b"], row["value_b"])
        sides = [(row["profile_a"], a, row["count_a"]), (row["profile_b"], b, row["count_b"])]
        for near, far in (sides, sides[::-1]):
            if near[0] in known:
                yield Crossing(
                    near[0],
                    far[0],
                    Refused(
                        near[1],
                        far[1],
                        tuple(row["sources"]),
                        row["first_seen"],
                        row["limited_type"],
                        row["limit"],
                        near[2],
                        far[2],
                    ),
                )


def _members(tables: IdentityTables, profiles: Iterable[str]) -> pl.LazyFrame:
    """Return type, value, profile_id of unshared members."""
    return tables.graph.filter(pl.col("profile_id").is_in(list(profiles)) & ~pl.col("shared")).select(
        type="identifier_type", value="identifier", profile_id="profile_id"
    )


def _links_to_shared(tables: IdentityTables, members: pl.LazyFrame) -> pl.LazyFrame:
    """Return links from members to shared values, with profile_id, shared_type, shared_value."""
    shared = tables.shared.select(type="identifier_type", value="identifier").unique()
    return pl.concat([_touching(tables.links, members, shared, *ends) for ends in (("a", "b"), ("b", "a"))])


def _touching(links: pl.LazyFrame, members: pl.LazyFrame, shared: pl.LazyFrame, own: str, other: str) -> pl.LazyFrame:
    return (
        links.join(shared, left_on=[f"type_{other}", f"value_{other}"], right_on=["type", "value"], how="semi")
        .join(members, left_on=[f"type_{own}", f"value_{own}"], right_on=["type", "value"])
        .with_columns(shared_type=f"type_{other}", shared_value=f"value_{other}")
    )


def _shared_values(tables: IdentityTables, profiles: list[str], end: str | None) -> list[Crossing]:
    """Return crossings over shared values to one profile or, if None, to any."""
    near = _links_to_shared(tables, _members(tables, profiles)).collect()
    if near.is_empty():
        return []
    values = near.select(type="shared_type", value="shared_value").unique()
    there = IdentityTables(tables.links, tables.graph, tables.conflicts, values.lazy().rename(_TO_SHARED))
    if end is None:
        everyone = tables.graph.filter(pl.col("profile_id").is_not_null() & ~pl.col("shared"))
        members = everyone.select(type="identifier_type", value="identifier", profile_id="profile_id")
    else:
        members = _members(tables, [end])
    far = _links_to_shared(there, members).collect()
    reasons = _reasons(tables, values)
    return list(_crossings(_by_value(near), _by_value(far), reasons))


_TO_SHARED = {"type": "identifier_type", "value": "identifier"}


def _reasons(tables: IdentityTables, values: pl.DataFrame) -> dict[Identifier, tuple[int, str]]:
    wanted = values.lazy().rename(_TO_SHARED)
    rows = tables.shared.join(wanted, on=["identifier_type", "identifier"], how="semi").collect()
    return {
        Identifier(kind, value): (groups, stronger)
        for kind, value, stronger, groups in rows.select(
            "identifier_type", "identifier", "stronger_type", "groups"
        ).iter_rows()
    }


def _by_value(rows: pl.DataFrame) -> dict[Identifier, list[tuple[str, Link]]]:
    """Return shared value to (profile, link) of those seen with it, in order of the link's ends."""
    meets: dict[tuple[Identifier, Identifier], tuple[Identifier, str]] = {}
    keys = [*ENDS, "shared_type", "shared_value", "profile_id"]
    for type_a, value_a, type_b, value_b, kind, value, profile_id in rows.select(keys).unique().iter_rows():
        meets[Identifier(type_a, value_a), Identifier(type_b, value_b)] = (Identifier(kind, value), profile_id)
    found: dict[Identifier, list[tuple[str, Link]]] = defaultdict(list)
    for link in as_links(rows):
        value, profile_id = meets.get((link.a, link.b)) or meets[link.b, link.a]
        found[value].append((profile_id, link))
    return found


def _crossings(
    near: Mapping[Identifier, list[tuple[str, Link]]],
    far: Mapping[Identifier, list[tuple[str, Link]]],
    reasons: Mapping[Identifier, tuple[int, str]],
) -> Iterator[Crossing]:
    for value in sorted(near):
        groups, stronger = reasons[value]
        seen = set()
        for profile_near, link_near in near[value]:
            for profile_far, link_far in far.get(value, []):
                if profile_near != profile_far and (profile_near, profile_far) not in seen:
                    seen.add((profile_near, profile_far))
                    yield Crossing(profile_near, profile_far, SharedValue(value, groups, stronger, link_near, link_far))
