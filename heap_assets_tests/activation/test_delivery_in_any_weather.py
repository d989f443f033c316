"""Whatever happens in whatever order, the last calm run leaves the destination as the newest rows say."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import delivery_kit as kit
import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heap_assets.activation import Guard, Retry, Status
from heap_assets.demo.server_process import ServerProcess

KEYS = [f"person-{n}" for n in range(6)]
VALUE = st.one_of(st.none(), st.sampled_from(["a", "b", "c"]))
ROWS = st.dictionaries(st.sampled_from(KEYS), st.tuples(VALUE, VALUE), max_size=6)
WEATHER = st.lists(
    st.sampled_from(
        [
            {"status": 429, "retry_after": 0.01, "next": 1},
            {"status": 500, "next": 1},
            {"kind": "drop", "next": 1},
            {"kind": "reset", "next": 2},
            {"kind": "half", "next": 1},
            {"kind": "drop"},
            {"status": 403, "skip": 1},
            {"kind": "refuse_rows", "match": "person-[35]", "status": 400},
            {"kind": "refuse_batch", "larger_than": 1, "status": 413},
        ]
    ),
    max_size=2,
)
NEVER = Guard(removed=1, changed=1, takeover=1)
HASTY = Retry(attempts=2, first_wait=0.001, longest_wait=0.005, timeout=2)


def frame(rows: dict[str, tuple[str | None, str | None]]) -> pl.DataFrame:
    records = [(key, plan, stage) for key, (plan, stage) in rows.items()]
    return pl.DataFrame(records, schema={"key": pl.String, "plan": pl.String, "stage": pl.String}, orient="row")


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(days=st.lists(st.tuples(ROWS, WEATHER, st.booleans()), min_size=1, max_size=4))
def test_the_destination_ends_as_the_newest_rows_say(heap: ServerProcess, days: list[Any]) -> None:
    choices: dict[str, Any] = {
        "properties": {"Plan": "plan", "Stage": "stage"},
        "guard": NEVER,
        "retry": HASTY,
        "batch_rows": 2,
        "concurrency": 2,
        "unchanged_failures": 99,
    }
    heap.reset()
    with TemporaryDirectory() as folder:
        lake = kit.store(Path(folder))
        for number, (rows, weather, partial) in enumerate(days):
            heap.fail(*weather)
            kit.send(heap, lake, frame(rows), day=kit.later(number), changed_fields_only=partial, **choices)
            kit.assert_ledger_is_the_log(lake)
        heap.fail()
        newest = days[-1][0]
        last = kit.send(heap, lake, frame(newest), day=kit.later(len(days)), **choices)
        assert last.status == Status.SUCCEEDED
        held = kit.properties(heap)
        for key, values in held.items():
            wanted = dict(zip(("Plan", "Stage"), newest.get(key, (None, None)), strict=True))
            for name, value in wanted.items():
                assert values.get(name, "(none)") == (value or "(none)")
        assert {key for key, values in newest.items() if any(values)} <= set(held)
        assert set(held) <= {key for rows, _, _ in days for key in rows}
        assert kit.send(heap, lake, frame(newest), day=kit.later(len(days)), **choices).requests == 0
