"""A picture of the profiles that a question touches: one band per profile, its tree from left to right."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from heap_assets.identity.explain.blockers import Barrier, Refused, SharedValue
from heap_assets.identity.explain.cluster import Cluster, Identifier, Link
from heap_assets.identity.explain.drawing import (
    ALARM,
    AMBER,
    HUES,
    INK,
    MUTED,
    document,
    element,
    label,
    shortened,
    tip,
)
from heap_assets.identity.explain.query import Verdict
from heap_assets.identity.explain.text import evidence, limit_words, summary

if TYPE_CHECKING:
    from heap_assets.identity.explain.explain import Explanation

MAX_NODES = 60
"""Identifiers drawn per profile: the chain, then what hangs nearest to it."""

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 212.0, 34.0, 56.0, 14.0, 24.0
BAND_HEAD, BAND_GAP = 30.0, 56.0
LETTERS = 25


@dataclass(frozen=True)
class _Box:
    """Where an identifier stands: its left upper corner."""

    x: float
    y: float

    @property
    def middle(self) -> float:
        return self.y + HEIGHT / 2

    @property
    def centre(self) -> float:
        return self.x + WIDTH / 2


@dataclass
class _Sheet:
    """What has been placed so far."""

    boxes: dict[Identifier, _Box] = field(default_factory=dict)
    bands: list[tuple[Cluster, float, float, int]] = field(default_factory=list)
    y: float = MARGIN + 48
    width: float = 640


def picture(answer: Explanation) -> str:
    """Return the SVG of an answer: thick links are the chain, red is refused, amber is shared."""
    asks_one = answer.verdict is Verdict.PROFILE
    steps = () if asks_one else answer.steps
    chain = [link for step in steps for link in _links(step)]
    barriers = [step for step in steps if not isinstance(step, Link)]
    sheet = _Sheet()
    for number, cluster in enumerate(answer.clusters):
        _place(
            cluster, _start(answer, cluster, number, barriers), {e for link in chain for e in (link.a, link.b)}, sheet
        )
        crossed = barriers[number] if number < len(barriers) else None
        if isinstance(crossed, SharedValue) and crossed.value not in sheet.boxes:
            sheet.boxes[crossed.value] = _Box(MARGIN + 14, sheet.y)
            sheet.y += HEIGHT + BAND_GAP
    others = [] if asks_one else [other for other in answer.others if isinstance(other, Refused)]
    return document(
        sheet.width,
        sheet.y - BAND_GAP + MARGIN,
        summary(answer),
        *_heading(answer, sheet.width),
        *_frames(sheet),
        *_links_drawn(answer, chain, sheet),
        *_barriers_drawn([*barriers, *others], sheet),
        *_nodes_drawn(answer, barriers, sheet),
    )


def _links(step: Link | Barrier) -> tuple[Link, ...]:
    if isinstance(step, SharedValue):
        return (step.near, step.far)
    return (step,) if isinstance(step, Link) else ()


def _start(answer: Explanation, cluster: Cluster, number: int, barriers: Sequence[Barrier]) -> Identifier:
    """Return the identifier at which the chain enters a profile."""
    members = {member.identifier for member in cluster.members}
    if 0 < number <= len(barriers):
        crossed = barriers[number - 1]
        entry = crossed.far.other(crossed.value) if isinstance(crossed, SharedValue) else crossed.far
        if entry in members:
            return entry
    asked = [found.identifier for found in answer.asked if found.identifier in members]
    return asked[0] if asked else cluster.members[0].identifier


def _place(cluster: Cluster, start: Identifier, chain: set[Identifier], sheet: _Sheet) -> None:
    """Hang the tree of a profile from `start`: one column per step, the chain lowest so that it can leave downwards."""
    children: dict[Identifier, list[Identifier]] = defaultdict(list)
    for link in cluster.tree:
        children[link.a].append(link.b)
        children[link.b].append(link.a)
    drawn = _nearest(children, start, chain, [member.identifier for member in cluster.members])
    top, row = sheet.y + BAND_HEAD, 0

    def hang(node: Identifier, parent: Identifier | None, depth: int) -> None:
        nonlocal row
        sheet.boxes[node] = _Box(MARGIN + 14 + depth * (WIDTH + GAP_X), top + row * (HEIGHT + GAP_Y))
        sheet.width = max(sheet.width, sheet.boxes[node].x + WIDTH + MARGIN + 14)
        below = sorted(
            (child for child in children[node] if child != parent and child in drawn), key=chain.__contains__
        )
        for position, child in enumerate(below):
            row += position > 0
            hang(child, node, depth + 1)

    for root in [start, *(node for node in drawn if node != start)]:
        if root not in sheet.boxes:
            row += root != start
            hang(root, None, 0)
    height = BAND_HEAD + (row + 1) * (HEIGHT + GAP_Y)
    sheet.bands.append((cluster, sheet.y, height, len(drawn)))
    sheet.y += height + BAND_GAP


def _nearest(
    children: dict[Identifier, list[Identifier]], start: Identifier, chain: set[Identifier], members: list[Identifier]
) -> dict[Identifier, None]:
    """Return what is drawn: the chain through this profile, then outwards along the tree, then what no link joins."""
    found = dict.fromkeys([start, *(node for node in members if node in chain)])
    queue = list(found)
    while queue and len(found) < MAX_NODES:
        for node in children[queue.pop(0)]:
            if node not in found and len(found) < MAX_NODES:
                found[node] = None
                queue.append(node)
    return found


def _frames(sheet: _Sheet) -> Iterator[str]:
    for cluster, y, height, drawn in sheet.bands:
        size = len(cluster.members)
        more = f", {size - drawn:,} not drawn" if size > drawn else ""
        title = f"profile {cluster.profile_id} · {size:,} identifier{'s' if size > 1 else ''}{more}"
        wide = sheet.width - 2 * MARGIN
        yield element("rect", x=MARGIN, y=y, width=wide, height=height, rx=10, fill="#f5f7fa", stroke="#d9e0e7")
        yield label(sheet.width - MARGIN - 14, y + 19, title, fill=MUTED, font_size=11, text_anchor="end")


def _links_drawn(answer: Explanation, chain: list[Link], sheet: _Sheet) -> Iterator[str]:
    boxes = sheet.boxes
    for cluster, *_ in sheet.bands:
        tree = set(cluster.tree)
        for link in cluster.links:
            if link.a in boxes and link.b in boxes and link not in chain:
                a, b = boxes[link.a], boxes[link.b]
                if link in tree:
                    yield _line(_sideways(a, b), evidence(link), "#7b8794", 1.4)
                else:
                    yield _line(_below(a, b), evidence(link), "#9aa5b1", 1, stroke_dasharray="2 4")
    for link in chain:
        if link.a in boxes and link.b in boxes and link in {link for c in answer.clusters for link in c.tree}:
            yield _line(_sideways(boxes[link.a], boxes[link.b]), evidence(link), INK, 2.8)


def _barriers_drawn(barriers: Sequence[Barrier], sheet: _Sheet) -> Iterator[str]:
    boxes = sheet.boxes
    for crossed in barriers:
        if isinstance(crossed, SharedValue):
            for link in (crossed.near, crossed.far):
                ends = sorted((boxes[link.a], boxes[link.b]), key=lambda box: box.y)
                yield _line(_down(*ends), evidence(link), AMBER, 2.6, stroke_dasharray="6 4")
        elif crossed.near in boxes and crossed.far in boxes:
            a, b = sorted((boxes[crossed.near], boxes[crossed.far]), key=lambda box: box.y)
            yield _line(_down(a, b), f"refused: {limit_words(crossed)}", ALARM, 2.4, stroke_dasharray="7 5")
            x, y = (a.centre + b.centre) / 2, (a.y + HEIGHT + b.y) / 2 + 7
            yield label(x, y, "✕", fill=ALARM, font_size=20, font_weight="bold", text_anchor="middle")
            yield label(x + 16, y + 12, limit_words(crossed), fill=ALARM, font_size=11)


def _sideways(a: _Box, b: _Box) -> str:
    """From the right side of the left box to the left side of the right one."""
    if a.x > b.x:
        a, b = b, a
    half = (a.x + WIDTH + b.x) / 2
    return _curve((a.x + WIDTH, a.middle), (half, a.middle), (half, b.middle), (b.x, b.middle))


def _below(a: _Box, b: _Box) -> str:
    """A bow under two boxes."""
    deep = max(a.y, b.y) + HEIGHT + 12
    return _curve((a.centre, a.y + HEIGHT), (a.centre, deep), (b.centre, deep), (b.centre, b.y + HEIGHT))


def _down(a: _Box, b: _Box) -> str:
    """From the foot of the upper box to the head of the lower one."""
    half = (a.y + HEIGHT + b.y) / 2
    return _curve((a.centre, a.y + HEIGHT), (a.centre, half), (b.centre, half), (b.centre, b.y))


def _curve(start: tuple[float, float], *others: tuple[float, float]) -> str:
    return f"M{start[0]:.0f} {start[1]:.0f}C" + " ".join(f"{x:.0f} {y:.0f}" for x, y in others)


def _line(way: str, words: str, colour: str, thickness: float, **extra: str) -> str:
    return element("path", tip(words), d=way, fill="none", stroke=colour, stroke_width=thickness, **extra)


def _nodes_drawn(answer: Explanation, barriers: Sequence[Barrier], sheet: _Sheet) -> Iterator[str]:
    shared = {crossed.value for crossed in barriers if isinstance(crossed, SharedValue)}
    shared |= {member.identifier for cluster in answer.clusters for member in cluster.members if member.shared}
    asked = {found.identifier for found in answer.asked}
    for node, box in sheet.boxes.items():
        colour = AMBER if node in shared else HUES[answer.types.index(node.type) % len(HUES)]
        dashes = {"stroke_dasharray": "5 3"} if node in shared else {}
        outline = {"stroke": colour, "stroke_width": 3 if node in asked else 1.4, **dashes}
        words = shortened(node.value, LETTERS)
        yield element(
            "g",
            tip(str(node)),
            element("rect", x=box.x, y=box.y, width=WIDTH, height=HEIGHT, rx=6, fill="#ffffff", **outline),
            label(box.x + 9, box.y + 13, f"{node.type}{' · shared' * (node in shared)}", fill=colour, font_size=10),
            label(box.x + 9, box.y + 27, words, font_weight="bold" if node in asked else "normal"),
        )


def _heading(answer: Explanation, width: float) -> list[str]:
    words = shortened(summary(answer), int((width - 2 * MARGIN) / 8.6))
    legend = (
        "thick: the chain · thin: other links · dotted: links that joined nothing new · red: refused · amber: shared"
    )
    return [
        label(MARGIN, MARGIN + 10, words, font_size=14, font_weight="bold"),
        label(MARGIN, MARGIN + 30, legend, fill=MUTED, font_size=11),
    ]
