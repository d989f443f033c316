"""Days of event tables that a function makes: rows, checks, versions and what rebuilds them."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from heap_assets.errors import SettingsError
from heap_assets.functions import (
    DTYPES,
    RESULT,
    Batch,
    Limits,
    Outcome,
    Pool,
    Results,
    Shape,
    bundle,
    json_rows,
    wide_integers,
)
from heap_assets.pipelines.catalogue import note_changes
from heap_assets.pipelines.readiness import unbuilt_days
from heap_assets.project import parse_settings
from heap_assets.project.project import Project
from heap_assets.quality import result_store
from heap_assets.storage import Lake
from heap_assets_tests.orchestration.test_landing import _SETTINGS, Landing, rows

CLICKS = "heap/events/clicks"
DAY = "2026-05-02"


class Deployment(Landing):
    """A bucket whose clicks a function changes."""

    functions = ""

    def project(self) -> Project:
        text = _SETTINGS.format(quota=self.quota, tables=self.tables) + self.functions
        settings = parse_settings(text, self.folder / "heap_assets.yaml")
        return Project(settings, self.catalogue, Lake.open(str(self.folder / "lake")))

    def write(self, source: str, file: str = "clean.js") -> None:
        (self.folder / "functions").mkdir(exist_ok=True)
        (self.folder / "functions" / file).write_text(source)

    def result(self, check: str) -> result_store.StoredResult:
        stored = result_store.read(self.project().lake.store, CLICKS, check, DAY)
        assert stored is not None
        return stored

    def stored(self) -> list[dict[str, Any]]:
        return self.project().lake.scan(CLICKS, DAY).collect().to_dicts()


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    monkeypatch.setenv("HEAP_ASSETS_NOW", "2026-05-03T02:00:00Z")
    made = Deployment(tmp_path)
    sent = [{**row, "path": f"/{n}?gclid=a%20b+{n}"} for n, row in enumerate(rows(DAY, 6, 2**60))]
    made.bucket.dump(1, "2026-05-03T01:00:00", clicks=sent)
    made.land(1)
    made.accept_news()
    made.functions = (
        "\nfunctions:\n  transform:\n    cl*: {file: clean.js, columns: {gclid: text, part: integer, at: time}}\n"
    )
    return made


SOURCE = """
import { short } from './lib.js';
export default function (row, context) {
  const n = Number(short(row.path));
  if (n === 0) return context.drop('start page');
  if (n === 1) return null;
  if (n === 2) return [{ ...row, part: 1 }, { ...row, part: '2' }];
  if (n === 3) throw new Error('cannot read ' + row.path);
  if (n === 4) return { ...row, part: 'many' };
  console.log(row.path);
  return { gclid: url.param(row.path, 'gclid'), path: row.path, at: new Date(), surplus: 1 };
}
"""


def test_rows_are_changed_dropped_split_and_rejected(deployment: Deployment) -> None:
    deployment.write("export const short = (path) => path.slice(1, 2);", "lib.js")
    deployment.write(SOURCE)
    shown = deployment.build("clicks", DAY)
    counts = {name.removeprefix("function_"): shown[name] for name in shown if name.startswith("function_")}
    assert counts == {"rows": 6, "rejected": 2, "dropped": 2, "split": 1, "log_left_off": 0}
    stored = deployment.stored()
    assert [(row["event_id"] - 2**60, row["event_ordinal"], row["part"], row["gclid"]) for row in stored] == [
        (2, 0, 1, None),
        (2, 1, 2, None),
        (5, 0, None, "a b 5"),
    ]
    assert stored[-1]["at"] == datetime(2026, 5, 3, tzinfo=UTC)
    assert stored[-1]["time"] == datetime(2026, 5, 2, 1, tzinfo=UTC)
    assert "surplus" not in stored[-1]

    rejected = deployment.result("function_rejected_rows")
    assert not rejected.passed
    assert rejected.numbers["rejected"] == 2
    assert set(rejected.notes) == {
        "clean.js:8:49 Error",
        "column part: expected a whole number, beyond 2^53 as text, got text",
    }
    notes = deployment.project().lake.find(CLICKS, DAY).notes  # type: ignore[union-attr]
    assert notes["function_dropped_by"] == {"start page": 1, "null": 1}
    assert next(row["reason"] for row in notes["function_rejected_rows"]) == "Error: cannot read •••"
    assert "gclid" not in notes["function_log"][0]
    assert not deployment.result("function_columns_declared").passed
    assert deployment.result("unique_keys").passed
    assert deployment.result("readable").passed

    assert deployment.build("clicks", DAY)["status"] == "unchanged"
    assert deployment.result("function_rejected_rows").numbers["rejected"] == 2


def test_an_edited_function_rebuilds_the_days_that_used_it(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.write("export default (row) => row;")
    note_changes(deployment.project())
    deployment.build("clicks", DAY)
    version = deployment.project().lake.find(CLICKS, DAY).version  # type: ignore[union-attr]
    assert unbuilt_days(deployment.project()) == {}
    deployment.write("export default (row) => ({ ...row, gclid: 'x' });  // edited")
    note_changes(deployment.project())
    assert unbuilt_days(deployment.project()) == {CLICKS: {date(2026, 5, 2)}}
    assert deployment.build("clicks", DAY)["status"] == "written"
    assert unbuilt_days(deployment.project()) == {}
    edited = deployment.project().lake.find(CLICKS, DAY)
    assert edited is not None
    assert edited.version != version
    assert {row["gclid"] for row in deployment.stored()} == {"x"}


def test_a_broken_function_fails_its_table_and_no_other(deployment: Deployment) -> None:
    deployment.write("export default (row) => { syntax error }")
    deployment.bucket.dump(2, "2026-05-03T01:30:00", taps=rows(DAY, 2))
    deployment.land(2)
    deployment.accept_news()
    with pytest.raises(ValueError, match="not enough values"):
        deployment.build("clicks", DAY)
    readable = deployment.result("readable")
    assert not readable.passed
    assert readable.notes["reason"].startswith("clean.js:1:34: SyntaxError")
    assert deployment.build("taps", DAY)["dagster/partition_row_count"] == 2


@pytest.mark.parametrize(
    ("functions", "files", "message"),
    [
        ("transform: {clicks: {file: none.js}}", {}, "no file none.js"),
        ("transform: {users: {file: a.js}}", {"a.js": "export default 1"}, "transform.users: .* is a snapshot"),
        ("transform: {clicks: {file: a.js}, 'c*': {file: a.js}}", {"a.js": "export default 1"}, "one function a table"),
        ("transform: {clicks: {file: a.js}}", {"a.js": "let a"}, "a.js has no `export default function`"),
        ("transform: {clicks: {file: a.js}}", {"a.js": "import 'fs';"}, "a.js:1: imports 'fs'; only files"),
        ("transform: {clicks: {file: a.js}}", {"a.js": "\nimport './../b.js'"}, "outside the folder of functions"),
        ("transform: {clicks: {file: ../b.js}}", {}, "outside the folder"),
        ("transform: {clicks: {file: a.js}}", {"a.js": "const f = () => import('./b.js')"}, r"a.js:1: `import\(` is"),
        ("transform: {clicks: {file: a.js}}", {"a.js": "import b from './a.js'"}, "import each other in a circle"),
        (
            "transform: {clicks: {file: a.js}}",
            {"a.js": "import { b } from './b.js'", "b.js": "export const c = 1"},
            "imports 'b' from b.js, which does not export it",
        ),
        ("transform: {clicks: {file: a.js, columns: {a: blob}}}", {}, "columns.a"),
        ("transform: {clicks: {file: a.js, seconds: 0}}", {}, "seconds"),
    ],
)
def test_a_mistake_is_one_message_at_load(
    deployment: Deployment, functions: str, files: dict[str, str], message: str
) -> None:
    deployment.functions = f"\nfunctions:\n  {functions}\n"
    deployment.write("")
    for file, source in files.items():
        deployment.write(source, file)
    with pytest.raises(SettingsError, match=message):
        deployment.definitions()


def test_values_of_every_type_come_back_as_they_went(tmp_path: Path) -> None:
    (tmp_path / "f.js").write_text("export default (row) => row")
    before = pl.DataFrame(
        {
            "event_id": [2**62, -5, 7],
            "text": ["ä\u0000\"\\", None, "C:\\udead"],
            "wide": [2**63 - 1, None, -(2**63)],
            "small": pl.Series([1, None, -128], dtype=pl.Int8()),
            "number": [0.1, None, 1e300],
            "flag": [True, None, False],
            "at": pl.Series([datetime(2026, 1, 1, 1, 2, 3, 456789), None, datetime(1, 1, 1)], dtype=DTYPES["time"]),
            "naive": pl.Series([datetime(2026, 1, 1), None, datetime(2026, 1, 2)], dtype=pl.Datetime("us")),
            "day": [date(2026, 1, 31), None, date(1970, 1, 1)],
            "money": pl.Series([Decimal("1.50"), None, Decimal("-99999999999999999.01")], dtype=pl.Decimal(30, 2)),
            "list": [[1], None, []],
        }
    )  # fmt: skip
    shape = Shape(before.schema, {}, ["event_id"], str)
    as_text = wide_integers(before.lazy(), ["event_id"])
    assert as_text == {"event_id", "wide"}
    outcome = Outcome()
    with Pool(bundle(tmp_path, "f.js"), Limits(), workers=1) as pool:
        after = shape.rows(before, list(pool.run([Batch(0, json_rows(before, as_text))])), outcome, as_text)
    assert (outcome.rejected, outcome.rejected_rows) == (0, [])
    assert after.drop("event_ordinal").equals(before)
    assert after.drop("event_ordinal").schema == before.schema


_BEFORE = pl.DataFrame(
    {
        "event_id": [1, 2, 3],
        "user_id": [7, None, 2**60],
        "wide": [2**60, None, 3],
        "small": pl.Series([1, None, -128], dtype=pl.Int8()),
        "whole": pl.Series([1, None, 3], dtype=pl.Int64()),
        "big": pl.Series([1, None, 2**63], dtype=pl.UInt64()),
        "number": [0.1, None, 1e300],
        "single": pl.Series([0.1, None, 2.0], dtype=pl.Float32()),
        "text": ["a", None, "\u0000é😀"],
        "flag": [True, None, False],
        "at": pl.Series([datetime(2026, 1, 1, 1, 2, 3, 456789), None, datetime(1, 1, 1)], dtype=DTYPES["time"]),
        "day": [date(2026, 1, 31), None, date(1970, 1, 1)],
        "money": pl.Series([Decimal("1.50"), None, Decimal("-99999999999999999.01")], dtype=pl.Decimal(30, 2)),
    }
)
_TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(["5", "2026-01-31T00:00:00Z", "1.5"])
)
_JSON = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), _TEXTS,
    st.lists(st.integers(0, 2), max_size=2), st.dictionaries(st.sampled_from("ab"), st.integers(0, 2), max_size=2),
)  # fmt: skip


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_results_read_by_column_are_those_read_one_by_one(data: st.DataObject) -> None:
    as_text = wide_integers(_BEFORE.lazy(), ["event_id", "user_id"])
    rows = [json.loads(row) for row in json_rows(_BEFORE, as_text)]
    names = [*_BEFORE.columns, "added", "undeclared"]
    for row in rows:
        row |= data.draw(st.dictionaries(st.sampled_from(names), _JSON, max_size=2))
        for name in data.draw(st.sets(st.sampled_from(names), max_size=1)):
            row.pop(name, None)
    lines = b"\n".join(orjson.dumps(row) for row in rows)
    shape = Shape(_BEFORE.schema, {"added": pl.String()}, ["event_id", "user_id"], str, "at")
    together, singly = Outcome(), Outcome()
    frame = shape.rows(_BEFORE, [Results(0, lines)], together, as_text)
    one_by_one = [(RESULT, row, "") for row in orjson.loads(b"[%b]" % lines.replace(b"\n", b","))]
    assert_frame_equal(frame, shape.rows(_BEFORE, [Results(0, one_by_one)], singly, as_text), check_exact=True)
    assert together == singly
