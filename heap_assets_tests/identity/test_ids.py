"""Profile ids can be computed by anybody: SHA-256, 128 bits, and written-down vectors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.identity import IdentifierRule, Rules, resolve
from heap_assets.identity.encode import encode
from heap_assets.identity.ids import hashed, profile_id

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
