"""Which days an edited function makes anew, told before they are built."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date

from heap_assets.errors import DamagedFileError
from heap_assets.pipelines.catalogue import noted_functions
from heap_assets.pipelines.functions import FUNCTION, function_of, function_version
from heap_assets.pipelines.inbox import unbuilt_inbox_days
from heap_assets.pipelines.readiness import unbuilt_days
from heap_assets.project import Project
from heap_assets.tables import heap_asset, is_inbox_table

_READERS = 8


@dataclass(frozen=True)
class FunctionRebuild:
    """Days of a table that another version of its function made, or none; they are built again by themselves.

    `file`: the function's file; None if the table has no function any more.
    """

    asset: str
    file: str | None
    days: tuple[date, ...]

    @property
    def text(self) -> str:
        """One line for people."""
        count = f"{len(self.days)} day{'' if len(self.days) == 1 else 's'}"
        span = f"{self.days[0]} to {self.days[-1]}" if len(self.days) > 1 else str(self.days[0])
        why = f"{self.file} is another than made them" if self.file else "the function that made them is gone"
        return f"{self.asset}: {count} will be built again ({span}), as {why}"


def edited_functions(project: Project) -> set[str]:
    """Return the tables whose function is another than when changes were noted last, or is new or gone."""
    recorded, tables = noted_functions(project), (*project.event_tables, *project.message_tables)
    return {name for name in tables if (recorded.get(name) or None) != function_version(project, name)}


def function_rebuilds(project: Project) -> list[FunctionRebuild]:
    """Return the tables with days that their function, as it is now, did not make.

    Reads the footers of the days of those tables whose function was edited, given or taken away since all days were
    built, and of no others. Partitions that cannot be read are left out.
    """
    named = {_asset(name): name for name in (*project.event_tables, *project.message_tables)}
    versions = {asset: function_version(project, name) for asset, name in named.items()}
    edited = {_asset(name) for name in edited_functions(project)}
    if any(versions.values()):
        edited |= {*unbuilt_days(project), *unbuilt_inbox_days(project)} & {a for a, v in versions.items() if v}
    rebuilds = (_rebuild(project, asset, named[asset], versions[asset]) for asset in sorted(edited))
    return [rebuild for rebuild in rebuilds if rebuild.days]


def _rebuild(project: Project, asset: str, table: str, version: str | None) -> FunctionRebuild:
    """Return the days of one table that another version of its function made, or none."""

    def is_other(key: str) -> bool:
        try:
            partition = project.lake.find(asset, key)
        except DamagedFileError:
            return False  # its checks say so
        return partition is not None and partition.inputs.versions.get(FUNCTION) != version

    keys = [key for key in project.lake.partitions(asset) if key >= str(project.settings.first_day)]
    with ThreadPoolExecutor(_READERS) as readers:
        days = [date.fromisoformat(key) for key, other in zip(keys, readers.map(is_other, keys), strict=True) if other]
    function = function_of(project, table)
    return FunctionRebuild(asset, function.file if function else None, tuple(days))


def _asset(table: str) -> str:
    return table if is_inbox_table(table) else heap_asset(table)
