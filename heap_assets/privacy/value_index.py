"""An index of values beside each file: hashes of everything in it by which a person can be found, so that an erasure
does not open the files that hold nothing of its people.

`_privacy/index/<hash>.values`, named by the file, its version, the columns that name people, and the key; what has
changed has no index, and is read. Hashes are cut so that about one of eight thousand other values meets one by chance:
such a file is opened for nothing. An index never misses a value.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Collection, Iterator
from typing import BinaryIO, Final
from zlib import crc32

import numpy as np
import polars as pl
from numpy.typing import NDArray

from heap_assets.errors import DamagedFileError
from heap_assets.identity import Rules
from heap_assets.privacy.dictionaries import decoded, values_of, with_dictionaries
from heap_assets.privacy.people import People
from heap_assets.privacy.rows import PAIRS, PROFILE_COLUMNS, Shape, as_text, mapped_columns
from heap_assets.privacy.texts import Texts, has_text
from heap_assets.privacy.tokens import is_telling, telling_tokens_of
from heap_assets.siphash import siphash_texts, siphash_words
from heap_assets.storage import ObjectInfo, Store, state_keys

Words = NDArray[np.uint64]

ROOT: Final = f"{state_keys.PRIVACY}/index"
_VERSION: Final = 2
_HEAD: Final = struct.Struct("<4sII")
_MAGIC: Final = b"hav2"
_LAST_BITS: Final = 16
_MOST: Final = 10_000
"""Values that are sought by indexes."""
_FULL: Final = 3
"""Of a bucket: about eight hashes, of which one meets another value's by chance in eight thousand cases."""
_MERGED_AT: Final = 1 << 22
_MOST_OF_A_FILE: Final = 1 << 24
"""Hashes; with more, memory for making an index would grow with the file: it says that it cannot tell."""
_NUMBERS: Final = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32)


class ValueIndexes:
    """The indexes of a lake, under a key of 32 bytes: without it nobody can test a guess against them."""

    def __init__(self, store: Store, key: bytes, rules: Rules) -> None:
        self.store = store
        self.rules = rules
        self._words = np.frombuffer(key, dtype="<u8")
        self._key = hashlib.blake2b(key, digest_size=8).hexdigest()
        self._present = {info.key for info in store.list(ROOT)}

    def name(self, info: ObjectInfo, shape: Shape) -> str:
        """Return the key of the index of a version of a file."""
        columns = [
            (mapping.type, str(self.rules[mapping.type].normaliser), *mapping.columns)
            for mapping in (shape.table.mappings if shape.table else ())
        ]
        of = json.dumps([_VERSION, self._key, info.key, info.etag, shape.table is not None, columns])
        return f"{ROOT}/{hashlib.sha256(of.encode()).hexdigest()[:32]}.values"

    def has(self, name: str) -> bool:
        """Whether there is an index of this key."""
        return name in self._present

    def may_hold(self, info: ObjectInfo, shape: Shape, words: Words | None) -> bool | None:
        """Return whether a file may hold one of the values, None if no index tells; `words`: of the people.

        Raises DamagedFileError if its index is not what was written.
        """
        name = self.name(info, shape)
        if words is None or shape.set_aside or name not in self._present:
            return None
        try:
            buckets = _unpacked(self.store.read(name))
        except (ValueError, struct.error) as error:
            raise DamagedFileError(f"{self.store.uri(name)} is damaged ({type(error).__name__}): delete it") from error
        return _any_in(words, *buckets) if buckets else None

    def words_of_people(self, people: People, texts: Texts) -> Words | None:
        """Return the hashes of all that a file can hold of people.

        None if one of their values cannot be indexed, or so many are sought that each index has one by chance.
        """
        if len(texts.requests) + len(people.identifiers) > _MOST:
            return None
        anchors = texts.anchors["token"]
        if not anchors.to_frame("t").select(is_telling(pl.col("t")).all()).item():
            return None
        profiles = {profile for of_day in people.profiles.values() for profile in of_day}
        values = pl.Series([*(value for _, value in people.identifiers), *profiles], dtype=pl.String)
        numbers = values.cast(pl.Int64, strict=False)
        canonical = numbers.filter((numbers.cast(pl.String) == values).fill_null(value=False))
        return np.unique(np.concatenate([self._texts(pl.concat([values, anchors])), self._numbers(canonical)]))

    def write(self, info: ObjectInfo, shape: Shape, source: bytes | BinaryIO) -> None:
        """Index a file: its bytes, or the open file if it is large."""
        merged, parts, size = np.empty(0, np.uint64), list[Words](), 0
        for part in self._words_in(source, shape):
            parts.append(part)
            size += part.size
            if size > _MERGED_AT:
                merged, parts, size = _unique([merged, *parts]), [], 0
            if merged.size > _MOST_OF_A_FILE:
                break
        merged = _unique([merged, *parts])
        name = self.name(info, shape)
        self.store.write(name, _packed(*_sorted_into_buckets(merged)) if merged.size <= _MOST_OF_A_FILE else _packed())
        self._present.add(name)

    def prune(self, current: Collection[str]) -> int:
        """Delete the indexes that are none of the `current` files', by :meth:`name`; returns how many."""
        old = self._present - set(current)
        for name in old:
            self.store.delete(name)
        self._present -= old
        return len(old)

    def _words_in(self, source: bytes | BinaryIO, shape: Shape) -> Iterator[Words]:
        """Yield the hashes of a file by its row groups: columns that name people whole, and telling tokens of text."""
        schema = pl.Schema(pl.read_parquet_schema(io.BytesIO(source) if isinstance(source, bytes) else source))
        file = with_dictionaries(source)
        columns = mapped_columns(shape.table, self.rules, schema, shape.owner) if shape.table else []
        own = [name for name in (*(value for _, value in PAIRS), *PROFILE_COLUMNS) if name in schema]
        numbers = [one.label for one in columns if not one.many and schema.get(one.label) in _NUMBERS]
        mapped = [one for one in columns if one.label not in numbers]
        texts = {name: dtype for name, dtype in schema.items() if has_text(dtype)}
        roots = {name for one in mapped for name in one.raw.meta.root_names()}
        needed = list(dict.fromkeys([*numbers, *texts, *roots, *(own if shape.table is None else [])]))
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, needed, use_threads=False)
            for name, dtype in texts.items():
                if dtype == pl.String:
                    for chunk in rows[name].chunks:
                        yield self._texts(telling_tokens_of(pl.Series(pl.from_arrow(values_of(chunk)), dtype=dtype)))
            plain = [name for name in needed if name in roots or texts.get(name, pl.String) != pl.String or name in own]
            frame = pl.DataFrame(pl.from_arrow(decoded(rows.select([*plain, *numbers]))))
            for name in numbers:
                yield self._numbers(frame[name].unique())
            for name in own if shape.table is None else ():
                yield self._texts(frame[name].cast(pl.String).unique())
            for name, dtype in texts.items():
                if dtype != pl.String:
                    yield self._texts(telling_tokens_of(as_text(frame, name, dtype)))
            for one in mapped:
                raw = frame.select(one.raw)
                value = pl.col(one.name).list.eval(one.value).explode() if one.many else one.value
                yield self._texts(raw.select(value.alias("v"))["v"].unique())

    def _texts(self, texts: pl.Series) -> Words:
        return siphash_texts(texts.drop_nulls(), self._words[:2])

    def _numbers(self, numbers: pl.Series) -> Words:
        values = numbers.drop_nulls().cast(pl.Int64).to_numpy().view(np.uint64)
        return siphash_words(values, self._words[2:])


def _unique(parts: list[Words]) -> Words:
    return pl.Series(np.concatenate(parts)).unique().to_numpy()


def _packed(starts: NDArray[np.uint32] | None = None, rests: NDArray[np.uint16] | None = None) -> bytes:
    """Return the bytes of an index; without buckets of one that cannot tell."""
    if starts is None or rests is None:
        return _HEAD.pack(_MAGIC, 0, 0)
    data = starts.astype("<u4").tobytes() + rests.astype("<u2").tobytes()
    return _HEAD.pack(_MAGIC, starts.size, crc32(data)) + data


def _unpacked(content: bytes) -> tuple[NDArray[np.uint32], NDArray[np.uint16]] | None:
    magic, size, checksum = _HEAD.unpack_from(content)
    data = memoryview(content)[_HEAD.size :]
    if magic != _MAGIC or crc32(data) != checksum:
        raise ValueError("its checksum is that of other bytes")
    if not size:
        return None
    return np.frombuffer(data, "<u4", size), np.frombuffer(data, "<u2", offset=4 * size)


def _sorted_into_buckets(words: Words) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
    """Return where each bucket of hashes starts, by their first bits, and the next sixteen bits of each hash."""
    bits = max(int(words.size).bit_length() - _FULL, 1)
    cut = pl.Series(words >> np.uint64(64 - bits - _LAST_BITS)).unique().sort().to_numpy()
    starts = np.searchsorted(cut >> np.uint64(_LAST_BITS), np.arange((1 << bits) + 1, dtype=np.uint64))
    return starts.astype(np.uint32), cut.astype(np.uint16)


def _any_in(words: Words, starts: NDArray[np.uint32], rests: NDArray[np.uint16]) -> bool:
    """Return whether any of the hashes may be in the buckets."""
    bits = (starts.size - 1).bit_length() - 1
    cut = words >> np.uint64(64 - bits - _LAST_BITS)
    buckets = (cut >> np.uint64(_LAST_BITS)).astype(np.int64)
    sizes = (starts[buckets + 1] - starts[buckets]).astype(np.int64)
    first = np.repeat(starts[buckets] - np.cumsum(sizes) + sizes, sizes)
    return bool((rests[first + np.arange(first.size)] == np.repeat(cut.astype(np.uint16), sizes)).any())
