"""Results as bars: a title, a unit and a value for each label; never a value of one person."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape

import polars as pl

from heap_assets.analytics.query import Query

_BARS, _WIDTH, _BUCKETS = 12, 30, 5


@dataclass(frozen=True)
class Chart:
    """Bars with their labels. `unit`: of the values."""

    title: str
    unit: str
    bars: Mapping[str, float]

    def markdown(self) -> str:
        """Return the bars as a table that Dagster's UI shows."""
        most = max(self.bars.values(), default=0.0) or 1.0
        lines = [
            f"| {escape(label).replace('|', '&#124;')} | {value:,.6g} | {'█' * max(round(value / most * _WIDTH), 0)} |"
            for label, value in self.bars.items()
        ]
        return "\n".join([f"| {self.title} | {self.unit} | |", "|---|---:|---|", *lines])


def chart_of(query: Query, frame: pl.DataFrame) -> Chart:
    """Return the bars of a query's result."""
    draw = _CHARTS[query.kind]
    unit, bars = draw(frame)
    return Chart(
        query.kind, unit, {str(label or "none"): float(value) for label, value in bars.items() if value is not None}
    )


def _summed(label: str, value: str) -> Callable[[pl.DataFrame], tuple[str, dict[str, float]]]:
    def draw(frame: pl.DataFrame) -> tuple[str, dict[str, float]]:
        totals = frame.group_by(label, maintain_order=True).agg(pl.col(value).sum())
        largest = totals.sort(value, descending=True, maintain_order=True).head(_BARS)
        return value, dict(largest.select(label, value).rows())

    return draw


def _plain(label: str, value: str) -> Callable[[pl.DataFrame], tuple[str, dict[str, float]]]:
    return lambda frame: (value, dict(frame.head(_BARS).select(label, value).rows()))


def _funnel(frame: pl.DataFrame) -> tuple[str, dict[str, float]]:
    steps = frame.group_by("step", "event").agg(pl.col("reached").sum()).sort("step")
    return "reached", {f"{step}. {event}": reached for step, event, reached in steps.rows()}


def _retention(frame: pl.DataFrame) -> tuple[str, dict[str, float]]:
    ages = frame.group_by("age").agg(pl.col("percent").mean()).sort("age").head(_BARS)
    return "percent", {f"period {age}": percent for age, percent in ages.rows()}


def _histogram(value: str) -> Callable[[pl.DataFrame], tuple[str, dict[str, float]]]:
    def draw(frame: pl.DataFrame) -> tuple[str, dict[str, float]]:
        if not frame.height:
            return "rows", {}
        top = float(frame[value].max() or 0)  # type: ignore[arg-type]
        width = max(-int(-top // _BUCKETS), 1)
        buckets = frame.group_by((pl.col(value) // width).cast(pl.Int64).alias("bucket")).len().sort("bucket")
        return "rows", {f"{value} {b * width} to {(b + 1) * width - 1}": count for b, count in buckets.rows()}

    return draw


def _recommended(frame: pl.DataFrame) -> tuple[str, dict[str, float]]:
    counts = (
        frame.filter(list="recommended", place=1)
        .group_by("event_type")
        .len()
        .sort("len", "event_type", descending=True)
    )
    return "people", dict(counts.head(_BARS).rows())


_CHARTS: Mapping[str, Callable[[pl.DataFrame], tuple[str, dict[str, float]]]] = {
    "adoption": _summed("event_type", "users"),
    "funnel": _funnel,
    "paths": _plain("path", "frequency"),
    "engagement": _histogram("score"),
    "lifecycle": _summed("to_stage", "people"),
    "retention": _retention,
    "recommendations": _recommended,
    "attribution": _summed("channel", "linear"),
    "experiment": _plain("variant", "percent"),
    "accounts": _histogram("score"),
    "features": _histogram("active_days"),
}
