"""Funnels and paths of the data set that retentioneering ships, by its own count and by ours."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from heap_assets.analytics import parse_query
from heap_assets_tests.environments import UnavailableError, environment

_STEPS = (
    ["home", "product_card", "add_to_cart", "purchase"],
    ["home", "home", "cart"],
    ["catalog", "product_card", "product_card", "purchase"],
)
_END = datetime(2100, 1, 1, tzinfo=UTC)
_PEER = """
import json, sys
from retentioneering.datasets import load_ecom
stream = load_ecom()
frame = stream.df.reset_index(drop=True)
frame["row"] = range(len(frame))
written = frame[["user_id", "session_id", "event", "timestamp", "row"]].astype({"timestamp": str})
written.to_csv(sys.argv[1], index=False)
events = set(frame["event"].unique())
asked = [[step for step in steps if step in events] for steps in json.loads(sys.argv[2])]
counts = [
    [[step["unique_paths"] for step in stream.funnel_data(steps, path_col=column)["steps"]] for steps in asked]
    for column in ("user_id", "session_id")
]
to_goal = stream.truncate_paths("path_start", "purchase", path_col="session_id").df
ways = to_goal.groupby("session_id", sort=False)["event"].agg(" > ".join).value_counts()
print(json.dumps({"steps": asked, "counts": counts, "ways": ways.to_dict()}))
"""


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> tuple[pl.DataFrame, dict[str, Any]]:
    try:
        venv = environment("retentioneering", "retentioneering==5.2.4")
    except UnavailableError as missing:
        pytest.skip(f"{missing}: our funnels were NOT compared with another library's")
    file: Path = tmp_path_factory.mktemp("ecom") / "events.csv"
    variables = {**os.environ, "RETENTIONEERING_NO_TRACK": "1", "DO_NOT_TRACK": "1", "HOME": str(file.parent)}
    command = [str(venv / "bin" / "python"), "-c", _PEER, str(file), json.dumps(_STEPS)]
    run = subprocess.run(command, env=variables, check=True, capture_output=True, text=True, timeout=300)
    events = pl.read_csv(file, try_parse_dates=True).select(
        profile_id=pl.col("user_id").cast(pl.String),
        session_id=pl.col("session_id").rank("dense").cast(pl.Int64),
        event_id="row",
        time=pl.col("timestamp").cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
        event_type="event",
    )
    return events, json.loads(run.stdout.splitlines()[-1])


def _answer(events: pl.DataFrame, **definition: Any) -> pl.DataFrame:
    days = (_END - events["time"].min()) // timedelta(days=1) + 1  # type: ignore[operator]
    statement = parse_query({**definition, "days": days}, "q").statement(_END)
    with duckdb.connect() as sql:
        sql.execute("SET TimeZone = 'UTC'")
        sql.register("events", events.to_arrow())
        frame: pl.DataFrame = sql.sql(statement.text(), params=dict(statement.parameters)).pl()
    return frame


def test_funnels_have_the_same_counts(peer: tuple[pl.DataFrame, dict[str, Any]]) -> None:
    events, answer = peer
    for per, counts in zip(("person", "session"), answer["counts"], strict=True):
        for steps, expected in zip(answer["steps"], counts, strict=True):
            assert len(steps) > 1
            reached = _answer(events, kind="funnel", steps=steps, per=per)["reached"].to_list()
            assert reached == expected, (per, steps)
            assert expected[0] > 0


def test_paths_to_a_purchase_have_the_same_counts(peer: tuple[pl.DataFrame, dict[str, Any]]) -> None:
    events, answer = peer
    table = _answer(events, kind="paths", goal="purchase", per="session", top=10**6, longest=10**6)
    assert dict(table.select("path", "frequency").rows()) == answer["ways"]
    assert table.height > 100
