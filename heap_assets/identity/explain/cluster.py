"""The inside of one profile: its identifiers, its links, and the tree of links that joined them.

In plain Python on purpose: it reads one profile, never all of them, and can be compared with the rules line by line. A
profile's tree needs only the links between its own identifiers: whether a link is accepted depends on the two groups at
its ends, and every group on the way to a profile is a part of it.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import polars as pl

from heap_assets.identity.decision_links import DECISIONS_SOURCE
from heap_assets.identity.rules import Rules
from heap_assets.identity.schemas import ENDS

_BY_DECISION = "same by decision"
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, order=True)
class Identifier:
    """A value and its kind, written `email:ann@acme.io`."""

    type: str
    value: str

    def __str__(self) -> str:
        return f"{self.type}:{self.value}"


@dataclass(frozen=True)
class LinkSource:
    """The records of one source that have a link: their number, first and last."""

    source: str
    first_seen: datetime | None
    last_seen: datetime | None
    count: int

    @property
    def is_decision(self) -> bool:
        """Whether a person has decided it; `source` then says who and why."""
        return self.first_seen is None and self.source.startswith(_BY_DECISION)


@dataclass(frozen=True)
class Link:
    """Two identifiers on one record; `a` is of the stronger type."""

    a: Identifier
    b: Identifier
    sources: tuple[LinkSource, ...]
    authoritative: bool = False

    @property
    def first_seen(self) -> datetime | None:
        return min((source.first_seen for source in self.sources if source.first_seen), default=None)

    @property
    def last_seen(self) -> datetime | None:
        return max((source.last_seen for source in self.sources if source.last_seen), default=None)

    def other(self, end: Identifier) -> Identifier:
        """Return the end that is not this one."""
        return self.b if end == self.a else self.a


@dataclass(frozen=True)
class Member:
    """An identifier of a profile."""

    identifier: Identifier
    first_seen: datetime | None
    last_seen: datetime | None
    shared: bool


@dataclass(frozen=True)
class Cluster:
    """A profile, with the links that made it.

    Attributes
    ----------
    members
        Strongest type first, then by value.
    links
        The links between members that count: those of shared values only where Heap itself decided them.
    tree
        The accepted ones among them, in the order of rule 5: each joined two groups.
    """

    profile_id: str
    members: tuple[Member, ...]
    links: tuple[Link, ...]
    tree: tuple[Link, ...]

    def path(self, start: Identifier, end: Identifier) -> tuple[Link, ...] | None:
        """Return the links of the tree that lead from one member to another; None if it does not connect them.

        No other path has a better weakest link, since the tree took the links in their order of strength.
        """
        return path(self.tree, start, end)


def load_clusters(
    profile_ids: Sequence[str], links: pl.LazyFrame, graph: pl.LazyFrame, rules: Rules
) -> dict[str, Cluster]:
    """Read some profiles; the tables are filtered, never loaded whole.

    Parameters
    ----------
    profile_ids
        Unknown ones are left out.
    links, graph
        `identity/links` as of the day (not of the day alone) and `identity/graph`.
    """
    rows = graph.filter(pl.col("profile_id").is_in(list(profile_ids))).collect()
    owners = rows.select("identifier_type", "identifier", "profile_id", "shared")
    inside = _between(links, owners.lazy()).collect()
    members: dict[str, list[Member]] = defaultdict(list)
    for kind, value, profile_id, first, last, shared in rows.iter_rows():
        members[profile_id].append(Member(Identifier(kind, value), first, last, shared))
    links_of: dict[str, list[Link]] = defaultdict(list)
    for profile_id, part in inside.partition_by("profile_id", as_dict=True).items():
        links_of[str(profile_id[0])] = [_with_reasons(link, rules) for link in as_links(part)]
    return {
        profile_id: Cluster(
            profile_id,
            tuple(
                sorted(
                    profile_members, key=lambda member: (rules.rank(member.identifier.type), member.identifier.value)
                )
            ),
            tuple(links_of[profile_id]),
            tuple(tree(links_of[profile_id], rules)),
        )
        for profile_id, profile_members in members.items()
    }


def _with_reasons(link: Link, rules: Rules) -> Link:
    """Return the link with its decision in words in the place of their common source."""
    if not any(source.source == DECISIONS_SOURCE for source in link.sources):
        return link
    ends = {(link.a.type, link.a.value), (link.b.type, link.b.value)}
    labels = [one.label for one in rules.decisions if one.kind == "same" and ends <= {*one.identifiers}]
    words = "; ".join(labels) or _BY_DECISION
    named = (replace(s, source=words) if s.source == DECISIONS_SOURCE else s for s in link.sources)
    return replace(link, sources=tuple(named))


def _between(links: pl.LazyFrame, owners: pl.LazyFrame) -> pl.LazyFrame:
    """Return links both ends of which are on one of the profiles, with profile_id; see `Cluster.links`."""
    ends = [
        owners.rename({"identifier_type": f"type_{end}", "identifier": f"value_{end}", "shared": f"shared_{end}"})
        for end in ("a", "b")
    ]
    return (
        links.join(ends[0], on=["type_a", "value_a"])
        .join(ends[1], on=["type_b", "value_b", "profile_id"])
        .filter(
            ((pl.col("type_a") != pl.col("type_b")) | (pl.col("value_a") != pl.col("value_b")))
            & (~(pl.col("shared_a") | pl.col("shared_b")) | pl.col("authoritative").any().over(ENDS))
        )
        .drop("shared_a", "shared_b")
    )


def as_links(rows: pl.DataFrame) -> list[Link]:
    """Turn rows of `identity/links` into one link per pair of ends, sources in order of name."""
    by_ends: dict[tuple[Identifier, Identifier], list[tuple[LinkSource, bool]]] = defaultdict(list)
    columns = [*ENDS, "source", "first_seen", "last_seen", "count", "authoritative"]
    for type_a, value_a, type_b, value_b, source, first, last, count, decided in rows.select(columns).iter_rows():
        a, b = Identifier(type_a, value_a), Identifier(type_b, value_b)
        ends = (b, a) if type_a == type_b and value_b < value_a else (a, b)
        by_ends[ends].append((LinkSource(source, first, last, count), decided))
    return [
        Link(a, b, tuple(sorted((s for s, _ in parts), key=lambda s: s.source)), any(decided for _, decided in parts))
        for (a, b), parts in sorted(by_ends.items())
    ]


def in_order(links: Iterable[Link], rules: Rules) -> list[Link]:
    """Return links in the total order of rule 5, the strongest first."""

    def strength(link: Link) -> tuple[object, ...]:
        first = link.first_seen or _NEVER
        key = (
            not link.authoritative,
            *sorted((rules.rank(link.a.type), rules.rank(link.b.type)), reverse=True),
            first,
            # UTF-8 sorts as code points do
            link.a.value,
            link.b.value,
        )
        return (first, *key) if rules.order == "first_seen" else key

    return sorted(links, key=strength)


def tree(links: Iterable[Link], rules: Rules) -> list[Link]:
    """Return the links that rules 5 and 6 accept, in order: each joins two groups, in the limits or by authority.

    `links`: links that count: of shared values only authoritative ones.
    """
    parent: dict[Identifier, Identifier] = {}
    counts: dict[Identifier, Counter[str]] = {}

    def root(node: Identifier) -> Identifier:
        if node not in parent:
            parent[node] = node
            counts[node] = Counter({node.type: 1})
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    limits = [(name, limit) for name, limit in zip(rules.types, rules.limits, strict=True) if limit is not None]
    accepted = []
    for link in in_order(links, rules):
        a, b = root(link.a), root(link.b)
        if a == b:
            continue
        of_a, of_b = counts[a], counts[b]
        is_refused = any(of_a[name] and of_b[name] and of_a[name] + of_b[name] > limit for name, limit in limits)
        if is_refused and not link.authoritative:
            continue
        parent[b] = a
        counts[a] += counts[b]
        accepted.append(link)
    return accepted


def path(links: Iterable[Link], start: Identifier, end: Identifier) -> tuple[Link, ...] | None:
    """Return the fewest links that lead from `start` to `end`, or None; deterministic for a given order of links."""
    touching: dict[Identifier, list[Link]] = defaultdict(list)
    for link in links:
        touching[link.a].append(link)
        touching[link.b].append(link)
    came_by: dict[Identifier, Link] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        if node == end:
            steps = []
            while node != start:
                steps.append(came_by[node])
                node = came_by[node].other(node)
            return tuple(reversed(steps))
        for link in touching[node]:
            other = link.other(node)
            if other not in came_by and other != start:
                came_by[other] = link
                queue.append(other)
    return None
