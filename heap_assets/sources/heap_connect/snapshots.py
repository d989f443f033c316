"""Heap's two snapshot tables: users, folded from dumps, and user_migrations, with chains resolved to their ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from heap_assets.sources.heap_connect.config import USER_MIGRATIONS, USERS
from heap_assets.sources.heap_connect.landing import Landing
from heap_assets.sources.heap_connect.records import (
    Delivery,
    DumpRecords,
    TableState,
    deliveries,
    observed_inputs,
    rejected_notes,
)
from heap_assets.sources.heap_connect.tables import (
    BROUGHT_BY,
    Built,
    current_deliveries,
    digest,
    newest,
    other_types,
    placements,
    scan_part,
    schema_of,
)
from heap_assets.sources.heap_connect.values import key_dtype
from heap_assets.storage import Inputs, Lake, Store
from heap_assets.tables import heap_asset
from heap_assets.values import TIME

_EARLIER_DAYS = 3
_USER_COLUMNS = ("user_id", "identity", "handle", "email", "joindate", "last_modified")
MIGRATIONS_SCHEMA = pl.Schema({
    "from_user_id": pl.Int64(), "to_user_id": pl.Int64(), "resolved_to": pl.Int64(), "time": TIME,
    "cycle": pl.Boolean(),
})  # fmt: skip


def build_users(
    landing: Landing,
    day: date,
    columns: Sequence[str] | None = None,
    *,
    lake: Lake | None = None,
    asset: str = heap_asset(USERS),
) -> Built:
    """Build the users as of the end of a day.

    All dumps that belong to days until then, since the last full resync among them, are folded: a user's newest row by
    last_modified wins; of equal ones that of the newer dump; within one dump the fuller, then the greater.
    `migrated_to` is the end of the user's chain of migrations as of the day. Sorted by user_id.

    `lake`, `asset`: where earlier days are. The fold begins at the newest of them that was folded from the first of the
    same deliveries; the result is that of a fold of all.

    Raises TableError if users never landed.
    """
    if landing.lacks(USERS):
        own = {column: key_dtype(USERS, column) or pl.String() for column in _USER_COLUMNS}
        return _without_rows(pl.Schema(own | {"migrated_to": pl.Int64()}))
    records = landing.records()
    users = current_deliveries(records, USERS, day)
    migrations = deliveries(records, USER_MIGRATIONS, max(day, users[0].dump.day))
    schema = schema_of(users, users, _USER_COLUMNS, columns)
    folded = {f"{USERS} {d.input_id}": d.table.version for d in users}
    columns_digest = digest(schema)
    versions = folded | {f"{USER_MIGRATIONS} {d.input_id}": d.table.version for d in migrations}
    versions["columns"] = columns_digest

    def rows() -> pl.LazyFrame:
        start = _earlier_fold(lake, asset, day, folded, columns_digest) if lake else None
        return _user_rows(landing.store, users, migrations, schema, start)

    observed = _observed_ids(records, USERS, day, users) | _observed_ids(records, USER_MIGRATIONS, day, migrations)
    return Built(Inputs(versions, observed), _notes(users, day) | other_types(schema, columns), rows)


def _without_rows(schema: pl.Schema) -> Built:
    return Built(Inputs({}, frozenset()), {"dumps": [], "complete": True}, lambda: pl.LazyFrame(schema=schema))


def _observed_ids(records: DumpRecords, table: str, day: date, used: Sequence[Delivery]) -> frozenset[str]:
    return observed_inputs(records, table, day) | frozenset(delivery.input_id for delivery in used)


def _notes(current: Sequence[Delivery], day: date) -> dict[str, Any]:
    """Return the notes of a snapshot table's day; one before the first dump takes the oldest dump there is."""
    first = current[0].dump
    notes = {
        "dumps": [d.dump.dump_id for d in current],
        "rows_landed": sum(d.table.counts.landed for d in current),
        **rejected_notes(d.table for d in current if d.dump.day == day),
        "complete": any(d.dump.day >= day for d in current),
        "newest_dump_day": current[-1].dump.day.isoformat(),
    }
    return notes | ({"before_first_dump": f"as dump {first.dump_id} of {first.day} has it"} if first.day > day else {})


def build_user_migrations(landing: Landing, day: date) -> Built:
    """Build the migrations as of the end of a day: the newest full snapshot until then.

    Incremental deliveries after it, which Heap does not document, are added. A from_user_id given twice keeps its
    newest time. `resolved_to` is the end of the chain; a chain that runs in a circle is cut at the smallest user_id
    and marked. Sorted by from_user_id.

    Raises TableError if user_migrations never landed.
    """
    if landing.lacks(USER_MIGRATIONS):
        return _without_rows(MIGRATIONS_SCHEMA)
    records = landing.records()
    current = current_deliveries(records, USER_MIGRATIONS, day)
    return Built(
        Inputs({d.input_id: d.table.version for d in current}, _observed_ids(records, USER_MIGRATIONS, day, current)),
        _notes(current, day),
        lambda: resolved(_migration_rows(landing.store, current)).lazy(),
    )


def _earlier_fold(
    lake: Lake, asset: str, day: date, folded: Mapping[str, str], columns: str
) -> tuple[int, pl.LazyFrame] | None:
    """Return how many of the deliveries an earlier day has folded already, and its rows.

    None after a late dump, a full resync, a reset or a changed column. A damaged day is passed over.
    """
    earlier = [key for key in lake.partitions(asset) if key < day.isoformat()]
    for key in reversed(earlier[-_EARLIER_DAYS:]):
        partition = lake.find(asset, key) if lake.store.is_whole(lake.key(asset, key)) else None
        versions = partition.inputs.versions if partition else {}
        folds = {name: version for name, version in versions.items() if name.startswith(f"{USERS} ")}
        if folds and versions.get("columns") == columns and folds == dict(list(folded.items())[: len(folds)]):
            return len(folds), lake.scan(asset, key)
    return None


def _user_rows(
    store: Store,
    current: Sequence[Delivery],
    migrations: Sequence[Delivery],
    schema: dict[str, pl.DataType],
    start: tuple[int, pl.LazyFrame] | None = None,
) -> pl.LazyFrame:
    names = placements(current)
    state: pl.DataFrame | None = None
    if start is not None:
        count, rows_before = start
        # Which of the dumps a row came from no longer matters: those that follow are newer than all of them.
        dump = pl.lit(current[count - 1].dump.dump_id, dtype=pl.Int64).alias(BROUGHT_BY)
        state = rows_before.select(*schema, dump).collect()
        current = current[count:]
    for delivery in current:
        parts = _delivered(store, delivery, names, schema)
        if not parts:
            continue
        rows = pl.concat(parts).collect()
        state = _folded(rows if state is None else pl.concat([state, rows]))
    users = pl.DataFrame(schema=dict(schema)) if state is None else state.drop(BROUGHT_BY)
    chains = resolved(_migration_rows(store, migrations)) if migrations else pl.DataFrame(schema=MIGRATIONS_SCHEMA)
    ends = chains.filter(pl.col("from_user_id") != pl.col("resolved_to"))
    ends = ends.select(user_id="from_user_id", migrated_to="resolved_to")
    return users.join(ends, on="user_id", how="left", validate="m:1").sort("user_id").lazy()


def _delivered(
    store: Store, delivery: Delivery, names: Mapping[int, Mapping[str, str]], schema: Mapping[str, pl.DataType]
) -> list[pl.LazyFrame]:
    """Scan the parts of a delivery, each with the number of its dump."""
    number = delivery.dump.dump_id
    dump = pl.lit(number, dtype=pl.Int64).alias(BROUGHT_BY)
    return [scan_part(store, part.key, names[number], schema).with_columns(dump) for part in delivery.table.parts]


def _folded(rows: pl.DataFrame) -> pl.DataFrame:
    repeated = rows["user_id"].is_duplicated()
    if not repeated.any():
        return rows
    contested = rows.filter(repeated)
    # A row without last_modified is older than any that has one.
    modified = pl.col("last_modified").fill_null(pl.lit(0).cast(TIME))
    latest = contested.filter(modified == modified.max().over("user_id"))
    return pl.concat([rows.filter(~repeated), newest(latest, ("user_id",), ("user_id",))])


def _migration_rows(store: Store, current: Sequence[Delivery]) -> pl.DataFrame:
    schema = {"from_user_id": pl.Int64(), "to_user_id": pl.Int64(), "time": TIME}
    names = placements(current)
    frames = [rows for delivery in current for rows in _delivered(store, delivery, names, schema)]
    if not frames:
        return pl.DataFrame(schema=schema)
    rows = pl.concat(frames).collect()
    order = ["from_user_id", "time", BROUGHT_BY, "to_user_id"]
    return rows.sort(order, descending=[False, True, True, True], nulls_last=True).unique(
        "from_user_id", keep="first", maintain_order=True
    )


def resolved(migrations: pl.DataFrame) -> pl.DataFrame:
    """Resolve every chain of migrations to its end (heap.md 2.6: chains exist, and nothing rules out circles).

    `migrations`: from_user_id (unique), to_user_id, time.
    """
    source = migrations["from_user_id"].to_numpy()
    target = migrations["to_user_id"].to_numpy()
    ids, positions = np.unique(np.concatenate([source, target]), return_inverse=True)
    step = np.arange(len(ids))
    step[positions[: len(source)]] = positions[len(source) :]
    leads = step
    # Pointer doubling: after k rounds every pointer has gone 2^k steps; longer than all ids is in a circle.
    for _ in range(max(1, len(ids).bit_length())):
        leads = leads[leads]
    circle = step[leads] != leads
    end = np.where(circle, _smallest_of_circle(step, leads, circle), leads)
    place = positions[: len(source)]
    return migrations.select(
        "from_user_id",
        "to_user_id",
        pl.Series("resolved_to", ids[end[place]] if len(ids) else [], dtype=pl.Int64),
        "time",
        pl.Series("cycle", circle[place] if len(ids) else [], dtype=pl.Boolean),
    ).sort("from_user_id")


def _smallest_of_circle(
    step: npt.NDArray[np.int64], leads: npt.NDArray[np.int64], circle: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Return, for each member of a circle or of a chain into one, the smallest member of the circle itself."""
    smallest = np.arange(len(step))
    for start in np.unique(leads[circle]):
        members, at = [start], step[start]
        while at != start:
            members.append(at)
            at = step[at]
        smallest[members] = min(members)
    ends: npt.NDArray[np.int64] = smallest[leads]
    return ends


RESYNC_SCHEMA = {"user_id": pl.Int64(), "resync": pl.String()}


def resynced_users(landing: Landing, since: date) -> pl.LazyFrame:
    """Return `user_id`, `resync`: the users of full resyncs written since a day, and a name per dump.

    The first delivery of a table is no resync, and neither is any of user_migrations, which Heap always sends whole.
    """
    frames = [
        landing.store.scan(part.key)
        .select(pl.col("user_id").cast(pl.Int64), pl.lit(f"dump {delivery.dump.dump_id}").alias("resync"))
        .unique()
        for delivery in _resyncs(landing)
        if delivery.dump.as_of.date() >= since
        for part in delivery.table.parts
    ]
    return pl.concat(frames).drop_nulls().unique() if frames else pl.LazyFrame(schema=RESYNC_SCHEMA)


def _resyncs(landing: Landing) -> list[Delivery]:
    landed: set[str] = set()
    resyncs = []
    for dump in landing.records().values():
        for name, table in dump.tables.items():
            if table.state is not TableState.LANDED or name == USER_MIGRATIONS:
                continue
            if name in landed and not table.incremental:
                resyncs.append(Delivery(dump, table))
            landed.add(name)
    return resyncs


OWN_MARK, OWN_VALUE = "sent_by", "heap_assets"
"""The property on every event that `sync/heap_events` sends, and its value."""


def without_own(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return the rows of an event table that Heap's own clients sent (design.md, Heap tables)."""
    if OWN_MARK not in rows.collect_schema():
        return rows
    return rows.filter(pl.col(OWN_MARK).ne_missing(pl.lit(OWN_VALUE)))
