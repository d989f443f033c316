"""An explanation in words and as JSON."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from heap_assets.identity.explain.blockers import Barrier, Refused, SharedValue
from heap_assets.identity.explain.cluster import Cluster, Identifier, Link
from heap_assets.identity.explain.query import Found, Verdict
from heap_assets.identity.normalise import IN_WORDS

if TYPE_CHECKING:
    from heap_assets.identity.explain.explain import Explanation

MAX_LINES = 60
"""Lines of a chain or tree in the text; JSON has all of them."""

MAX_WIDTH = 70
"""Characters after which evidence stands where it stands, not in a column."""


def as_text(answer: Explanation) -> str:
    """Return the answer for people."""
    lines = [summary(answer), *(f"  {line}" for line in _profiles(answer))]
    body = list(_tree(answer) if answer.verdict is Verdict.PROFILE else _chain(answer))
    if body:
        shown = body[:MAX_LINES]
        more = [f"… {len(body) - MAX_LINES} more lines: ask for JSON"] if len(body) > MAX_LINES else []
        lines += ["", *(f"  {line}".rstrip() for line in (*shown, *more))]
    hints = [hint for found in answer.asked if (hint := _elsewhere(found, answer.types))]
    if hints:
        lines += ["", *hints]
    if answer.others:
        title = "Kept apart from others by" if answer.verdict is Verdict.PROFILE else "Also between the two"
        more = [f"… and {len(answer.others) - 10} more"] if len(answer.others) > 10 else []
        lines += ["", f"{title}:", *(f"  {_aside(other)}" for other in answer.others[:10]), *(f"  {m}" for m in more)]
    return "\n".join(lines)


def summary(answer: Explanation) -> str:
    """Return the answer in a sentence or two."""
    names = " and ".join(str(found.identifier) for found in answer.asked)
    match answer.verdict:
        case Verdict.BLOCKED:
            return " ".join(_blocked(found) for found in answer.asked if found.why_not is not None)
        case Verdict.UNKNOWN:
            return " ".join(_unknown(found) for found in answer.asked if not found.known)
        case Verdict.PROFILE:
            size = len(answer.clusters[0].members) - 1
            return f"{names} is one of {size + 1} identifiers of a person." if size else f"{names} stands alone."
        case Verdict.JOINED if not answer.steps:
            return f"{names} are the same identifier."
        case Verdict.JOINED:
            return f"{names} are one person: {_count(len(answer.steps), 'link')} joined them."
        case Verdict.LIMIT:
            refused = next(step for step in answer.steps if isinstance(step, Refused))
            return f"{names} are two people: {limit_words(refused)}."
        case Verdict.SHARED if not answer.steps:
            return " ".join(_shared(found) for found in answer.asked if found.shared)
        case Verdict.SHARED:
            value = next(step for step in answer.steps if isinstance(step, SharedValue))
            return (
                f"{names} are two people: they only meet on {value.value}, which joins nobody because "
                f"{_groups(value.groups)} share it."
            )
    return (
        f"{names} are two people: no link, refused link or shared value connects them "
        f"(looked {_count(answer.hops, 'profile')} away)."
    )


def _blocked(found: Found) -> str:
    why = IN_WORDS.get(found.why_not, found.why_not)
    return f"{found.identifier} is no identifier: {why}. Rows that hold it are not linked by it."


def _unknown(found: Found) -> str:
    similar = ", ".join(map(str, found.similar))
    hint = f" Similar ones were: {similar}." if similar else ""
    return f"{found.identifier} was never seen in any table up to this day.{hint}"


def _elsewhere(found: Found, order: Sequence[str]) -> str:
    """Hint at the same value under another type, which nothing has compared with it."""
    if not found.elsewhere:
        return ""
    others = ", ".join(map(str, found.elsewhere))
    types = ", ".join(sorted({found.identifier.type, *(other.type for other in found.elsewhere)}, key=order.index))
    return (
        f"The same value is also known as {others}, apart from this: values of different types are never compared. If "
        f"they mean one thing, map the column to all of them, such as identity: [{types}]."
    )


def _shared(found: Found) -> str:
    groups = _groups(found.groups)
    return f"{found.identifier} is a shared value: {groups} use it, so it joins nobody and belongs to no profile."


def _groups(groups: int) -> str:
    return f"{_count(groups, 'group')} of stronger identifiers"


def limit_words(refused: Refused) -> str:
    """Return the limit that a link would have broken."""
    return (
        f"a profile may hold {refused.limit} {refused.limited_type}, together they would have "
        f"{refused.count_near} + {refused.count_far}"
    )


def _profiles(answer: Explanation) -> Iterator[str]:
    for cluster in answer.clusters:
        yield f"profile {cluster.profile_id}, {_count(len(cluster.members), 'identifier')}"


def _chain(answer: Explanation) -> Iterator[str]:
    if not answer.steps:
        return
    at = answer.asked[0].identifier
    yield str(at)
    for step in answer.steps:
        match step:
            case Link():
                yield f" │  {evidence(step)}{'   (the weakest link)' if _is_weakest(answer, step) else ''}"
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


def _is_weakest(answer: Explanation, step: Link) -> bool:
    return step == answer.weakest and len(answer.steps) > 1


def _tree(answer: Explanation) -> Iterator[str]:
    """Draw the profile as a tree that hangs from the identifier asked about."""
    cluster, start = answer.clusters[0], answer.asked[0].identifier
    seen = {member.identifier: member for member in cluster.members}
    rows = [(str(start), _span(seen[start].first_seen, seen[start].last_seen))]
    for lasts, node, link in _walk(cluster, start):
        branch = "".join("   " if last else "│  " for last in lasts[:-1]) + ("└─ " if lasts[-1] else "├─ ")
        rows.append((f"{branch}{node}", evidence(link)))
    width = min(max(len(name) for name, _ in rows), MAX_WIDTH)
    yield from (f"{name:<{width}}  {words}" for name, words in rows)


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


def _aside(other: Barrier | Link) -> str:
    match other:
        case Refused():
            origin = f"{', '.join(other.sources)}{_since(other.first_seen)}"
            return f"{other.near} ✕ {other.far}: {limit_words(other)}; {origin}"
        case SharedValue():
            return f"{other.value}, shared by {_groups(other.groups)}"
        case Link():
            return f"{other.a} – {other.b}: one of them is shared; {evidence(other)}"


def evidence(link: Link) -> str:
    """Return sources, records and dates of a link."""
    parts = [
        f"{seen.source}, {_count(seen.count, 'record')}, {_span(seen.first_seen, seen.last_seen)}" for seen in link.seen
    ]
    shown = "; ".join(parts[:3]) + (f"; and {len(parts) - 3} more sources" if len(parts) > 3 else "")
    return f"decided by Heap: {shown}" if link.authoritative else shown


def _span(first: datetime | None, last: datetime | None) -> str:
    days = [f"{moment:%Y-%m-%d}" for moment in (first, last) if moment is not None]
    return " to ".join(dict.fromkeys(days)) or "no date"


def _since(moment: datetime | None) -> str:
    return f" since {moment:%Y-%m-%d}" if moment is not None else ""


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def as_json(answer: Explanation) -> str:
    """Return the answer for machines: summary, verdict, asked, profiles, steps, others."""
    content = {
        "summary": summary(answer),
        "verdict": answer.verdict,
        "asked": [_found(found) for found in answer.asked],
        "profiles": [
            {
                "profile_id": cluster.profile_id,
                "identifiers": [
                    {"identifier": str(m.identifier), "first_seen": _iso(m.first_seen), "last_seen": _iso(m.last_seen),
                     "shared": m.shared}
                    for m in cluster.members
                ],
            }
            for cluster in answer.clusters
        ],
        "steps": [_step(step) | ({"weakest": True} if step is answer.weakest else {}) for step in answer.steps],
        "others": [_step(other) for other in answer.others],
    }  # fmt: skip
    return json.dumps(content, ensure_ascii=False, indent=2)


def _found(found: Found) -> dict[str, Any]:
    return {
        "identifier": str(found.identifier),
        "known": found.known,
        "profile_id": found.profile_id,
        "shared": found.shared,
        "no_identifier_because": found.why_not,
        "similar": [str(other) for other in found.similar],
        "elsewhere": [str(other) for other in found.elsewhere],
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
                    {
                        "source": s.source,
                        "first_seen": _iso(s.first_seen),
                        "last_seen": _iso(s.last_seen),
                        "count": s.count,
                    }
                    for s in step.seen
                ],
            }
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
