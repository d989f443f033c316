"""What the commands about a sync begin with: the project that has it, and the day whose rows they are about."""

from __future__ import annotations

from datetime import date, datetime

from heap_assets.errors import MissingInputError, no_such
from heap_assets.pipelines.sync_gate import newest_day
from heap_assets.project import Project, open_project


def project_of(name: str) -> Project:
    """Open the project, which must have a lake and a sync of this name.

    Raises SettingsError if there is no such sync, MissingInputError if there is no lake.
    """
    project = open_project()
    project.require_lake()
    syncs = project.settings.sync
    if name not in syncs:
        raise no_such("sync", name, syncs)
    return project


def day_of(project: Project, name: str, day: datetime | None) -> date:
    """Return the day that was asked for, else the newest that the sync can send; MissingInputError if there is none."""
    if day is not None:
        return day.date()
    newest = newest_day(project, name)
    if newest is None:
        raise MissingInputError(f"sync.{name} has nothing to read yet: materialize its inputs first, or give --day")
    return newest
