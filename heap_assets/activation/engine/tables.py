"""The open tables of a sync under `_sync/<sync>/`: runs, changelog, invalid, held. Any Parquet reader opens them.

`runs/<day of sending>/<fence>.parquet`, `changelog/<day of sending>/<fence>.parquet`,
`set_aside/<day of sending>/<fence>.parquet`. Keys stand in them as keyed hashes only.
"""

from __future__ import annotations

import io
import json
import logging
from datetime import UTC, date, datetime
from pathlib import Path
from typing import IO, Any, cast

import polars as pl

from heap_assets.activation.engine.hashing import hashed_keys
from heap_assets.activation.engine.lease import LIVE
from heap_assets.activation.engine.log import FIELD, field_names
from heap_assets.activation.engine.report import Status, SyncReport
from heap_assets.activation.engine.spec import SyncSpec
from heap_assets.storage import Store, from_parquet, state_keys, to_parquet

MEDIAN_OF = 7
"""Number of past runs that say what is usual."""

_GROUP_ROWS = 25_000
"""Rows of a row group of those that were not sent, which may be many."""
_RECENT = 100
"""So many of the newest runs are searched for one that has just ended; live ones come once a minute."""
_SENT = (Status.SUCCEEDED, Status.PARTIAL, Status.STOPPED)
_log = logging.getLogger("heap_assets.delivery")

_NUMBERS = (
    *("planned", "added", "changed", "unchanged", "empty", "withdrawn", "removed", "superseded", "waiting", "known"),
    *("sent", "rejected", "invalid", "held", "unknown", "aborted", "requests", "retried", "throttled", "recovered"),
    *("no_match", "deferred", "no_consent", "left", "lost", "resumed"),
)
RUN_SCHEMA = pl.Schema(
    {
        "sync": pl.String(),
        "destination": pl.String(),
        "run_id": pl.String(),
        "fence": pl.Int64(),
        "day": pl.Date(),
        "newest_day": pl.Date(),
        "status": pl.String(),
        "reason": pl.String(),
        "started_at": pl.Datetime("us", "UTC"),
        "finished_at": pl.Datetime("us", "UTC"),
        "seconds": pl.Float64(),
        **{name: pl.Int64() for name in _NUMBERS},
        "full_resend_reason": pl.String(),
        "concerns": pl.List(pl.String()),
        "new_properties": pl.List(pl.String()),
        "rejections": pl.String(),
        "invalid_reasons": pl.String(),
        "held_reasons": pl.String(),
    }
)
CHANGELOG_SCHEMA = pl.Schema(
    {
        "sync": pl.String(),
        "run_id": pl.String(),
        "key_hash": pl.String(),
        "op": pl.String(),
        "status": pl.String(),
        "http_status": pl.Int32(),
        "reason": pl.String(),
        "attempt": pl.UInt32(),
        "batch": pl.String(),
        "day": pl.Date(),
        "intended_at": pl.Datetime("us", "UTC"),
        "answered_at": pl.Datetime("us", "UTC"),
        "fields": pl.List(pl.String()),
        "hashes": pl.List(pl.UInt64()),
    }
)
SET_ASIDE_SCHEMA = pl.Schema(
    {
        "sync": pl.String(),
        "run_id": pl.String(),
        "day": pl.Date(),
        "kind": pl.String(),
        "profile_id": pl.String(),
        "key_hash": pl.String(),
        "reason": pl.String(),
    }
)


def runs(store: Store, sync: str, last: int | None = None) -> pl.DataFrame:
    """Return the runs of a sync, oldest first; with `last` only the newest so many."""
    keys = [i.key for i in store.list(f"{state_keys.SYNC}/{sync}/runs")]
    keys.sort(key=lambda key: key.rsplit("/", 1)[-1])
    return _read(store, keys[-last:] if last else keys, RUN_SCHEMA)


def first_sent(store: Store, sync: str) -> datetime | None:
    """Return when the first run began that called the destination, None if none did."""
    keys = [i.key for i in store.list(f"{state_keys.SYNC}/{sync}/runs")]
    for key in sorted(keys, key=lambda key: key.rsplit("/", 1)[-1]):
        frame = read_table(store, key)
        if frame is not None and frame["requests"][0]:
            return cast("datetime", frame["started_at"][0])
    return None


def usual_runs(store: Store, sync: str) -> pl.DataFrame:
    """Return the last runs that sent what they meant to, oldest first: up to :data:`MEDIAN_OF`.

    A run that asked for confirmation is none of them, or asking often enough would be an answer. Nor is what was sent
    live, a few rows a minute.
    """
    keys = [i.key for i in store.list(f"{state_keys.SYNC}/{sync}/runs")]
    keys.sort(key=lambda key: key.rsplit("/", 1)[-1], reverse=True)
    frames: list[pl.DataFrame] = []
    for key in keys:
        frame = read_table(store, key)
        if frame is not None and frame["status"][0] in _SENT and not frame["run_id"][0].startswith(LIVE):
            frames.append(frame)
        if len(frames) == MEDIAN_OF:
            break
    return pl.concat([pl.DataFrame(schema=RUN_SCHEMA), *reversed(frames)], how="diagonal_relaxed")


def changelog(store: Store, sync: str, sent_on: str | None = None) -> pl.DataFrame:
    """Return what was sent and what came of it, of one day of sending (`YYYY-MM-DD`) or of all."""
    return _read(store, [i.key for i in store.list(_folder(sync, "changelog", sent_on))], CHANGELOG_SCHEMA)


def changelog_since(store: Store, sync: str, run_id: str) -> pl.DataFrame:
    """Return the changelog of a run, with what killed runs left to it and what was sent live since the run before it.

    `own`: whether a row is of the run, or of a killed one that it went on with; none that was sent live.
    """
    fences = set(runs(store, sync, last=_RECENT).filter(pl.col("run_id") == run_id)["fence"])
    keys = [i.key for i in store.list(_folder(sync, "changelog", None))]
    frames = [pl.DataFrame(schema={**CHANGELOG_SCHEMA, "own": pl.Boolean})]
    for key in sorted(keys, key=lambda key: key.rsplit("/", 1)[-1], reverse=True):
        frame = read_table(store, key)
        own = int(key.rsplit("/", 1)[-1].partition(".")[0]) in fences
        if frame is None:
            continue
        live = frame["run_id"].str.starts_with(LIVE)
        if not own and not live.any():
            break
        frames.append(frame.with_columns(own=~live if own else pl.lit(value=False)))
    return pl.concat(frames, how="diagonal_relaxed")


def set_aside(store: Store, sync: str, sent_on: str | None = None) -> pl.DataFrame:
    """Return invalid and held rows by run, with reasons."""
    return _read(store, [i.key for i in store.list(_folder(sync, "set_aside", sent_on))], SET_ASIDE_SCHEMA)


def write_run(
    store: Store, folder: str, report: SyncReport, fence: int, started: datetime, newest_day: date | None
) -> None:
    """Record a run in place of an earlier record of the same fencing number."""
    facts: dict[str, Any] = report.as_dict()
    for name in ("rejections", "invalid_reasons", "held_reasons"):
        facts[name] = json.dumps(facts[name], ensure_ascii=False)
    facts |= {"fence": fence, "day": report.day, "newest_day": newest_day, "started_at": started}
    facts |= {"finished_at": datetime.now(UTC), "concerns": list(report.concerns)}
    facts["new_properties"] = list(report.new_properties)
    frame = pl.DataFrame([{name: facts[name] for name in RUN_SCHEMA}], schema=RUN_SCHEMA)
    write_table(store, _key(folder, "runs", started, fence), frame)


def mark_killed(store: Store, sync: str, fence: int) -> None:
    """Mark a run as killed, unless it recorded its own end."""
    names = [i.key for i in store.list(f"{state_keys.SYNC}/{sync}/runs") if i.key.endswith(f"/{fence:010d}.parquet")]
    for key in names:
        frame = read_table(store, key)
        if frame is not None and frame["status"][0] == "running":
            write_table(store, key, frame.with_columns(status=pl.lit(str(Status.KILLED))))


class Changelog:
    """What a run and the killed runs before it have sent: one row per row and batch, put together part by part.

    `scratch`: a folder for the parts, which are in memory without one.
    """

    def __init__(self, spec: SyncSpec, salt: bytes, scratch: Path | None = None) -> None:
        self._spec, self._salt, self._scratch = spec, salt, scratch
        self._parts: list[bytes] = []
        self._files: list[Path] = []

    def add(self, entries: pl.DataFrame) -> None:
        """Add entries as :meth:`heap_assets.activation.Log.parts` gives them."""
        fields = field_names(entries)
        sent = [pl.when(pl.col(f).is_not_null()).then(pl.lit(f.removeprefix(FIELD))) for f in fields]
        frame = entries.select(
            pl.lit(self._spec.name).alias("sync"),
            *(c for c in CHANGELOG_SCHEMA if c in entries.columns),
            hashed_keys(entries["key"], self._salt),
            pl.col("at").alias("intended_at"),
            (pl.concat_list(sent).list.drop_nulls() if sent else pl.lit(None, pl.List(pl.String))).alias("fields"),
            (pl.concat_list(fields).list.drop_nulls() if fields else pl.lit(None, pl.List(pl.UInt64))).alias("hashes"),
        )
        part = to_parquet(frame.select(pl.col(c).cast(t) for c, t in CHANGELOG_SCHEMA.items()))
        if self._scratch is None:
            self._parts.append(part)
        else:
            self._files.append(self._scratch / f"changelog-{len(self._files)}")
            self._files[-1].write_bytes(part)

    def write(self, store: Store, started: datetime, fence: int) -> None:
        """Write what was added, in place of what this fencing number wrote before."""
        key = _key(self._spec.folder, "changelog", started, fence)
        if self._files:
            store.sink(key, pl.scan_parquet(self._files))
        elif self._parts:
            parts = pl.scan_parquet([cast("IO[bytes]", io.BytesIO(part)) for part in self._parts])
            store.write(key, to_parquet(parts))


def write_set_aside(store: Store, rows: pl.LazyFrame, sync: str, started: datetime, fence: int) -> None:
    """Write the rows that a run did not send."""
    store.sink(_key(sync, "set_aside", started, fence), rows, group_rows=_GROUP_ROWS)


def _folder(sync: str, table: str, day: str | None) -> str:
    return f"{state_keys.SYNC}/{sync}/{table}" + (f"/{day}" if day else "")


def _key(sync: str, table: str, started: datetime, fence: int) -> str:
    return f"{state_keys.SYNC}/{sync}/{table}/{started:%Y-%m-%d}/{fence:010d}.parquet"


def write_table(store: Store, key: str, frame: pl.DataFrame) -> None:
    """Replace a small table whole."""
    store.write(key, to_parquet(frame))


def read_table(store: Store, key: str) -> pl.DataFrame | None:
    """Read a small table; None and a warning if its file is damaged."""
    try:
        return from_parquet(store.read(key))
    except ValueError as error:
        _log.warning("%s is damaged (%s) and left out: delete it", store.uri(key), type(error).__name__)
        return None


def _read(store: Store, keys: list[str], schema: pl.Schema) -> pl.DataFrame:
    frames = [frame for key in keys if (frame := read_table(store, key)) is not None]
    return pl.concat([pl.DataFrame(schema=schema), *frames], how="diagonal_relaxed")
