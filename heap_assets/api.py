"""A deployment as notebooks and scripts use it: `from heap_assets import Project`. Reads the lake, writes nothing."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Self

import polars as pl

from heap_assets import project as deployment
from heap_assets.activation import SyncReport
from heap_assets.errors import HeapAssetsError, MissingInputError, SettingsError, no_such
from heap_assets.identity import Explanation, IdentifierRule, Resolution, Rules
from heap_assets.identity import explain as explain_identifiers
from heap_assets.identity import resolve as resolve_links
from heap_assets.pipelines import delivery
from heap_assets.pipelines.analytics import query_of, result_of
from heap_assets.pipelines.readiness import identity_tables, newest_graph_day
from heap_assets.pipelines.status import shown_assets
from heap_assets.pipelines.sync_gate import newest_day
from heap_assets.storage import LakeSql
from heap_assets.tables import PROFILES, is_sync

__all__ = [
    "Explanation",
    "HeapAssetsError",
    "IdentifierRule",
    "MissingInputError",
    "Project",
    "Resolution",
    "Rules",
    "SettingsError",
    "SyncPlan",
    "Table",
    "resolve",
]
Day = date | str
"""A day, or its text: `2026-11-20`."""


@dataclass(frozen=True)
class Table:
    """A table of the lake, by day.

    In an event table (`heap/pageviews`) a day has the rows that happened on it, in UTC; in a snapshot table
    (`heap/users`, `warehouse/contacts`, `profiles`) it has all rows as they stood at its end.

    >>> from heap_assets import Project
    >>> table = Project.open("heap_assets.yaml").table("heap/pageviews")
    >>> table.days
    [datetime.date(2026, 11, 19), datetime.date(2026, 11, 20)]
    >>> table.day("2026-11-20").select("event_id", "user_id", "path").head(1).collect().rows()
    [(7399401, 1, '/')]
    >>> table.between("2026-11-01", "2026-11-20").collect().height
    6
    """

    project: deployment.Project
    name: str

    @property
    def days(self) -> list[date]:
        """The days that are built, oldest first."""
        return [date.fromisoformat(day) for day in self.project.lake.partitions(self.name)]

    def day(self, day: Day) -> pl.LazyFrame:
        """Return the rows of a day.

        Raises
        ------
        MissingInputError
            If the day is not built: that is not a day without rows.
        """
        return self.project.lake.scan(self.name, str(day))

    def between(self, first: Day, last: Day) -> pl.LazyFrame:
        """Return the rows of all days from `first` to `last`, both included, that are built, as one frame.

        Raises
        ------
        MissingInputError
            If none of them is built.
        """
        days = [str(day) for day in self.days if str(first) <= str(day) <= str(last)]
        if not days:
            raise MissingInputError(f"{self.name} has no day from {first} to {last}: materialize it first")
        return self.project.lake.scan(self.name, days)

    def newest(self) -> pl.LazyFrame:
        """Return the rows of the newest day that is built.

        Raises
        ------
        MissingInputError
            If no day is built.
        """
        days = self.days
        if not days:
            raise MissingInputError(f"{self.name} has not been built yet: materialize it first")
        return self.day(days[-1])


@dataclass(frozen=True)
class SyncPlan:
    """What a sync would send of a day; nothing was sent or written.

    >>> from heap_assets import Project
    >>> plan = Project.open("heap_assets.yaml").plan("plans_to_heap", "2026-11-20")
    >>> plan.day, plan.report.planned, plan.report.unchanged
    (datetime.date(2026, 11, 20), 3, 0)
    >>> plan.rows.columns
    ['key_hash', 'op', 'fields']

    Attributes
    ----------
    day
        The day of the lake that would be sent.
    report
        Counts of rows: planned, added, changed, unchanged, held, invalid; `reason`, if the gate is shut.
    rows
        One row per key that would be sent: its keyed hash, and the names of the fields; no values.
    """

    day: date
    report: SyncReport
    rows: pl.DataFrame


@dataclass(frozen=True)
class Project(deployment.Project):
    """A deployment: its settings, catalogue and lake, opened once.

    >>> from heap_assets import Project
    >>> project = Project.open("heap_assets.yaml")
    >>> project.table("warehouse/contacts").newest().select("contact_id", "plan").head(2).collect().rows()
    [('c-ann', 'pro'), ('c-bob', 'free')]
    >>> print(project.explain("email:ann@x.example", "heap_user_id:900").text())  # doctest: +ELLIPSIS
    email:ann@x.example and heap_user_id:900 are one person: 2 links joined them...
    >>> project.audience("pro_plan").select("heap_identity", "plan").sort("heap_identity").collect().rows()
    [(None, 'pro'), ('ann@x.example', 'pro'), ('cat@x.example', 'pro')]
    >>> project.plan("plans_to_heap").report.planned
    3
    """

    @classmethod
    def open(cls, settings: Path | str | None = None) -> Self:
        """Open the deployment of a settings file; needs no network unless the lake is remote.

        Parameters
        ----------
        settings
            Path of heap_assets.yaml; by default `$HEAP_ASSETS_SETTINGS`, else heap_assets.yaml of the current folder.

        Raises
        ------
        SettingsError
            There is no such file, or one message naming the key, its value and what was expected.
        """
        opened = deployment.open_project(file=None if settings is None else Path(settings).absolute())
        return cls(**{each.name: getattr(opened, each.name) for each in fields(opened)})

    @property
    def tables(self) -> list[str]:
        """The tables of the deployment, built or not, in the order of the pipeline."""
        return [asset for asset in shown_assets(self) if not is_sync(asset)]

    def table(self, name: str) -> Table:
        """Return a table by its name in the lake: `heap/pageviews`, `warehouse/contacts`, `identity/graph`, `profiles`.

        Raises
        ------
        SettingsError
            If the settings and the catalogue have no such table.
        """
        if name not in self.tables:
            raise no_such("table", name, self.tables)
        return Table(self, name)

    def sql(self, statement: str) -> pl.DataFrame:
        """Answer one SELECT by DuckDB over the views that `heap-assets sql` has: `heap.pageviews`, `main.profiles`.

        >>> Project.open("heap_assets.yaml").sql("SELECT count(*) AS rows FROM heap.pageviews").item()
        6

        Raises
        ------
        HeapAssetsError
            If it is no SELECT, or DuckDB refuses it.
        """
        lake = self.settings.lake
        with LakeSql(lake.url, lake.options) as lake_sql:
            return lake_sql.sql(statement)

    def explain(self, first: str, second: str | None = None, day: Day | None = None) -> Explanation:
        """Explain why two identifiers are one person or two, or which profile one identifier belongs to.

        Parameters
        ----------
        first, second
            `type:value`, such as `email:ann@acme.example`; normalised as the settings say.
        day
            Of the graph; the newest by default.

        Raises
        ------
        MissingInputError
            If that graph is not built.
        """
        return explain_identifiers(first, second, identity_tables(self, self._graph_day(day)), self.rules)

    def audience(self, name: str, day: Day | None = None) -> pl.LazyFrame:
        """Return the profiles of an audience of the settings, with the columns of `profiles`.

        Parameters
        ----------
        name
            A key of `profiles.audiences`.
        day
            Of the profiles; the newest by default.

        Raises
        ------
        SettingsError
            If there is no such audience.
        MissingInputError
            If those profiles are not built, or before the settings had the audience.
        """
        audiences = self.settings.profiles.audiences
        if name not in audiences:
            raise no_such("audience", name, audiences)
        profiles = self.table(PROFILES)
        rows = profiles.newest() if day is None else profiles.day(day)
        if name not in rows.collect_schema():
            raise MissingInputError(f"{PROFILES} is older than the audience {name!r}: materialize it again")
        return rows.filter(name)

    def query(self, name: str, day: Day | None = None, **parameters: object) -> pl.DataFrame:
        """Answer a named question over events and people.

        Parameters
        ----------
        name
            A key of `analytics`, or a kind: funnel, paths, adoption, …
        day
            As of whose end; that of the newest profiles by default.
        parameters
            Of the kind, instead of those in the settings.

        Raises
        ------
        SettingsError
            There is no such name, parameter, event or trait.
        MissingInputError
            The profiles of the day are not built.
        """
        newest = self.lake.newest_partition(PROFILES, date.max)
        chosen = newest if day is None else date.fromisoformat(str(day))
        if chosen is None:
            raise MissingInputError(f"{PROFILES} has not been built yet: materialize it first")
        return result_of(self, query_of(self, name, parameters), chosen)

    def plan(self, sync: str, day: Day | None = None) -> SyncPlan:
        """Return what a sync would send, as a dry run; nothing is sent or written.

        Parameters
        ----------
        sync
            A key of `sync`.
        day
            The newest whose inputs are built by default.

        Raises
        ------
        SettingsError
            If there is no such sync.
        MissingInputError
            If its inputs are not built.
        """
        syncs = self.settings.sync
        if sync not in syncs:
            raise no_such("sync", sync, syncs)
        chosen = newest_day(self, sync) if day is None else date.fromisoformat(str(day))
        if chosen is None:
            raise MissingInputError(f"sync.{sync} has nothing to read yet: materialize its inputs first")
        planned, rows = delivery.plan(self, sync, chosen)
        return SyncPlan(chosen, planned.report, rows)

    def _graph_day(self, day: Day | None) -> date:
        return newest_graph_day(self) if day is None else date.fromisoformat(str(day))


def resolve(links: pl.DataFrame | pl.LazyFrame, rules: Rules) -> Resolution:
    """Resolve links between identifiers into profiles: no settings, no lake.

    The result depends on the set of links only: not on their order, direction or repetition.

    >>> import polars as pl
    >>> from heap_assets import IdentifierRule, Rules, resolve
    >>> crm_id = IdentifierRule("crm_id", max_per_profile=1)
    >>> rules = Rules((crm_id, IdentifierRule("email"), IdentifierRule("device_id")))
    >>> links = pl.DataFrame(
    ...     {
    ...         "type_a": ["crm_id", "crm_id", "email"],
    ...         "value_a": ["c-1", "c-1", "bob@x.example"],
    ...         "type_b": ["email", "email", "device_id"],
    ...         "value_b": ["ann@x.example", "ann@work.example", "phone"],
    ...     }
    ... )
    >>> resolution = resolve(links, rules)
    >>> resolution.profiles, resolution.identifiers
    (2, 5)
    >>> resolution.graph.group_by("profile_id").agg("identifier").collect()["identifier"].sort().to_list()
    [['bob@x.example', 'phone'], ['c-1', 'ann@work.example', 'ann@x.example']]

    Parameters
    ----------
    links
        `type_a`, `value_a`, `type_b`, `value_b`: String. `source`, `first_seen`, `last_seen`, `count` and
        `authoritative` may be absent.
    rules
        Types of identifiers with their limits, strongest first; those of a deployment are `Project.open().rules`.

    Raises
    ------
    HeapAssetsError
        If an end is null or empty, or of a type that the rules do not know.
    """
    return resolve_links(links.lazy(), rules)
