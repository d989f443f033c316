"""Profile ids can be computed by anybody: SHA-256, 128 bits, and written-down vectors."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.identity import IdentifierRule, Rules, resolve
from heap_assets.identity.engine.native.encode import encode
from heap_assets.identity.engine.native.ids import hashed, in_order, profile_id

VECTORS = json.loads((Path(__file__).parent / "vectors.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["identifier_type"])
def test_ids_are_those_of_the_vectors(vector: dict[str, str]) -> None:
    kind, value = vector["identifier_type"], vector["identifier"]
    rules = Rules((IdentifierRule(kind),))
    links = pl.LazyFrame({"type_a": [kind], "value_a": [value], "type_b": [None], "value_b": [None]})
    assert profile_id(kind, value) == vector["profile_id"]
    assert resolve(links, rules).graph.collect()["profile_id"].to_list() == [vector["profile_id"]]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300),
        min_size=1,
        unique=True,
    )
)
def test_the_compiled_hash_is_sha_256_at_every_length(values: list[str]) -> None:
    rules = Rules((IdentifierRule("email"),))
    frame = pl.LazyFrame({"type_a": "email", "value_a": values}).with_columns(
        type_b=pl.lit(None, pl.String), value_b=pl.lit(None, pl.String)
    )
    encoded = encode(frame, rules)
    nodes = np.arange(encoded.nodes, dtype=np.uint32)
    high, low = hashed(encoded, nodes, rules)
    for value, upper, lower in zip(encoded.texts.take(nodes), high, low, strict=True):
        expected = hashlib.sha256(b"email\x1f" + value.encode()).hexdigest()[:32]
        assert f"{upper:016x}{lower:016x}" == expected


def test_values_of_several_types_and_lengths_are_hashed_side_by_side() -> None:
    """Sixteen messages go through the hash together; theirs are of one block to eleven, and of prefixes beyond one."""
    kinds = ("account", "email", "t" * 150)
    rules = Rules(tuple(IdentifierRule(kind) for kind in kinds))
    named = [(kinds[i % 3], f"{i:04d}" + "é" * (i * 37 % 300)) for i in range(100)]
    links = pl.LazyFrame({"type_a": [k for k, _ in named], "value_a": [v for _, v in named]}).with_columns(
        type_b=pl.lit(None, pl.String), value_b=pl.lit(None, pl.String)
    )
    found = resolve(links, rules).graph.collect()
    expected = {(k, v): hashlib.sha256(f"{k}\x1f{v}".encode()).hexdigest()[:32] for k, v in named}
    assert {
        (k, v): p for k, v, p in found.select("identifier_type", "identifier", "profile_id").iter_rows()
    } == expected
    assert found["profile_id"].to_list() == sorted(expected.values())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2**64 - 1)), max_size=200), st.randoms())
def test_ids_are_put_in_order_by_all_their_bits(ids: list[tuple[int, int]], chance: random.Random) -> None:
    used = sorted(chance.sample(range(len(ids)), len(ids) * 3 // 4))
    high = np.array([first << 61 | second >> 40 for first, second in ids], np.uint64)
    low = np.array([second for _, second in ids], np.uint64)
    starts = np.searchsorted(used, np.arange(len(ids) + 1)).astype(np.int64)  # a cluster of one, or an empty one
    order = in_order(starts, high, low)
    assert order.tolist() == sorted(used, key=lambda row: (int(high[row]), int(low[row]), row))
