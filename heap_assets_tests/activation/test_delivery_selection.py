"""Who is addressed is chosen by parts on disk if the profiles are many: everybody is sent to as if they were few."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from heap_assets.activation import Addressed, AddressPolicy, addressed
from heap_assets.activation.engine import batches, parts, spill
from heap_assets.errors import DeliveryError

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
IDENTITIES = [f"id{number}" for number in range(60)]


def profiles(chance: random.Random, file: Path, *, first_named: bool = True) -> pl.LazyFrame:
    rows = []
    for number in range(40):
        own = chance.sample(IDENTITIES, chance.choice([0, 1, 1, 1, 2, 4]))
        own += own[:1] if chance.random() < 0.05 else []
        rows.append(
            {"profile_id": f"p{chance.random()}", "heap_identities": own, "plan": chance.choice("ab"), "n": number}
        )
        rows[-1]["heap_identity"] = chance.choice([None, *own]) if own else None
    if chance.random() < 0.5:
        rows[3]["heap_identities"] = None
    frame = pl.DataFrame(rows, schema_overrides={"heap_identities": pl.List(pl.String), "heap_identity": pl.String})
    frame.drop([] if first_named else ["heap_identity"]).write_parquet(file, row_group_size=7)
    return pl.scan_parquet(file)


def users(chance: random.Random) -> pl.LazyFrame:
    rows: list[Mapping[str, Any]] = [
        {
            "identity": chance.choice([None, identity, identity]),
            "migrated_to": chance.choice([None, None, None, 9]),
            "last_modified": chance.choice([None, NOON + timedelta(hours=chance.randrange(3))]),
        }
        for identity in [*chance.sample(IDENTITIES, 45), *chance.sample(IDENTITIES, 10)]
    ]
    moment = pl.Datetime("us", "UTC")
    return pl.LazyFrame(rows, schema={"identity": pl.String, "migrated_to": pl.Int64, "last_modified": moment})


def divide(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(parts, "PART_ROWS", 6)
    patch.setattr(spill, "_WRITTEN_BYTES", 200)
    patch.setattr(batches, "_GIVEN_ROWS", 3)


def seen_of(chosen: Addressed) -> dict[str, Any]:
    """Return all that can be seen of who is addressed, each table read twice and in parts."""
    rows = chosen.rows.collect()
    assert rows["key"].is_sorted()
    assert rows.equals(chosen.rows.collect(engine="streaming"))
    some = chosen.rows.select("plan", double=pl.col("n") * 2).filter(pl.col("plan") == "a")
    return {
        "rows": sorted(rows.rows(), key=str),
        "columns": rows.columns,
        "some": sorted(some.collect().rows()),
        "count": chosen.rows.select(pl.len()).collect().item(),
        "head": chosen.rows.head(5).select("key").collect().rows(),
        "held": chosen.held.collect().rows(),
        "held for one": chosen.held.filter(pl.col("key") == "id3").collect().rows(),
        "invalid": chosen.invalid.collect().rows(),
        "writable": None if chosen.writable is None else set(chosen.writable.collect()["key"]),
        "counts": chosen.counts,
    }


@pytest.mark.parametrize("seed", range(6))
def test_in_parts_the_same_are_addressed(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    people, heap = profiles(chance, tmp_path / "people.parquet", first_named=seed % 2 == 0), users(chance)
    refused = pl.LazyFrame({"profile_id": people.collect()["profile_id"].to_list()[::2], "reason": "refused"})
    policy = AddressPolicy(
        identities=["all", "one", "none"][seed % 3],  # type: ignore[arg-type]
        allow_new=chance.random() < 0.5,
        hold_migrated=chance.random() < 0.5,
        suppressed=frozenset(chance.sample(IDENTITIES, 5)),
    )
    at_once = seen_of(addressed(people, heap, policy, refused if seed % 2 else None))
    divide(monkeypatch)
    in_parts = seen_of(addressed(people, heap, policy, refused if seed % 2 else None))
    for what, value in at_once.items():
        assert in_parts[what] == value, what
    assert at_once["rows"]
    assert at_once["held"]


def test_profiles_that_are_others_at_the_second_reading_are_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    divide(monkeypatch)
    rows = profiles(random.Random(1), tmp_path / "people.parquet").collect()
    read = [rows]
    people = batches.source_of(lambda columns, predicate: iter([read[-1].select(columns)]), rows.schema)
    chosen = addressed(people, users(random.Random(1)), AddressPolicy(allow_new=True))
    assert len(chosen.rows.collect())
    for changed in (rows.reverse(), rows.head(20), pl.concat([rows, rows.tail(20)])):
        read.append(changed)
        with pytest.raises(DeliveryError, match="written anew"):
            chosen.rows.collect()


def test_a_query_of_one_file_is_read_by_pieces_and_others_are_streamed(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    pl.DataFrame({"n": range(100), "key": [f"k{n}" for n in range(100)]}).write_parquet(file, row_group_size=30)
    scan = pl.scan_parquet(file)
    doubled = scan.rename({"n": "m"}).with_columns(twice=pl.col("m") * 2).select("key", "twice")
    for query in (scan, doubled, scan.select("n")):
        assert batches.is_of_one_file(query)
    others = [
        scan.filter(pl.col("n") > 3),
        scan.sort("n", descending=True),
        scan.join(scan, on="n", how="left", maintain_order="left"),
        pl.concat([scan, scan]),
        scan.with_columns(at=pl.int_range(pl.len())),
        scan.with_columns(total=pl.col("n").sum()),
        scan.group_by("key", maintain_order=True).len(),
        scan.head(50),
        scan.collect().lazy(),
    ]
    for query in others:
        assert not batches.is_of_one_file(query), query.explain()
    for query in (scan, doubled, *others):
        read = list(batches.batches(query, 7))
        assert pl.concat(read).equals(query.collect())
        assert max(map(len, read)) <= 7
