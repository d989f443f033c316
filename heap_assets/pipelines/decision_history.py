"""Which decisions the graph of a day followed, so that the day after can name one that was removed or has ended.

`_decisions/followed/<day>.json` has a row per identifier: id and kind of the decision, type, and a keyed hash of the
value. The values of a removed decision are those of the two graphs that have its hashes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Final

import polars as pl

from heap_assets.errors import DamagedFileError
from heap_assets.identity import Decision
from heap_assets.privacy import keyed_hashes, privacy_key
from heap_assets.project import Project
from heap_assets.storage import state_keys
from heap_assets.tables import GRAPH

_FOLDER: Final = f"{state_keys.DECISIONS}/followed"
_PURPOSE: Final = "decision:"
_KEY: Final = ("identifier_type", "identifier")
_ROW: Final = ("id", "kind", "identifier_type", "hash")


def remember_decisions(project: Project, day: date, decisions: Sequence[Decision]) -> None:
    """Keep which decisions the graph of a day follows; forgets days whose graph is gone."""
    store = project.lake.store
    stored = [info.key for info in store.list(_FOLDER)]
    if not decisions and not stored:
        return
    of_graphs = {_file(day), *(_file(date.fromisoformat(key)) for key in project.lake.partitions(GRAPH))}
    for key in stored:
        if key not in of_graphs:
            store.delete(key)
    rows = _hashed(project, decisions).select(_ROW).sort(_ROW).rows()
    data = json.dumps(rows).encode()
    if _file(day) not in stored or store.read(_file(day)) != data:
        store.write(_file(day), data)


def former_decisions(
    project: Project, previous_day: date, decisions: Sequence[Decision], graph: pl.LazyFrame
) -> list[Decision]:
    """Return the decisions that the graph of an earlier day followed and that do not hold any more, or are others now.

    `decisions`: those that hold now. `graph`: the one that was made with them. Identifiers that neither graph has are
    left out.
    """
    ended = project.rules_of_days.on(previous_day).decisions
    now = {(one.id, one.kind, frozenset(one.identifiers)) for one in decisions}
    former = [one for one in ended if (one.id, one.kind, frozenset(one.identifiers)) not in now]
    stored = _stored(project, previous_day)
    if stored.is_empty():
        return former
    unchanged = _hashed(project, [*decisions, *ended]).select(_ROW)
    # a decision some of whose rows are others was removed or changed
    changed = stored.join(unchanged, on=_ROW, how="anti")["id"].unique()
    removed = stored.filter(pl.col("id").is_in(changed.implode()))
    if removed.is_empty():
        return former
    before = project.lake.scan(GRAPH, str(previous_day))
    types = removed["identifier_type"].unique().implode()
    both = pl.concat([one.select(_KEY).filter(pl.col("identifier_type").is_in(types)) for one in (before, graph)])
    named = _with_hashes(project, both.unique().collect(engine="streaming")).join(
        removed, on=["identifier_type", "hash"]
    )
    pairs = named.group_by("id", "kind").agg(pl.struct(_KEY).alias("pairs")).sort("id", "kind")
    return former + [
        Decision(kind, tuple(sorted((pair["identifier_type"], pair["identifier"]) for pair in of_one)), id=name)
        for name, kind, of_one in pairs.iter_rows()
    ]


def _file(day: date) -> str:
    return f"{_FOLDER}/{day}.json"


def _hashed(project: Project, decisions: Iterable[Decision]) -> pl.DataFrame:
    """Return id, kind, type, identifier and hash, a row per identifier of decisions that join, part or exclude."""
    rows = [(one.id, one.kind, *pair) for one in decisions if one.kind != "confirmed" for pair in one.identifiers]
    schema = dict.fromkeys(("id", "kind", *_KEY), pl.String)
    return _with_hashes(project, pl.DataFrame(rows, schema=schema, orient="row").unique())


def _with_hashes(project: Project, identifiers: pl.DataFrame) -> pl.DataFrame:
    if identifiers.is_empty():
        return identifiers.with_columns(hash=pl.lit(None, pl.String))
    key = privacy_key(project.lake.store, project.settings.privacy.key_bytes)
    parts = [
        part.with_columns(keyed_hashes(part["identifier"], key, f"{_PURPOSE}{kind}").alias("hash"))
        for (kind,), part in identifiers.partition_by("identifier_type", as_dict=True).items()
    ]
    return pl.concat(parts)


def _stored(project: Project, day: date) -> pl.DataFrame:
    store, schema = project.lake.store, dict.fromkeys(_ROW, pl.String)
    try:
        rows = json.loads(store.read(_file(day)))
        return pl.DataFrame(rows, schema=schema, orient="row")
    except FileNotFoundError:
        return pl.DataFrame(schema=schema)
    except (ValueError, TypeError, pl.exceptions.PolarsError) as error:
        raise DamagedFileError(
            f"{store.uri(_file(day))} is damaged: delete it; changes of the day after then name no removed decision"
        ) from error
