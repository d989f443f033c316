"""Rows a second through users' JavaScript, both JSON steps included, beside dukpy and mini-racer in the same run.

Rows have 30 keys; the function returns its input, or cleans it. The peers get the same rows in the same batches as JSON
in this process: their time has no limits, no checks and no other process in it. At the end, a day from Parquet to
Parquet, with the identity function and as one Python process with `json` would do it, in turns.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl

from heap_assets.functions import Outcome, Pool, Shape, bundle, through
from heap_assets.values import read_times

BODIES = {
    "identity": "return row;",
    "clean": """
      const out = {};
      for (const key in row) if (row[key] !== null && key !== "email") out[key] = row[key];
      out.path = /^[^?#]*/.exec(row.path)[0];
      return out;""",
}
CHUNK = 20_000
_TEXT = frozenset({"event_id", "user_id"})


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


@dataclass(frozen=True)
class Speed:
    """Rows a second, and rows a second of processor time of all processes: what one core does."""

    rows: float
    a_core: float

    @property
    def text(self) -> str:
        return f"{self.rows:>10,.0f} rows/s {self.a_core:>10,.0f} a core"


def timed(run: Callable[[], int], rounds: int = 1) -> Speed:
    """Return the median of some rounds; the machine may have other work, which processor time does not count."""
    speeds = []
    for _ in range(rounds):
        begun, used = time.perf_counter(), _processor_seconds()
        rows = run()
        speeds.append(Speed(rows / (time.perf_counter() - begun), rows / (_processor_seconds() - used)))
    return Speed(*(statistics.median(getattr(one, name) for one in speeds) for name in ("rows", "a_core")))


def _processor_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _shape(schema: pl.Schema) -> Shape:
    return Shape(schema, {}, ["event_id", "user_id", "time"], str, "time", date(2026, 1, 1))


def ours(rows: pl.DataFrame, body: str, workers: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "f.js").write_text(f"export default function (row) {{ {body} }}")
        shape, outcome = _shape(rows.schema), Outcome()
        with Pool(bundle(Path(folder), "f.js"), workers=workers) as pool:
            parts = rows.iter_slices(CHUNK)
            made = sum(map(len, through(pool, shape, _TEXT, parts, outcome)))
        assert made == len(rows)
        assert not outcome.rejected
        return made


def _batches(rows: pl.DataFrame) -> Iterator[str]:
    for part in rows.iter_slices(1000):
        yield json.dumps(part.with_columns(pl.col("time").cast(pl.String)).to_dicts())


def event_day(folder: Path, count: int) -> int:
    """Build a day of an event table from Parquet to Parquet, as `transformed` does."""
    rows, outcome = pl.scan_parquet(folder / "day.parquet"), Outcome()
    code = bundle(folder, "f.js")
    parts = (rows.slice(start, CHUNK).collect() for start in range(0, count, CHUNK))
    shape = _shape(rows.collect_schema())
    made = []
    with Pool(code) as pool:
        for number, part in enumerate(through(pool, shape, _TEXT, parts, outcome)):
            part.write_parquet(folder / f"part-{number}.parquet")
            made.append(folder / f"part-{number}.parquet")
    pl.scan_parquet(made).sink_parquet(folder / "made.parquet")
    assert not outcome.rejected
    return count


def json_day(folder: Path, count: int) -> int:
    """The same day through one Python process that writes and reads its rows as JSON."""
    rows = pl.scan_parquet(folder / "day.parquet")
    frames = []
    for start in range(0, count, CHUNK):
        for text in _batches(rows.slice(start, CHUNK).collect()):
            frames.append(pl.DataFrame(json.loads(json.dumps(json.loads(text)))))
    pl.concat(frames).with_columns(read_times(pl.col("time"))).write_parquet(folder / "made.parquet")
    return count


def python_json(rows: pl.DataFrame) -> int:
    """One Python process that writes and reads the same rows as JSON, and makes columns of them."""
    return sum(len(pl.DataFrame(json.loads(json.dumps(json.loads(text))))) for text in _batches(rows))


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
    parser.add_argument("--peers", type=int, default=50_000, help="Rows of each peer, and of the day")
    parser.add_argument("--rounds", type=int, default=3, help="Of each, medians are shown")
    parser.add_argument(
        "--packages", type=Path, default=next(iter(sorted(Path(".venvs/bench/lib").glob("*/site-packages"))), None),
        help="Folder with the packages of the peers",
    )  # fmt: skip
    arguments = parser.parse_args()
    if arguments.packages is not None:
        sys.path.append(str(arguments.packages))
    rows, fewer, rounds = frame(arguments.rows), frame(arguments.peers), arguments.rounds
    print(f"{arguments.rows:,} rows of {len(rows.columns)} keys; Python {sys.version.split()[0]}")
    print(f"{'json alone, one Python process':<34}{timed(lambda: python_json(fewer), rounds).text}")
    for name, body in BODIES.items():
        for workers in (1, 2):
            label = f"heap_assets {name}, {workers} worker{'s' * (workers > 1)}"
            print(f"{label:<34}{timed(lambda body=body, workers=workers: ours(rows, body, workers)).text}")  # type: ignore[misc]
        for peer in (mini_racer, dukpy):
            label = f"{peer.__name__} {name}"
            try:
                print(f"{label:<34}{timed(lambda peer=peer, body=body: peer(fewer, body), rounds).text}")  # type: ignore[misc]
            except ImportError as error:
                print(f"{label:<34}  not installed: pip install {error.name}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fewer.write_parquet(folder / "day.parquet")
        (folder / "f.js").write_text("export default (row) => row;")
        turns = [
            (timed(lambda: event_day(folder, len(fewer))), timed(lambda: json_day(folder, len(fewer))))
            for _ in range(rounds)
        ]
    for place, label in enumerate(("an event day, identity", "the day, one process of json")):
        print(f"{label:<34}{max((turn[place] for turn in turns), key=lambda speed: speed.a_core).text}")
    ratios = [
        statistics.median(getattr(json_speed, name) / getattr(day, name) for day, json_speed in turns)
        for name in ("rows", "a_core")
    ]
    print(f"the day costs {ratios[0]:.2f} times json's seconds, {ratios[1]:.2f} times its processor time")


if __name__ == "__main__":
    main()
