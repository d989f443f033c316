"""What is never sent, with the reason; and what the ledger remembers of what is."""

from __future__ import annotations

from datetime import UTC, date, datetime

import delivery_kit as kit
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.activation import SyncReport, hashed_key
from heap_assets.activation.engine.canonical import utf16_longer_than
from heap_assets.activation.engine.hashing import hashed_keys, hashed_values, salt
from heap_assets.demo.server_process import ServerProcess
from heap_assets.errors import SettingsError
from heap_assets.storage import Store

KEY = bytes(range(16))


def send(heap: ServerProcess, lake: Store, **columns: object) -> SyncReport:
    rows = pl.DataFrame(columns, strict=False)
    mapped = {name: name for name in columns if name != "key"}
    return kit.send(heap, lake, rows, properties=mapped)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (None, "key is null"),
        ("   ", "key is blank"),
        ("a" * 256, "key is longer than 255 characters"),
        ("😀" * 128, "key is longer than 255 characters"),
        ("Guest", "key is a placeholder, not one person"),
        ("undefined", "key is a placeholder, not one person"),
    ],
)
def test_a_key_that_is_nobody_is_never_sent(heap: ServerProcess, lake: Store, key: str | None, reason: str) -> None:
    report = send(heap, lake, key=["ann", key], Plan=["pro", "pro"])
    assert (report.sent, report.invalid_reasons) == (1, {reason: 1})
    assert set(kit.properties(heap)) == {"ann"}


def test_limits_are_counted_in_utf16_units(heap: ServerProcess, lake: Store) -> None:
    fits = ["é" * 1023, "😀" * 511 + "x", "a" * 1023]
    too_long = ["é" * 1024, "😀" * 512, "a" * 1024]
    keys = [f"u{n}" for n in range(6)]
    report = send(heap, lake, key=keys, Note=fits + too_long)
    assert (report.sent, report.rejected, report.invalid_reasons) == (3, 0, {"Note is longer than 1023 characters": 3})
    assert set(kit.properties(heap)) == {"u0", "u1", "u2"}
    edge = send(heap, lake, key=["😀" * 127 + "x", "b" * 255], Note=["x", "y"])
    assert (edge.added, edge.rejected, edge.invalid) == (2, 0, 0)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=12)), max_size=8), st.integers(0, 10))
def test_utf16_length_is_what_python_counts(texts: list[str | None], units: int) -> None:
    found = utf16_longer_than(pl.Series(texts, dtype=pl.String), units).to_list()
    assert found == [t is not None and len(t.encode("utf-16-le")) // 2 > units for t in texts]


def test_numbers_that_json_does_not_know_are_invalid(heap: ServerProcess, lake: Store) -> None:
    report = send(heap, lake, key=["a", "b", "c"], Score=[1.5, float("nan"), float("inf")])
    assert report.invalid_reasons == {"Score is not a finite number": 2}


def test_every_type_arrives_in_a_form_heap_takes(heap: ServerProcess, lake: Store) -> None:
    row = {
        "key": ["a"],
        "Flag": [True],
        "Big": [2**60],
        "Small": [7],
        "Since": [date(2026, 1, 2)],
        "Seen": [datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)],
        "Tags": [["x", None, "y"]],
        "Address": [{"city": "Köln", "geo": {"lat": 50.9}}],
    }
    report = send(heap, lake, **row)
    assert report.new_properties == ("Flag", "Big", "Small", "Since", "Seen", "Tags", "Address.city", "Address.geo.lat")
    assert kit.properties(heap)["a"] == {
        "Flag": "true",
        "Big": str(2**60),
        "Small": 7,
        "Since": "2026-01-02",
        "Seen": "2026-01-02T03:04:05.678Z",
        "Tags": "x||y",
        "Address.city": "Köln",
        "Address.geo.lat": 50.9,
    }
    assert send(heap, lake, **row).requests == 0


@pytest.mark.parametrize("name", ["ID", "id", "user_id", " ", "x" * 513])
def test_a_property_name_heap_would_misread_is_a_mistake_in_the_settings(
    heap: ServerProcess, lake: Store, name: str
) -> None:
    with pytest.raises(SettingsError):
        kit.send(heap, lake, kit.people(1), properties={name: "plan"})


def test_binary_data_is_sent_as_base64(heap: ServerProcess, lake: Store) -> None:
    assert send(heap, lake, key=["a"], Blob=[b"x"]).sent == 1


@settings(max_examples=80, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=20)), max_size=20), st.integers(0, 5))
def test_equal_texts_hash_equal_and_others_do_not_wherever_they_stand(texts: list[str | None], offset: int) -> None:
    column = pl.Series(texts, dtype=pl.String)
    hashes = hashed_values(column, KEY).to_list()
    assert [h is None for h in hashes] == [t is None for t in texts]
    by_text = dict(zip(texts, hashes, strict=True))
    assert [by_text[t] for t in texts] == hashes
    assert len({*by_text.values()}) == len(by_text)
    assert hashed_values(column[offset:], KEY).to_list() == hashes[offset:]


def test_a_text_and_a_number_are_two_values_and_two_zeros_are_one() -> None:
    hashes = [hashed_values(pl.Series([v]), KEY)[0] for v in ("5", 5, 5.0, True)]
    assert len(set(hashes)) == 4
    assert hashed_values(pl.Series([0.0]), KEY)[0] == hashed_values(pl.Series([-0.0]), KEY)[0]


def test_the_salt_is_drawn_once_per_store_and_changes_every_hash(lake: Store) -> None:
    assert salt(lake) == salt(lake)
    assert hashed_key("ann", salt(lake)) != hashed_key("ann", salt(lake, b"given"))
    assert hashed_keys(pl.Series(["ann", None]), KEY).str.len_chars().to_list() == [16, 16]
