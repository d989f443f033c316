"""Values of people in text: which can be looked for in it, where they stand, and text without them.

A value counts where it stands alone: `ann@acme.example` is not in `joann@acme.example`, which is somebody else's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote

import numpy as np
import polars as pl
import pyarrow as pa

from heap_assets.privacy.tokens import anchors_of, tokens_of

BLANKED: Final = "[erased]"
_SHORTEST: Final = 8
_MOST_AT_ONCE: Final = 20_000
_FEW: Final = 2_500
"""Spellings that are looked for by one pattern, which Polars compiles once; of more, tokens are joined."""
_ROWS_AT_ONCE: Final = 100_000
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.@-]*")
_BEFORE: Final = r"(?:^|(?<=[^\w.+%@-])|(?<=%[0-9A-Fa-f]{2})|(?<=\\[nrt]))"
_AFTER: Final = r"(?=$|[^\w.@-]|\.(?:$|\W))"


def is_searchable(value: str) -> bool:
    """Return whether a value can be looked for in text: an address, or eight characters and more with a digit.

    A shorter one, a plain word and a number of less than twelve digits stand in the text of others by chance; they are
    erased where a column is mapped to their type.
    """
    if "@" in value:
        return True
    if value.isdigit():
        return len(value) >= 12
    return len(value) >= _SHORTEST and any(letter.isdigit() for letter in value)


def spellings(value: str) -> set[str]:
    """Return how a value may stand in text: as it is, URL-encoded, in JSON, and in JSON with its non-ASCII escaped."""
    if _PLAIN.fullmatch(value):  # nearly all are: the same, without the work
        return {value, value.replace("@", "%40")}
    written = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    return {value, quote(value), quote(value, safe=""), quote(value, safe="@"), *written}


@dataclass(frozen=True)
class Texts:
    """Values to look for, with the request that each belongs to."""

    requests: Mapping[str, str]

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Texts:
        """Return the texts of values, those that can be looked for."""
        return cls(
            {
                spelling.lower(): request
                for value, request in values.items()
                if is_searchable(value)
                for spelling in spellings(value)
            }
        )

    @cached_property
    def _patterns(self) -> list[list[str]]:
        texts = sorted(self.requests)
        return [texts[start : start + _MOST_AT_ONCE] for start in range(0, len(texts), _MOST_AT_ONCE)]

    @cached_property
    def _pattern(self) -> str:
        return "(?i)" + "|".join(re.escape(text) for text in sorted(self.requests))

    @cached_property
    def anchors(self) -> pl.DataFrame:
        """Each `spelling` with its longest `token`, which a text that holds it alone has as a token too."""
        spelled = pl.Series("spelling", list(self.requests), pl.String)
        return pl.DataFrame([spelled, anchors_of(spelled).alias("token")])

    def in_column(self, column: pl.Expr) -> pl.Expr:
        """Return whether a column of text may hold one; :meth:`blanked` decides.

        Each use compiles all spellings; of many, those that :meth:`within` leaves of each batch of rows.
        """
        if not self.requests:
            return pl.lit(value=False)
        if len(self.requests) > _FEW:
            return column.map_batches(self._in_rows, return_dtype=pl.Boolean, is_elementwise=True)
        return self._in_column(column)

    def _in_column(self, column: pl.Expr) -> pl.Expr:
        if not self.requests:
            return pl.lit(value=False)
        lower = column.str.to_lowercase()
        return pl.any_horizontal(lower.str.contains_any(some).fill_null(value=False) for some in self._patterns)

    def _in_rows(self, rows: pl.Series) -> pl.Series:
        narrow = self.within([rows])
        return rows.alias("t").to_frame().with_columns(held=narrow._in_column(pl.col("t")))["held"].alias(rows.name)

    def may_be_in(self, columns: Sequence[pa.Array]) -> bool:
        """Return whether columns of text may hold one, by their bytes in a row: without a look at each value."""
        if len(self.requests) > _FEW:
            return bool(self.within(pl.Series(pl.from_arrow(column), dtype=pl.String) for column in columns).requests)
        return any(self._has_sign(column) and self._matches(_in_a_row(column)) for column in columns)

    def _has_sign(self, column: pa.Array) -> bool:
        """Whether a text has what any of the values must have: found ten times faster than they are."""
        data = column.buffers()[2]
        if self._signs is None or data is None:
            return True
        letters = np.frombuffer(data, dtype=np.uint8)
        return any((letters == ord(sign)).any() for sign in self._signs)

    def _with_sign(self, rows: pl.Series) -> pl.Series:
        return rows if self._signs is None else rows.filter(rows.str.contains(f"[{self._signs}]"))

    @cached_property
    def _signs(self) -> str | None:
        """Characters of which each spelling has one, such as that of addresses; None if there are no such."""
        signs = {next((sign for sign in "@%" if sign in one), None) for one in self.requests}
        return None if None in signs else "".join(sorted(sign for sign in signs if sign))

    def _matches(self, texts: pl.Series) -> bool:
        return bool(texts.str.contains(self._pattern).any())

    def within(self, columns: Iterable[pl.Series]) -> Texts:
        """Return those that may stand alone in columns of text: of many spellings the few that are worth a search."""
        if not self.requests:
            return self
        tokens = [pl.Series([""], dtype=pl.String)]  # that of a value without an ASCII letter
        for column in columns:
            for start in range(0, len(column), _ROWS_AT_ONCE):
                rows = column.slice(start, _ROWS_AT_ONCE)
                in_a_row = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
                if not self._has_sign(in_a_row):
                    continue
                if len(self.requests) > _FEW:
                    tokens.append(tokens_of(self._with_sign(rows)))
                elif self._matches(_in_a_row(in_a_row)):
                    tokens.append(tokens_of(rows))
        if len(tokens) == 1:
            return Texts({})
        candidates = pl.concat(tokens).unique().alias("token").to_frame()
        names = self.anchors.join(candidates, on="token", how="semi")["spelling"]
        return Texts({name: self.requests[name] for name in names})

    def blanked(self, text: str) -> tuple[str, list[str]]:
        """Return text without the values, and the requests of those that stood in it."""
        requests: list[str] = []
        folded = text.lower()
        values = list(self._contained(folded)) if len(self.requests) <= _FEW else self._standing_in(folded)
        # the longest first: an address contains its own domain, and a URL-encoded one its plain parts
        for value in sorted(values, key=len, reverse=True):
            pattern = re.compile(_BEFORE + re.escape(value) + _AFTER, re.IGNORECASE)
            text, count = pattern.subn(BLANKED, text)
            requests += [self.requests[value]] * bool(count)
        return text, requests

    def _standing_in(self, folded: str) -> Iterable[str]:
        narrow = self.within([pl.Series([folded], dtype=pl.String)])
        return narrow._contained(folded) if len(narrow.requests) <= _FEW else self._contained(folded)

    def _contained(self, folded: str) -> Iterator[str]:
        if not self.requests:
            return
        one = pl.Series([folded], dtype=pl.String).to_frame("t")
        for patterns in self._patterns:
            hits = one.select(pl.col("t").str.extract_many(patterns, overlapping=True))["t"][0]
            yield from set(hits)

    def blanked_value(self, value: Any) -> tuple[Any, list[str]]:
        """Return a value of any nesting without the texts in it, and the requests of those that stood in it."""
        if isinstance(value, str):
            return self.blanked(value)
        if isinstance(value, list):
            parts = [self.blanked_value(part) for part in value]
            return [part for part, _ in parts], [request for _, requests in parts for request in requests]
        if isinstance(value, dict):
            fields = {name: self.blanked_value(part) for name, part in value.items()}
            return {name: part for name, (part, _) in fields.items()}, [r for _, rs in fields.values() for r in rs]
        return value, []

    def blanked_bytes(self, data: bytes) -> tuple[bytes, list[str]]:
        """Return bytes of text without the values; bytes that are no UTF-8 are searched as Latin-1."""
        try:
            text, requests = self.blanked(data.decode())
            return text.encode(), requests
        except UnicodeDecodeError:
            text, requests = self.blanked(data.decode("latin-1"))
            return text.encode("latin-1"), requests


def _in_a_row(column: pa.Array) -> pl.Series:
    """Return the bytes of all values as one text, without a copy."""
    data = (column if pa.types.is_large_string(column.type) else column.cast(pa.large_string())).buffers()[2]
    if data is None:
        return pl.Series([], dtype=pl.String)
    ends = pa.py_buffer(np.array([0, data.size], dtype=np.int64))
    return pl.Series(pl.from_arrow(pa.LargeStringArray.from_buffers(1, ends, data)))


def has_text(dtype: pl.DataType) -> bool:
    """Return whether values of a type hold text, at any depth."""
    if isinstance(dtype, pl.List | pl.Array):
        return has_text(dtype.inner)  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return any(has_text(entry.dtype) for entry in dtype.fields)  # type: ignore[arg-type]
    return dtype in (pl.String, pl.Categorical) or isinstance(dtype, pl.Enum)
