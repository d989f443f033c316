"""The rules of identity resolution as plain dictionaries and sets: slow, obvious, and the standard for all engines.

Written from the text of the rules alone (design.md, "Identity: the rules, exactly"): no union-find, no arrays, no
increments. Groups are found by walking the links, again from the start whenever they are needed, so time grows with the
square of the links: for tests, and for a few thousand rows.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import polars as pl

from heap_assets.identity.decisions import apart_pairs
from heap_assets.identity.engine.base import LinksOfDay, Resolution
from heap_assets.identity.rules import LinksError, Rules
from heap_assets.identity.schemas import CONFLICTS, GRAPH, LINKS, SHARED, as_links
from heap_assets.storage import Store

Identifier = tuple[str, str]
"""Type and value."""

LATEST: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    """One row of links; `b` is None for a sighting."""

    a: Identifier
    b: Identifier | None
    source: str = "t"
    first: datetime | None = None
    last: datetime | None = None
    count: int = 1
    authoritative: bool = False


@dataclass
class Link:
    """Two identifiers of one record, the stronger one first; first seen, and the tables that have it."""

    a: Identifier
    b: Identifier
    first: datetime | None
    authoritative: bool
    sources: set[str]


@dataclass(frozen=True)
class Refusal:
    """A link that an `apart` decision refused; or the limit of a type, with the numbers of that type on both sides."""

    link: Link
    decision: str | None
    limited_type: str | None = None
    limit: int | None = None
    count_a: int | None = None
    count_b: int | None = None


@dataclass
class People:
    """The result for a set of links: rows of identity/graph by identifier, of conflicts, of shared values."""

    graph: dict[Identifier, tuple[str | None, datetime | None, datetime | None, bool]]
    conflicts: set[tuple[object, ...]]
    shared: set[tuple[str, str, str, int]]


class ReferenceEngine:
    """The definition of the rules as an engine, without state."""

    def resolve(self, links: pl.LazyFrame, rules: Rules) -> Resolution:
        """Resolve links, see :class:`Engine`."""
        people = people_of(rows_of(as_links(links).collect(), rules), rules)

        def strength(row: Sequence[Any]) -> tuple[Any, ...]:
            return rules.rank(row[0]), row[1].encode()

        graph = sorted(
            ((*identifier, *facts) for identifier, facts in people.graph.items()),
            key=lambda row: (row[2] is None, row[2] or "", *strength(row)),
        )
        conflicts = sorted(people.conflicts, key=lambda row: (*strength(row[:2]), *strength(row[2:4])))
        shared = sorted(people.shared, key=lambda row: (*strength(row), rules.rank(row[2])))
        return Resolution(
            graph=pl.LazyFrame(graph, schema=GRAPH, orient="row"),
            conflicts=pl.LazyFrame(conflicts, schema=CONFLICTS, orient="row"),
            shared=pl.LazyFrame(shared, schema=SHARED, orient="row"),
            profiles=len({facts[0] for facts in people.graph.values()} - {None}),
            identifiers=len(people.graph),
        )

    def advance(self, store: Store, links: LinksOfDay, rules: Rules) -> tuple[Resolution, dict[str, Any]]:
        """Resolve all links as of the day at once."""
        return self.resolve(links.links, rules), {"mode": "full", "why": "the reference engine keeps no state"}


def rows_of(links: pl.DataFrame, rules: Rules) -> list[Row]:
    """Return the rows of a frame of links.

    Raises LinksError if an end is null or empty, or of a type that the rules do not know.
    """
    rows = []
    for row in links.select(LINKS.names()).iter_rows():
        type_a, value_a, type_b, value_b, source, first, last, count, authoritative = row
        for kind, value in ((type_a, value_a), *(((type_b, value_b),) if (type_b, value_b) != (None, None) else ())):
            if kind is not None and kind not in rules.types:
                raise LinksError(f"links name the type {kind!r}; the rules know {', '.join(rules.types)}")
            if not kind or not value:
                raise LinksError("a link has an end that is null or empty; leave such rows out of links")
        b = (type_b, value_b) if type_b is not None else None
        rows.append(Row((type_a, value_a), b, source or "", first, last, count, bool(authoritative)))
    return rows


def people_of(rows: Sequence[Row], rules: Rules) -> People:
    """Apply rules 3 to 7."""
    links = _links_of(rows, rules)
    identifiers = {end for row in rows for end in (row.a, row.b) if end is not None}
    shared, reported = _shared_values(links, identifiers, rules)
    counted = [link for link in links if link.authoritative or not (link.a in shared or link.b in shared)]
    group_of, refused = _merged(counted, identifiers, rules)
    ids: dict[Identifier, str | None] = {}
    for group in {id(group): group for group in group_of.values()}.values():
        lonely = len(group) == 1 and next(iter(group)) in shared
        ids.update(dict.fromkeys(group, None if lonely else _profile_id(group, rows, rules)))
    conflicts: set[tuple[object, ...]] = {
        (*refusal.link.a, *refusal.link.b, tuple(sorted(refusal.link.sources)), refusal.link.first,
         refusal.limited_type, refusal.limit, refusal.count_a, refusal.count_b,
         ids[refusal.link.a], ids[refusal.link.b], refusal.decision)
        for refusal in refused
        if group_of[refusal.link.a] is not group_of[refusal.link.b]
    }  # fmt: skip
    return People({i: (ids[i], *_sights(i, rows), i in shared) for i in identifiers}, conflicts, reported)


def _strength(identifier: Identifier, rules: Rules) -> tuple[int, bytes]:
    return rules.rank(identifier[0]), identifier[1].encode()


def _links_of(rows: Iterable[Row], rules: Rules) -> list[Link]:
    links: dict[tuple[Identifier, Identifier], Link] = {}
    for row in rows:
        if row.b is None or row.a == row.b:
            continue
        a, b = sorted((row.a, row.b), key=lambda end: _strength(end, rules))
        link = links.setdefault((a, b), Link(a, b, None, False, set()))
        link.first = min((t for t in (link.first, row.first) if t is not None), default=None)
        link.authoritative |= row.authoritative
        link.sources.add(row.source)
    return list(links.values())


def _sights(identifier: Identifier, rows: Sequence[Row]) -> tuple[datetime | None, datetime | None]:
    naming = [row for row in rows if identifier in (row.a, row.b)]
    first = min((row.first for row in naming if row.first is not None), default=None)
    last = max((row.last for row in naming if row.last is not None), default=None)
    return first, last


def _walk(start: Identifier, neighbours: dict[Identifier, set[Identifier]]) -> frozenset[Identifier]:
    reached, todo = {start}, [start]
    while todo:
        for other in neighbours.get(todo.pop(), ()):
            if other not in reached:
                reached.add(other)
                todo.append(other)
    return frozenset(reached)


def _neighbours(links: Iterable[Link]) -> dict[Identifier, set[Identifier]]:
    neighbours: dict[Identifier, set[Identifier]] = defaultdict(set)
    for link in links:
        neighbours[link.a].add(link.b)
        neighbours[link.b].add(link.a)
    return neighbours


def _shared_values(
    links: Sequence[Link], identifiers: Iterable[Identifier], rules: Rules
) -> tuple[set[Identifier], set[tuple[str, str, str, int]]]:
    shared: set[Identifier] = set()
    reported: set[tuple[str, str, str, int]] = set()
    everyone = _neighbours(links)
    for rank, kind in enumerate(rules.types):
        among_stronger = _neighbours(
            link
            for link in links
            if max(rules.rank(link.a[0]), rules.rank(link.b[0])) < rank and not {link.a, link.b} & shared
        )
        of_this_type = set()
        for value in (identifier for identifier in identifiers if identifier[0] == kind):
            for stronger, above in rules.sharing[rank].items():
                counted = [
                    other
                    for other in everyone[value]
                    if other not in shared
                    and (rules.rank(other[0]) < rank if stronger is None else other[0] == stronger)
                ]
                groups = {_walk(other, among_stronger) for other in counted}
                if len(groups) > above:
                    of_this_type.add(value)
                    strongest = min(counted, key=lambda end: rules.rank(end[0]))[0]
                    reported.add((*value, strongest, len(groups)))
        shared |= of_this_type
    return shared, reported


def _merged(
    links: Iterable[Link], identifiers: Iterable[Identifier], rules: Rules
) -> tuple[dict[Identifier, set[Identifier]], list[Refusal]]:
    def turn(link: Link) -> tuple[object, ...]:
        time = link.first or LATEST
        by_priority = (
            not link.authoritative,
            rules.rank(link.b[0]),
            rules.rank(link.a[0]),
            time,
            link.a[1].encode(),
            link.b[1].encode(),
        )
        return (time, *by_priority) if rules.order == "first_seen" else by_priority

    group_of = {identifier: {identifier} for identifier in identifiers}
    refused = []
    for link in sorted(links, key=turn):
        group_a, group_b = group_of[link.a], group_of[link.b]
        if group_a is group_b:
            continue
        decision = _apart_by(group_a, group_b, rules)
        if decision is not None:
            refused.append(Refusal(link, decision))
            continue
        broken = None if link.authoritative else _broken_limit(group_a, group_b, rules)
        if broken is not None:
            limited_type, count_a, count_b = broken
            limit = rules[limited_type].max_per_profile
            refused.append(Refusal(link, None, limited_type, limit, count_a, count_b))
            continue
        group_a |= group_b
        for identifier in group_b:
            group_of[identifier] = group_a
    return group_of, refused


def _apart_by(group_a: set[Identifier], group_b: set[Identifier], rules: Rules) -> str | None:
    for decision, a, b in apart_pairs(rules.decisions):  # the smallest id first
        if (a in group_a and b in group_b) or (b in group_a and a in group_b):
            return decision
    return None


def _broken_limit(group_a: set[Identifier], group_b: set[Identifier], rules: Rules) -> tuple[str, int, int] | None:
    for kind, limit in zip(rules.types, rules.limits, strict=True):
        count_a, count_b = (sum(1 for identifier in group if identifier[0] == kind) for group in (group_a, group_b))
        if limit is not None and count_a and count_b and count_a + count_b > limit:
            return kind, count_a, count_b
    return None


def _profile_id(group: Iterable[Identifier], rows: Sequence[Row], rules: Rules) -> str:
    def turn(identifier: Identifier) -> tuple[object, ...]:
        return rules.rank(identifier[0]), _sights(identifier, rows)[0] or LATEST, identifier[1].encode()

    kind, value = min(group, key=turn)
    return hashlib.sha256(kind.encode() + b"\x1f" + value.encode()).hexdigest()[:32]
