"""Inline SVG that needs no script: lines over days, bars, strips of days. Colours come from the page's style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT = 560, 180
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 22
_CELL, _GAP = 10, 2
_WORD = {"pass": "passed", "warn": "warned", "error": "failed"}


def line_chart(
    series: Mapping[str, Mapping[str, float]], days: Sequence[str], label: str, *, share: bool = False
) -> Markup:
    """Draw one line per series over days; a day without a value is a gap in the line.

    `label` is the text for screen readers; with `share` values are fractions of one, shown as per cent.
    """
    top = _nice_top(max((value for line in series.values() for value in line.values()), default=0.0), share=share)
    parts = [_axis(top, days, share=share)]
    for index, (name, line) in enumerate(series.items()):
        parts += _line(name, line, days, top, index % 6, share=share)
    return _svg(WIDTH, HEIGHT, label, parts) + _legend(list(series))


def bar_chart(bars: Mapping[str, float], label: str, unit: str) -> Markup:
    """Draw horizontal bars with their values written beside them."""
    most = max(bars.values(), default=0.0) or 1.0
    rows = []
    for index, (name, value) in enumerate(bars.items()):
        y = index * 24
        width = max(value / most * 330, 1.5 if value else 0)
        rows.append(
            f'<text class="tick" x="118" y="{y + 15}" text-anchor="end">{escape(name)}</text>'
            f'<rect class="s0" x="126" y="{y + 4}" width="{width:.1f}" height="14" rx="2">'
            f"<title>{escape(name)}: {number(value)} {escape(unit)}</title></rect>"
            f'<text class="value" x="{132 + width:.1f}" y="{y + 15}">{number(value)}</text>'
        )
    return _svg(WIDTH, max(len(bars) * 24, 24), label, rows)


def strip(days: Sequence[str], outcomes: Mapping[str, str], label: str) -> Markup:
    """Draw one cell a day: passed, warned, failed, or not judged; the height shows the same as the colour."""
    cells = []
    for index, day in enumerate(days):
        state = outcomes.get(day, "none")
        height = {"pass": 6, "warn": 10, "error": 14}.get(state, 2)
        cells.append(
            f'<rect class="{state}" x="{index * (_CELL + _GAP)}" y="{14 - height}" width="{_CELL}" height="{height}" '
            f'rx="1"><title>{day}: {_WORD.get(state, "not judged")}</title></rect>'
        )
    return _svg(len(days) * (_CELL + _GAP), 14, label, cells, css="strip")


def sparkline(line: Mapping[str, float], days: Sequence[str], label: str) -> Markup:
    """Draw one small line without axes."""
    points_of_days = [(index, line[day]) for index, day in enumerate(days) if day in line]
    if not points_of_days:
        return Markup()
    most = max(value for _, value in points_of_days) or 1.0
    step = 150 / max(len(days) - 1, 1)
    points = " ".join(f"{index * step + 3:.1f},{30 - value / most * 26:.1f}" for index, value in points_of_days)
    last = points.split(" ")[-1].split(",")
    dot = f'<circle class="s0" cx="{last[0]}" cy="{last[1]}" r="2.5"/>'
    return _svg(158, 34, label, [f'<polyline class="l0" points="{points}"/>', dot], css="spark")


def number(value: float) -> str:
    """Format a number for reading: 12, 1,234, 1.2 M, 0.034."""
    if abs(value) >= 1_000_000:
        return f"{value / 1_000_000:,.1f} M"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.2f}" if abs(value) >= 1 else f"{value:.3g}"


def _line(
    name: str, line: Mapping[str, float], days: Sequence[str], top: float, colour: int, *, share: bool
) -> list[str]:
    runs: list[list[tuple[float, float]]] = [[]]
    dots = []
    for index, day in enumerate(days):
        if day not in line:
            runs.append([])
            continue
        x, y = _x(index, len(days)), _y(line[day], top)
        runs[-1].append((x, y))
        text = f"{line[day]:.1%}" if share else number(line[day])
        dots.append(
            f'<circle class="s{colour}" cx="{x:.1f}" cy="{y:.1f}" r="2.2">'
            f"<title>{escape(name)}, {day}: {text}</title></circle>"
        )
    drawn = [
        f'<polyline class="l{colour}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in run)}"/>'
        for run in runs
        if len(run) > 1
    ]
    return drawn + dots


def _axis(top: float, days: Sequence[str], *, share: bool) -> str:
    lines = []
    for part in (0.0, 0.5, 1.0):
        y = _y(top * part, top)
        text = f"{top * part:.0%}" if share else number(top * part)
        lines.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    for index, anchor in ((0, "start"), (len(days) - 1, "end")):
        lines.append(
            f'<text class="tick" x="{_x(index, len(days)):.1f}" y="{HEIGHT - 5}" '
            f'text-anchor="{anchor}">{days[index]}</text>'
        )
    return "".join(lines)


def _legend(names: Sequence[str]) -> Markup:
    if len(names) < 2:
        return Markup()
    items = "".join(f'<li><i class="s{index % 6}"></i>{escape(name)}</li>' for index, name in enumerate(names))
    return Markup(f'<ul class="legend">{items}</ul>')  # noqa: S704  names have been escaped


def _nice_top(most: float, *, share: bool) -> float:
    if share:
        return 1.0 if most > 0.5 else (0.5 if most > 0.1 else 0.1)
    step = 1.0
    while step * 10 < most:
        step *= 10
    return next((step * factor for factor in (1, 2, 4, 6, 8, 10) if step * factor >= most), step * 10)


def _x(index: int, count: int) -> float:
    return _LEFT + index * (WIDTH - _LEFT - _RIGHT) / max(count - 1, 1)


def _y(value: float, top: float) -> float:
    return _TOP + (1 - value / top) * (HEIGHT - _TOP - _BOTTOM)


def _svg(width: int, height: int, label: str, parts: Sequence[str], css: str = "chart") -> Markup:
    return Markup(  # noqa: S704  text in it has been escaped
        f'<svg class="{css}" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )
