"""Tombstones: keyed hashes of what was erased, so that it is left out whenever it comes again.

`_privacy/key` holds the key unless the settings give one; `_privacy/tombstones.parquet` a row per identifier. Without
the key nobody can tell from a tombstone whose it is, and no tombstone is recognised: back both up together.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Final

import numpy as np
import polars as pl

from heap_assets.errors import DamagedFileError
from heap_assets.identity import EMAIL, HEAP_IDENTITY, Rules, SourceTable
from heap_assets.privacy.people import Pair, People
from heap_assets.privacy.rows import Eraser, Shape, mapped_columns
from heap_assets.siphash import siphash_texts
from heap_assets.storage import Store, from_parquet, state_keys, to_parquet

KEY: Final = f"{state_keys.PRIVACY}/key"
STONES: Final = f"{state_keys.PRIVACY}/tombstones.parquet"
PREFIX: Final = "tombstone:"
"""Begins what stands in place of an erased value in files that people write: decisions, suppressed identifiers."""

_KEY_BYTES: Final = 32
_ADDRESS: Final = r"[\w.+-]+(?:@|%40)[\w.-]*\w"
_SCHEMA: Final = pl.Schema({"hash": pl.String(), "request": pl.String(), "erased_at": pl.Datetime("us", "UTC")})


def privacy_key(store: Store, chosen: bytes | None = None, *, keep: bool = True) -> bytes:
    """Return the 32 bytes that key tombstones and pseudonyms: those of the settings, or the store's own.

    `keep`: draw and store them if there are none. Raises DamagedFileError if what is stored is no key.
    """
    if chosen is not None:
        return hashlib.sha256(chosen).digest()
    if keep and not store.exists(KEY):
        store.create(KEY, secrets.token_bytes(_KEY_BYTES))
    try:
        stored = store.read(KEY)
    except FileNotFoundError:
        return secrets.token_bytes(_KEY_BYTES)
    if len(stored) != _KEY_BYTES:
        raise DamagedFileError(
            f"{store.uri(KEY)} is damaged ({len(stored)} bytes, not {_KEY_BYTES}): restore it from a backup; with "
            "another one erased people would come back"
        )
    return stored


def keyed_hashes(texts: pl.Series, key: bytes, purpose: str) -> pl.Series:
    """Return texts as 32 hex digits of two keyed hashes; equal texts of one purpose have equal hashes.

    `purpose`: keeps hashes of different uses apart, such as the type of an identifier.
    """
    derived = hashlib.blake2b(purpose.encode(), key=key, digest_size=_KEY_BYTES).digest()
    words = np.frombuffer(derived, dtype="<u8")
    halves = [siphash_texts(texts.cast(pl.String), words[start : start + 2]).astype(">u8") for start in (0, 2)]
    joined = np.stack(halves, axis=1).copy().view("V16").ravel()
    return pl.Series(texts.name, joined.tolist(), dtype=pl.Binary).bin.encode("hex")


def hash_of(pair: Pair, key: bytes) -> str:
    """Return the tombstone of one identifier."""
    return str(keyed_hashes(pl.Series("v", [pair[1]], pl.String), key, pair[0])[0])


@dataclass(frozen=True)
class Tombstones:
    """The tombstones of a lake, as they were read."""

    stones: pl.DataFrame
    key: bytes

    @classmethod
    def load(cls, store: Store, chosen: bytes | None = None) -> Tombstones:
        """Read them; without any, nothing is written."""
        stones = _read(store)
        return cls(stones, privacy_key(store, chosen, keep=False) if stones.height else b"")

    def __bool__(self) -> bool:
        return bool(self.stones.height)

    @cached_property
    def _hashes(self) -> pl.Series:
        return self.stones["hash"]

    def erased_values(self, rows: pl.LazyFrame, table: SourceTable, rules: Rules) -> dict[Pair, str]:
        """Return the identifiers in rows of a table that have a tombstone, with the request that left it.

        In mapped columns, and addresses in any text: `mail ann@acme.example` names her, whoever's row it is in.
        """
        if not self:
            return {}
        columns = mapped_columns(table, rules, rows.collect_schema())
        requests = dict(self.stones.select("hash", "request").iter_rows())
        pairs: dict[Pair, str] = {}
        for column in columns:
            values = rows.select(column.raw)
            values = values.explode(column.name).select(pl.col(column.name)) if column.many else values
            texts = values.unique().select(_text_of(column.value, column.name, many=column.many)).unique().drop_nulls()
            pairs |= self._erased(texts.collect(engine="streaming").to_series(), column.type, requests)
        addresses = _addresses(rows)
        for kind in (EMAIL, HEAP_IDENTITY):
            if kind in rules.types and addresses.len():
                pairs |= self._erased(addresses, kind, requests)
        return pairs

    def erased_pairs(self, graph: pl.LazyFrame) -> dict[Pair, str]:
        """Return the identifiers of a graph (identifier_type, identifier) that have a tombstone."""
        requests = dict(self.stones.select("hash", "request").iter_rows())
        pairs: dict[Pair, str] = {}
        rows = graph.select("identifier_type", "identifier").unique().collect(engine="streaming")
        for (kind,), values in rows.partition_by("identifier_type", as_dict=True).items():
            pairs |= self._erased(values["identifier"], str(kind), requests)
        return pairs

    def _erased(self, values: pl.Series, kind: str, requests: Mapping[str, str]) -> dict[Pair, str]:
        hashed = keyed_hashes(values, self.key, kind)
        hit = hashed.is_in(self._hashes.implode())
        return {
            (kind, value): requests[stone] for value, stone in zip(values.filter(hit), hashed.filter(hit), strict=True)
        }

    def without_erased(
        self, rows: pl.LazyFrame, table: SourceTable, rules: Rules, owner: str | None = None, *, any_names: bool = False
    ) -> tuple[pl.LazyFrame, int]:
        """Return rows without those of erased people, and how many they are; cells that name one are blanked.

        `any_names`: as of :class:`Shape`.
        """
        pairs = self.erased_values(rows, table, rules) if self else {}
        if not pairs:
            return rows, 0
        erased = Eraser(People(pairs), rules).erased(rows, Shape(table, owner, any_names=any_names))
        return erased.frame, sum(erased.rows.values())


def bury(
    store: Store, pairs: Mapping[str, Sequence[Pair]], at: datetime, chosen: bytes | None = None
) -> dict[Pair, str]:
    """Leave tombstones of the identifiers of requests; returns the hash of each. Safe to do again."""
    key = privacy_key(store, chosen)
    hashes = hashes_of({pair for of_request in pairs.values() for pair in of_request}, key)
    rows = [(hashes[pair], request, at) for request in sorted(pairs) for pair in pairs[request]]
    new = pl.DataFrame(rows, schema=_SCHEMA, orient="row")

    def with_new(data: bytes | None) -> bytes:
        stored = _parsed(store, data)
        return to_parquet(pl.concat([stored, new]).unique("hash", keep="first", maintain_order=True).sort("hash"))

    if rows:
        store.update(STONES, with_new)
    return hashes


def lift(store: Store, requests: Iterable[str]) -> int:
    """Remove the tombstones of requests, of people who consent anew; returns how many."""
    lifted: list[int] = [0]

    def without(data: bytes | None) -> bytes | None:
        stored = _parsed(store, data)
        remaining = stored.filter(~pl.col("request").is_in(list(requests)))
        lifted[0] = stored.height - remaining.height
        return to_parquet(remaining) if lifted[0] else None

    store.update(STONES, without)
    return lifted[0]


def hashes_of(pairs: Iterable[Pair], key: bytes) -> dict[Pair, str]:
    """Return the tombstone of each identifier."""
    by_type: dict[str, list[str]] = {}
    for kind, value in sorted(set(pairs)):
        by_type.setdefault(kind, []).append(value)
    return {
        (kind, value): stone
        for kind, values in by_type.items()
        for value, stone in zip(values, keyed_hashes(pl.Series("v", values, pl.String), key, kind), strict=True)
    }


def _addresses(rows: pl.LazyFrame) -> pl.Series:
    """Return the email addresses in the text of rows, each once, in lower case."""
    parts = [
        rows.select(pl.col(name).alias("v")).filter(pl.col("v").str.contains("@|%40"))
        for name, dtype in rows.collect_schema().items()
        if dtype == pl.String
    ]
    if not parts:
        return pl.Series("v", [], pl.String)
    tokens = pl.concat(parts).select(pl.col("v").str.to_lowercase().str.extract_all(_ADDRESS)).explode("v")
    return tokens.unique().drop_nulls().select(pl.col("v").str.replace("%40", "@")).collect(engine="streaming")["v"]


def _text_of(value: pl.Expr, name: str, *, many: bool) -> pl.Expr:
    """Return the identifier of a column; of an exploded one the expression is about an element of the list."""
    if not many:
        return value.alias(name)
    return pl.concat_list(pl.col(name)).list.eval(value).list.first().alias(name)


def _read(store: Store) -> pl.DataFrame:
    try:
        return _parsed(store, store.read(STONES))
    except FileNotFoundError:
        return pl.DataFrame(schema=_SCHEMA)


def _parsed(store: Store, data: bytes | None) -> pl.DataFrame:
    if data is None:
        return pl.DataFrame(schema=_SCHEMA)
    try:
        return from_parquet(data).select(*_SCHEMA)
    except (ValueError, pl.exceptions.PolarsError) as error:
        raise DamagedFileError(
            f"{store.uri(STONES)} is damaged ({type(error).__name__}): restore it from a backup; without it erased "
            "people would come back"
        ) from error


class TombstoneReader:
    """The tombstones as they are at each moment: read again when somebody has changed them."""

    def __init__(self, store: Store, chosen: bytes | None = None) -> None:
        self._store = store
        self._chosen = chosen
        self._etag: str | None = None
        self._current = Tombstones(pl.DataFrame(schema=_SCHEMA), b"")

    def current(self) -> Tombstones:
        """Return them; one request to the store if nothing has changed."""
        info = self._store.head(STONES)
        etag = info.etag if info else None
        if etag != self._etag:
            self._current, self._etag = Tombstones.load(self._store, self._chosen), etag
        return self._current
