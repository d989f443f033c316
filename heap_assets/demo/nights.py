"""The demo's nights: what Dagster's sensors and schedules would do, done at once and in one process."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from heap_assets import clock
from heap_assets.demo import Company, DemoError, read_company, show_warehouse, write_company
from heap_assets.demo.server_process import ServerProcess
from heap_assets.orchestration.in_process import CodeLocation, RunResult, default_instance
from heap_assets.pipelines.readiness import unbuilt_days
from heap_assets.project import Project, open_project
from heap_assets.quality import result_store
from heap_assets.sources.heap_connect import ManifestFile
from heap_assets.tables import (
    AUDIENCES,
    AUDIT,
    DUMPS,
    MIGRATIONS,
    PROFILES,
    RESOLVED,
    REVIEW,
    USERS,
    analytics_asset,
    heap_asset,
    signal_asset,
    sync_asset,
    warehouse_asset,
)

_NIGHTS = 3
"""The last nights are run one by one, so that there is a yesterday to compare with."""


@dataclass
class DemoRun:
    """One run of the demo and what it counted."""

    folder: Path
    heap: ServerProcess
    say: Callable[[str], None]
    instance: Any = field(default_factory=default_instance)
    started: float = field(default_factory=time.monotonic)
    dumps_landed: int = 0
    sync_runs: list[RunResult] = field(default_factory=list)
    company: Company | None = None

    def prepare(self, *, people: int, days: int, seed: int, fresh: bool) -> None:
        """Write the company unless there is one, and let the local Heap know its users."""
        if fresh:
            shutil.rmtree(self.folder / "truth", ignore_errors=True)
            shutil.rmtree(self.folder / "lake", ignore_errors=True)
            self.heap.reset()
        try:
            self.company = read_company(self.folder)
            self._tell(f"Found the company in {self.folder}")
        except DemoError:
            yesterday = datetime.now(UTC).date() - timedelta(days=1)
            self.company = write_company(self.folder, people=people, days=days, seed=seed, until=yesterday)
            self._tell(f"Wrote a company of {people} people and {len(self.company.dump_ids)} dumps to {self.folder}")

    def nights(self) -> None:
        """Take in what Heap has delivered, night after night, and send what follows from it."""
        assert self.company is not None
        self.open()
        last = self.company.until
        for day in [last - timedelta(days=back) for back in reversed(range(_NIGHTS))]:
            with at(day + timedelta(days=1)):
                self.night(day)

    def open(self) -> None:
        """Load the definitions that the settings describe now."""
        self.project = open_project()
        self.location = CodeLocation(self.project, self.instance)

    def night(self, day: date) -> None:
        """Do what the night after `day` does: land, build touched days, resolve, check, send."""
        self.land(day)
        self.build_touched(day)
        if self._is_new(day):
            self.read_users(day)
            self.read_warehouse(day)
            self.resolve(day)
        self.know_users()
        for name in self.project.settings.sync:
            self.send(name, day)
        self._tell(f"{day}  sent what changed")
        self.judge_recency()

    def land(self, day: date) -> None:
        """Do what the manifest sensor asks for, up to the dump of `day`."""
        pending = [m for m in self.project.landing.pending(self.project.source()) if dump_day(m) <= day]
        for manifest in pending:
            self._land(manifest)
        if pending:
            self._tell(f"{day}  landed {len(pending)} dumps")

    def read_users(self, day: date) -> None:
        """Fold users and migrations of a day, as automation does."""
        self.run(str(day), [USERS, MIGRATIONS])

    def read_warehouse(self, day: date) -> None:
        """Let the warehouse stand as it did on `day`, and read it, as its schedule does."""
        show_warehouse(self.folder, day)
        self.run_warehouse(day)
        self._tell(f"{day}  built users, migrations and {len(self._warehouse())} warehouse tables")

    def run_warehouse(self, day: date) -> None:
        """Read the warehouse as it stands now."""
        self.run(str(day), self._warehouse())

    def resolve(self, day: date) -> None:
        """Resolve who is who on a day, as automation does once its inputs are settled."""
        named = [AUDIENCES] if self.project.settings.profiles.audiences else []
        named += [signal_asset(name) for name in self.project.settings.signals]
        named += [analytics_asset(name) for name in self.project.settings.analytics]
        self.run(str(day), [*RESOLVED, PROFILES, AUDIT, REVIEW, *named])
        self._tell(f"{day}  resolved who is who")

    def send(self, name: str, day: date) -> None:
        """Send a day by one sync, as its schedule does."""
        self.sync_runs.append(self.run(str(day), [sync_asset(name)]))

    def _land(self, manifest: ManifestFile) -> None:
        key = str(manifest.dump_id)
        self.location.add_dump(key)
        self.run(key, [DUMPS])
        self.dumps_landed += 1

    def build_touched(self, day: date) -> None:
        """Build, of every table, the days that dumps touched and the day itself."""
        due = unbuilt_days(replace(self.project))  # what runs in between have landed is news to this object
        every = [heap_asset(table) for table in self.project.event_tables]
        days_by_asset = {asset: due.get(asset, set()) | ({day} if self._is_new(day) else set()) for asset in every}
        for asset, days in self._failed(every).items():
            days_by_asset[asset] |= days
        for assets, first, last in runs_for(days_by_asset):
            self.run((str(first), str(last)), assets)
        if due:
            touched = sum(len(days) for days in due.values())
            self._tell(f"{day}  built {touched} touched days of {len(due)} event tables")

    def _failed(self, assets: Sequence[str]) -> dict[str, set[date]]:
        """Return the days of dumps in which a table could not be read and that have not been tried yet."""
        failed: dict[str, set[date]] = {}
        for record in replace(self.project).landing.records().values():
            for name, table in record.tables.items():
                asset, day = heap_asset(name), record.day
                untried = result_store.read(self.project.lake.store, asset, "readable", str(day)) is None
                if table.failure is not None and asset in assets and untried:
                    failed.setdefault(asset, set()).add(day)
        return failed

    def judge_recency(self) -> None:
        """Do what the hourly schedule does."""
        self.location.evaluate_recency()

    def _is_new(self, day: date) -> bool:
        return str(day) not in self.project.lake.versions("profiles")

    def _warehouse(self) -> list[str]:
        tables = self.project.settings.warehouse.tables if self.project.settings.warehouse else {}
        return [warehouse_asset(name) for name in tables]

    def know_users(self) -> None:
        """The local Heap knows whom the real one would: the identities of its own export."""
        newest = self.project.lake.partitions("heap/users")[-1]
        identities = self.project.lake.scan("heap/users", newest).select("identity").drop_nulls().collect()
        self.heap.seed(identities["identity"].unique().sort().to_list(), app_id=self.project.settings.heap.app_id)

    def run(self, partition: str | tuple[str, str], assets: Sequence[str]) -> RunResult:
        """Materialize assets, and print why steps failed."""
        result = self.location.materialize(assets, partition)
        for failure in result.failures:
            self._tell(f"            {failure}")
        return result

    def _tell(self, text: str) -> None:
        self.say(f"{time.monotonic() - self.started:6.1f} s  {text}")


def dump_day(manifest: ManifestFile) -> date:
    """Return the day that a dump carries: half a day before it was written (design.md, Heap tables)."""
    return (manifest.last_modified - timedelta(hours=12)).date()


def runs_for(due: Mapping[str, set[date]]) -> Iterator[tuple[list[str], date, date]]:
    """Yield assets with a range of days: assets that want the same days share their runs."""
    groups: dict[tuple[tuple[date, date], ...], list[str]] = {}
    for asset, days in due.items():
        groups.setdefault(tuple(ranges(sorted(days))), []).append(asset)
    for spans, assets in groups.items():
        yield from ((assets, first, last) for first, last in spans)


def ranges(days: Iterable[date]) -> Iterator[tuple[date, date]]:
    """Join days that follow one another."""
    first = last = None
    for day in days:
        if last is not None and day - last == timedelta(days=1):
            last = day
            continue
        if first is not None and last is not None:
            yield first, last
        first = last = day
    if first is not None and last is not None:
        yield first, last


@contextmanager
def at(day: date) -> Iterator[None]:
    """Let the platform believe that it is three in the morning of `day`."""
    moment = datetime.combine(day, datetime.min.time(), UTC) + timedelta(hours=3)
    os.environ[clock.VARIABLE] = moment.isoformat()
    try:
        yield
    finally:
        del os.environ[clock.VARIABLE]


__all__ = ["DemoRun", "Project", "at"]
