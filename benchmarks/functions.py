"""Rows a second through users' JavaScript, both JSON steps included, beside dukpy and mini-racer in the same run.

Rows have 30 keys; the function returns its input, or cleans it. The peers get the same rows in the same batches as JSON
in this process: their time has no limits, no checks and no other process in it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl

from heap_assets.functions import Outcome, Pool, Shape, bundle, through

BODIES = {
    "identity": "return row;",
    "clean": """
      const out = {};
      for (const key in row) if (row[key] !== null && key !== "email") out[key] = row[key];
      out.path = /^[^?#]*/.exec(row.path)[0];
      return out;""",
}
CHUNK = 20_000


def frame(rows: int) -> pl.DataFrame:
    """Return rows of an event table with 30 columns."""
    n = pl.int_range(rows, eager=True)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    columns = {
        "event_id": n + 2**55,
        "user_id": n % 5000,
        "time": pl.Series([at], dtype=pl.Datetime("us", "UTC")).new_from_index(0, rows),
        "path": "/shop/" + (n % 700).cast(pl.String) + "?utm=x",
        "email": "person" + n.cast(pl.String) + "@acme.example",
        "price": n / 7,
    }
    texts = {f"property_{k}": f"value {k} of " + (n % (50 + k)).cast(pl.String) for k in range(24)}
    return pl.DataFrame({**columns, **texts})


def timed(run: Callable[[], int]) -> float:
    begun = time.perf_counter()
    rows = run()
    return rows / (time.perf_counter() - begun)


def ours(rows: pl.DataFrame, body: str, workers: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "f.js").write_text(f"export default function (row) {{ {body} }}")
        shape = Shape(rows.schema, {}, ["event_id", "user_id", "time"], str, "time", date(2026, 1, 1))
        outcome = Outcome()
        with Pool(bundle(Path(folder), "f.js"), workers=workers) as pool:
            parts = rows.iter_slices(CHUNK)
            made = sum(map(len, through(pool, shape, frozenset({"event_id", "user_id"}), parts, outcome)))
        assert made == len(rows)
        assert not outcome.rejected
        return made


def _batches(rows: pl.DataFrame) -> Iterator[str]:
    for part in rows.iter_slices(1000):
        yield json.dumps(part.with_columns(pl.col("time").cast(pl.String)).to_dicts())


def python_json(rows: pl.DataFrame) -> int:
    """One Python process that writes and reads the same rows as JSON, and makes columns of them."""
    made = 0
    for text in _batches(rows):
        made += len(pl.DataFrame(json.loads(json.dumps(json.loads(text)))))
    return made


def mini_racer(rows: pl.DataFrame, body: str) -> int:
    from py_mini_racer import MiniRacer  # type: ignore[import-not-found,import-untyped]

    context = MiniRacer()
    context.eval(f"const f = (row) => {{ {body} }}; const run = (text) => JSON.stringify(JSON.parse(text).map(f)); 0")
    return sum(len(pl.DataFrame(json.loads(context.call("run", text)))) for text in _batches(rows))


def dukpy(rows: pl.DataFrame, body: str) -> int:
    import dukpy as engine  # type: ignore[import-not-found,import-untyped]

    interpreter = engine.JSInterpreter()
    old = body.replace("const ", "var ")
    code = f"function f(row) {{ {old} }}; JSON.stringify(JSON.parse(dukpy.text).map(f))"
    return sum(len(pl.DataFrame(json.loads(interpreter.evaljs(code, text=text)))) for text in _batches(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--peers", type=int, default=50_000, help="Rows through each peer")
    arguments = parser.parse_args()
    rows, fewer = frame(arguments.rows), frame(arguments.peers)
    print(f"{arguments.rows:,} rows of {len(rows.columns)} keys; Python {sys.version.split()[0]}")
    json_rate = timed(lambda: python_json(fewer))
    print(f"{'json alone, one Python process':<34}{json_rate:>12,.0f} rows/s")
    for name, body in BODIES.items():
        for workers in (1, 2):
            rate = timed(lambda body=body, workers=workers: ours(rows, body, workers))  # type: ignore[misc]
            share = f", {json_rate / rate:.2f} times json alone" if name == "identity" else ""
            print(f"{f'heap_assets {name}, {workers} workers':<34}{rate:>12,.0f} rows/s{share}")
        for peer in (mini_racer, dukpy):
            label = f"{peer.__name__} {name}"
            try:
                rate = timed(lambda peer=peer, body=body: peer(fewer, body))  # type: ignore[misc]
                print(f"{label:<34}{rate:>12,.0f} rows/s")
            except ImportError as error:
                print(f"{label:<34}  not installed: pip install {error.name}")
    print(f"took {timedelta(seconds=round(time.process_time()))} of processor time in this process")


if __name__ == "__main__":
    main()
