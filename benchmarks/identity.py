"""How fast identity resolution is, beside other tools: links as text on disk to graph on disk, in one run.

    python benchmarks/identity.py --links 5000000 --seed 1

The engine applies limits, dates and shared values; the peers compute plain components only. For the comparison of
results the engine runs once more without rules, and its components must equal those of every peer. Everybody takes
turns, as often as `--rounds` says; figures are medians. Peers run in the environment of `--python` (default
`.venvs/bench`; see identity_peers.py); those that cannot be imported are left out and named. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import polars as pl

HERE = Path(__file__).parent
PEERS = ("duckdb", "scipy", "igraph", "networkx", "splink")
SMALL = 1_000_000
"""Links for networkx, which needs about 12 seconds and 0.7 GB for each million."""


def main() -> None:
    given = _arguments()
    if given.part:
        print(json.dumps(_PARTS[given.part](given)))
        return
    with _folder(given) as name:
        folder = Path(name)
        if not (folder / "small").exists():
            _own("data", given, folder)
        print(f"{given.links:,} links, seed {given.seed}: {_size(folder / 'links') / 1e6:,.0f} MB of Parquet")
        _own("warm", given, folder)  # compiles, and keeps what it compiled
        expected = _plain_components(given, folder) if given.peers else (0, 0)
        turns: list[dict[str, dict[str, Any]]] = []
        for number in range(given.rounds):
            figures = _own("resolve", given, folder)
            _say("heap_assets", figures)
            peers = [name for name in given.peers if name != "networkx" or number == 0]
            turns.append({"heap_assets": figures, **_peers(peers, given, folder, expected)})
        names = ("heap_assets", *given.peers)
        middle = {name: _median([turn[name] for turn in turns if name in turn]) for name in names}
        figures, peers = middle.pop("heap_assets"), middle
        incremental = {} if given.no_increment else _own("incremental", given, folder)
        print(f"increment of 1 %   {incremental}")
        every = {name: one["seconds"] for name, one in peers.items() if "seconds" in one}
        same_links = {name: seconds for name, seconds in every.items() if name != "networkx"}
        seconds = figures["seconds"]
        summary = {
            "links": given.links, "seed": given.seed, "rounds": given.rounds, **figures, "peers": every,
            "peers_peak_mb": {name: one["peak_mb"] for name, one in peers.items() if "seconds" in one},
            "left_out": {name: one["why"] for name, one in peers.items() if "why" in one},
            "networkx_links": min(SMALL, given.links),
            "ratio_to_best_peer": round(min(same_links.values()) / seconds, 2) if same_links else None,
            **{f"ratio_to_{n}": round(every[n] / seconds, 2) for n in ("duckdb", "igraph", "splink") if n in every},
            **incremental, "load": [round(value, 1) for value in os.getloadavg()], "cpus": os.cpu_count(),
        }  # fmt: skip
        print(json.dumps(summary))


def _folder(given: argparse.Namespace) -> AbstractContextManager[str]:
    if given.data is None:
        return tempfile.TemporaryDirectory(dir=given.folder)
    kept = Path(given.data) / f"{given.links}-{given.seed}"
    kept.mkdir(parents=True, exist_ok=True)
    return nullcontext(str(kept))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--links", type=int, default=5_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", default=None, help="where temporary files go")
    parser.add_argument("--data", default=None, help="keep the links in this folder, or use those kept there")
    parser.add_argument(
        "--python", default=str(HERE.parent / ".venvs/bench/bin/python"), help="Python that has the peers"
    )
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS, help="which peers; none if empty")
    parser.add_argument("--no-increment", action="store_true", help="leave the increment out")
    parser.add_argument("--part", choices=_PARTS, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=None, help="3, or 1 of more than five million links")
    given = parser.parse_args()
    given.rounds = given.rounds or (3 if given.links <= 5_000_000 else 1)
    return given


def _own(part: str, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--part", part, "--links", str(given.links), "--seed", str(given.seed)]
    figures = _run([*command, "--folder", str(folder)])
    if "why" in figures:
        sys.exit(f"{part}: {figures['why']}")
    return figures


def _run(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"why": (done.stderr.strip().splitlines() or ["failed"])[-1][:200]}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def _median(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the middle of each figure; of runs that failed, why the first did."""
    if failed := [turn for turn in turns if "why" in turn]:
        return failed[0]
    return {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}


def _peers(
    names: Sequence[str], given: argparse.Namespace, folder: Path, expected: tuple[int, int]
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        python = given.python if Path(given.python).exists() else sys.executable
        links = "small" if name == "networkx" else "links"
        out = folder / f"{name}.parquet"
        command = [python, str(HERE / "identity_peers.py"), "--method", name, "--out", str(out)]
        found[name] = _run([*command, "--files", str(folder / links / "*.parquet")])
        _say(name, found[name])
        if out.exists() and name != "networkx":
            assert _components(out, ["type", "value", "component"]) == expected, f"{name} found other components"
        out.unlink(missing_ok=True)
    return found


def _components(file: Path, columns: Sequence[str]) -> tuple[int, int]:
    """Return the number of components, and a number that is equal only for equal components."""
    kind, value, label = columns
    named = pl.scan_parquet(file).select(
        pl.concat_str(kind, pl.lit("\x1f"), value).hash(7).alias("h"), pl.col(label).alias("c")
    )
    least = named.group_by("c").agg(pl.col("h").min().alias("m"), pl.col("h").hash(3).sum().alias("s"))
    count, total = least.select(pl.len(), pl.struct("m", "s").hash(5).sum()).collect(engine="streaming").row(0)
    return int(count), int(total)


def _plain_components(given: argparse.Namespace, folder: Path) -> tuple[int, int]:
    _own("plain", given, folder)
    found = _components(folder / "plain.parquet", ["identifier_type", "identifier", "profile_id"])
    (folder / "plain.parquet").unlink()
    return found


def _say(name: str, figures: dict[str, Any]) -> None:
    print(f"{name:12s} " + "  ".join(f"{key} {value}" for key, value in figures.items()), flush=True)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _data(given: argparse.Namespace) -> dict[str, Any]:
    from identity_data import write_links

    folder = Path(given.folder)
    write_links(folder / "links", given.links, given.seed, max(given.links // 3_000_000, 2))
    (folder / "small").mkdir()
    pl.scan_parquet(folder / "links" / "*.parquet").head(SMALL).sink_parquet(folder / "small" / "0.parquet")
    return {}


def _resolve(given: argparse.Namespace) -> dict[str, Any]:
    # numba loads scipy if there is one, for a quarter of a second; only the tests install it, no user has it
    sys.modules["scipy"] = None  # type: ignore[assignment]
    started = time.perf_counter()
    from identity_data import RULES

    from heap_assets.identity import resolve

    folder = Path(given.folder)
    resolution = resolve(pl.scan_parquet(folder / "links" / "*.parquet"), RULES)
    resolution.write_graph(folder / "graph.parquet")
    resolution.conflicts.sink_parquet(folder / "conflicts.parquet")
    resolution.shared.sink_parquet(folder / "shared.parquet")
    seconds = time.perf_counter() - started
    return {
        "seconds": round(seconds, 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "cpu_seconds": round(time.process_time(), 2),
        "identifiers": resolution.identifiers,
        "profiles": resolution.profiles,
        "conflicts": pl.scan_parquet(folder / "conflicts.parquet").select(pl.len()).collect().item(),
        "shared": pl.scan_parquet(folder / "shared.parquet").select(pl.len()).collect().item(),
    }


def _warm(given: argparse.Namespace) -> dict[str, Any]:
    from identity_data import RULES

    from heap_assets.identity import resolve

    resolution = resolve(pl.scan_parquet(Path(given.folder) / "links" / "*.parquet").head(20_000), RULES)
    resolution.write_graph(Path(given.folder) / "warm.parquet")
    return {"rows": resolution.conflicts.collect().height}


def _plain(given: argparse.Namespace) -> dict[str, Any]:
    from identity_data import TYPES

    from heap_assets.identity import IdentifierRule, Rules, resolve

    free = Rules(tuple(IdentifierRule(name, shared_above="never") for name in TYPES))
    folder = Path(given.folder)
    resolve(pl.scan_parquet(folder / "links" / "*.parquet"), free).write_graph(folder / "plain.parquet")
    return {}


def _incremental(given: argparse.Namespace) -> dict[str, Any]:
    from identity_data import RULES

    from heap_assets.identity.engine.native.engine import as_resolution
    from heap_assets.identity.engine.native.fold import fold
    from heap_assets.identity.engine.native.state import State, load, save
    from heap_assets.identity.engine.native.tables import resolved
    from heap_assets.identity.schemas import LINKS
    from heap_assets.storage import Store

    folder = Path(given.folder)
    store = Store(str(folder / "store"))
    links = pl.scan_parquet(folder / "links" / "*.parquet").select(list(LINKS))
    size = links.select(pl.len()).collect().item()
    before, more = links.head(size - size // 100), links.tail(size // 100).collect()
    save(State.of(resolved(before, RULES, keep_rows=True), RULES.digest), store)
    tiny = State.of(resolved(more.lazy().head(1000), RULES, keep_rows=True), RULES.digest)
    fold(tiny, more.head(0), more.tail(1000), RULES)  # compiles
    del tiny
    turns = []
    for _ in range(max(given.rounds, 3)):
        turn = {}
        os.sync()  # nobody waits for the disk because of what somebody else has written
        started = time.perf_counter()
        state = load(store)
        assert state is not None
        done = fold(state, more.head(0), more, RULES)
        turn["computing"] = time.perf_counter() - started
        as_resolution(state.resolved(RULES)).write_graph(folder / "incremental.parquet")
        save(state, Store(str(folder / "next-store")))
        turn["writing"] = time.perf_counter() - started
        del state
        os.sync()
        started = time.perf_counter()
        full = resolved(links, RULES, keep_rows=True)
        turn["all"] = time.perf_counter() - started
        as_resolution(full).write_graph(folder / "full.parquet")
        save(State.of(full, RULES.digest), Store(str(folder / "other-store")))
        turn["all_written"] = time.perf_counter() - started
        del full
        for name in ("next-store", "other-store"):
            shutil.rmtree(folder / name)
        turns.append(turn)
    middle = _median(turns)
    one, other = (pl.read_parquet(folder / f"{name}.parquet") for name in ("incremental", "full"))
    assert one.equals(other), "the increment gave another graph"
    shutil.rmtree(folder / "store")
    return {
        "incremental_ratio": round(middle["computing"] / middle["all"], 3),
        "incremental_ratio_with_writing": round(middle["writing"] / middle["all_written"], 3),
        "incremental_seconds": round(middle["computing"], 2),
        "incremental_touched": done.touched_identifiers,
    }


_PARTS = {"data": _data, "warm": _warm, "resolve": _resolve, "plain": _plain, "incremental": _incremental}


if __name__ == "__main__":
    main()
