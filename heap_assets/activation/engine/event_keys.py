"""Keys of events: made of columns that tell rows apart, so that other columns may come, go and change their type.

What the keys of a ledger are made of is recorded beside it. Where that changes (settings, or a ledger of a former
release, whose keys were hashes of whole rows), rows of the partitions that were sent say which key an event had, and
what is known of it is carried over to the key that it has now.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import polars as pl

from heap_assets.activation.engine.canonical import decimal_is_number, iso_text, sendable
from heap_assets.activation.engine.hashing import hashed_keys
from heap_assets.activation.engine.value_rules import sha256_hex
from heap_assets.storage import Store, state_keys
from heap_assets.values import json_or_exact, key_text, read_times

_FIELD, _RECORD, _NULL = "\x1f", "\x1e", "\x00"
_log = logging.getLogger("heap_assets.delivery")


@dataclass(frozen=True)
class EventKey:
    """What tells the events of a table apart."""

    columns: tuple[str, ...]
    """One column: its values are the keys. Without any, a key is the hash of a whole row, as former releases had it."""
    time: str | None = None
    """A column of times that is part of the key, in whatever type or precision the table has it."""

    def fits(self, schema: pl.Schema) -> bool:
        """Return whether a table has the columns."""
        return all(column in schema for column in self.needed)

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns that have to be there."""
        return self.columns if self.time is None else (*self.columns, self.time)

    def of(self, rows: pl.LazyFrame, source_columns: Sequence[str], name: str) -> pl.LazyFrame:
        """Add the keys of rows as a column; null where the first column is.

        `source_columns`: columns as the source has them: what identity resolution adds is no part of a whole row.
        """
        schema = rows.collect_schema()
        if not self.columns:
            return _numbered(rows.with_columns(_sha256(canonical_text(source_columns, schema)).alias(name)), name)
        first, *parts = [key_text(pl.col(column), schema[column]) for column in self.columns]
        if self.time is not None:
            parts.append(event_time(self.time, schema))
        if not parts:
            return rows.with_columns(first.alias(name))
        text = pl.concat_str(first, *(part.fill_null(_NULL) for part in parts), separator=_FIELD)
        return rows.with_columns(_sha256(text).alias(name))


WHOLE_ROW = EventKey(())
"""The hash of all columns, and an ordinal among equal rows: what ledgers have of which nothing is recorded."""


@dataclass(frozen=True)
class KeyedEvents:
    """Says that rows are all events of a table, each with a key that :class:`EventKey` made."""

    key: EventKey
    former: pl.LazyFrame | None = None
    """`key`, `former`: of events of the table, the key they had when the ledger was last written; None if the same."""


@dataclass(frozen=True)
class CarriedOver:
    """What a ledger says of events under their former keys."""

    ledger: pl.DataFrame
    """Rows to add to the ledger: those of former keys, under the new ones."""
    forgotten: frozenset[str]
    """Keyed hashes of new keys whose former ones are forgotten."""


def carried_over(ledger: pl.DataFrame, keyed: KeyedEvents | None, forgotten: pl.Series, salt: bytes) -> CarriedOver:
    """Return what a ledger has to say of events whose keys have changed.

    `ledger`: as :func:`heap_assets.activation.fold` gives it. `forgotten`: keyed hashes of keys never to be sent again.
    """
    if keyed is None or keyed.former is None:
        return CarriedOver(ledger.clear(), frozenset())
    pairs = keyed.former.drop_nulls().unique(maintain_order=True).collect()  # a key may have had several
    hashes, refused = hashed_keys(pairs["key"], salt), forgotten.to_list()
    silenced = hashed_keys(pairs["former"], salt).is_in(refused) | hashes.is_in(refused)
    forgotten_now = hashes.filter(silenced).to_list()
    carried = pairs.join(ledger.select("key"), on="key", how="anti", maintain_order="left")
    rows = carried.join(ledger.rename({"key": "former"}), on="former", maintain_order="left").drop("former")
    rows = rows.unique("key", keep="first", maintain_order=True).select(ledger.columns)
    return CarriedOver(rows.filter(~hashed_keys(rows["key"], salt).is_in(forgotten_now)), frozenset(forgotten_now))


def recorded_key(store: Store, folder: str) -> EventKey | None:
    """Return what the keys of a ledger are made of; None if nothing was ever sent.

    `folder`: of the ledger, below `_sync/`.
    """
    root = f"{state_keys.SYNC}/{folder}"
    try:
        record = json.loads(store.read(f"{root}/event_key.json"))
        return EventKey(tuple(record["columns"]), record["time"])
    except FileNotFoundError:
        return WHOLE_ROW if store.exists(f"{root}/ledger.parquet") or any(store.list(f"{root}/log")) else None
    except (ValueError, KeyError, TypeError):
        _log.warning("%s is damaged: events are told apart as the settings say", store.uri(f"{root}/event_key.json"))
        return None


def record_key(store: Store, folder: str, key: EventKey) -> None:
    """Record what the keys of a ledger are made of."""
    if recorded_key(store, folder) != key:
        store.write(f"{state_keys.SYNC}/{folder}/event_key.json", json.dumps(asdict(key)).encode())


def event_time(column: str, schema: pl.Schema) -> pl.Expr:
    """Write a column of times as ISO 8601 text in UTC; text that cannot be read stays what it is."""
    if schema[column] == pl.String:
        text = pl.col(column).str.strip_chars()
        return pl.coalesce(iso_text(read_times(text), pl.Datetime("us", "UTC")), text)
    if schema[column] == pl.Date:
        return pl.col(column).dt.strftime("%Y-%m-%dT00:00:00.000Z")
    return sendable(pl.col(column), schema[column], f"events: timestamp column {column!r}").cast(pl.String)


def canonical_text(columns: Sequence[str], schema: pl.Schema) -> pl.Expr:
    """Return a row as one text: sorted columns, each `name 0x1F value`, joined by 0x1E; null is 0x00."""
    parts = [
        pl.concat_str(pl.lit(column + _FIELD), _text(column, schema[column]).fill_null(_NULL))
        for column in sorted(columns)
    ]
    return pl.concat_str(parts, separator=_RECORD)


def _text(column: str, dtype: pl.DataType) -> pl.Expr:
    value = pl.col(column)
    if isinstance(dtype, pl.Datetime):
        utc = value.dt.convert_time_zone("UTC") if dtype.time_zone else value
        return utc.dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    if _holds_bytes(dtype) and dtype != pl.Binary:
        return json_or_exact(value, dtype)  # Polars has no JSON for bytes; other keys stay what they were
    if isinstance(dtype, pl.Struct):
        return value.struct.json_encode()
    if isinstance(dtype, pl.List):
        return pl.struct(value).struct.json_encode()
    if dtype == pl.Float32:
        return value.cast(pl.Float64).cast(pl.String)  # keys made of it stay what they were
    text = sendable(value, dtype, f"events: column {column!r}").cast(pl.String)
    if isinstance(dtype, pl.Decimal):
        return (
            pl.when(decimal_is_number(value, dtype.scale)).then(value.cast(pl.Float64).cast(pl.String)).otherwise(text)
        )
    return text


def _holds_bytes(dtype: object) -> bool:
    if isinstance(dtype, pl.Struct):
        return any(_holds_bytes(field.dtype) for field in dtype.fields)
    return _holds_bytes(dtype.inner) if isinstance(dtype, pl.List) else dtype == pl.Binary


def _sha256(text: pl.Expr) -> pl.Expr:
    return text.map_batches(sha256_hex, return_dtype=pl.String).str.head(32)


def _numbered(rows: pl.LazyFrame, name: str) -> pl.LazyFrame:
    ordinal = pl.int_range(pl.len()).over(name)
    suffix = pl.when(ordinal > 0).then(pl.format("-{}", ordinal + 1)).otherwise(pl.lit(""))
    return rows.with_columns(pl.col(name) + suffix)
