"""What decisions of people cost: links as text on disk to graph on disk, with DECISIONS decisions and without.

    python benchmarks/decisions.py --links 3000000 --decisions 10000

Both take turns in one process, after a turn of each that is not counted; who begins changes with every turn. Half of
the decisions are `same`, half `apart`; all are about identifiers that the links name, and every second one parts two
that a link has joined. The last line is one JSON object: medians of seconds and of processor time, and their ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
from identity_data import RULES, write_links

from heap_assets.identity import Decision, Rules, resolve
from heap_assets.identity.decisions import check_decisions


def decisions_about(links: pl.LazyFrame, count: int) -> tuple[Decision, ...]:
    """Return decisions about accounts and addresses that are linked: `apart` of one link, `same` of two neighbours."""
    is_pair = (pl.col("type_a") == "account") & (pl.col("type_b") == "email")
    pairs = links.filter(is_pair).select("value_a", "value_b").unique("value_a").unique("value_b").sort("value_a")
    rows = pairs.collect().sample(count * 3 // 2, seed=1).rows()
    made = [Decision("apart", (("account", a), ("email", b))) for a, b in rows[: count // 2]]
    others = rows[count // 2 :]
    made += [
        Decision("same", (("account", one[0]), ("account", other[0])))
        for one, other in zip(others[::2], others[1::2], strict=False)
    ]
    check_decisions(made)
    return tuple(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--links", type=int, default=3_000_000)
    parser.add_argument("--decisions", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", default=None, help="where temporary files go")
    arguments = parser.parse_args()
    sys.modules["scipy"] = None  # type: ignore[assignment]  # numba would load it; no user has it
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        write_links(folder / "links", arguments.links, arguments.seed, max(arguments.links // 3_000_000, 2))
        links = pl.scan_parquet(folder / "links" / "*.parquet")
        variants = {
            "without": RULES,
            "with": replace(RULES, decisions=decisions_about(links, arguments.decisions)),
        }
        turns = [_turn(folder, links, variants, number) for number in range(arguments.rounds + 1)][1:]
    middle = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    ratios = {
        "ratio": statistics.median(turn["with"] / turn["without"] for turn in turns),
        "processor_ratio": middle["with_processor"] / middle["without_processor"],
    }
    figures = {name: round(value, 3) for name, value in {**middle, **ratios}.items()}
    figures |= {"links": arguments.links, "decisions": arguments.decisions, "load": round(os.getloadavg()[0], 1)}
    print(json.dumps(figures))


def _turn(folder: Path, links: pl.LazyFrame, variants: dict[str, Rules], number: int) -> dict[str, float]:
    turn: dict[str, float] = {}
    for name, rules in sorted(variants.items(), reverse=bool(number % 2)):

        def resolve_all(rules: Rules = rules) -> None:
            resolution = resolve(links, rules)
            resolution.write_graph(folder / "graph.parquet")
            resolution.conflicts.sink_parquet(folder / "conflicts.parquet")

        turn[name], turn[f"{name}_processor"] = _timed(resolve_all)
    print("  ".join(f"{name} {value:.2f}" for name, value in turn.items()), flush=True)
    return turn


def _timed(work: Callable[[], None]) -> tuple[float, float]:
    """Return seconds and seconds of processor time."""
    begun, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begun, time.process_time() - used


if __name__ == "__main__":
    main()
