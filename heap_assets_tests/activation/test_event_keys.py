"""Keys of events: the same whatever becomes of the other columns."""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heap_assets.activation import hashed_key
from heap_assets.activation.engine.event_keys import WHOLE_ROW, EventKey, KeyedEvents, carried_over
from heap_assets.activation.engine.log import LEDGER_SCHEMA

KEY = EventKey(("id", "state"), "at")
COLUMNS = ("id", "state", "at", "a", "b")


def table(count: int = 20) -> pl.DataFrame:
    moments = [datetime(2026, 11, 19, n % 24, tzinfo=UTC) for n in range(count)]
    rows = {"id": range(count), "state": ["new"] * count, "at": moments, "a": range(count), "b": ["x"] * count}
    return pl.DataFrame(rows, schema_overrides={"at": pl.Datetime("us", "UTC")})


def keys(rows: pl.DataFrame, key: EventKey = KEY) -> list[str]:
    return key.of(rows.lazy(), rows.columns, "k").collect()["k"].to_list()


news = st.lists(
    st.sampled_from(
        [
            pl.lit("news").alias("c"),
            pl.lit(None, pl.String).alias("c"),
            pl.col("a").cast(pl.String),
            pl.col("a").cast(pl.Float64),
            pl.struct(pl.col("a")).alias("a"),
            pl.lit(b"\xff").alias("b"),
            pl.concat_list(pl.col("b")).alias("b"),
            pl.col("id").cast(pl.Decimal(20, 4)),
            pl.col("id").cast(pl.Float64),
            pl.col("id").cast(pl.String),
            pl.col("state").cast(pl.Categorical),
            pl.col("at").cast(pl.Datetime("ns", "UTC")),
            pl.col("at").cast(pl.Datetime("ms")),
            pl.col("at").dt.convert_time_zone("Asia/Tokyo"),
            pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
            pl.col("at").dt.strftime("%Y-%m-%d %H:%M:%S+00:00"),
        ]
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda change: change.meta.output_name(),
)


@given(news, st.sets(st.sampled_from(["a", "b"])), st.randoms(use_true_random=False))
def test_columns_that_come_go_and_change_their_type_change_no_key(
    changes: list[pl.Expr], dropped: set[str], luck: object
) -> None:
    changed = table().with_columns(changes).drop(dropped)
    order = [*changed.columns]
    luck.shuffle(order)  # type: ignore[attr-defined]
    assert keys(changed.select(order)) == keys(table())


def test_each_part_tells_events_apart() -> None:
    rows = table(2)
    for change in (pl.col("id") + 100, pl.lit("paid").alias("state"), pl.col("at").dt.offset_by("1ms")):
        assert not {*keys(rows)} & {*keys(rows.with_columns(change))}
    assert keys(rows.with_columns(id=pl.lit(None, pl.Int64))) == [None, None]
    unnamed = rows.with_columns(state=pl.lit(None, pl.String))
    assert {*keys(unnamed)} != {*keys(rows.with_columns(state=pl.lit("")))}


def test_a_day_is_its_midnight() -> None:
    days = table(1).with_columns(at=pl.lit(date(2026, 11, 19)))
    assert keys(days) == keys(table(1).with_columns(at=pl.lit(datetime(2026, 11, 19, tzinfo=UTC))))


@pytest.mark.parametrize("forgotten", [[], ["former"], ["now"]])
def test_a_ledger_takes_keys_over_with_all_it_knows_but_of_the_forgotten(forgotten: list[str]) -> None:
    rows, salt = table(3), b"0" * 16
    former, now = keys(rows, WHOLE_ROW), keys(rows)
    status = ["acknowledged", "rejected", "unknown"]
    ledger = pl.DataFrame({"key": former, "status": status, "failures": [0, 3, 0]}, schema_overrides=LEDGER_SCHEMA)
    ledger = ledger.select(
        pl.col(c) if c in ledger.columns else pl.lit(None, t).alias(c) for c, t in LEDGER_SCHEMA.items()
    )
    pairs = pl.LazyFrame({"key": [*now, *now], "former": [*("unknown to it" for _ in now), *former]})
    hashes = {"former": former[1], "now": now[1]}
    refused = pl.Series([hashed_key(hashes[which], salt) for which in forgotten], dtype=pl.String)
    carried = carried_over(ledger, KeyedEvents(KEY, pairs), refused, salt)
    taken = dict(zip(carried.ledger["key"], carried.ledger.select("status", "failures").rows(), strict=True))
    expected = dict(zip(now, zip(status, [0, 3, 0], strict=True), strict=True))
    if forgotten:
        del expected[now[1]]
        assert carried.forgotten == {hashed_key(now[1], salt)}
    assert taken == expected
    assert carried_over(ledger, KeyedEvents(KEY), refused, salt).ledger.is_empty()
