"""Values of people in text: which can be looked for in it, where they stand, and text without them.

A value counts where it stands alone: `ann@acme.example` is not in `joann@acme.example`, which is somebody else's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote

import polars as pl

BLANKED: Final = "[erased]"
_SHORTEST: Final = 8
_MOST_AT_ONCE: Final = 20_000
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

    def in_column(self, column: pl.Expr) -> pl.Expr:
        """Return whether a column of text may hold one: native and quick; :meth:`blanked` decides."""
        if not self.requests:
            return pl.lit(value=False)
        tests = [
            column.str.contains_any(patterns, ascii_case_insensitive=True).fill_null(value=False)
            for patterns in self._patterns
        ]
        return pl.any_horizontal(tests)

    def blanked(self, text: str) -> tuple[str, list[str]]:
        """Return text without the values, and the requests of those that stood in it."""
        requests: list[str] = []
        folded = text.lower()
        values = list(self._contained(folded))
        # the longest first: an address contains its own domain, and a URL-encoded one its plain parts
        for value in sorted(values, key=len, reverse=True):
            pattern = re.compile(_BEFORE + re.escape(value) + _AFTER, re.IGNORECASE)
            text, count = pattern.subn(BLANKED, text)
            requests += [self.requests[value]] * bool(count)
        return text, requests

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


def has_text(dtype: pl.DataType) -> bool:
    """Return whether values of a type hold text, at any depth."""
    if isinstance(dtype, pl.List | pl.Array):
        return has_text(dtype.inner)  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return any(has_text(entry.dtype) for entry in dtype.fields)  # type: ignore[arg-type]
    return dtype in (pl.String, pl.Categorical) or isinstance(dtype, pl.Enum)
