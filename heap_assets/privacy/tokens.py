"""Tokens of text: what surely stands in a text in which a value stands alone, and can be hashed.

A token is a run of ASCII letters in lower case, digits and `_.@-`, as far as it does not depend on what stands beside
a value: a dot that ends a sentence is none of it, `%2F` and an escaped end of line stand between two, and `%40` is
both the sign of an address and what stands between two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import polars as pl

_RUN_OF_LETTERS: Final = r"[a-z0-9_.@-]+"
_ESCAPED: Final = r"\\(?:[bfnrt]|u[0-9a-f]{4})"
_LETTER: Final = "[A-Za-z\u212a0-9_.-]"  # the sign of Kelvin is a k in lower case
_LONG_ENOUGH: Final = 8
_MAY_BE_TELLING: Final = "|".join(
    ["@", "%40", *(f"{_LETTER}{{{at}}}[0-9]{_LETTER}{{{_LONG_ENOUGH - 1 - at}}}" for at in range(_LONG_ENOUGH))]
)
_AT_ONCE: Final = 50_000
_NUMBER: Final = r"^[0-9]{1,11}$"
_SIGN: Final = "\x01"
"""Stands for `%40` until it is decided how it is read."""
_SIGNS: Final = rf"{_SIGN}[a-z0-9_.@-]*{_SIGN}"
_RUNS: Final = re.compile(rf"(?:{_RUN_OF_LETTERS}|{_SIGN})+")


def tokens_of(texts: pl.Series) -> pl.Series:
    """Return every token of texts once.

    All tokens of a value, and :func:`anchors_of` it, are among those of any text in which the value stands alone.
    """
    readings = _readings(texts.str.join("\n").str.to_lowercase())
    return pl.concat([one.str.extract_all(_RUN_OF_LETTERS).explode().drop_nulls() for one in readings]).unique()


def telling_tokens_of(texts: pl.Series) -> pl.Series:
    """Return the tokens of texts that :func:`is_telling` holds for: few of them, and the only ones worth a place."""
    tokens = tokens_of(texts.filter(texts.str.contains(_MAY_BE_TELLING)))
    return tokens.filter(tokens.to_frame("t").select(is_telling(pl.col("t"))).to_series())


def is_telling(token: pl.Expr) -> pl.Expr:
    """Return whether a token says more than a word: an address, or eight characters with a digit; no short number."""
    long_enough = (token.str.len_bytes() >= _LONG_ENOUGH) & token.str.contains("[0-9]")
    return token.str.contains("@", literal=True) | (long_enough & ~token.str.contains(_NUMBER))


def anchors_of(spellings: pl.Series) -> pl.Series:
    """Return the longest token of each spelling of a value, in lower case: a text that holds it alone has that too."""
    slices = (spellings.slice(start, _AT_ONCE) for start in range(0, max(len(spellings), 1), _AT_ONCE))
    return pl.concat(map(_anchors_of, slices), rechunk=True)


def _anchors_of(spellings: pl.Series) -> pl.Series:
    parts = _separated(spellings.str.to_lowercase())
    # of several signs only neighbours are joined: what stands before the first one is another token in some texts
    are_apart = pl.when(parts.str.count_matches(_SIGN, literal=True) > 1).then(parts.str.replace_all(_SIGN, " "))
    joined = pl.select(are_apart.otherwise(parts.str.replace_all(_SIGN, "@"))).to_series()
    tokens = joined.str.extract_all(_RUN_OF_LETTERS)
    sizes = tokens.list.eval(pl.element().str.len_bytes())
    return tokens.list.get(sizes.list.arg_max(), null_on_oob=True).fill_null("")


def _readings(lower: pl.Series) -> Iterator[pl.Series]:
    """Yield text in every reading: an escaped end of line begins a token or is its first letter, `%40` either way."""
    escapes = [lower]
    if _any(lower, _ESCAPED):
        escapes.append(lower.str.replace_all(_ESCAPED, " "))
    for one in map(_separated, escapes):
        yield one.str.replace_all(_SIGN, "@", literal=True)
        if _any(one, _SIGN):
            yield one.str.replace_all(_SIGN, " ", literal=True)
        if _any(one, _SIGNS):
            yield pl.Series([" ".join(_neighbours(text)) for text in one.drop_nulls()], dtype=pl.String)


def _neighbours(text: str) -> Iterator[str]:
    for run in _RUNS.findall(text):
        parts = run.split(_SIGN)
        yield from (f"{left}@{right}" for left, right in pairwise(parts))


def _separated(lower: pl.Series) -> pl.Series:
    """Return text with a mark for `%40`, and spaces for what else is encoded and for dots that end something."""
    marked = lower.str.replace_all("%40", _SIGN, literal=True)
    return marked.str.replace_all("%[0-9a-f]{2}", " ").str.replace_all(r"\.([^a-z0-9_]|$)", " $1")


def _any(texts: pl.Series, pattern: str) -> bool:
    return bool(texts.str.contains(pattern).any())
