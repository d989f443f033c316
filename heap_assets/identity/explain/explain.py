"""Why two identifiers are one person, or why they are not: the chain of links, or what keeps them apart.

Answers come from the tables of a day and never from a new run; only the profiles that the question touches are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from heap_assets.identity.explain.blockers import (
    Barrier,
    IdentityTables,
    Refused,
    SharedValue,
    barriers_between,
    barriers_of,
    search,
)
from heap_assets.identity.explain.cluster import Cluster, Identifier, Link, in_order, load_clusters
from heap_assets.identity.explain.mermaid import flowchart
from heap_assets.identity.explain.query import Found, Verdict, look_up
from heap_assets.identity.explain.text import as_json, as_text
from heap_assets.identity.rules import LinksError, Rules


@dataclass(frozen=True)
class Explanation:
    """An answer that can be read, stored and drawn.

    Attributes
    ----------
    asked
        One or two identifiers, normalised.
    verdict
        The kind of answer.
    steps
        From the first to the second identifier: links that hold, and the barriers where they do not. Of one identifier,
        the tree of its profile.
    weakest
        Of steps that join: the link taken last; all others on the way are stronger by the order of the rules.
    clusters
        The profiles on the way, in that order.
    others
        More barriers between the two profiles; of one identifier, all that touch its profile.
    hops
        How many profiles away was looked, if nothing was found.
    """

    asked: tuple[Found, ...]
    verdict: Verdict
    steps: tuple[Link | Barrier, ...] = ()
    weakest: Link | None = None
    clusters: tuple[Cluster, ...] = ()
    others: tuple[Barrier | Link, ...] = ()
    hops: int = 0
    types: tuple[str, ...] = field(default=(), repr=False)

    def text(self) -> str:
        """Return the answer for people: a sentence, then the chain, one identifier and one reason per line."""
        return as_text(self)

    def json(self) -> str:
        """Return the same facts for machines."""
        return as_json(self)

    def mermaid(self) -> str:
        """Return the profiles on the way as a Mermaid flowchart."""
        return flowchart(self)


def explain(first: str, second: str | None, tables: IdentityTables, rules: Rules, max_hops: int = 3) -> Explanation:
    """Explain why two identifiers are one person or two, or what one identifier belongs to.

    Parameters
    ----------
    first, second
        `type:value`; values are normalised as the rules say. Without a second, the profile of the first.
    tables
        The tables of the day, resolved with `rules`.
    max_hops
        How many profiles away to look for what would connect them.

    Raises
    ------
    QuestionError
        A question without a type, or with one that the rules do not know.
    """
    asked = tuple(look_up(question, tables, rules) for question in (first, second) if question is not None)
    profile_ids = sorted({found.profile_id for found in asked if found.profile_id is not None})
    own = load_clusters(profile_ids, tables.links, tables.graph, rules)
    clusters = tuple(own[found.profile_id] for found in asked if found.profile_id in own)
    for wrong in asked:
        if wrong.why_not is not None:
            return Explanation(asked, Verdict.BLOCKED, clusters=clusters, types=rules.types)
    for missing in asked:
        if not missing.known:
            return Explanation(asked, Verdict.UNKNOWN, clusters=clusters, types=rules.types)
    if len(asked) == 1:
        return _one(asked[0], clusters, tables, rules)
    return _two(asked[0], asked[1], own, tables, rules, max_hops)


def _one(found: Found, clusters: tuple[Cluster, ...], tables: IdentityTables, rules: Rules) -> Explanation:
    if found.profile_id is None or not clusters:
        return Explanation((found,), Verdict.SHARED, types=rules.types)
    refused, shared = barriers_of(tables, found.profile_id)
    return Explanation(
        (found,), Verdict.PROFILE, clusters[0].tree, clusters=clusters, others=(*refused, *shared), types=rules.types
    )


def _two(
    a: Found, b: Found, own: Mapping[str, Cluster], tables: IdentityTables, rules: Rules, max_hops: int
) -> Explanation:
    asked = (a, b)
    clusters = tuple(own[found.profile_id] for found in asked if found.profile_id is not None)
    if a.profile_id is None or b.profile_id is None:
        return Explanation(asked, Verdict.SHARED, clusters=clusters, types=rules.types)
    if a.profile_id == b.profile_id:
        cluster = clusters[0]
        steps = cluster.path(a.identifier, b.identifier)
        if steps is None:
            raise LinksError(
                f"{a.identifier.type} and {b.identifier.type} are on profile {a.profile_id}, but the links given do "
                "not join them: pass all links as of the day, resolved with the same rules."
            )
        weakest = in_order(steps, rules)[-1] if steps else None
        return Explanation(asked, Verdict.JOINED, steps, weakest, clusters[:1], types=rules.types)
    return _apart(asked, own, tables, rules, max_hops)


def _apart(
    asked: Sequence[Found], own: Mapping[str, Cluster], tables: IdentityTables, rules: Rules, max_hops: int
) -> Explanation:
    a, b = asked
    assert a.profile_id is not None
    assert b.profile_id is not None
    way = search(tables, a.profile_id, b.profile_id, max_hops)
    ends = (own[a.profile_id], own[b.profile_id])
    if not way.crossings:
        return Explanation((a, b), Verdict.UNCONNECTED, clusters=ends, hops=way.hops, types=rules.types)
    between = [crossing.profile_far for crossing in way.crossings[:-1]]
    clusters = {**own, **load_clusters(between, tables.links, tables.graph, rules)}
    steps: list[Link | Barrier] = []
    at = a.identifier
    for crossing in way.crossings:
        leave, arrive = _shores(crossing.barrier)
        steps += clusters[crossing.profile_near].path(at, leave) or ()
        steps.append(crossing.barrier)
        at = arrive
    steps += clusters[b.profile_id].path(at, b.identifier) or ()
    limits = any(isinstance(crossing.barrier, Refused) for crossing in way.crossings)
    direct = barriers_between(tables, a.profile_id, b.profile_id) if len(way.crossings) == 1 else []
    return Explanation(
        (a, b),
        Verdict.LIMIT if limits else Verdict.SHARED,
        tuple(steps),
        clusters=tuple(clusters[name] for name in (a.profile_id, *between, b.profile_id)),
        others=tuple(barrier for barrier in direct if barrier not in steps),
        types=rules.types,
    )


def _shores(barrier: Barrier) -> tuple[Identifier, Identifier]:
    """Return the identifiers at which a chain leaves a profile and arrives on the next."""
    if isinstance(barrier, SharedValue):
        return barrier.near.other(barrier.value), barrier.far.other(barrier.value)
    return barrier.near, barrier.far
