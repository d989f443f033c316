"""What the dumps of the first start hold, all of which `heap.tables.accept: first` takes without asking.

Manifests list tables and columns, but not what only the files tell: columns that a manifest leaves out, and values of
another type than their column's (`plan__long`). Those are known once the dumps have landed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from heap_assets.project import Project
from heap_assets.sources.heap_connect import Missing, TableState, landed_columns
from heap_assets.storage import state_keys

_KEY = f"{state_keys.CATALOGUE}/first_dumps.json"

Tables = Mapping[str, Iterable[str]]


@dataclass(frozen=True)
class FirstDumps:
    """The dumps that the source listed when a deployment started with an empty catalogue.

    Attributes
    ----------
    offered
        Table to those of its columns that were taken once already: one that is removed by hand stays out.
    complete
        Whether all of them have landed whole: nothing new can come of them.
    """

    dumps: frozenset[int]
    offered: Mapping[str, frozenset[str]]
    complete: bool = False

    def news(self, missing: Missing) -> Missing:
        """Return what of `missing` was never taken."""
        return Missing(
            {name: columns for name, columns in missing.tables.items() if name not in self.offered},
            {name: kept for name, columns in missing.columns.items() if (kept := self._unknown(name, columns))},
            missing.other_types,
        )

    def _unknown(self, table: str, columns: Iterable[str]) -> tuple[str, ...]:
        return tuple(column for column in columns if column not in self.offered.get(table, ()))


def first_dumps(project: Project) -> FirstDumps | None:
    """Return the dumps of the first start; None if nothing was taken in by itself then."""
    try:
        return _parsed(project.lake.store.read(_KEY))
    except FileNotFoundError:
        return None


def remember(project: Project, dumps: Collection[int], offered: Tables) -> None:
    """Keep which dumps there were at the first start, and what their manifests offered."""
    columns = {name: frozenset(names) for name, names in offered.items()}
    project.lake.store.write(_KEY, _written(FirstDumps(frozenset(dumps), columns)))


def news_of_first_dumps(project: Project) -> Missing | None:
    """Return what the first dumps have brought since and nobody was offered yet, None if nothing more can come."""
    first = first_dumps(project)
    if first is None or first.complete:
        return None
    return first.news(project.catalogue.compare(landed_columns(project.landing, first.dumps)))


def note_taken(project: Project, taken: Tables) -> None:
    """Keep what was taken of the first dumps, and whether all of them have landed whole."""
    landed = _all_landed(project)

    def _noted(data: bytes | None) -> bytes | None:
        if data is None:
            return None
        first = _parsed(data)
        offered = dict(first.offered)
        for name, columns in taken.items():
            offered[name] = offered.get(name, frozenset()) | frozenset(columns)
        return _written(FirstDumps(first.dumps, offered, complete=first.dumps <= landed))

    project.lake.store.update(_KEY, _noted)


def _all_landed(project: Project) -> frozenset[int]:
    """Return the dumps of which every selected table has landed."""
    takes = project.landing.config.tables.takes_table
    return frozenset(
        record.dump_id
        for record in project.landing.records().values()
        if record.failure is None
        and not any(takes(name) for name in record.outstanding or ())
        and all(table.state is not TableState.FAILED for name, table in record.tables.items() if takes(name))
    )


def _parsed(data: bytes) -> FirstDumps:
    document = json.loads(data)
    offered = {name: frozenset(columns) for name, columns in document["offered"].items()}
    return FirstDumps(frozenset(document["dumps"]), offered, document["complete"])


def _written(first: FirstDumps) -> bytes:
    document = {
        "dumps": sorted(first.dumps),
        "offered": {name: sorted(columns) for name, columns in sorted(first.offered.items())},
        "complete": first.complete,
    }
    return json.dumps(document).encode()
