"""An explanation as a Mermaid flowchart: a subgraph per profile, its links as edges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from heap_assets.identity.explain.blockers import Barrier, Refused, SharedValue
from heap_assets.identity.explain.cluster import Cluster, Identifier, Link
from heap_assets.identity.explain.query import Outcome
from heap_assets.identity.explain.text import evidence, limit_words, summary

if TYPE_CHECKING:
    from heap_assets.identity.explain.explain import Explanation

MAX_NODES: Final = 60
"""Most identifiers drawn per profile: the chain, then those nearest to it in the tree."""
MAX_LABEL: Final = 60
_SHOWN: Final = frozenset(" @._-+:/,;()'=")
_STYLES: Final = (
    "classDef asked stroke-width:3px",
    "classDef shared stroke:#b26a00,stroke-dasharray:4 3",
)


def flowchart(explanation: Explanation) -> str:
    """Return the profiles of an answer as Mermaid text.

    Thick edges are the chain, thin ones other links that joined, dotted ones links that joined nothing new; a crossed
    edge is a refused link, a dashed border a shared value.
    """
    asks_one = explanation.outcome is Outcome.PROFILE
    steps: Sequence[Link | Barrier] = () if asks_one else explanation.steps
    barriers = [step for step in steps if not isinstance(step, Link)]
    chain = {link for step in steps for link in _links(step)}
    queried = {lookup.identifier for lookup in explanation.lookups}
    starts = queried | {end for link in chain for end in (link.a, link.b)}
    drawn = {cluster.profile_id: _nearest(cluster, starts) for cluster in explanation.clusters}
    values = [crossed.value for crossed in barriers if isinstance(crossed, SharedValue)]
    every = dict.fromkeys([*(node for nodes in drawn.values() for node in nodes), *values])
    names = {identifier: f"n{number}" for number, identifier in enumerate(every)}
    lines = [f"%% {_label(summary(explanation), 400)}", "flowchart LR", *_STYLES]
    for number, cluster in enumerate(explanation.clusters):
        nodes, size = drawn[cluster.profile_id], len(cluster.members)
        more = f", {size - len(nodes):,} not drawn" if size > len(nodes) else ""
        title = f"profile {cluster.profile_id}, {size:,} identifier{'s' if size > 1 else ''}{more}"
        lines += [f'subgraph p{number}["{title}"]', "direction LR"]
        lines += [f'{names[n]}["{_label(str(n))}"]{":::asked" if n in queried else ""}' for n in nodes]
        lines += [*_edges(cluster, names, chain), "end"]
    lines += [f'{names[value]}(["{_label(str(value))}"]):::shared' for value in values]
    refused = [] if asks_one else [barrier for barrier in explanation.more_barriers if isinstance(barrier, Refused)]
    lines += _barrier_edges([*barriers, *refused], names)
    return "\n".join(lines) + "\n"


def _links(step: Link | Barrier) -> tuple[Link, ...]:
    if isinstance(step, SharedValue):
        return (step.near, step.far)
    return (step,) if isinstance(step, Link) else ()


def _nearest(cluster: Cluster, starts: set[Identifier]) -> list[Identifier]:
    """Return the identifiers to draw: the chain through the profile, then outwards along its tree, then all others."""
    neighbours: dict[Identifier, list[Identifier]] = defaultdict(list)
    for link in cluster.tree:
        neighbours[link.a].append(link.b)
        neighbours[link.b].append(link.a)
    members = [member.identifier for member in cluster.members]
    reached = dict.fromkeys([node for node in members if node in starts] or members[:1])
    queue = list(reached)
    while queue:
        for node in neighbours[queue.pop(0)]:
            if node not in reached:
                reached[node] = None
                queue.append(node)
    return list(dict.fromkeys([*reached, *members]))[:MAX_NODES]


def _edges(cluster: Cluster, names: Mapping[Identifier, str], chain: set[Link]) -> Iterator[str]:
    tree = set(cluster.tree)
    for link in cluster.links:
        if link.a in names and link.b in names:
            arrow = "==" if link in chain else "--" if link in tree else "-."
            end = {"==": "===", "--": "---", "-.": ".-"}[arrow]
            yield f'{names[link.a]} {arrow} "{_label(evidence(link))}" {end} {names[link.b]}'


def _barrier_edges(barriers: Sequence[Barrier], names: Mapping[Identifier, str]) -> Iterator[str]:
    for crossed in barriers:
        if isinstance(crossed, SharedValue):
            for link in (crossed.near, crossed.far):
                if link.a in names and link.b in names:
                    yield f'{names[link.a]} -. "{_label(evidence(link))}" .- {names[link.b]}'
        elif crossed.near in names and crossed.far in names:
            yield f'{names[crossed.near]} x-- "refused: {_label(limit_words(crossed), 120)}" --x {names[crossed.far]}'


def _label(text: str, length: int = MAX_LABEL) -> str:
    """Cut the middle out of long text, and percent-encode characters that Mermaid or HTML could read as markup."""
    if len(text) > length:
        text = f"{text[: length // 2]}…{text[-((length - 1) // 2) :]}"
    return "".join(c if c.isalnum() or c in _SHOWN or c == "…" else quote(c, safe="", errors="replace") for c in text)
