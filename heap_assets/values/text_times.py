"""Times that come as text: each is read by itself, whatever the spelling of the others."""

from __future__ import annotations

from typing import Final

import polars as pl

TIME: Final = pl.Datetime("us", "UTC")

_SPELLING: Final = (
    r"^\s*(\d{4})(?:-(\d{1,2})-(\d{1,2})|/(\d{1,2})/(\d{1,2})|(\d\d)(\d\d))"
    r"(?:(?:[Tt]|\s+)(\d{1,2}):?(\d\d)(?::?(\d\d)(?:[.,](\d+))?)?\s*(?:([Zz]|UTC|GMT)|([+-]\d\d)(?::?(\d\d))?)?)?\s*$"
)
"""ISO 8601 and RFC 3339: year first, with `-`, `/` or nothing between; `T` or blanks before the time of day."""
_USUAL: Final = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,9})?Z?$"


def read_times(text: pl.Expr) -> pl.Expr:
    """Read times: one without a zone is UTC, a date alone its midnight; null for text that is no time.

    Days and months are never guessed: `01/02/2026` is no time. Digits beyond microseconds are cut off. The years are 1
    to 9999, as everywhere in the lake (docs/values.md).
    """
    return text.map_batches(_read, return_dtype=TIME, is_elementwise=True)


def _read(values: pl.Series) -> pl.Series:
    """Read most values by the one format that nearly all have, the others part by part."""
    rows = values.alias("text").to_frame().with_columns(read=_quick(pl.col("text")))
    left = rows["read"].is_null() & rows["text"].is_not_null()
    if left.any():
        parts = rows.filter(left).select(pl.col("text").str.extract_groups(_SPELLING)).unnest("text")
        place = pl.when(left).then(left.cast(pl.UInt32).cum_sum() - 1)
        rows = rows.with_columns(read=pl.coalesce("read", pl.lit(parts.select(_spelt()).to_series()).gather(place)))
    return rows["read"].alias(values.name)


def _quick(text: pl.Expr) -> pl.Expr:
    plain = pl.when(text.str.contains(_USUAL)).then(text.str.strip_suffix("Z").str.replace(" ", "T", literal=True))
    return _in_range(plain.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False))


def _spelt() -> pl.Expr:
    """Put the parts of :data:`_SPELLING`, columns 1 to 14, together as one format."""

    def part(number: int, fallback: str) -> pl.Expr:
        return pl.col(str(number)).fill_null(fallback)

    month, day = (pl.coalesce(*map(str, numbers)).str.zfill(2) for numbers in ((2, 4, 6), (3, 5, 7)))
    fraction = part(11, "0").str.slice(0, 6).str.pad_end(6, "0")
    spelt = pl.concat_str(
        "1", pl.lit("-"), month, pl.lit("-"), day, pl.lit("T"), part(8, "00").str.zfill(2), pl.lit(":"), part(9, "00"),
        pl.lit(":"), part(10, "00"), pl.lit("."), fraction, part(13, "+00"), part(14, "00"),
    )  # fmt: skip
    read = spelt.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", time_unit="us", time_zone="UTC", strict=False)
    return _in_range(read.dt.replace_time_zone(None))


def _in_range(naive: pl.Expr) -> pl.Expr:
    return pl.when(naive.dt.year().is_between(1, 9999)).then(naive).dt.replace_time_zone("UTC")
