"""What the guard of a live sync remembers: keys that lost a value, or changed, in the last 24 hours."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import polars as pl

from heap_assets.activation.engine.hashing import EMPTY, hashed_keys
from heap_assets.activation.engine.lease import LIVE
from heap_assets.activation.engine.log import field_names
from heap_assets.activation.engine.spec import Guard
from heap_assets.storage import Store, from_parquet, state_keys, to_parquet

_SCHEMA = pl.Schema({"key_hash": pl.String(), "at": pl.Datetime("us", "UTC"), "is_lost": pl.Boolean()})
_REMEMBERED = timedelta(hours=24)
_log = logging.getLogger("heap_assets.delivery")


@dataclass
class LiveGuard:
    """Counts by what the destination took, also before a restart; keys are kept as keyed hashes only.

    Parameters
    ----------
    usual
        The share of keys that a run usually changes.
    """

    store: Store
    folder: str
    guard: Guard
    salt: bytes
    usual: float = 0.0
    _recent: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_SCHEMA))

    @property
    def _key(self) -> str:
        return f"{state_keys.SYNC}/{self.folder}/live_guard.parquet"

    def load(self, unsaved: Sequence[pl.DataFrame], last_run: datetime | None) -> None:
        """Add what was stored, and the entries of the log that came after, to what is remembered.

        What came before the end of the last run of the sync is forgotten: a run has a guard of its own, and people
        confirm what it stops.
        """
        if self.store.exists(self._key):
            try:
                self._recent = pl.concat([from_parquet(self.store.read(self._key)), self._recent])
            except ValueError as error:
                _log.warning("%s is damaged (%s): 24 hours begin anew", self.store.uri(self._key), type(error).__name__)
        for entries in unsaved:
            self.count(entries.filter(pl.col("run_id").str.starts_with(LIVE)))
        if last_run is not None:
            self._recent = self._recent.filter(pl.col("at") > last_run)

    def save(self) -> None:
        """Store what is remembered."""
        self.store.write(self._key, to_parquet(self._recent))

    def count(self, entries: pl.DataFrame) -> None:
        """Remember the entries of the log that the destination took."""
        taken = entries.filter(pl.col("status").is_in(["acknowledged", "sent"]))
        recent = pl.concat([self._recent, self._losses_and_changes(taken, "answered_at")]).filter(
            pl.col("at") > datetime.now(UTC) - _REMEMBERED
        )
        self._recent = recent.unique(["key_hash", "is_lost"], keep="last", maintain_order=True)

    def concern(self, send: pl.DataFrame, key_count: int) -> str:
        """Return what is unusual about the last 24 hours with rows that are to be sent; empty if they can be."""
        if key_count < self.guard.at_least:
            return ""
        planned = self._losses_and_changes(send.with_columns(at=pl.lit(datetime.now(UTC))), "at")
        recent = self._recent.filter(pl.col("at") > datetime.now(UTC) - _REMEMBERED)
        usual_change = max(self.guard.changed, self.guard.changed_times_median * self.usual)
        for is_lost, usual, verb in ((True, self.guard.removed, "lose a value"), (False, usual_change, "change")):
            now, before = (rows.filter(pl.col("is_lost") == is_lost)["key_hash"] for rows in (planned, recent))
            count = len({*now, *before})
            if len(now) and count > usual * key_count:
                return f"{count} of {key_count} keys would {verb} within 24 hours; up to {usual:.0%} is usual"
        return ""

    def _losses_and_changes(self, rows: pl.DataFrame, at: str) -> pl.DataFrame:
        """Return the rows that lose a value, and those that change, as they are remembered."""
        emptied = pl.any_horizontal(*((pl.col(f) == EMPTY).fill_null(value=False) for f in field_names(rows)), False)
        kinds = {True: (pl.col("op") == "withdraw") | emptied, False: pl.col("op") == "change"}
        parts = [rows.filter(condition).with_columns(is_lost=pl.lit(is_lost)) for is_lost, condition in kinds.items()]
        both = pl.concat(parts)
        return both.select(hashed_keys(both["key"], self.salt), at=pl.col(at), is_lost="is_lost").cast(_SCHEMA)
