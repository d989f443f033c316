"""Requests of erasure from tables, what came back in spite of tombstones, and the table of all requests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl

from heap_assets import clock
from heap_assets.config import RequestTable
from heap_assets.errors import SettingsError
from heap_assets.identity import SourceTable
from heap_assets.pipelines.erasure import Wish, take_in
from heap_assets.pipelines.erasure_walk import LakeWalk, asset_of_key
from heap_assets.privacy import Journal, Named, Pair, Request, Requests, Tombstones, people_of, place_of
from heap_assets.project import Project, mapping_of, with_pseudonyms
from heap_assets.sources.heap_connect import landed_parts
from heap_assets.storage import state_keys
from heap_assets.tables import ERASURES, GRAPH, heap_asset, is_inbox_table, warehouse_asset

_LOOK_BACK: Final = 35
"""Days of a table of messages that are read for requests; one that was taken in is known by its id."""
_SWEPT: Final = f"{state_keys.PRIVACY}/swept.json"
_OVERLAP: Final = timedelta(hours=1)
SCHEMA: Final = pl.Schema(
    {
        "request": pl.String(),
        "state": pl.String(),
        "source": pl.String(),
        "requested_at": pl.Datetime("us", "UTC"),
        "confirmed_at": pl.Datetime("us", "UTC"),
        "identifiers": pl.Int64(),
        "left": pl.Int64(),
        "destinations_asked": pl.Int64(),
        "destinations_open": pl.Int64(),
    }
)


def take_in_from_tables(project: Project) -> list[Request]:
    """Take in the requests of the tables that `privacy.erasure.requests` names; one that is known is not a new one.

    Raises SettingsError, naming the key, if a table or a column is not there.
    """
    wishes: list[Wish] = []
    for number, table in enumerate(project.settings.privacy.erasure.requests):
        wishes += _wishes(project, table, f"privacy.erasure.requests[{number}]")
    taken_in = {one.id for one in Requests(project.lake.store).all()}
    return take_in(project, [wish for wish in wishes if wish.request_id not in taken_in])


def _wishes(project: Project, table: RequestTable, where: str) -> Iterator[Wish]:
    lake = project.lake
    asset = table.table if is_inbox_table(table.table) else warehouse_asset(table.table)
    days = lake.partitions(asset)
    for day in days[-_LOOK_BACK:] if is_inbox_table(asset) else days[-1:]:
        rows = lake.scan(asset, day)
        columns = rows.collect_schema()
        needed = [*table.identifiers, *table.where, *([table.id] if table.id else [])]
        if missing := [name for name in needed if name not in columns]:
            raise SettingsError(f"{where}: {asset} has no column {missing[0]!r}. Columns: {', '.join(columns)}")
        for column, value in table.where.items():
            rows = rows.filter(pl.col(column).cast(pl.String) == value)
        for row in rows.select(pl.col(name).cast(pl.String) for name in dict.fromkeys(needed)).collect().to_dicts():
            pairs: list[Pair] = [(kind, row[column]) for column, kind in table.identifiers.items() if row[column]]
            if pairs:
                named = with_pseudonyms(project, pairs)
                own_id = row[table.id] if table.id else json.dumps(named)
                digest = hashlib.sha256(f"{asset}\x1f{own_id}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
                yield Wish(Named(named), author=asset, source=asset, request_id=f"er-{digest}")


def request_table(project: Project) -> pl.DataFrame:
    """Return all requests with their states: counts and no values."""
    rows = []
    for one in Requests(project.lake.store).all():
        answers = one.destinations.values()
        rows.append(
            {
                "request": one.id,
                "state": str(one.state),
                "source": one.source,
                "requested_at": one.requested_at,
                "confirmed_at": one.confirmed_at,
                "identifiers": sum(one.counts.get("identifiers", {}).values()),
                "left": sum(one.counts.get("left", {}).values()),
                "destinations_asked": sum(answer["state"] not in ("nothing_sent", "to_ask") for answer in answers),
                "destinations_open": sum(answer["state"] in ("pending", "to_ask", "failed") for answer in answers),
            }
        )
    return pl.DataFrame(rows, schema=SCHEMA)


def write_request_table(project: Project) -> pl.DataFrame:
    """Write :func:`request_table` as the table `privacy/erasures` of the lake; returns it."""
    table = request_table(project)
    project.lake.write(ERASURES, None, table)
    return table


def sweep(project: Project) -> int:
    """Remove what came back: rows of erased people that a run wrote which had begun before they were erased.

    Reads what was written since the last sweep; returns the number of rows that were removed.
    """
    store, began = project.lake.store, datetime.now(UTC)
    stones = project.tombstones.current()
    if stones:
        pairs = _came_back(project, stones, _swept_at(project) - _OVERLAP)
        if pairs:
            journal = Journal(store, f"sweep-{hashlib.sha256(str(began).encode()).hexdigest()[:16]}")
            by_request: dict[str, list[Pair]] = {}
            for pair, request in pairs.items():
                by_request.setdefault(request, []).append(pair)
            walk = LakeWalk(project, people_of(project.lake, by_request), journal)
            walk.run()
            walk.finish()
            store.write(_SWEPT, json.dumps({"at": began.isoformat()}).encode())
            return sum(sum(entry.rows.values()) for entry in journal.entries())
    store.write(_SWEPT, json.dumps({"at": began.isoformat()}).encode())
    return 0


def _came_back(project: Project, stones: Tombstones, since: datetime) -> dict[Pair, str]:
    store, rules = project.lake.store, project.rules_of_settings
    landed = {one.part.key: heap_asset(one.table) for one in landed_parts(project.landing)}
    pairs: dict[Pair, str] = {}
    for info in store.list():
        if info.last_modified < since or not info.key.endswith(".parquet"):
            continue
        asset = landed.get(info.key) or asset_of_key(info.key)
        if asset == GRAPH:
            pairs |= stones.erased_pairs(store.scan_stored(info.key))
        elif place_of(info.key).how in ("rows", "landed", "parts"):
            # of rows that no column is known of, such as those set aside, the addresses in their text
            table = mapping_of(project, asset) or SourceTable(asset, "event", ())
            pairs |= stones.erased_values(store.scan_stored(info.key), table, rules)
    return pairs


def _swept_at(project: Project) -> datetime:
    try:
        return datetime.fromisoformat(json.loads(project.lake.store.read(_SWEPT))["at"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return clock.now() - timedelta(days=2)
