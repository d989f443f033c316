"""However many threads share the loops, and however many links there are, the answer is that of one thread."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from heap_assets.identity import IdentifierRule, Resolution, Rules, resolve
from heap_assets.identity.engine.native import memory

LINKS = 400_000
RULES = Rules(
    (
        IdentifierRule("crm_id", max_per_profile=1),
        IdentifierRule("email", max_per_profile=3, shared_above="never"),
        IdentifierRule("device_id", max_per_profile=20, shared_above=1),
        IdentifierRule("heap_user_id", shared_above="never"),
    )
)


def many_links(seed: int) -> pl.LazyFrame:
    """Return random links with long chains in them: what threads meet on."""
    chance = np.random.default_rng(seed)
    half = LINKS // 2
    kinds = pl.Series(["crm_id", "email", "device_id"])
    random = pl.DataFrame(
        {
            "type_a": kinds.gather(chance.integers(0, 3, half)),
            "a": chance.integers(0, half // 3, half),
            "b": chance.integers(0, half // 2, half),
        }
    )
    chain = np.arange(half) // 2
    chains = pl.DataFrame({"type_a": ["email"] * half, "a": chain + half, "b": (np.arange(half) + 1) // 2 + half})
    return (
        pl.concat([random, chains])
        .sample(fraction=1.0, shuffle=True, seed=seed)
        .lazy()
        .select(
            "type_a",
            value_a=pl.format("v{}", "a"),
            type_b=pl.lit("heap_user_id"),
            value_b=pl.format("{}", "b"),
        )
    )


def tables(found: Resolution) -> list[pl.DataFrame]:
    return [found.graph.collect(), found.conflicts.collect(), found.shared.collect()]


@pytest.mark.parametrize("seed", [1, 2])
def test_threads_do_not_race(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    links = many_links(seed)
    monkeypatch.setattr(memory, "THREADS", 1)
    alone = tables(resolve(links, RULES))
    assert alone[0].height > LINKS // 4
    assert alone[1].height > 0
    monkeypatch.setattr(memory, "THREADS", 5)
    for _ in range(3):
        for one, together in zip(alone, tables(resolve(links, RULES)), strict=True):
            assert_frame_equal(one, together)
