"""What the asset of a sync of Hightouch or Census does: start it there, wait for its end, judge what it says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from heap_assets.activation import Api, Permission, ToolRun, ToolRunner, tool_of
from heap_assets.errors import DamagedFileError, HeapAssetsError, SettingsError, did_you_mean
from heap_assets.pipelines.publishing import (
    PublishedTable,
    open_publisher,
    publishable,
    published_tables,
    unpublished_days,
)
from heap_assets.project import Project
from heap_assets.storage import Store, state_keys
from heap_assets.tables import AUDIENCES
from heap_assets.versions import version_of

_NEWEST = 2
"""Partitions of an asset that its version is made of: what a tool reads is how things stand now."""


def check_reverse_etl(project: Project) -> None:
    """Hold `reverse_etl:` against the assets that there are.

    Raises
    ------
    SettingsError
        Naming the key whose asset does not exist.
    """
    settings = project.settings.reverse_etl
    assets = {*publishable(project), AUDIENCES, *_published(project)} if settings else set()
    for name, chosen in settings.items():
        for index, asset in enumerate(chosen.reads):
            if asset not in assets:
                raise SettingsError(
                    f"reverse_etl.{name}.reads[{index}] is {asset!r}, which is no asset that is built or published "
                    f"here. A published table is called publish/<target>/<table>.{did_you_mean(asset, assets)}"
                )


def start_and_wait(
    project: Project, name: str, *, full_resync: bool = False, report: Callable[[ToolRun], None] = lambda run: None
) -> ToolRun:
    """Start a sync of Hightouch or Census, and return its run when that has ended, whatever became of it.

    A run here that was killed is gone on with by the next one, as long as what the sync reads is the same.

    Parameters
    ----------
    report
        Is called with the run whenever its status there changes.

    Raises
    ------
    DeliveryError
        If the tool cannot be reached, refuses, or takes too long.
    """
    settings = project.settings.reverse_etl[name]
    tool = tool_of(settings)
    with Api(tool, allowed=project.allowed_hosts) as api:
        runner = ToolRunner(
            *(tool, api, _StoredRun(project.lake.store, name)),
            poll_seconds=settings.poll_seconds,
            timeout=settings.timeout_hours * 3600,
            report=report,
        )
        return runner.run(_inputs(project, name), full=full_resync)


def failure_of(project: Project, name: str, run: ToolRun) -> str | None:
    """Return why an ended run counts as failed, None if it does not."""
    allowed = project.settings.reverse_etl[name].max_rejected
    if run.failure:
        return run.failure
    if run.rejected_share > allowed:
        lost = (run.rejected or 0) + (run.invalid or 0)
        share = f"{run.rejected_share:.1%} of the rows, more than reverse_etl.{name}.max_rejected of {allowed:.1%}"
        return f"{run.status}: {lost:,} rows were rejected or invalid, {share}"
    return None


def preflight(project: Project, name: str) -> Iterator[Permission]:
    """Try whether the tool can be reached, takes the token and has the sync; nothing is started."""
    settings = project.settings.reverse_etl[name]
    tool = tool_of(settings)
    try:
        with Api(tool, allowed=project.allowed_hosts) as api:
            answer = api.call(tool.look_up())
    except HeapAssetsError as error:
        yield Permission("calls", False, str(error), "see that the address can be reached and the token is accepted")
        return
    yield Permission("calls", True, f"{settings.kind} takes the token")
    remedy = f"reverse_etl.{name}.sync is the number of the sync, as its address in {settings.kind} shows it"
    yield Permission("sync", answer.accepted, f"{settings.sync}: HTTP {answer.status}", remedy)


class _StoredRun:
    """The run that is waited for, in the lake."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._key = store, f"{state_keys.REVERSE_ETL}/{name}.json"

    def load(self) -> Mapping[str, Any] | None:
        try:
            state = json.loads(self._store.read(self._key))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DamagedFileError(
                f"{self._store.uri(self._key)} is damaged: delete it, and the sync is started there once more"
            ) from error
        return state if isinstance(state, dict) else None

    def store(self, state: Mapping[str, Any]) -> None:
        self._store.write(self._key, json.dumps(state).encode())

    def clear(self) -> None:
        self._store.delete(self._key)


def _published(project: Project) -> dict[str, PublishedTable]:
    return {table.asset: table for target in project.settings.publish for table in published_tables(project, target)}


def _inputs(project: Project, name: str) -> str:
    """Return a version of what a sync reads: the newest days of it, and which of them are published."""
    tables, parts = _published(project), {}
    for asset in project.settings.reverse_etl[name].reads:
        table = tables.get(asset)
        sources = table.sources if table else (asset,)
        newest = [sorted(project.lake.versions(source).items())[-_NEWEST:] for source in sources]
        missing = unpublished_days(project, open_publisher(project, table.target), table) if table else []
        parts[asset] = [newest, list(map(str, missing))]
    return version_of(parts)
