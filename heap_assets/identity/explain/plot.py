"""Plots of a what-if and of an audit: bars, and the figures that decide."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from heap_assets.identity.explain.drawing import ALARM, HUES, MUTED, document, element, label, shortened, tip


def row_name(row: dict[str, Any]) -> str:
    """Return what a variant changes, as it was asked for."""
    if not row["value"]:
        return "today"
    mark = " (today)" if row["today"] else ("" if row["exact"] else " ~")
    return f"{row['setting'].removesuffix('.max_per_profile')}={row['value']}{mark}"


ROW, LEFT, BARS, MARGIN = 30.0, 270.0, 460.0, 24.0
COLOURS = {"merged": HUES[0], "split": HUES[3], "overlapping": ALARM, "resized": "#b8c2cc", "removed": "#52606d"}


def plot(frame: pl.DataFrame) -> str:
    """Draw one bar per variant: today's profiles that would change, by how, on one scale."""
    rows = frame.to_dicts()
    widest = max(1, *(sum(row[kind] for kind in COLOURS) for row in rows))
    top = MARGIN + 74
    width = LEFT + BARS + 300
    parts = [
        label(MARGIN, MARGIN + 10, "What would become of today's profiles", font_size=14, font_weight="bold"),
        *_legend(MARGIN + 32),
        label(LEFT + BARS + 90, top - 12, "conflicts", fill=MUTED, text_anchor="end"),
        label(LEFT + BARS + 170, top - 12, "biggest", fill=MUTED, text_anchor="end"),
        label(LEFT + BARS + 270, top - 12, "profiles", fill=MUTED, text_anchor="end"),
    ]
    for number, row in enumerate(rows):
        y = top + number * ROW
        parts.append(
            label(
                LEFT - 12,
                y + 15,
                shortened(row_name(row), 34),
                text_anchor="end",
                font_weight="bold" if number == 0 else "normal",
            )
        )
        parts += _bar(row, y, widest)
        for x, value in ((90, row["conflicts"]), (170, max(row["biggest"], default=0)), (270, row["profiles"])):
            parts.append(label(LEFT + BARS + x, y + 15, f"{value:,}", text_anchor="end"))
    return document(width, top + len(rows) * ROW + MARGIN, "What would become of today's profiles", *parts)


def _bar(row: dict[str, Any], y: float, widest: int) -> list[str]:
    x, parts = LEFT, []
    for kind, colour in COLOURS.items():
        # what is there must be seen, however small its share
        wide = max(row[kind] / widest * (BARS - 60), 2.0) if row[kind] else 0.0
        if wide:
            parts.append(element("rect", tip(f"{row[kind]:,} {kind}"), x=x, y=y, width=wide, height=20, fill=colour))
        x += wide
    changed = sum(row[kind] for kind in COLOURS)
    words = f"{changed:,}" if changed else ("" if row["today"] else "nothing changes")
    return [*parts, label(x + 6, y + 15, words, fill=MUTED)]


def _legend(y: float) -> list[str]:
    parts, x = [], MARGIN
    for kind, colour in COLOURS.items():
        parts += [element("rect", x=x, y=y - 9, width=10, height=10, fill=colour), label(x + 15, y, kind, fill=MUTED)]
        x += 30 + 7 * len(kind)
    return parts


def size_histogram(report: pl.DataFrame) -> str:
    """Draw how many profiles have how many identifiers, and how many are at a limit, from an audit.

    Bars grow with the logarithm: one profile of 500 identifiers must be seen beside a million of five.
    """
    sizes = _metric(report, "profile_size")
    widest = max((math.log10(1 + value) for _, value, _ in sizes), default=1.0) or 1.0
    top, left, bars = MARGIN + 40, 110.0, 300.0
    parts = [label(MARGIN, MARGIN + 10, "Identifiers per profile", font_size=14, font_weight="bold")]
    for number, (bin_, value, share) in enumerate(sizes):
        y, wide = top + number * 24, math.log10(1 + value) / widest * bars
        parts += [
            label(left - 10, y + 13, bin_, text_anchor="end"),
            element("rect", x=left, y=y, width=max(wide, 2.0), height=17, fill=HUES[0]),
            label(left + wide + 8, y + 13, f"{value:,.0f}  ({share:.2%})", fill=MUTED),
        ]
    y = top + len(sizes) * 24 + 30
    for kind, value, share in _metric(report, "profiles_at_limit"):
        words = f"{value:,.0f} profiles hold as many {kind} as they may ({share:.2%} of those with one)"
        parts.append(label(MARGIN, y, words, fill=MUTED))
        y += 20
    return document(640, y + MARGIN - 10, "Identifiers per profile", *parts)


def _metric(report: pl.DataFrame, name: str) -> list[tuple[str, float, float]]:
    rows = report.filter(pl.col("metric") == name).select("subject", "value", pl.col("share").fill_null(0.0))
    return [(subject, value, share) for subject, value, share in rows.iter_rows()]
