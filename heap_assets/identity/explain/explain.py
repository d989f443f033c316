"""Why two identifiers are one person, or why they are not: the chain of links, or the barriers between them.

Answers come from the tables of a day and never from a new run; only the profiles on the way are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from heap_assets.identity.explain.blockers import (
    Barrier,
    IdentityTables,
    Refused,
    SharedValue,
    barriers_between,
    barriers_of,
    search,
)
from heap_assets.identity.explain.cluster import Cluster, Link, in_order, load_clusters
from heap_assets.identity.explain.mermaid import flowchart
from heap_assets.identity.explain.query import Lookup, Outcome, look_up
from heap_assets.identity.explain.text import as_json, as_text
from heap_assets.identity.rules import LinksError, Rules


@dataclass(frozen=True)
class Explanation:
    """An answer, as text, JSON or a Mermaid flowchart.

    >>> from heap_assets import Project
    >>> answer = Project.open("heap_assets.yaml").explain("email:ann@x.example", "email:bob@x.example")
    >>> str(answer.outcome), len(answer.clusters)
    ('unconnected', 2)

    Attributes
    ----------
    lookups
        One or two identifiers, normalised.
    outcome
        The kind of answer.
    steps
        From the first to the second identifier: accepted links, and barriers where there are none. Of one identifier,
        the tree of its profile.
    weakest
        Of steps that join: the link merged last; all other steps are stronger by the order of the rules.
    clusters
        The profiles on the way, in that order.
    more_barriers
        More barriers between the two profiles; of one identifier, all that touch its profile.
    hops
        The radius of the search, in profiles, if it found nothing.
    """

    lookups: tuple[Lookup, ...]
    outcome: Outcome
    steps: tuple[Link | Barrier, ...] = ()
    weakest: Link | None = None
    clusters: tuple[Cluster, ...] = ()
    more_barriers: tuple[Barrier | Link, ...] = ()
    hops: int = 0
    types: tuple[str, ...] = field(default=(), repr=False)

    def text(self) -> str:
        """Return the answer for people: a sentence, then the chain, one identifier and one reason per line."""
        return as_text(self)

    def json(self) -> str:
        """Return the same answer for machines."""
        return as_json(self)

    def mermaid(self) -> str:
        """Return the profiles on the way as a Mermaid flowchart."""
        return flowchart(self)


def explain(first: str, second: str | None, tables: IdentityTables, rules: Rules, max_hops: int = 3) -> Explanation:
    """Explain why two identifiers are one person or two, or which profile one identifier belongs to.

    Parameters
    ----------
    first, second
        `type:value`; values are normalised as the rules say. Without a second, the profile of the first.
    tables
        The tables of the day, resolved with `rules`.
    max_hops
        The radius of the search for a connection, in profiles.

    Raises QueryError: a query without a type, or with one that the rules do not know.
    """
    tables = replace(tables, decisions={decision.id: decision.label for decision in rules.decisions})
    lookups = tuple(look_up(query, tables, rules) for query in (first, second) if query is not None)
    profile_ids = sorted({lookup.profile_id for lookup in lookups if lookup.profile_id is not None})
    clusters_by_profile = load_clusters(profile_ids, tables.links, tables.graph, rules)
    clusters = tuple(
        clusters_by_profile[lookup.profile_id] for lookup in lookups if lookup.profile_id in clusters_by_profile
    )
    if any(lookup.why_not is not None for lookup in lookups):
        return Explanation(lookups, Outcome.BLOCKED, clusters=clusters, types=rules.types)
    if not all(lookup.in_graph for lookup in lookups):
        return Explanation(lookups, Outcome.UNKNOWN, clusters=clusters, types=rules.types)
    if len(lookups) == 1:
        return _explain_profile(lookups[0], clusters, tables, rules)
    return _explain_pair(lookups[0], lookups[1], clusters_by_profile, tables, rules, max_hops)


def _explain_profile(
    lookup: Lookup, clusters: tuple[Cluster, ...], tables: IdentityTables, rules: Rules
) -> Explanation:
    if lookup.profile_id is None or not clusters:
        return Explanation((lookup,), Outcome.SHARED, types=rules.types)
    refused, shared = barriers_of(tables, lookup.profile_id)
    return Explanation(
        (lookup,),
        Outcome.PROFILE,
        clusters[0].tree,
        clusters=clusters,
        more_barriers=(*refused, *shared),
        types=rules.types,
    )


def _explain_pair(
    a: Lookup,
    b: Lookup,
    clusters_by_profile: Mapping[str, Cluster],
    tables: IdentityTables,
    rules: Rules,
    max_hops: int,
) -> Explanation:
    clusters = tuple(clusters_by_profile[lookup.profile_id] for lookup in (a, b) if lookup.profile_id is not None)
    if a.profile_id is None or b.profile_id is None:
        return Explanation((a, b), Outcome.SHARED, clusters=clusters, types=rules.types)
    if a.profile_id == b.profile_id:
        cluster = clusters[0]
        steps = cluster.path(a.identifier, b.identifier)
        if steps is None:
            raise LinksError(
                f"{a.identifier.type} and {b.identifier.type} are on profile {a.profile_id}, but the links given do "
                "not join them: pass all links as of the day, resolved with the same rules."
            )
        weakest = in_order(steps, rules)[-1] if steps else None
        return Explanation((a, b), Outcome.JOINED, steps, weakest, clusters[:1], types=rules.types)
    result = search(tables, a.profile_id, b.profile_id, max_hops)
    if not result.hops:
        return Explanation((a, b), Outcome.UNCONNECTED, clusters=clusters, hops=result.radius, types=rules.types)
    between = [hop.profile_far for hop in result.hops[:-1]]
    by_id = {**clusters_by_profile, **load_clusters(between, tables.links, tables.graph, rules)}
    chain: list[Link | Barrier] = []
    at = a.identifier
    for hop in result.hops:
        # the chain leaves the near profile at one end of the barrier, and arrives on the far one at the other
        barrier = hop.barrier
        leave, arrive = (
            (barrier.near.other(barrier.value), barrier.far.other(barrier.value))
            if isinstance(barrier, SharedValue)
            else (barrier.near, barrier.far)
        )
        chain += by_id[hop.profile_near].path(at, leave) or ()
        chain.append(barrier)
        at = arrive
    chain += by_id[b.profile_id].path(at, b.identifier) or ()
    is_limit = any(isinstance(hop.barrier, Refused) for hop in result.hops)
    direct = barriers_between(tables, a.profile_id, b.profile_id) if len(result.hops) == 1 else []
    return Explanation(
        (a, b),
        Outcome.LIMIT if is_limit else Outcome.SHARED,
        tuple(chain),
        clusters=tuple(by_id[name] for name in (a.profile_id, *between, b.profile_id)),
        more_barriers=tuple(barrier for barrier in direct if barrier not in chain),
        types=rules.types,
    )
