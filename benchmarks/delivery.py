"""How fast delivery is, how close to the limits it goes, and what a kill costs; the peer is drt-core.

``python benchmarks/delivery.py --profiles 1000000``; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import delivery_limits
import delivery_peer
import polars as pl

from heap_assets.activation import Log, Retry, SyncSpec, deliver, dry_run, salt
from heap_assets.activation.connectors.heap import HeapApp
from heap_assets.activation.connectors.heap_user_properties import HeapUserProperties
from heap_assets.activation.engine.log import FIELD, LEDGER_SCHEMA, Snapshot
from heap_assets.activation.engine.prepare import prepare
from heap_assets.demo.server_process import ServerProcess, running_server
from heap_assets.storage import Store

DAY = date(2026, 11, 20)
SPEC = SyncSpec(
    "heap_user_properties",
    {"Plan": "plan", "Stage": "stage", "MRR": "mrr", "Seats": "seats"},
    retry=Retry(first_wait=0.05, longest_wait=0.5),
)
PEER_BATCH = 500


def people(count: int) -> pl.LazyFrame:
    number = pl.int_range(count, dtype=pl.Int64, eager=True).alias("n").to_frame().lazy()
    n = pl.col("n")
    return number.select(
        key=pl.format("person.{}@customer-{}.example", n, n % 997),
        plan=pl.concat_list(pl.lit("free"), pl.lit("pro"), pl.lit("team"), pl.lit("enterprise")).list.get(n % 4),
        stage=pl.format("stage {}", n % 11),
        mrr=(n % 1000).cast(pl.Float64) * 1.5,
        seats=n % 250,
    )


def changed(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return the next day: 1 % changed, 0.25 % lost a value, 0.25 % vanished."""
    n = pl.int_range(pl.len())
    return rows.with_columns(
        seats=pl.when(n % 100 == 7).then(pl.col("seats") + 1).otherwise("seats"),
        plan=pl.when(n % 400 == 11).then(None).otherwise("plan"),
    ).filter(n % 400 != 13)


def destination(url: str, batch: int) -> HeapUserProperties:
    return HeapUserProperties(HeapApp("11", base_url=url), batch_rows=batch)


def step_prepare(folder: Path, profiles: int) -> dict[str, Any]:
    """Write a ledger that knows every profile, and the rows of the next day."""
    store = Store(str(folder / "lake"))
    target = destination("http://127.0.0.1:1", 1000)
    prepared = prepare(SPEC, target, people(profiles), salt(store))
    known = {
        "day": pl.lit(DAY),
        "mapping": pl.lit(SPEC.mapping_version(target.target)),
        "status": pl.lit("acknowledged"),
        "acknowledged_at": pl.lit(datetime(2026, 11, 20, tzinfo=UTC)),
        "failures": pl.lit(0, pl.UInt32),
        "reason": pl.lit(""),
    }
    nulls = {name: pl.lit(None, dtype) for name, dtype in LEDGER_SCHEMA.items() if name not in ("key", *known)}
    fields = [c for c in prepared.rows.columns if c.startswith(FIELD)]
    ledger = prepared.rows.with_columns(**known, **nulls).select(*LEDGER_SCHEMA, *fields).sort("key")
    Log(store, SPEC.name).save(Snapshot(ledger), compact_after=1000)
    changed(people(profiles)).sink_parquet(folder / "rows.parquet")
    return {}


def step_diff(folder: Path, profiles: int) -> dict[str, Any]:
    """Read both sides, compare, validate, guard: all that a run does before it sends."""
    store = Store(str(folder / "lake"))
    target = destination("http://127.0.0.1:1", 1000)
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        report, _ = dry_run(SPEC, target, pl.scan_parquet(folder / "rows.parquet"), store, DAY)
        seconds.append(time.perf_counter() - begun)
    assert report.known == profiles
    assert report.withdrawn == profiles // 400 * 2
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "diff_seconds": round(sorted(seconds)[1], 2),
        "diff_first_seconds": round(seconds[0], 2),
        "diff_peak_mb": round(peak),
    }


def step_send(folder: Path, url: str, batch: int) -> dict[str, Any]:
    """Deliver the rows in `rows.parquet`."""
    # numba loads scipy if there is one, for a quarter of a second; only the tests install it, no user has it
    sys.modules["scipy"] = None  # type: ignore[assignment]
    store = Store(str(folder / "lake"))
    rows = pl.scan_parquet(folder / "rows.parquet")
    report = deliver(SPEC, destination(url, batch), rows, store, DAY, "bench")
    return {"status": str(report.status), "sent": report.sent, "seconds": report.seconds, "requests": report.requests}


def step(name: str, folder: Path, **arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--step", name, "--folder", str(folder)]
    for key, value in arguments.items():
        command += [f"--{key}", str(value)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    said, _ = process.communicate(timeout=1800)
    if process.returncode != 0:
        raise RuntimeError(f"a step failed:\n{said[-2000:]}")
    result: dict[str, Any] = json.loads(said.splitlines()[-1])
    return result


@contextmanager
def workplace(rows: int) -> Iterator[tuple[Path, ServerProcess]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        people(rows).sink_parquet(folder / "rows.parquet")
        with running_server("heap", folder / "server", arguments=["--no-limits"]) as server:
            yield folder, server


def accepted_rows(server: ServerProcess) -> int:
    return int(server.state(only="summary")["summary"].get("user_rows", 0))


def measure_difference(profiles: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        finished(step("prepare", Path(name), profiles=profiles))
        result = finished(step("diff", Path(name), profiles=profiles))
    print(f"difference of {profiles:,} profiles: {result['diff_seconds']} s, peak {result['diff_peak_mb']} MB")
    return result


def measure_delivery(users: int) -> dict[str, Any]:
    with workplace(users) as (folder, server):
        first = finished(step("send", folder, url=server.base_url, batch=1000))
        assert (first["status"], accepted_rows(server)) == ("succeeded", users)
        second = finished(step("send", folder, url=server.base_url, batch=1000))
    rate = users / first["seconds"]
    seconds, again = first["seconds"], second["requests"]
    print(f"delivery of {users:,} users: {seconds:.1f} s, {rate:,.0f} rows/s; a second run makes {again} requests")
    return {"rows_per_s": round(rate), "second_run_requests": second["requests"]}


def measure_against_peer(users: int) -> dict[str, Any]:
    """The same users, the same server, the same batch size."""
    ours, peers, walls, peer_walls = [], [], [], []
    for _ in range(3):
        with workplace(users) as (folder, server):
            begun = time.perf_counter()
            report = finished(step("send", folder, url=server.base_url, batch=PEER_BATCH))
            walls.append(time.perf_counter() - begun)
            ours.append(users / report["seconds"])
            assert accepted_rows(server) == users
            server.reset()
            peer = delivery_peer.project(folder / "peer", folder / "rows.parquet", server.base_url, PEER_BATCH)
            seconds, wall = delivery_peer.run(peer)
            assert accepted_rows(server) == users
            peers.append(users / seconds)
            peer_walls.append(wall)
    print(f"{users:,} users, batches of {PEER_BATCH}: {max(ours):,.0f} rows/s, drt-core {max(peers):,.0f} rows/s")
    return {
        "rows_per_s_at_peer_batch": round(sorted(ours)[1]),
        "peer_rows_per_s": round(sorted(peers)[1]),
        "wall_seconds": round(sorted(walls)[1], 2),
        "peer_wall_seconds": round(sorted(peer_walls)[1], 2),
    }


def measure_kill(users: int) -> dict[str, Any]:
    """Kill each sender when half of the rows are there, run it again, count what arrived twice."""
    resent = {}
    for name in ("resent_rows", "peer_resent_rows"):
        with workplace(users) as (folder, server):
            server.fail({"kind": "slow", "seconds": 0.03})
            if name == "resent_rows":
                process = step("send", folder, url=server.base_url, batch=PEER_BATCH)
            else:
                peer = delivery_peer.project(folder / "peer", folder / "rows.parquet", server.base_url, PEER_BATCH)
                process = delivery_peer.start(peer)
            while accepted_rows(server) < users // 2:
                assert process.poll() is None, "it ended before it could be killed"
                time.sleep(0.005)
            process.kill()
            process.communicate()
            server.fail()
            if name == "resent_rows":
                finished(step("send", folder, url=server.base_url, batch=PEER_BATCH))
            else:
                delivery_peer.run(peer)
            assert server.state(only="summary")["summary"]["users"] == users
            resent[name] = accepted_rows(server) - users
    print(f"rows sent twice after a kill half-way: {resent['resent_rows']:,}, drt-core {resent['peer_resent_rows']:,}")
    return resent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profiles", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--peer-users", type=int, default=20_000)
    parser.add_argument("--step", choices=["prepare", "diff", "send"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step == "send":
        print(json.dumps(step_send(options.folder, options.url, options.batch)))
        return
    if options.step:
        work = {"prepare": step_prepare, "diff": step_diff}[options.step]
        print(json.dumps(work(options.folder, options.profiles)))
        return
    delivery_peer.install()
    results = {"profiles": options.profiles, **measure_difference(options.profiles), **measure_delivery(options.users)}
    results |= measure_against_peer(options.peer_users)
    results |= measure_kill(options.peer_users)
    results |= delivery_limits.measure()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
