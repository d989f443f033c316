"""Links of a synthetic company: people with devices, cookies, emails and accounts, and a tail of shared devices.

Shaped as reference data of identity graphs are: per million people two million devices, 2.6 million cookies, 0.65
million emails, 0.46 million accounts; one device in four hundred is shared, by two people or by a thousand.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from heap_assets.identity import LINKS, IdentifierRule, Rules

RULES = Rules(
    (
        IdentifierRule("account", max_per_profile=1),
        IdentifierRule("email", max_per_profile=3),
        IdentifierRule("device", max_per_profile=10, shared_above=1),
        IdentifierRule("cookie", max_per_profile=40, shared_above=1),
    )
)
TYPES = RULES.types
_START = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1e6)
_SPAN = int(700 * 86400 * 1e6)
_SOURCES = ["events", "sessions", "crm", "billing"]


@dataclass(frozen=True)
class Pairs:
    """Links of one kind as numbers."""

    type_a: str
    type_b: str
    a: np.ndarray
    b: np.ndarray


def write_links(folder: Path, links: int, seed: int, files: int) -> None:
    """Write about `links` rows of links, in random order, as Parquet files of the shape of identity/links."""
    dice = np.random.default_rng(seed)
    kinds = _people(dice, max(links // 5, 100))
    total = sum(pairs.a.size for pairs in kinds)
    repeated = max(links * 97 // 100 - total, 0)
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [
        np.concatenate([dice.permutation(p.a.size), dice.integers(0, p.a.size, repeated * p.a.size // total)])
        for p in kinds
    ]
    for number in range(files):
        parts = [
            _rows(dice, pairs, rows[number * rows.size // files : (number + 1) * rows.size // files])
            for pairs, rows in zip(kinds, chosen, strict=True)
        ]
        devices = kinds[0]
        alone = dice.integers(0, devices.a.size, links * 3 // 100 // files)
        sightings = _rows(dice, devices, alone).with_columns(
            pl.lit(None, pl.String).alias("type_b"), pl.lit(None, pl.String).alias("value_b")
        )
        frame = pl.concat([*parts, sightings]).sample(fraction=1.0, shuffle=True, seed=seed + number)
        frame.write_parquet(folder / f"{number:03d}.parquet", row_group_size=1 << 18)


def _people(dice: np.random.Generator, people: int) -> list[Pairs]:
    devices = np.repeat(np.arange(people), dice.choice([1, 2, 3, 4], people, p=[0.40, 0.32, 0.18, 0.10]))
    device = np.arange(devices.size)
    cookie_of = np.repeat(device, dice.choice([1, 2], device.size, p=[0.7, 0.3]))
    email_count = dice.choice([0, 1, 2, 3], people, p=[0.50, 0.36, 0.13, 0.01])
    first_email = np.cumsum(email_count) - email_count
    email_owner = np.repeat(np.arange(people), email_count)
    known = (email_count > 0) & (dice.random(people) < 0.92)
    with_account = np.flatnonzero(known[email_owner])
    on_device = np.flatnonzero((email_count[devices] > 0) & (dice.random(devices.size) < 0.8))
    owner = devices[on_device]
    used = first_email[owner] + (dice.random(owner.size) * email_count[owner]).astype(np.int64)
    straight = np.flatnonzero(known[devices] & (dice.random(devices.size) < 0.5))
    shared = max(people // 400, 1)
    users = np.minimum(2 + (dice.pareto(1.2, shared) * 1.2).astype(np.int64), 1000)
    guests = dice.integers(0, max(email_owner.size, 1), users.sum())
    borrowed = dice.integers(0, max(email_owner.size, 1), people // 500)
    return [
        Pairs("device", "cookie", cookie_of, np.arange(cookie_of.size)),
        Pairs("email", "device", used, on_device),
        Pairs("account", "email", email_owner[with_account], with_account),
        Pairs("account", "device", devices[straight], straight),
        Pairs("account", "email", dice.choice(np.unique(email_owner[with_account]), borrowed.size), borrowed),
        Pairs("email", "device", guests, np.repeat(dice.integers(0, device.size, shared), users)),
    ]


def _rows(dice: np.random.Generator, pairs: Pairs, rows: np.ndarray) -> pl.DataFrame:
    first = _START + dice.integers(0, _SPAN, rows.size)
    frame = pl.DataFrame(
        {
            "a": pairs.a[rows],
            "b": pairs.b[rows],
            "first_seen": first,
            "last_seen": first + dice.integers(0, int(30 * 86400 * 1e6), rows.size),
            "source": pl.Series(_SOURCES).gather(dice.integers(0, 4, rows.size)),
            "count": dice.integers(1, 20, rows.size),
        }
    )
    return frame.select(
        pl.lit(pairs.type_a).alias("type_a"),
        _value(pairs.type_a, "a").alias("value_a"),
        pl.lit(pairs.type_b).alias("type_b"),
        _value(pairs.type_b, "b").alias("value_b"),
        "source",
        pl.col("first_seen", "last_seen").cast(LINKS["first_seen"]),
        "count",
        pl.lit(False).alias("authoritative"),
    )


def _value(kind: str, column: str) -> pl.Expr:
    number = pl.col(column).cast(pl.UInt64)
    spread = (number * 0x9E3779B97F4A7C15).cast(pl.String)  # wraps around: one to one, and as long as real ids are
    if kind == "email":
        return pl.format("person{}@mail{}.com", number, number % 97)
    if kind == "account":
        return pl.format("A{}", number.cast(pl.String).str.zfill(9))
    return pl.format("dv-{}", spread) if kind == "device" else pl.format("ck.{}", spread)
