"""Batches that a destination works on after the call, such as jobs: what a later run needs to go on with them.

`_sync/<sync>/pending/<batch>.parquet` holds the intents of a batch, and in its footer what the destination asked to
have remembered. It is written before the next step is made, and removed after the outcome is in the log.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from heap_assets.activation.engine.batch import LEAVES
from heap_assets.activation.engine.destination import Row
from heap_assets.errors import DamagedFileError
from heap_assets.storage import Store, from_parquet, state_keys, to_parquet

_FOOTER = "heap_assets_pending"


@dataclass(frozen=True)
class Pending:
    """A batch whose outcome is still to come.

    `intents`: as in the log, with `remote_id`; `state`: what the destination remembers of it.
    """

    batch: str
    intents: pl.DataFrame
    state: Mapping[str, Any]

    def rows(self, *, sets: bool) -> list[Row]:
        """Return the rows of the batch, without their values. `sets`: whether a withdrawn one leaves a set."""
        columns = self.intents.select("key", "op", "remote_id").iter_rows()
        return [Row(key, key, {}, removed=sets and op == LEAVES, remote_id=remote) for key, op, remote in columns]


class PendingBatches:
    """The pending batches of one sync."""

    def __init__(self, store: Store, sync: str) -> None:
        self._store = store
        self._root = f"{state_keys.SYNC}/{sync}/pending"

    def remember(self, batch: str, intents: pl.DataFrame, state: Mapping[str, Any]) -> None:
        """Store a batch, in place of what was remembered of it before."""
        data = to_parquet(intents, {_FOOTER: json.dumps(dict(state))}, compression="lz4")
        self._store.write(self._key(batch), data)

    def close(self, batch: str) -> None:
        """Remove a batch whose outcome is in the log."""
        self._store.delete(self._key(batch))

    def all(self) -> list[Pending]:
        """Return all batches in their order."""
        names = [info.key.rsplit("/", 1)[-1].removesuffix(".parquet") for info in self._store.list(self._root)]
        return [self._read(name) for name in names]

    def forget(self, keys: Collection[str]) -> None:
        """Blank keys in all batches; their rows keep their place, by which a job may name its results."""
        for batch in self.all():
            chosen = pl.col("key").is_in(list(keys))
            if batch.intents.select(chosen.any()).item():
                blanked = pl.when(~chosen).then("key").otherwise(pl.lit("")).alias("key")
                self.remember(batch.batch, batch.intents.with_columns(blanked), batch.state)

    def _key(self, batch: str) -> str:
        return f"{self._root}/{batch}.parquet"

    def _read(self, batch: str) -> Pending:
        data = self._store.read(self._key(batch))
        try:
            state = json.loads(pl.read_parquet_metadata(io.BytesIO(data))[_FOOTER])
            return Pending(batch, from_parquet(data), state)
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedFileError(
                f"{self._store.uri(self._key(batch))} is damaged ({type(error).__name__}): restore it, or delete it, "
                "and the rows of that job count as unanswered"
            ) from error
