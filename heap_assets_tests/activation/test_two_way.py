"""The rule of fields that both sides write, on small random data and on its edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from heap_assets.activation.engine import two_way
from heap_assets.activation.engine.destination import BaseDestination, Dedupe, Row
from heap_assets.activation.engine.difference import plan_upsert
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.log import FIELD, LEDGER_SCHEMA
from heap_assets.activation.engine.prepare import VALUE, prepare
from heap_assets.activation.engine.spec import SyncSpec
from heap_assets.activation.engine.two_way import ReadBack, merged
from heap_assets_tests.examples import examples

SALT = bytes(range(16))
POLICIES: Mapping[str, two_way.Policy] = {"a": "ours", "b": "theirs", "c": "newest"}
SPEC = SyncSpec("it", {name: name for name in POLICIES})
START = datetime(2026, 11, 20, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
Values = dict[str, str | None]


class There(BaseDestination):
    kind = "there"
    target = "there"

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        raise AssertionError("nothing is called")


@dataclass
class World:
    """A destination in memory, its ledger, and a clock that moves with every write."""

    records: dict[str, Values]
    changed: dict[str, datetime]
    lag: timedelta
    makes: Any = lambda value: value
    now: datetime = START
    ledger: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema={**LEDGER_SCHEMA, **_fields()}))
    settled: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=two_way._SETTLED))
    read: pl.DataFrame = field(default_factory=pl.DataFrame)
    read_at: datetime = START

    def read_back(self) -> None:
        self.read_at = self.now = self.now + timedelta(minutes=1)
        rows = [{"key": key, **values, "changed": self.changed[key]} for key, values in self.records.items()]
        self.read = pl.DataFrame(rows, schema={"key": pl.String, **dict.fromkeys(POLICIES, pl.String), "changed": TIME})

    def send(self, own: Mapping[str, tuple[Values, datetime | None]]) -> int:
        self.now += self.lag
        rows = pl.DataFrame(
            [{"key": key, **values, "at": at} for key, (values, at) in own.items()],
            schema={"key": pl.String, **dict.fromkeys(POLICIES, pl.String), "at": TIME},
        ).lazy()
        columns = {name: name for name in POLICIES}
        back = ReadBack(self.read.lazy(), "key", columns, POLICIES, "changed", "at", self.read_at)
        prepared = prepare(SPEC, There(), rows, SALT)
        merge = merged(
            back, prepared, self.ledger, rows, self.settled, spec=SPEC, destination=There(), salt=SALT, now=self.now
        )
        self.settled = merge.settled
        plan = plan_upsert(
            merge.prepared, merge.ledger, SPEC, day=date(2026, 11, 20), mapping="m", fence=1, dedupe=Dedupe("natural")
        )
        for row in plan.send.iter_rows(named=True):
            self.now += timedelta(seconds=1)
            sent = {name: row.get(VALUE + name) for name in POLICIES if row[FIELD + name] is not None}
            self.records[row["key"]] |= {name: self.makes(value) for name, value in sent.items()}
            self.changed[row["key"]] = self.now
            hashes = {FIELD + name: row[FIELD + name] for name in sent}
            self._acknowledge(row["key"], hashes, self.now + timedelta(seconds=1))
        return len(plan.send)

    def _acknowledge(self, key: str, hashes: Mapping[str, int], at: datetime) -> None:
        before = self.ledger.filter(pl.col("key") == key).to_dicts() or [{}]
        facts = {"key": key, "status": "acknowledged", "mapping": "m", "day": date(2026, 11, 20), "acknowledged_at": at}
        entry = pl.DataFrame([{**before[0], **facts, **hashes}], schema=self.ledger.schema)
        self.ledger = pl.concat([self.ledger.filter(pl.col("key") != key), entry])


def _fields() -> dict[str, Any]:
    return {FIELD + name: pl.UInt64 for name in POLICIES}


VALUES = st.fixed_dictionaries({name: st.sampled_from(["x", "y", None]) for name in POLICIES})
MOMENTS = st.sampled_from([None, *(START + timedelta(hours=hours) for hours in (-2, -1, 0, 1))])
EMPTY: Values = dict.fromkeys(POLICIES)
OWN = st.dictionaries(st.sampled_from("klm"), st.tuples(VALUES, MOMENTS), min_size=1)
RECORDS = st.fixed_dictionaries(dict.fromkeys("klm", VALUES))
LAGS = st.sampled_from([timedelta(0), timedelta(minutes=10)])


@settings(max_examples=examples(20), deadline=None)
@example(
    first=dict.fromkeys("klm", EMPTY),
    own={"k": (EMPTY | {"b": "x"}, None)},
    then={"k": (EMPTY, None)},
    changes={"k": EMPTY | {"b": "x"}},
    lag=timedelta(0),
)
@given(first=RECORDS, own=OWN, then=OWN, changes=st.dictionaries(st.sampled_from("klm"), VALUES), lag=LAGS)
def test_rounds_come_to_rest_and_both_sides_are_equal_by_the_rule(
    first: dict[str, Values],
    own: dict[str, tuple[Values, datetime | None]],
    then: dict[str, tuple[Values, datetime | None]],
    changes: dict[str, Values],
    lag: timedelta,
) -> None:
    world = World({k: dict(v) for k, v in first.items()}, {k: START - timedelta(hours=1) for k in first}, lag)
    world.read_back()
    world.send(own)
    for key, (values, at) in own.items():
        _equal_by_the_rule(world.records[key], values, first[key], at, START - timedelta(hours=1))
    world.now += timedelta(minutes=5)
    # what we wrote, written once more by the other side, is no change that could be seen
    rewritten = {k for k, values in changes.items() if first[k]["b"] is None and values["b"] == world.records[k]["b"]}
    for key, values in changes.items():
        world.records[key] |= values
        world.changed[key] = world.now
    sent = []
    for _ in range(5):
        world.now += timedelta(minutes=5)
        world.read_back()
        sent.append(world.send(then))
    assert sent[2:] == [0, 0, 0]
    for key, (values, _) in then.items():
        if values["a"] is not None:
            assert world.records[key]["a"] == values["a"]
        if changes.get(key, {}).get("b") is not None and key not in rewritten:
            assert world.records[key]["b"] == changes[key]["b"]
        assert world.records[key]["c"] in (
            values["c"],
            changes.get(key, first[key])["c"],
            own.get(key, ({},))[0].get("c"),
        )


def _equal_by_the_rule(
    record: Values, own: Values, remote: Values, own_at: datetime | None, remote_at: datetime
) -> None:
    assert record["a"] == (own["a"] or remote["a"])
    assert record["b"] == (remote["b"] or own["b"])
    newer = own_at is not None and own_at > remote_at
    assert record["c"] == (own["c"] if own["c"] and (newer or not remote["c"]) else remote["c"])


def test_what_a_destination_makes_of_a_value_is_not_sent_again() -> None:
    world = World({"k": dict.fromkeys(POLICIES)}, {"k": START}, timedelta(0), makes=lambda value: f" {value}")
    own = {"k": ({"a": "x", "b": "x", "c": "x"}, START)}
    sent = []
    for _ in range(5):
        world.now += timedelta(minutes=5)
        world.read_back()
        sent.append(world.send(own))
    assert sent == [1, 1, 0, 0, 0]


def test_a_tie_and_a_missing_time_of_ours_leave_what_is_there() -> None:
    for own_at, result in ((START, "y"), (None, "y"), (START + timedelta(microseconds=1), "x")):
        world = World({"k": {"a": None, "b": None, "c": "y"}}, {"k": START}, timedelta(0))
        world.read_back()
        world.send({"k": ({"a": None, "b": None, "c": "x"}, own_at)})
        assert world.records["k"]["c"] == result
