"""The identity tables of a day, with the figures that say what happened to people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import polars as pl

from heap_assets.errors import MissingInputError
from heap_assets.identity import changes
from heap_assets.pipelines.readiness import graph_inputs, identity_inputs
from heap_assets.pipelines.table import Made
from heap_assets.project import Project
from heap_assets.storage import Inputs
from heap_assets.tables import CHANGES, CONFLICTS, GRAPH, LINKS, SHARED

REFUSED = "refused"
"""The note of `identity/links`: how many values are no identifiers, by source, column, type and reason."""


def identity_of_day(project: Project, day: date) -> dict[str, Made]:
    """Resolve who is who as of the end of a day.

    Raises
    ------
    MissingInputError
        Naming the inputs that are not there yet.
    """
    given = identity_inputs(project, day)
    if given.waiting_for:
        raise MissingInputError(f"identity {day} waits: {'; '.join(given.waiting_for[:5])}")
    advanced = project.timeline.advance(day, given.inputs)
    resolution = advanced.resolution
    inputs = graph_inputs(project, given)
    before, earlier = _graph_before(project, day)
    notes = {**advanced.notes, "carried_forward": ", ".join(given.carried) or "nothing"}
    refused = advanced.refused.drop("day").collect().to_dicts()
    return {
        LINKS: Made(advanced.links, inputs, {**notes, REFUSED: refused}),
        GRAPH: Made(resolution.graph, inputs, notes, resolution.write_graph),
        CONFLICTS: Made(resolution.conflicts, inputs, notes),
        SHARED: Made(resolution.shared, inputs, notes),
        CHANGES: Made(changes(before, resolution.graph), Inputs({**inputs.versions, **earlier}), notes),
    }


def figures(project: Project, path: str, day: date) -> dict[str, int]:
    """Count what a stored identity table says.

    Values that are no identifiers by reason, profiles, conflicts by limit, shared values by type, changes by kind.
    """
    rows = project.lake.scan(path, str(day))
    if path == GRAPH:
        counts = rows.select(
            identifiers=pl.len(), profiles=pl.col("profile_id").drop_nulls().n_unique(), shared=pl.col("shared").sum()
        )
        return {name: int(value) for name, value in counts.collect().row(0, named=True).items()}
    if path == LINKS:
        found = project.lake.find(LINKS, str(day))
        told = found.notes.get(REFUSED, ()) if found else ()
        refused = Counter[str]()
        for row in told:
            refused[f"refused_{row['reason']}"] += int(row["rows"])
        return dict(sorted(refused.items()))
    by = {CONFLICTS: ("conflicts_by_", "limited_type"), SHARED: ("shared_", "identifier_type"), CHANGES: ("", "kind")}
    if path not in by:
        return {}
    prefix, column = by[path]
    counted = rows.group_by(column).len().sort(column).collect()
    return {f"{prefix}{value}": int(count) for value, count in counted.iter_rows()}


def _graph_before(project: Project, day: date) -> tuple[pl.LazyFrame | None, Mapping[str, Any]]:
    earlier = project.lake.newest_partition(GRAPH, day - timedelta(days=1))
    if earlier is None:
        return None, {}
    version = project.lake.versions(GRAPH)[str(earlier)]
    return project.lake.scan(GRAPH, str(earlier)), {f"{GRAPH}@{earlier}": version}
