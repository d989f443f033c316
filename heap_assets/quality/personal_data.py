"""Personal data in event properties, detected by name and by value, before anything is forwarded.

Heap forbids it, and Segment forwards it to every destination. Values are read in a fixed sample of the day and never
leave this module: what is reported are column names, kinds and counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import polars as pl

from heap_assets.privacy import KINDS, STAND_IN, is_card, luhn
from heap_assets.quality.results import CheckResult
from heap_assets.values import PRIVATE

_ROWS = f"{PRIVATE}rows"

_PERSONAL_NAME = re.compile(
    r"(^|_)(e_?mail(_address)?|phone(_number)?|mobile(_number)?|ssn|social_security(_number)?|card_number|pan"
    r"|credit_card(_number)?|iban|passport(_number)?|password|ip(_address)?|date_of_birth|birth_?date|dob"
    r"|first_name|last_name|full_name|surname|street(_address)?|postal_address)$"
)
_ABOUT_A_NAME = re.compile(r"^(has|is|num|n|count|total|needs|show|hide|sent|opened|clicked|valid|verified)_")
_VERSION_NAME = re.compile(r"version|release|build|firmware", re.IGNORECASE)
_MOST = 0.5


__all__ = ["is_card", "luhn", "named_like_personal_data", "no_personal_data", "personal_columns", "sample_of"]
_NUMBERED = tuple(enumerate(KINDS))
Hit = tuple[str, str, str, int, float]


def no_personal_data(
    rows: pl.LazyFrame, properties: Iterable[str], accepted: Iterable[str], *, rows_searched: int, allowed: float
) -> CheckResult:
    """Check that of no event property more than `allowed` of the values look like one kind of personal data.

    `properties`: columns that the company tracks itself. `accepted`: those of them that are personal data on purpose
    (`pii: true` in the catalogue). `rows_searched`: size of the sample: every n-th row of the day.
    """
    schema = rows.collect_schema()
    skipped = set(accepted)
    searched = [name for name in properties if name in schema and schema[name] == pl.String and name not in skipped]
    if not searched:
        return CheckResult(passed=True, numbers={"properties_searched": 0})
    sample = sample_of(rows.select(searched), rows_searched)
    hits = personal_columns(sample, allowed)
    table = pl.DataFrame(hits, schema=["property", "kind", "by", "values", "share"], orient="row") if hits else None
    return CheckResult(
        passed=not hits,
        numbers={
            "properties_searched": len(searched),
            "rows_searched": sample.height,
            "properties_with_personal_data": len({hit[0] for hit in hits}),
        },
        notes={"properties": ", ".join(sorted({hit[0] for hit in hits}))} if hits else {},
        offenders=table,
        plain=("property", "kind", "by", "values", "share"),
    )


def sample_of(rows: pl.LazyFrame, most: int) -> pl.DataFrame:
    """Return every n-th row of a table, so that there are about `most`: the same ones each time."""
    total = rows.select(pl.len()).collect().item()
    return rows.gather_every(max(total // most, 1)).collect()


def personal_columns(rows: pl.DataFrame, allowed: float) -> list[Hit]:
    """Return what of each text column looks like personal data: column, kind, by (value or name), values, share.

    What rules of masking have put in place of values is none. `allowed`: share of values that may look like one kind.
    """
    texts = [name for name, dtype in rows.schema.items() if dtype == pl.String]
    return [hit for name in texts for hit in _search(name, rows[name], allowed)]


def named_like_personal_data(name: str) -> bool:
    """Return whether a property is called like a piece of personal data (`user_email`, not `email_template`)."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return bool(_PERSONAL_NAME.search(snake)) and not _ABOUT_A_NAME.search(snake)


def _search(name: str, column: pl.Series, allowed: float) -> list[Hit]:
    values = column.drop_nulls()
    values = values.filter((values.str.strip_chars() != "") & ~values.str.contains(STAND_IN))
    if values.is_empty():
        return []
    counts = values.value_counts(name=_ROWS)
    looks = counts.select(
        _ROWS, name, *(pl.col(name).str.contains(k.pattern).alias(f"{PRIVATE}{n}") for n, k in _NUMBERED)
    )
    hits: dict[str, Hit] = {}
    for number, kind in _NUMBERED:
        if kind.name == "ip_address" and _VERSION_NAME.search(name):
            continue
        matching = looks.filter(looks[f"{PRIVATE}{number}"])
        confirm = kind.confirm
        rows = sum(n for n, value in matching.select(_ROWS, name).iter_rows() if confirm is None or confirm(value))
        share = rows / len(values)
        if rows and share > (_MOST if kind.mostly else allowed):
            hits.setdefault(kind.name, (name, kind.name, "value", rows, round(share, 4)))
    if not hits and named_like_personal_data(name) and not _are_flags(counts[name]):
        return [(name, "named like it", "name", len(values), 1.0)]
    return list(hits.values())


def _are_flags(values: pl.Series) -> bool:
    return bool(values.str.to_lowercase().is_in(["true", "false", "yes", "no", "0", "1"]).all())
