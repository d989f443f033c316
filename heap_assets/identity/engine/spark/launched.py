"""The engine as a job elsewhere: orders go out, and what the job has written is held against what it reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import polars as pl

from heap_assets.identity.engine.base import Engine, LinksOfDay, Resolution
from heap_assets.identity.engine.spark.orders import JobOrders, SparkJobError
from heap_assets.identity.engine.spark.results import (
    GRAPH,
    RESULT,
    TABLES,
    fits_one_machine,
    notes_of,
    resolution_of,
    result_files,
    scan_result,
)
from heap_assets.identity.engine.spark.tuning import SparkTuning
from heap_assets.identity.rules import Rules
from heap_assets.identity.schemas import LINKS, as_links
from heap_assets.storage import Store

Launch = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]
"""Runs a job by the values of its orders to its end, and returns its report; None if it said nothing.

Raises SparkJobError if the job failed.
"""

_LINKS: Final = "links/links.parquet"


@dataclass(frozen=True)
class SparkJob:
    """The engine on a Spark of another process, without state of its own; up to `above_links` rows the native engine.

    Attributes
    ----------
    work
        The store of this job alone, below which it is to write; whoever made it removes it, once the tables are stored.
    launch
        See :data:`Launch`.
    graph_folder
        Folder of the timeline's store into which the job writes the graph, so that no single process writes it; None:
        it is written below `work`.
    is_local
        Whether the job starts a Spark of its own on this machine. It cannot open an object store then, so links that
        lie in one are handed to it as a file.
    """

    tuning: SparkTuning
    work: Store
    launch: Launch
    graph_folder: str | None = None
    is_local: bool = False

    def resolve(self, links: pl.LazyFrame, rules: Rules) -> Resolution:
        """Resolve links, see :class:`Engine`."""
        if fits_one_machine(links, self.tuning):
            return _native().resolve(links, rules)
        return self._resolved([self._handed_over(links)], rules)[0]

    def advance(self, store: Store, links: LinksOfDay, rules: Rules) -> tuple[Resolution, dict[str, Any]]:
        """Resolve all links as of the day at once; up to `above_links`, as the native engine does."""
        if fits_one_machine(links.links, self.tuning):
            return _native().advance(store, links, rules)
        if self.is_local and not store.is_local:
            return self._resolved([self._handed_over(links.links)], rules)
        return self._resolved([store.uri(key) for key in links.files], rules, store)

    def _handed_over(self, links: pl.LazyFrame) -> str:
        self.work.sink(_LINKS, as_links(links))
        return self.work.uri(_LINKS)

    def _resolved(
        self, links: Sequence[str], rules: Rules, timeline: Store | None = None
    ) -> tuple[Resolution, dict[str, Any]]:
        if not links:
            links = [self._handed_over(pl.LazyFrame(schema=LINKS))]
        own = timeline.child(self.graph_folder) if timeline and self.graph_folder else None
        orders = JobOrders(
            *(tuple(links), rules, self.tuning, self.work.url, self.work.options, self.is_local),
            graph=own.url if own else None,
            graph_options=own.options if own else {},
        )
        report = self.launch(orders.values())
        if report is None:
            raise SparkJobError(
                "the Spark job ended well without reporting results, so nothing of it was taken: look at its own log"
            )
        result = self.work.child(RESULT)
        _check(report, result, own or result.child(GRAPH), rules)
        resolution = resolution_of(result, report["profiles"], report["identifiers"], own)
        if own:
            files = tuple(f"{self.graph_folder}/{key}" for key in result_files(own, ""))
            resolution = replace(resolution, graph_files=files)
        return resolution, notes_of(report["rounds"])


def _native() -> Engine:
    from heap_assets.identity.engine.native.engine import NativeEngine  # its compiled loops cost a second to load

    return NativeEngine()


def _check(report: Mapping[str, Any], result: Store, graph: Store, rules: Rules) -> None:
    """Raise SparkJobError unless what is stored is what the job reports."""
    if report["digest"] != rules.digest:
        raise SparkJobError("the Spark job resolved by other rules than it was given: its results were not taken")
    for table, schema in TABLES.items():
        store, name = (graph, "") if table == GRAPH else (result, table)
        files = len(result_files(store, name))
        rows = int(scan_result(store, name, schema).select(pl.len()).collect().item())
        if (files, rows) != (report["files"][table], report["rows"][table]):
            raise SparkJobError(
                f"the Spark job reports {report['rows'][table]} rows of {table} in {report['files'][table]} files, and "
                f"{rows} in {files} are in {store.url}: its results were not taken"
            )
