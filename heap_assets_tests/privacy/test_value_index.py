"""The index of a file never misses a value that is in it, and files that hold nothing of the people are not opened."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.errors import DamagedFileError
from heap_assets.identity import ColumnMapping, IdentifierRule, Rules, SourceTable
from heap_assets.pipelines import erasure, erasure_index, erasure_walk
from heap_assets.pipelines.erasure_index import index_values
from heap_assets.privacy import Eraser, People, Shape, ValueIndexes, value_index
from heap_assets.storage import Store
from heap_assets_tests.pipelines.delivery_world import DAY, World
from heap_assets_tests.privacy.canary import BOB, CANARIES, ZOE, copied, places_of
from heap_assets_tests.privacy.test_texts import AROUND, VALUES

RULES = Rules((IdentifierRule("email", normalise="email"), IdentifierRule("account"), IdentifierRule("number")))
COLUMNS = {"mail": "email", "numbers": "account", "id": "number"}
TABLE = SourceTable("t", "snapshot", tuple(ColumnMapping(kind, (column,)) for column, kind in COLUMNS.items()))
EMAILS = st.builds("{}@x.example".format, st.text(st.sampled_from("abé.+-1"), min_size=1, max_size=6))
NUMBERS = st.integers(0, 1 << 40).map(str)
PAIRS = st.one_of(
    st.tuples(st.just("email"), EMAILS),
    st.tuples(st.just("account"), st.one_of(VALUES, NUMBERS)),
    st.tuples(st.just("number"), NUMBERS),
)


@st.composite
def files(draw: st.DrawFn) -> tuple[pl.DataFrame, People, Shape]:
    """Return a table in which values of people stand in some cells, and how it names people."""
    pairs = draw(st.lists(PAIRS, min_size=1, max_size=3, unique=True))
    planted = draw(st.lists(st.sampled_from([value for _, value in pairs]), max_size=2))
    text = st.builds("{}{}{}".format, AROUND, st.sampled_from([*planted, "other"]), AROUND)
    cell = st.one_of(st.none(), st.sampled_from(["nobody@x.example", *planted]).map(str.upper), text)
    number = st.one_of(st.none(), st.sampled_from([7, *(int(one) for one in planted if one.isdigit())]))
    rows = 3
    columns: dict[str, Any] = {"mail": draw(st.lists(cell, min_size=rows, max_size=rows))}
    integers = draw(st.sampled_from([pl.Int64, pl.UInt64, pl.String]))
    columns["id"] = pl.Series(draw(st.lists(number, min_size=rows, max_size=rows)), dtype=pl.Int64).cast(integers)
    columns["numbers"] = draw(st.lists(st.lists(cell, max_size=2), min_size=rows, max_size=rows))
    columns["note"] = draw(st.lists(text, min_size=rows, max_size=rows))
    kinds = draw(st.lists(cell, min_size=rows, max_size=rows))
    columns["kind"] = pl.Series(kinds, dtype=pl.String).cast(pl.Categorical)
    deep = [{"deep": [one]} for one in draw(st.lists(cell, min_size=rows, max_size=rows))]
    columns["more"] = pl.Series(deep, dtype=pl.Struct({"deep": pl.List(pl.String)}))
    profile = "0123456789abcdef" * 2
    columns["identifier_type"] = ["email", "account", "number"]
    columns["identifier"] = draw(st.lists(cell, min_size=rows, max_size=rows))
    if draw(st.booleans()):
        columns["profile_id"] = [draw(st.sampled_from([profile, "f" * 32])), None, "f" * 32]
        columns.pop("identifier")
    people = People(dict.fromkeys(pairs, "r"), {"2026-01-01": {profile: "r"}})
    shape = Shape(TABLE) if draw(st.booleans()) else Shape(profiles=people.profiles["2026-01-01"])
    schema = {"mail": pl.String, "numbers": pl.List(pl.String), "note": pl.String, "identifier": pl.String}
    return pl.DataFrame(columns, schema_overrides={k: v for k, v in schema.items() if k in columns}), people, shape


@settings(deadline=None)
@given(files())
def test_no_file_is_ruled_out_that_an_erasure_changes(tmp_path_factory: pytest.TempPathFactory, case: Any) -> None:
    frame, people, shape = case
    store = Store(str(tmp_path_factory.getbasetemp() / "index"))
    eraser, indexes = Eraser(people, RULES), ValueIndexes(store, bytes(32), RULES)
    file = io.BytesIO()
    frame.write_parquet(file)
    store.write("t/a.parquet", file.getvalue())
    info = store.head("t/a.parquet")
    assert info is not None
    indexes.write(info, shape, file.getvalue())
    may_hold = indexes.may_hold(info, shape, indexes.words_of_people(people, eraser.texts))
    erased = eraser.erased(frame, shape)
    assert may_hold is not False or not (erased.rows or erased.cells), (erased.rows, erased.cells)
    strangers = People({("email", "stranger-4711@elsewhere.example"): "r"})
    words = indexes.words_of_people(strangers, Eraser(strangers, RULES).texts)
    assert indexes.may_hold(info, shape, words) is False, "and it does rule out"
    assert ValueIndexes(store, bytes(31) + b"k", RULES).may_hold(info, shape, words) is None


def opened_by(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    opened: set[str] = set()
    read = Store.read_stored
    monkeypatch.setattr(Store, "read_stored", lambda self, key: opened.add(key) or read(self, key))
    return opened


def test_an_erasure_by_the_index_opens_few_files_and_has_the_same_proof(
    canary_base: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proofs, opened = [], []
    for name in ("without", "with"):
        world = copied(canary_base, tmp_path / name)
        if name == "with":
            assert index_values(world.project) > 20
            assert index_values(world.project) == 0, "nothing has changed"
        request = erasure.request_erasure(world.project, [("email", ZOE)], request_id="er-fixed")
        erasure.confirm(world.project, request.id, "dpo")
        with monkeypatch.context() as patch:
            keys = opened_by(patch)
            erasure.run(world.project, "run")
        opened.append(keys)
        proof = erasure.proof(world.project, request.id)
        proofs.append({key: proof[key] for key in ("places", "scan", "identifiers") if key in proof})
        assert places_of(world.folder / "lake", *CANARIES) == {}
        assert BOB in places_of(world.folder / "lake", BOB)
    assert proofs[0]["places"] == proofs[1]["places"]
    assert proofs[1]["scan"]["hits"] == 0
    assert opened[1] < opened[0]
    stale = [info.key for info in world.lake.store.list("_privacy/index")]
    index_values(world.project)
    assert set(stale) <= {info.key for info in world.lake.store.list("_privacy/index")}, "none of an old version"


@pytest.mark.parametrize("most", [1 << 24, 0])
def test_a_large_file_is_indexed_by_its_row_groups_unless_it_has_too_many_values(
    canary_base: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    world = copied(canary_base, tmp_path / "world")
    whole = index_values(world.project)
    made = {info.key: world.lake.store.read(info.key) for info in world.lake.store.list("_privacy/index")}
    for key in made:
        world.lake.store.delete(key)
    for module in (erasure_index, erasure_walk):
        monkeypatch.setattr(module, "IN_MEMORY", 0)
    monkeypatch.setattr(value_index, "_MERGED_AT", 1)
    monkeypatch.setattr(value_index, "_MOST_OF_A_FILE", most)
    assert index_values(world.project) == whole
    again = {info.key: world.lake.store.read(info.key) for info in world.lake.store.list("_privacy/index")}
    assert (again == made) is (most > 0)
    request = erasure.request_erasure(world.project, [("email", ZOE)])
    erasure.confirm(world.project, request.id, "dpo")
    erasure.run(world.project, "run")
    assert places_of(world.folder / "lake", *CANARIES) == {}
    assert BOB in places_of(world.folder / "lake", BOB)


def test_a_file_that_has_changed_since_is_read_and_a_damaged_index_is_told(canary_base: World, tmp_path: Path) -> None:
    world = copied(canary_base, tmp_path / "world")
    world.write("warehouse/contacts", DAY, world.lake.scan("warehouse/contacts", str(DAY)).collect().filter(False))
    index_values(world.project)
    rows = canary_base.lake.scan("warehouse/contacts", str(DAY)).collect()
    world.write("warehouse/contacts", DAY, rows)
    request = erasure.request_erasure(world.project, [("email", ZOE)])
    erasure.confirm(world.project, request.id, "dpo")
    erasure.run(world.project, "run")
    assert places_of(world.folder / "lake", *CANARIES) == {}
    for info in world.lake.store.list("_privacy/index"):
        data = bytearray(world.lake.store.read(info.key))
        data[len(data) // 2] ^= 0x10
        world.lake.store.write(info.key, bytes(data))
    request = erasure.request_erasure(world.project, [("email", BOB)])
    erasure.confirm(world.project, request.id, "dpo")
    with pytest.raises(DamagedFileError, match="delete it"):
        erasure.run(world.project, "run")
