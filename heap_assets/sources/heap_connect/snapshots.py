"""Heap's two snapshot tables: users, folded from dumps, and user_migrations, followed to their ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl

from heap_assets.sources.heap_connect.config import USER_MIGRATIONS, USERS
from heap_assets.sources.heap_connect.landing import Landing
from heap_assets.sources.heap_connect.records import (
    Delivery,
    DumpRecord,
    TableState,
    deliveries,
    rejected_notes,
    seen_until,
)
from heap_assets.sources.heap_connect.tables import (
    BROUGHT_BY,
    Built,
    digest,
    newest,
    other_types,
    placements,
    scan_part,
    schema_of,
    standing_deliveries,
)
from heap_assets.sources.heap_connect.values import TIME
from heap_assets.storage import Inputs, Lake, Store
from heap_assets.tables import heap_asset

_DAYS_LOOKED_AT = 3
_USER_COLUMNS = ("user_id", "identity", "handle", "email", "joindate", "last_modified")
MIGRATIONS_SCHEMA = pl.Schema(
    {
        "from_user_id": pl.Int64(),
        "to_user_id": pl.Int64(),
        "resolved_to": pl.Int64(),
        "time": TIME,
        "cycle": pl.Boolean(),
    }
)


def build_users(
    landing: Landing,
    day: date,
    columns: Sequence[str] | None = None,
    *,
    lake: Lake | None = None,
    asset: str = heap_asset(USERS),
) -> Built:
    """Build the users as they stood at the end of a day.

    All dumps that belong to days until then, since the last full resync among them, are folded: of a user the row with
    the newest last_modified stands; of equal ones that of the newer dump; within one dump the fuller, then the greater.
    `migrated_to` is the end of the user's chain of migrations as of the day. Sorted by user_id.

    Parameters
    ----------
    lake, asset
        Where earlier days are. The newest of them that was folded from the first of the same deliveries is where the
        fold begins; the rows are those of a fold of all.

    Raises
    ------
    TableError
        If users never landed.
    """
    records = landing.records()
    standing = standing_deliveries(records, USERS, day)
    migrations = deliveries(records, USER_MIGRATIONS, max(day, standing[0].dump.day))
    schema = schema_of(standing, standing, _USER_COLUMNS, columns)
    folded = {f"{USERS} {d.input_id}": d.table.version for d in standing}
    columns_digest = digest(schema)
    versions = folded | {f"{USER_MIGRATIONS} {d.input_id}": d.table.version for d in migrations}
    versions["columns"] = columns_digest

    def rows() -> pl.LazyFrame:
        begun = _earlier_fold(lake, asset, day, folded, columns_digest) if lake else None
        return _user_rows(landing.store, standing, migrations, schema, begun)

    return Built(
        Inputs(versions, _seen(records, USERS, day, standing) | _seen(records, USER_MIGRATIONS, day, migrations)),
        {
            "dumps": [d.dump.dump_id for d in standing],
            "rows_landed": sum(d.table.counts.landed for d in standing),
            **rejected_notes(d.table for d in standing if d.dump.day == day),
            "complete": any(d.dump.day >= day for d in standing),
            "newest_dump_day": standing[-1].dump.day.isoformat(),
            **_before_first_dump(standing, day),
            **other_types(schema, columns),
        },
        rows,
    )


def _seen(records: Mapping[int, DumpRecord], table: str, day: date, taken: Sequence[Delivery]) -> frozenset[str]:
    return seen_until(records, table, day) | {delivery.input_id for delivery in taken}


def _before_first_dump(standing: Sequence[Delivery], day: date) -> dict[str, str]:
    """Return the note of a day that takes the oldest dump there is, which is of a later day."""
    first = standing[0].dump
    return {"before_first_dump": f"as dump {first.dump_id} of {first.day} has it"} if first.day > day else {}


def build_user_migrations(landing: Landing, day: date) -> Built:
    """Build the migrations as they stood at the end of a day: the newest full snapshot until then.

    Incremental deliveries after it, which Heap does not document, are added. A from_user_id given twice keeps its
    newest time. `resolved_to` is the end of the chain; a chain that runs in a circle is cut at the smallest user_id
    and marked. Sorted by from_user_id.

    Raises
    ------
    TableError
        If user_migrations never landed.
    """
    records = landing.records()
    standing = standing_deliveries(records, USER_MIGRATIONS, day)
    return Built(
        Inputs({d.input_id: d.table.version for d in standing}, _seen(records, USER_MIGRATIONS, day, standing)),
        {
            "dumps": [d.dump.dump_id for d in standing],
            "rows_landed": sum(d.table.counts.landed for d in standing),
            **rejected_notes(d.table for d in standing if d.dump.day == day),
            "complete": any(d.dump.day >= day for d in standing),
            "newest_dump_day": standing[-1].dump.day.isoformat(),
            **_before_first_dump(standing, day),
        },
        lambda: resolved(_migration_rows(landing.store, standing)).lazy(),
    )


def _earlier_fold(
    lake: Lake, asset: str, day: date, folded: Mapping[str, str], columns: str
) -> tuple[int, pl.LazyFrame] | None:
    """Return how many of the deliveries an earlier day has folded already, and its rows.

    A late dump, a full resync, a reset or a changed column leave no day whose deliveries are the first of these.
    """
    earlier = [key for key in lake.partitions(asset) if key < day.isoformat()]
    for key in reversed(earlier[-_DAYS_LOOKED_AT:]):
        partition = lake.find(asset, key)
        known = partition.inputs.versions if partition else {}
        own = {name: version for name, version in known.items() if name.startswith(f"{USERS} ")}
        if own and known.get("columns") == columns and own == dict(list(folded.items())[: len(own)]):
            return len(own), lake.scan(asset, key)
    return None


def _user_rows(
    store: Store,
    standing: Sequence[Delivery],
    migrations: Sequence[Delivery],
    schema: dict[str, pl.DataType],
    begun: tuple[int, pl.LazyFrame] | None = None,
) -> pl.LazyFrame:
    names = placements(standing)
    state: pl.DataFrame | None = None
    if begun is not None:
        count, rows_before = begun
        # Which of the dumps a row came in matters no more: what follows is newer than all of them.
        dump = pl.lit(standing[count - 1].dump.dump_id, dtype=pl.Int64).alias(BROUGHT_BY)
        state = rows_before.select(*schema, dump).collect()
        standing = standing[count:]
    for delivery in standing:
        parts = [scan_part(store, p.key, names[delivery.dump.dump_id], schema) for p in delivery.table.parts]
        if not parts:
            continue
        rows = pl.concat(parts).with_columns(pl.lit(delivery.dump.dump_id, dtype=pl.Int64).alias(BROUGHT_BY)).collect()
        state = _folded(rows if state is None else pl.concat([state, rows]))
    users = pl.DataFrame(schema=dict(schema)) if state is None else state.drop(BROUGHT_BY)
    moved = resolved(_migration_rows(store, migrations)) if migrations else pl.DataFrame(schema=MIGRATIONS_SCHEMA)
    ends = moved.filter(pl.col("from_user_id") != pl.col("resolved_to"))
    return (
        users.join(
            ends.select(user_id="from_user_id", migrated_to="resolved_to"), on="user_id", how="left", validate="m:1"
        )
        .sort("user_id")
        .lazy()
    )


def _folded(rows: pl.DataFrame) -> pl.DataFrame:
    repeated = rows["user_id"].is_duplicated()
    if not repeated.any():
        return rows
    contested = rows.filter(repeated)
    # A row without last_modified is older than any that has one.
    modified = pl.col("last_modified").fill_null(pl.lit(0).cast(TIME))
    latest = contested.filter(modified == modified.max().over("user_id"))
    return pl.concat([rows.filter(~repeated), newest(latest, ("user_id",), ("user_id",))])


def _migration_rows(store: Store, standing: Sequence[Delivery]) -> pl.DataFrame:
    schema = {"from_user_id": pl.Int64(), "to_user_id": pl.Int64(), "time": TIME}
    names = placements(standing)
    frames = [
        scan_part(store, part.key, names[delivery.dump.dump_id], schema).with_columns(
            pl.lit(delivery.dump.dump_id, dtype=pl.Int64).alias(BROUGHT_BY)
        )
        for delivery in standing
        for part in delivery.table.parts
    ]
    if not frames:
        return pl.DataFrame(schema=schema)
    rows = pl.concat(frames).collect()
    order = ["from_user_id", "time", BROUGHT_BY, "to_user_id"]
    return rows.sort(order, descending=[False, True, True, True], nulls_last=True).unique(
        "from_user_id", keep="first", maintain_order=True
    )


def resolved(migrations: pl.DataFrame) -> pl.DataFrame:
    """Follow every migration to its end (heap.md 2.6: chains exist, and nothing rules out circles).

    Parameters
    ----------
    migrations
        from_user_id (unique), to_user_id, time.
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
    """Return `user_id`, `resync`: the users that full resyncs written since a day brought, and a name for each resync.

    One name for all tables of a dump. The first delivery of a table is no resync, and neither is any of
    user_migrations, which Heap always sends whole.
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
