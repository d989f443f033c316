"""Memory and CPU time of syncs of profiles by the number of people, each size in a process of its own.

``python benchmarks/sync_memory.py --profiles 100000 1000000``. Nothing is sent anywhere: every call is answered at
once. A first run sends everybody, a second one a person in a thousand, a dry run and `sync why` nothing. Of `anonymous`
nine people of ten have no key, and are held.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl

from heap_assets.activation import connector_of, deliver, dry_run
from heap_assets.activation.engine.http_client import Transport
from heap_assets.activation.engine.rate_limit import RealClock
from heap_assets.pipelines.sync_why import why
from heap_assets.project import open_project
from heap_assets.storage import Inputs, Lake
from heap_assets.tables import PROFILES, USERS

DAYS = (date(2026, 11, 19), date(2026, 11, 20))
NAMES = {
    "by identifier": "everyone",
    "by Heap identity": "heap",
    "anonymous": "few",
}
CHUNK = 100_000
_SETTINGS = """
start_date: 2026-11-01
lake: ./lake
catalogue: ./heap_catalogue.yaml
heap:
  app_id: "11"
  source: {kind: folder, path: ./bucket}
warehouse:
  kind: duckdb
  path: ./warehouse.duckdb
  tables:
    people: {relation: crm.people, key: id, identifiers: {email: email}}
identity:
  identifiers:
    - {type: heap_identity}
    - {type: email, normalise: email}
    - {type: heap_user_id}
profiles:
  traits:
    plan: {from: [people.plan]}
    stage: {from: [people.stage]}
    mrr: {from: [people.mrr]}
    seats: {from: [people.seats]}
sync:
  everyone: &all
    kind: webhook
    url: http://127.0.0.1:1/
    key: email
    batch_rows: 1000
    properties: {Plan: plan, Stage: stage, MRR: mrr, Seats: seats}
  few: *all
  heap:
    kind: heap_user_properties
    properties: {Plan: plan, Stage: stage, MRR: mrr, Seats: seats}
"""


class Wire(httpx.BaseTransport):
    """Accepts everything."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        return httpx.Response(200, json={})


def profiles(first: int, count: int, *, changed: bool, anonymous: bool) -> pl.LazyFrame:
    """Return people with identifiers, four traits that are sent and six that are not."""
    n = pl.col("n")
    keyless = (n % 10 > 0) & anonymous
    key = pl.format("person.{}@customer-{}.example", n, n % 997)
    moment = pl.lit(datetime(2026, 11, 1, tzinfo=UTC)).dt.cast_time_unit("us")
    users = [
        pl.struct(type=pl.lit("heap_user_id"), value=n.cast(pl.String)),
        pl.struct(type=pl.lit("heap_user_id"), value=(n + 10_000_000_000).cast(pl.String)),
    ]
    named = [pl.struct(type=pl.lit(kind), value=key) for kind in ("email", "heap_identity")]
    none, no_keys = pl.lit(None, pl.String), pl.lit([], pl.List(pl.String))
    return pl.LazyFrame({"n": range(first, first + count)}).select(
        profile_id=pl.format("p-{}", n.hash().cast(pl.String).str.zfill(20)),
        first_seen=moment,
        last_seen=moment,
        identifiers=pl.when(keyless).then(pl.concat_list(users)).otherwise(pl.concat_list([*named, *users])),
        heap_identity=pl.when(keyless).then(none).otherwise(key),
        heap_identities=pl.when(keyless).then(no_keys).otherwise(pl.concat_list(key)),
        heap_user_ids=pl.concat_list(n, n + 10_000_000_000),
        plan=pl.concat_list(pl.lit("free"), pl.lit("pro"), pl.lit("team"), pl.lit("enterprise")).list.get(n % 4),
        stage=pl.format("stage {}", n % 11),
        mrr=(n % 1000).cast(pl.Float64) * 1.5,
        seats=n % 250 + pl.when((n % 1000 == 7) & changed).then(1).otherwise(0),
        **{f"trait_{number}": pl.format("value {} of {}", n, number) for number in range(6)},
        conflicts=pl.lit(0, pl.Int64),
    )


def write(folder: Path, count: int, *, anonymous: bool) -> None:
    """Write the profiles of two days, and Heap's users."""
    (folder / "heap_assets.yaml").write_text(_SETTINGS)
    (folder / "heap_catalogue.yaml").write_text("{}\n")
    lake = Lake.open(str(folder / "lake"))
    firsts = range(0, count, CHUNK)
    for number, day in enumerate(DAYS):
        chunks = [
            profiles(first, min(CHUNK, count - first), changed=number > 0, anonymous=anonymous) for first in firsts
        ]
        lake.write(PROFILES, str(day), pl.concat(chunks), Inputs({"content": str(number)}))
        users = pl.concat(chunks).select(
            user_id=pl.col("heap_user_ids").list.first(),
            identity="heap_identity",
            migrated_to=pl.lit(None, pl.Int64),
            last_modified="last_seen",
            email="heap_identity",
        )
        lake.write(USERS, str(day), users, Inputs({"content": str(number)}), notes={"as_of": f"{datetime.now(UTC)}"})


def measured(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Return MB that memory grew by at the peak, CPU seconds and what work returns."""
    Path("/proc/self/clear_refs").write_text("5")
    before, cpu = _memory_mb("VmRSS"), _cpu()
    result = work()
    return {"mb": round(_memory_mb("VmHWM") - before, 1), "cpu": round(_cpu() - cpu, 2)}, result


def one(folder: Path, name: str, part: str) -> dict[str, Any]:
    """Run one part of a case in this process."""
    project = open_project(file=folder / "heap_assets.yaml")
    connector = connector_of(project, name)
    destination = connector.destination()
    destination.limits = replace(destination.limits, rates=(), quotas=())
    connector.remember_enabled()
    day = DAYS[part != "first"]
    spec, store = connector.spec(day=day), project.lake.store

    def work() -> Any:
        if part == "why":
            return list(why(project, name, "person.10@customer-10.example", day))
        rows = connector.rows_to_send(day)
        if part == "select":
            return None
        if part == "dry run":
            return dry_run(spec, destination, rows, store, day)[0]
        wire = Transport(RealClock(), Wire())
        return deliver(spec, destination, rows, store, day, part, confirmed=True, transport=wire)

    facts, result = measured(work)
    if hasattr(result, "planned"):
        facts |= {"planned": result.planned, "sent": result.sent, "held": result.held}
    return facts


def _memory_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name))) / 1024


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profiles", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--cases", nargs="+", default=list(NAMES), choices=list(NAMES))
    parser.add_argument("--parts", nargs="+", default=["first", "second", "dry run", "why"])
    parser.add_argument("--write", type=Path)
    parser.add_argument("--one", type=Path)
    asked = parser.parse_args()
    case, part = asked.cases[0], asked.parts[0]
    if asked.write:
        return write(asked.write, asked.profiles[0], anonymous=case == "anonymous")
    if asked.one:
        return print(json.dumps(one(asked.one, NAMES[case], part)))
    print("| profiles | people | run | sent | held | memory, MB | CPU s |")
    print("|---|---|---|---|---|---|---|")
    for case in asked.cases:
        for count in asked.profiles:
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, __file__, "--cases", case, "--profiles", str(count)]
                subprocess.run([*command, "--write", folder], check=True)
                for part in asked.parts:
                    done = subprocess.run(
                        [*command, "--parts", part, "--one", folder], stdout=subprocess.PIPE, text=True, check=False
                    )
                    if done.returncode:
                        print(f"| {case} | {count:,} | {part} | failed |", flush=True)
                        continue
                    facts = json.loads(done.stdout.splitlines()[-1])
                    print(
                        f"| {case} | {count:,} | {part} | {facts.get('sent', '')} | {facts.get('held', '')} "
                        f"| {facts['mb']:.0f} | {facts['cpu']:.2f} |",
                        flush=True,
                    )
    return None


if __name__ == "__main__":
    main()
