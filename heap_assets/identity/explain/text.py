"""An explanation in words and as JSON."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from heap_assets.identity.explain.blockers import Barrier, Refused, SharedValue
from heap_assets.identity.explain.cluster import Cluster, Identifier, Link
from heap_assets.identity.explain.query import Lookup, Outcome
from heap_assets.identity.normalise import IN_WORDS

if TYPE_CHECKING:
    from heap_assets.identity.explain.explain import Explanation

MAX_LINES = 60
"""Lines of a chain or tree in the text; JSON has all of them."""

MAX_WIDTH = 70
"""Longest identifier beside which evidence is aligned in a column."""


def as_text(explanation: Explanation) -> str:
    """Return the answer for people."""
    profiles = (f"profile {c.profile_id}, {_count(len(c.members), 'identifier')}" for c in explanation.clusters)
    lines = [summary(explanation), *(f"  {profile}" for profile in profiles)]
    body = list(_tree(explanation) if explanation.outcome is Outcome.PROFILE else _chain(explanation))
    if body:
        shown = body[:MAX_LINES]
        more = [f"… {len(body) - MAX_LINES} more lines: ask for JSON"] if len(body) > MAX_LINES else []
        lines += ["", *(f"  {line}".rstrip() for line in (*shown, *more))]
    hints = [hint for lookup in explanation.lookups if (hint := _elsewhere(lookup, explanation.types))]
    if hints:
        lines += ["", *hints]
    if barriers := explanation.more_barriers:
        title = "Kept apart from others by" if explanation.outcome is Outcome.PROFILE else "Also between the two"
        more = [f"… and {len(barriers) - 10} more"] if len(barriers) > 10 else []
        lines += ["", f"{title}:", *(f"  {line}" for line in (*map(_barrier_line, barriers[:10]), *more))]
    return "\n".join(lines)


def summary(explanation: Explanation) -> str:
    """Return the answer in a sentence or two."""
    names = " and ".join(str(lookup.identifier) for lookup in explanation.lookups)
    match explanation.outcome:
        case Outcome.BLOCKED:
            return " ".join(_blocked(lookup) for lookup in explanation.lookups if lookup.why_not is not None)
        case Outcome.UNKNOWN:
            return " ".join(_unknown(lookup) for lookup in explanation.lookups if not lookup.in_graph)
        case Outcome.PROFILE:
            size = len(explanation.clusters[0].members) - 1
            return f"{names} is one of {size + 1} identifiers of a person." if size else f"{names} stands alone."
        case Outcome.JOINED if not explanation.steps:
            return f"{names} are the same identifier."
        case Outcome.JOINED:
            return f"{names} are one person: {_count(len(explanation.steps), 'link')} joined them."
        case Outcome.LIMIT:
            refused = next(step for step in explanation.steps if isinstance(step, Refused))
            return f"{names} are two people: {limit_words(refused)}."
        case Outcome.SHARED if not explanation.steps:
            return " ".join(_shared(lookup) for lookup in explanation.lookups if lookup.shared)
        case Outcome.SHARED:
            value = next(step for step in explanation.steps if isinstance(step, SharedValue))
            return (
                f"{names} are two people: they only meet on {value.value}, which joins nobody because "
                f"{_groups(value.groups)} share it."
            )
    return (
        f"{names} are two people: no link, refused link or shared value connects them "
        f"(looked {_count(explanation.hops, 'profile')} away)."
    )


def _blocked(lookup: Lookup) -> str:
    why = IN_WORDS.get(lookup.why_not, lookup.why_not)
    return f"{lookup.identifier} is no identifier: {why}. Rows that hold it are not linked by it."


def _unknown(lookup: Lookup) -> str:
    similar = ", ".join(map(str, lookup.similar))
    hint = f" Similar ones were: {similar}." if similar else ""
    return f"{lookup.identifier} was never seen in any table up to this day.{hint}"


def _elsewhere(lookup: Lookup, order: Sequence[str]) -> str:
    """Return a hint at the same value under another type: values of different types are never compared."""
    if not lookup.elsewhere:
        return ""
    same = ", ".join(map(str, lookup.elsewhere))
    types = ", ".join(sorted({lookup.identifier.type, *(other.type for other in lookup.elsewhere)}, key=order.index))
    return (
        f"The same value is also known as {same}, apart from this: values of different types are never compared. If "
        f"they mean one thing, map the column to all of them, such as identity: [{types}]."
    )


def _shared(lookup: Lookup) -> str:
    groups = _groups(lookup.groups)
    return f"{lookup.identifier} is a shared value: {groups} use it, so it joins nobody and belongs to no profile."


def _groups(groups: int) -> str:
    return f"{_count(groups, 'group')} of stronger identifiers"


def limit_words(refused: Refused) -> str:
    """Return the decision that refused a link, or the limit that it would have broken."""
    if refused.decision is not None:
        return refused.decision
    return (
        f"a profile may hold {refused.limit} {refused.limited_type}, together they would have "
        f"{refused.count_near} + {refused.count_far}"
    )


def _chain(explanation: Explanation) -> Iterator[str]:
    if not explanation.steps:
        return
    at = explanation.lookups[0].identifier
    yield str(at)
    for step in explanation.steps:
        match step:
            case Link():
                is_weakest = step == explanation.weakest and len(explanation.steps) > 1
                yield f" │  {evidence(step)}{'   (the weakest link)' if is_weakest else ''}"
                at = step.other(at)
            case Refused():
                yield f" ✕  refused: {limit_words(step)}; {', '.join(step.sources)}{_since(step.first_seen)}"
                at = step.far
            case SharedValue():
                yield f" │  {evidence(step.near)}"
                yield f" ✕  {step.value} is shared by {_groups(step.groups)}"
                yield f" │  {evidence(step.far)}"
                at = step.far.other(step.value)
        yield str(at)


def _tree(explanation: Explanation) -> Iterator[str]:
    """Draw the profile as a tree below the identifier of the query."""
    cluster, start = explanation.clusters[0], explanation.lookups[0].identifier
    root = next(member for member in cluster.members if member.identifier == start)
    rows = [(str(start), _span(root.first_seen, root.last_seen))]
    for lasts, node, link in _walk(cluster, start):
        branch = "".join("   " if last else "│  " for last in lasts[:-1]) + ("└─ " if lasts[-1] else "├─ ")
        rows.append((f"{branch}{node}", evidence(link)))
    width = min(max(len(name) for name, _ in rows), MAX_WIDTH)
    yield from (f"{name:<{width}}  {evidence_text}" for name, evidence_text in rows)


def _walk(cluster: Cluster, start: Identifier) -> Iterator[tuple[tuple[bool, ...], Identifier, Link]]:
    """Yield, for an identifier and its ancestors, whether each is a last child; itself; and the link to its parent."""
    touching: dict[Identifier, list[Link]] = defaultdict(list)
    for link in cluster.tree:
        touching[link.a].append(link)
        touching[link.b].append(link)
    stack: list[tuple[tuple[bool, ...], Identifier, Link | None]] = [((), start, None)]
    while stack:
        lasts, node, came_by = stack.pop()
        if came_by is not None:
            yield lasts, node, came_by
        children = [link for link in touching[node] if link is not came_by]
        for position, link in reversed(list(enumerate(children))):
            stack.append(((*lasts, position == len(children) - 1), link.other(node), link))


def _barrier_line(barrier: Barrier | Link) -> str:
    match barrier:
        case Refused():
            origin = f"{', '.join(barrier.sources)}{_since(barrier.first_seen)}"
            return f"{barrier.near} ✕ {barrier.far}: {limit_words(barrier)}; {origin}"
        case SharedValue():
            return f"{barrier.value}, shared by {_groups(barrier.groups)}"
        case Link():
            return f"{barrier.a} – {barrier.b}: one of them is shared; {evidence(barrier)}"


def evidence(link: Link) -> str:
    """Return sources, records and dates of a link."""
    parts = [
        s.source if s.is_decision else f"{s.source}, {_count(s.count, 'record')}, {_span(s.first_seen, s.last_seen)}"
        for s in link.sources
    ]
    shown = "; ".join(parts[:3]) + (f"; and {len(parts) - 3} more sources" if len(parts) > 3 else "")
    by_heap = link.authoritative and not any(s.is_decision for s in link.sources)
    return f"decided by Heap: {shown}" if by_heap else shown


def _span(first: datetime | None, last: datetime | None) -> str:
    days = [f"{moment:%Y-%m-%d}" for moment in (first, last) if moment is not None]
    return " to ".join(dict.fromkeys(days)) or "no date"


def _since(moment: datetime | None) -> str:
    return f" since {moment:%Y-%m-%d}" if moment is not None else ""


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def as_json(explanation: Explanation) -> str:
    """Return the answer for machines: summary, verdict, asked, profiles, steps, others."""
    content = {
        "summary": summary(explanation),
        "verdict": explanation.outcome,
        "asked": [_lookup(lookup) for lookup in explanation.lookups],
        "profiles": [
            {
                "profile_id": cluster.profile_id,
                "identifiers": [
                    {"identifier": str(m.identifier), "first_seen": _iso(m.first_seen), "last_seen": _iso(m.last_seen),
                     "shared": m.shared}
                    for m in cluster.members
                ],
            }
            for cluster in explanation.clusters
        ],
        "steps": [
            _step(step) | ({"weakest": True} if step is explanation.weakest else {}) for step in explanation.steps
        ],
        "others": [_step(barrier) for barrier in explanation.more_barriers],
    }  # fmt: skip
    return json.dumps(content, ensure_ascii=False, indent=2)


def _lookup(lookup: Lookup) -> dict[str, Any]:
    return {
        "identifier": str(lookup.identifier),
        "known": lookup.in_graph,
        "profile_id": lookup.profile_id,
        "shared": lookup.shared,
        "no_identifier_because": lookup.why_not,
        "similar": list(map(str, lookup.similar)),
        "elsewhere": list(map(str, lookup.elsewhere)),
    }


def _step(step: Barrier | Link) -> dict[str, Any]:
    match step:
        case Link():
            return {
                "kind": "link",
                "a": str(step.a),
                "b": str(step.b),
                "authoritative": step.authoritative,
                "seen": [
                    {"source": s.source, "first_seen": _iso(s.first_seen), "last_seen": _iso(s.last_seen),
                     "count": s.count}
                    for s in step.sources
                ],
            }  # fmt: skip
        case Refused():
            return {
                "kind": "refused",
                "a": str(step.near),
                "b": str(step.far),
                "sources": list(step.sources),
                "first_seen": _iso(step.first_seen),
                "limited_type": step.limited_type,
                "limit": step.limit,
                "counts": [step.count_near, step.count_far],
                "decision": step.decision,
            }
        case SharedValue():
            return {
                "kind": "shared",
                "value": str(step.value),
                "groups": step.groups,
                "stronger_type": step.stronger_type,
                "links": [_step(step.near), _step(step.far)],
            }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None
