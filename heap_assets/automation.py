"""When assets run by themselves: one trigger per asset (design.md, Flow)."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import dagster as dg

from heap_assets.checks.partition_check import asset_key
from heap_assets.names import GRAPH
from heap_assets.platform import Platform
from heap_assets.steps.readiness import graph_is_due

Condition = dg.AutomationCondition[Any]

_NEWEST = timedelta(days=2)
"""The running day and the newest complete one: a dump of the night after D carries D."""

TOUCHED_DAYS: Condition = (
    dg.AutomationCondition.any_deps_updated() & ~dg.AutomationCondition.in_progress()
).with_label("a dump touched this day")
"""Every day that a dump touched, however old: the stock `eager()` sees the newest partition only."""

NEWEST_TOUCHED_DAY: Condition = (
    dg.AutomationCondition.in_latest_time_window(_NEWEST)
    & dg.AutomationCondition.any_deps_updated()
    & ~dg.AutomationCondition.in_progress()
).with_label("a dump touched the newest day")

FOLLOWS_GRAPH: Condition = (
    dg.AutomationCondition.any_deps_updated()
    # users and warehouse tables of a day are there before its graph is
    & ~dg.AutomationCondition.any_deps_missing().allow(dg.AssetSelection.assets(asset_key(GRAPH)))
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
).with_label("its graph was resolved, or a table that gives traits was read")


PUBLISHED_DAYS: Condition = (
    dg.AutomationCondition.any_deps_updated()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
).with_label("what is published was built anew")
"""Every day, however old, whose input was written; a write that changed nothing is found out by its version."""

PUBLISHED_VIEWS: Condition = (
    dg.AutomationCondition.any_deps_updated()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
).with_label("a table was published")


class InputsSettled(dg.AutomationCondition[dg.AssetKey]):
    """True for the newest day when every touched day is rebuilt and its inputs are not those of its graph.

    Dagster's own conditions see one partition at a time; a graph of the newest day is a function of all days, and
    must not be resolved while a resync is still rebuilding some of them.
    """

    def __init__(self, platform: Callable[[], Platform]) -> None:
        self._platform = platform

    @property
    def name(self) -> str:
        """What the UI calls it."""
        return "its inputs are settled and new"

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        """Judge from the lake."""
        view = context.asset_graph_view
        due = graph_is_due(self._platform())
        partitions_def = view.asset_graph.get(context.key).partitions_def
        if due is None or partitions_def is None:
            return dg.AutomationResult(context, true_subset=view.get_empty_subset(key=context.key))
        subset = view.get_subset_from_partition_keys(context.key, partitions_def, {due.isoformat()})
        return dg.AutomationResult(context, true_subset=subset)


def settled_graph(platform: Callable[[], Platform]) -> Condition:
    """Return the condition of the identity group."""
    return InputsSettled(platform) & ~dg.AutomationCondition.in_progress()
