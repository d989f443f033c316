"""From an empty folder to profiles at the local Heap, a second night that is killed half-way, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from pathlib import Path
from typing import Any, Literal

from adbc_driver_postgresql import dbapi

from heap_assets.demo.server_process import ServerProcess, running_server
from heap_assets.identity import Quality
from heap_assets_tests.end_to_end.dagster_process import Dagster, until
from heap_assets_tests.foreign import comparison
from heap_assets_tests.foreign.company import ForeignCompany
from heap_assets_tests.foreign.deployment import APP, HEAP_PROPERTIES, SYNC, Deployment, psql, s3_bucket, upload

Via = Literal["folder", "s3"]
FIRST_PROFILES_SECONDS = 600
"""Patience, not a target: two busy cores must not fail a test."""


@dataclass
class Scenario:
    """A company and its deployment, with every server they need.

    Attributes
    ----------
    seconds
        From `init` to the first profiles at Heap.
    """

    company: ForeignCompany
    deployment: Deployment
    heap: ServerProcess
    deliver: Callable[[], None]
    seed: int
    seconds: float = 0.0
    failed_checks: dict[str, set[str]] = field(default_factory=dict)

    def first_night(self) -> None:
        """Go from an empty folder to profiles at Heap with nothing but `init`, an edit and `dev`."""
        began = time.monotonic()
        self.deployment.init(identity_is_email=self.seed % 2 == 0)
        with self.deployment.dev() as dagster:
            self._wait_for_profiles()
            self.seconds = time.monotonic() - began
            self._settle(dagster)

    def second_night(self) -> None:
        """Let a night pass: rows change, a dump arrives, everything is killed while it lands, and starts again."""
        psql(self.deployment.dsn, self.company.append_night())
        self.deliver()
        self.deployment.now += timedelta(days=1)
        before = self._landing_files()
        self.deployment.kill_when(
            lambda _: True if self._landing_files() > before else None,
            FIRST_PROFILES_SECONDS,
            "landing of the next dump",
        )
        with self.deployment.dev() as dagster:
            self._wait_for_profiles()
            self._settle(dagster)

    def differences(self) -> dict[str, str]:
        """Return table to how it differs from the truth; empty if every row is as it must be."""
        day, lake = self.company.heap.day, self.deployment.lake
        return comparison.heap_rows(self.company, lake, day) | comparison.warehouse_rows(self.company, lake, day)

    def people(self) -> Quality:
        """Measure who is who."""
        return comparison.people(self.company, self.deployment.lake, self.company.heap.day)

    def _wait_for_profiles(self) -> None:
        expected = comparison.expected_at_heap(self.company, HEAP_PROPERTIES)
        sent: dict[str, dict[str, Any]] = {}

        def all_there() -> bool | None:
            users = self.heap.state(app_id=APP)["users"]
            sent.update(comparison.sent_to_heap(users, HEAP_PROPERTIES))
            return True if sent == expected else None

        try:
            until(all_there, FIRST_PROFILES_SECONDS, "profiles at Heap as the truth has them")
        except AssertionError as error:
            wrong = {key: (expected.get(key), sent.get(key)) for key in expected.keys() | sent.keys()}
            differing = {key: pair for key, pair in wrong.items() if pair[0] != pair[1]}
            example = next(iter(differing.items()), None)
            raise AssertionError(f"{error}: {len(differing)} of {len(expected)} differ, such as {example}") from error

    def _settle(self, dagster: Dagster) -> None:
        """Wait until no run is on its way, and keep which checks failed."""
        until(lambda: None if _runs_under_way(dagster) else True, FIRST_PROFILES_SECONDS, "the end of all runs")
        self.failed_checks = failed_checks(dagster)

    def _landing_files(self) -> int:
        return sum(1 for _ in (self.deployment.lake / "_landing").rglob("*.parquet"))


@contextmanager
def scenario(
    folder: Path, postgres: str, *, seed: int, via: Via, hour: int, people: int, days: int
) -> Iterator[Scenario]:
    """Make a company and an empty deployment of it.

    Parameters
    ----------
    postgres
        `user@host:port` of a cluster in which a database of its own is made.
    via
        `folder`: every dump has the time of its night; `s3`: all are uploaded at once.
    hour
        Of the day after the last exported one, in UTC, at which the deployment is started.
    """
    now = datetime.combine(datetime.now(UTC).date(), time_of_day(hour, 15), tzinfo=UTC)
    company = ForeignCompany.make(
        folder / "company", seed=seed, people=people, days=days, last=(now - timedelta(days=1)).date()
    )
    database = f"foreign_{seed}_{via}_{hour}"
    with dbapi.connect(f"postgresql://{postgres}/postgres", autocommit=True) as admin, admin.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {database}")
    dsn = f"postgresql://{postgres}/{database}"
    psql(dsn, company.folder / "warehouse.sql")
    with ExitStack() as stack:
        heap = stack.enter_context(running_server("heap", folder / "heap"))
        heap.seed([p.identity for p in company.people if p.identity], app_id=APP)
        source: dict[str, Any] = {"kind": "folder", "path": str(company.heap.folder)}
        deliver: Callable[[], None] = lambda: None  # noqa: E731  a folder is read where it is written
        if via == "s3":
            endpoint, client = stack.enter_context(s3_bucket())
            source = {"kind": "s3", "bucket": "heap-rs3-foreign", "region": "us-east-1", "endpoint_url": endpoint}

            def deliver() -> None:
                written = datetime.combine(company.heap.day, time_of_day(23, 30), tzinfo=UTC)
                upload(client, company.heap.folder, written)

            upload(client, company.heap.folder, now - timedelta(minutes=30))
        deployment = Deployment(folder / "deployment", source, dsn, heap.base_url, now)
        yield Scenario(company, deployment, heap, deliver, seed)


def failed_checks(dagster: Dagster) -> dict[str, set[str]]:
    """Return asset to the checks whose newest evaluation of some partition failed; those not judged have not failed."""
    nodes = dagster.ask(
        """{ assetNodes { assetKey { path } assetChecksOrError { ... on AssetChecks { checks { name } } } } }"""
    )["assetNodes"]
    failed: dict[str, set[str]] = {}
    for node in nodes:
        asset = "/".join(node["assetKey"]["path"])
        for check in node["assetChecksOrError"].get("checks", []):
            executions = dagster.ask(
                """query($k: AssetKeyInput!, $c: String!) {
                     assetCheckExecutions(assetKey: $k, checkName: $c, limit: 200) {
                       evaluation { partition success description } } }""",
                k={"path": node["assetKey"]["path"]},
                c=check["name"],
            )["assetCheckExecutions"]
            newest: dict[str | None, dict[str, Any]] = {}
            for execution in executions:
                if execution["evaluation"]:
                    newest.setdefault(execution["evaluation"]["partition"], execution["evaluation"])
            if any(not one["success"] and not _is_not_judged(one) for one in newest.values()):
                failed.setdefault(asset, set()).add(check["name"])
    return failed


def _is_not_judged(evaluation: dict[str, Any]) -> bool:
    return str(evaluation["description"]).startswith("Not judged")


def _runs_under_way(dagster: Dagster) -> int:
    runs = dagster.ask(
        """{ runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED, CANCELING]}) {
             ... on Runs { results { id jobName } } } }"""
    )["runsOrError"]["results"]
    return sum(SYNC not in run["jobName"] for run in runs)
