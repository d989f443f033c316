"""Suggestions to the owner of a deployment: missing settings, failed checks, confirmations. Reads the lake alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from heap_assets.pipelines.exports import is_exported
from heap_assets.pipelines.status import newest_results
from heap_assets.pipelines.sync_gate import confirmation_hint, waits_for_confirmation, was_shown
from heap_assets.pipelines.waiting import identity_proposal
from heap_assets.project import Project
from heap_assets.quality import Severity
from heap_assets.tables import SNAPSHOT_TABLES, is_sync

_SHOWN = 5


def next_steps(project: Project) -> list[str]:
    """Return the suggestions as Markdown, in the order of the pipeline; empty if there are none."""
    return [*_data(project), *_settings(project), *_people(project)]


def _data(project: Project) -> Iterator[str]:
    if not is_exported(project):
        first = first_landed_day(project)
        if first is None:
            yield "No dump has landed yet. If that stays, `heap-assets preflight` says what is missing at the bucket."
        elif project.settings.start_date < first:
            days = (first - project.settings.start_date).days
            yield (
                f"Set `start_date: {first}`, the first day that Heap delivered. The {days} days before it stay "
                "*missing* in every table."
            )
    failed = [
        f"`{result.asset}` {result.check}"
        for results in newest_results(project).values()
        for result in results
        if result.failed and result.severity is Severity.ERROR and not is_sync(result.asset)
    ]
    if failed:
        more = f" and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
        yield f"Look at the checks that fail: {', '.join(failed[:_SHOWN])}{more}. Each says what mends it."
    if proposal := identity_proposal(project):
        yield proposal


def _settings(project: Project) -> Iterator[str]:
    settings = project.settings
    if not settings.read_tables:
        yield "Name a table of your CRM or billing below `warehouse.tables` (docs/warehouse.md): your customers."
    if not settings.profiles.traits:
        yield "Choose the columns of profiles below `profiles.traits` (docs/profiles.md)."
    if not settings.sync:
        yield "Name what is sent to Heap below `sync` (docs/delivery.md); `heap-assets sync plan` shows it first."
    if not settings.alerts:
        yield "Name a channel below `alerts` (docs/checks.md): until then nobody is told of what fails."


def _people(project: Project) -> Iterator[str]:
    for name in project.settings.sync:
        if waits_for_confirmation(project, name) and was_shown(project, name):
            yield f"Look at what `sync/{name}` would send, then confirm it: {confirmation_hint(name)}."


def first_landed_day(project: Project) -> date | None:
    """Return the first day with events or a dump of its own in what has landed; None if nothing has."""
    return min(
        (
            day
            for record in project.landing.records().values()
            for name, table in record.tables.items()
            if table.landed_at is not None
            # days of users are those on which they were first seen
            for day in (record.day, *(() if name in SNAPSHOT_TABLES else table.days))
        ),
        default=None,
    )
