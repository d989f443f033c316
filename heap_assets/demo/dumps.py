"""Nightly dumps as Heap Connect writes them into its bucket (heap.md 2.2–2.5): data files first, the manifest last."""

import json
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from heap_assets.demo import faults
from heap_assets.demo.avro_files import LAYOUTS, Layout, encode
from heap_assets.demo.behaviour import DayOfUse, day_of_use
from heap_assets.demo.chance import DAY, guid
from heap_assets.demo.events import RETROACTIVE_DAYS, events_of_use, plan_upgrades, sign_ups, tickets_opened
from heap_assets.demo.files import put
from heap_assets.demo.heap_users import migrations_of, users_of
from heap_assets.demo.world import World

BUCKET = "heap-rs3-sample-company"
LOOK_BACK_DAYS = 6
"""The latest that a pageview or an event that follows from one arrives."""

USE_TABLES = ("sessions", "pageviews")
EVENT_TABLES = (
    "sign_up", "feature_used", "invite_teammate", "plan_upgraded", "checkout_complete", "_key_events__export_data_",
    "click_on_anything", "ticket_opened",
)  # fmt: skip
INTERNAL = ("client", "person", "arrival", "identified")
ROWS_PER_FILE = 20_000
METADATA_LAYOUT = Layout("snappy", {})


@dataclass
class UseCache:
    """The last few days of use, because each dump looks back at them."""

    world: World
    days: OrderedDict[int, tuple[DayOfUse, dict[str, pl.DataFrame]]] = field(default_factory=OrderedDict)

    def table(self, name: str, day: int) -> pl.DataFrame:
        """Return what a table has of a day of use."""
        if day not in self.days:
            use = day_of_use(self.world, day)
            self.days[day] = use, events_of_use(self.world, use)
            while len(self.days) > LOOK_BACK_DAYS + 2:
                self.days.popitem(last=False)
        use, events = self.days[day]
        return {"sessions": use.sessions, "pageviews": use.pageviews, **events}[name]


@dataclass(frozen=True)
class DumpTable:
    """A table in one dump: its rows in Heap's columns, and whether it is the whole table."""

    name: str
    rows: pl.DataFrame
    incremental: bool


def tables_of_dump(world: World, cache: UseCache, day: int) -> list[DumpTable]:
    """Return the tables that a day's dump carries; a table that Heap skips is missing, an empty one has no rows."""
    plan = world.plan
    first = 0 if day == plan.history_end else day
    tables = [DumpTable("users", _users(world, cache, first, day), True)]
    tables.append(DumpTable("user_migrations", migrations_of(world, day), False))
    tables += [DumpTable(name, _use_rows(world, cache, name, day), True) for name in USE_TABLES]
    for name in EVENT_TABLES:
        if (name == "ticket_opened" and day < plan.new_table_day) or (
            name == "invite_teammate" and day == plan.skipped_day
        ):
            continue
        rows = _event_rows(world, cache, name, day)
        tables.append(DumpTable(name, rows.drop(INTERNAL, strict=False), not _is_full(world, name, day)))
    return tables


def _is_full(world: World, name: str, day: int) -> bool:
    """Tell whether a table comes whole: newly synced, or its definition was changed (heap.md 2.5)."""
    plan = world.plan
    started = plan.new_table_day if name == "ticket_opened" else plan.history_end
    return day == started or (name == "feature_used" and day == plan.resync_day)


def _users(world: World, cache: UseCache, first: int, last: int) -> pl.DataFrame:
    views = [cache.table("pageviews", day).select("user_id", "person", "time") for day in range(first, last + 1)]
    rows = users_of(world, first, last, pl.concat(views).rename({"time": "last_seen"}))
    return rows if last >= world.plan.new_column_day else rows.drop("deal_stage")


def _covered(world: World, name: str, day: int) -> tuple[int, int]:
    """Return the first and last day of arrival that a table has in a day's dump."""
    plan = world.plan
    if day == plan.history_end:
        return 0, day
    if name == "invite_teammate" and day == plan.skipped_day + 1:
        return day - 1, day
    return day, day


def _arrived(world: World, cache: UseCache, name: str, first: int, last: int) -> pl.DataFrame:
    """Return the rows of a table by day of arrival, each day's planted faults included."""
    parts = []
    for use_day in range(max(0, first - LOOK_BACK_DAYS), last + 1):
        rows = cache.table(name, use_day).filter(pl.col("arrival").is_between(first, last))
        parts.append(faults.spoil_rows(world.plan, name, use_day, rows))
    return pl.concat(parts)


def _use_rows(world: World, cache: UseCache, name: str, day: int) -> pl.DataFrame:
    rows = _arrived(world, cache, name, *_covered(world, name, day))
    if name == "pageviews":
        duplicates = rows.filter(pl.col("event_id") % 1000 == 7)
        rows = pl.concat([rows, duplicates, *_repeated(world, cache, day)])
    return _heap_columns(rows)


def _repeated(world: World, cache: UseCache, day: int) -> list[pl.DataFrame]:
    """Repeat pageviews of the day before: the last two hours, and those of clients that have logged in since.

    They bear the user_id of today, so an event comes again under the user that its first one migrated to
    (heap.md 2.10).
    """
    if day == world.plan.history_end:
        return []
    midnight = world.plan.midnight + day * DAY
    rows = cache.table("pageviews", day - 1).filter(pl.col("arrival") == day - 1)
    login_at = world.devices.clients["login_at"].gather(rows["client"])
    rows = rows.filter(
        (pl.col("time") >= midnight - DAY // 12) | login_at.is_between(midnight, midnight + DAY, closed="left")
    )
    client = rows["client"].to_numpy()
    now = pl.Series(world.user_ids(client, rows["time"].to_numpy() * 0 + midnight + DAY - 1))
    return [rows.with_columns(user_id=now)]


def _event_rows(world: World, cache: UseCache, name: str, day: int) -> pl.DataFrame:
    plan = world.plan
    first, last = _covered(world, name, day)
    if name in ("sign_up", "plan_upgraded"):
        events_of = sign_ups if name == "sign_up" else plan_upgrades
        return events_of(world, -RETROACTIVE_DAYS if day == plan.history_end else first, last)
    if name == "ticket_opened":
        return tickets_opened(world, first - 7 if day == plan.new_table_day else first, last)
    if name == "feature_used" and day == plan.resync_day:
        first = 0
    rows = _arrived(world, cache, name, first, last)
    return _redefined(rows) if name == "feature_used" and day >= plan.resync_day else rows


def _redefined(rows: pl.DataFrame) -> pl.DataFrame:
    """The new definition of `feature_used`: a tenth of the rows is none any more, exports have another name."""
    renamed = pl.when(pl.col("feature") == "export").then(pl.lit("export_file")).otherwise("feature")
    return rows.filter(pl.col("event_id") % 10 != 0).with_columns(feature=renamed)


def _heap_columns(rows: pl.DataFrame) -> pl.DataFrame:
    """Order columns as Heap does: ids, built-in, custom, time; internal ones dropped."""
    ids, last = ["event_id", "user_id", "session_id"], ["device_id", "product_user_id", "account_id", "time"]
    page_only = [] if "path" in rows.columns else ["device_id", "product_user_id", "account_id"]
    middle = [name for name in rows.columns if name not in (*ids, *last, *INTERNAL)]
    return rows.select(*ids, *middle, *last).drop(page_only)


def write_dump(bucket: Path, world: World, cache: UseCache, day: int, *, now: datetime | None = None) -> int:
    """Write a day's dump into a folder laid out like the bucket.

    Returns
    -------
    int
        The dump's id.
    """
    plan = world.plan
    dump_id, written = plan.dump_id(day), plan.written_at(day, now=now)
    root = f"sync_{dump_id}"
    tables = [_write_table(bucket, world, root, table, day, written) for table in tables_of_dump(world, cache, day)]
    tables.append(_write_table(bucket, world, root, _event_metadata(day), day, written))
    manifest: dict[str, Any] = {"dump_id": dump_id, "tables": tables}
    if day % 3:
        definitions = f"{root}/property_definitions.json"
        put(bucket / definitions, b"[]", written - timedelta(minutes=5))
        manifest["property_definitions"] = f"s3://{BUCKET}/{definitions}" if day % 3 == 1 else None
    report = {"start_time": int(written.timestamp() * 1000) - 3_600_000, "finish_time": int(written.timestamp() * 1000)}
    put(
        bucket / f"sync_reports/{dump_id}.json",
        json.dumps(report | {"status": "succeeded", "error": None}).encode(),
        written,
    )
    put(bucket / f"manifests/sync_{dump_id}.json", json.dumps(manifest, indent=1).encode(), written)
    return dump_id


def _event_metadata(day: int) -> DumpTable:
    """A table that real manifests have and nobody documents (heap.md 2.4)."""
    rows = pl.DataFrame(
        {"table_name": EVENT_TABLES, "display_name": [name.strip("_").replace("_", " ") for name in EVENT_TABLES]}
    )
    return DumpTable("_event_metadata", rows.with_columns(exported_on=pl.lit(str(day))), False)


def _write_table(
    bucket: Path, world: World, root: str, table: DumpTable, day: int, written: datetime
) -> dict[str, Any]:
    plan = world.plan
    layout = LAYOUTS.get(table.name, METADATA_LAYOUT)
    if table.name == "users" and day >= plan.text_time_day:
        layout = Layout(layout.codec, {"joindate": "text micros", "last_modified": "text micros"}, bare=layout.bare)
    if table.name == "user_migrations" and day % 3 == 2:
        layout = Layout(layout.codec, layout.times, ids_as_text=True, bare=layout.bare)
    files = []
    history = day == plan.history_end
    for part, start in enumerate(range(0, table.rows.height, _part_size(table, history))):
        name = _file_name(plan.seed, root, table.name, part, history=history)
        junk = faults.junk_rows(plan, table.name, day) if part == 0 else None
        container = encode(table.rows.slice(start, _part_size(table, history)), layout, table.name, junk)
        path = f"{root}/{table.name}/{name}"
        put(bucket / path, faults.spoil_file(plan, table.name, day, container), written - timedelta(minutes=10))
        files.append(f"s3://{BUCKET}/{path}")
    return {"name": table.name, "files": files, "columns": table.rows.columns, "incremental": table.incremental}


def _part_size(table: DumpTable, history: bool) -> int:
    """The history's pageviews and users always come in two files or more."""
    if history and table.name in ("pageviews", "users"):
        return min(ROWS_PER_FILE, max(1, (table.rows.height + 1) // 2))
    return ROWS_PER_FILE


def _file_name(seed: int, root: str, table: str, part: int, *, history: bool) -> str:
    """Name a file as Heap does; the first dump also has the older forms (heap.md 2.2)."""
    label = guid(seed, root, table, part)
    if history and table == "users":
        return f"{part}_part-{part:05d}-{label}-c000.avro"
    if history and table == "pageviews" and part:
        return f"part-{part:05d}-{label.upper()}.avro"
    return f"part-{part:05d}-{label}-c000.avro"
