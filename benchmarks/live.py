"""Events a second that `heap-assets live` accepts, and seconds until a changed profile is at a destination.

A lake with a graph of IDENTIFIERS identifiers is made; the service runs as a process of its own. The generator and the
destination, a webhook server without limits, are this process; with `--destination heap` the destination is the local
server of Heap's API with its documented limits, reached through this process. Latency runs from the answer of the
endpoint to the destination's answer 200 for the value that the event brought. The peer is bare Starlette that writes
each body as a line to a file and waits for fsync, called by the same generator. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from heap_assets import clock
from heap_assets.demo.server_process import running_server
from heap_assets.pipelines.delivery import RunOptions, send
from heap_assets.pipelines.people import identity_of_day, profiles_of_day
from heap_assets.pipelines.suites import required_checks
from heap_assets.project import Project, open_project
from heap_assets.quality import CheckResult, Severity, result_store
from heap_assets.storage import Inputs

KEY = "wk-benchmark-5c1e0f"
SETTINGS = """\
start_date: {start}
lake: lake
heap:
  app_id: "11"
  base_url: "{heap}"
  source: {{kind: folder, path: heap}}
  identifiers: {{users: {{user_id: heap_user_id, identity: heap_identity}}}}
warehouse:
  kind: duckdb
  path: w.duckdb
  tables:
    contacts: {{relation: crm.contacts, key: contact_id, created_at: created_at,
               identifiers: {{contact_id: crm_id, email: email, identity: heap_identity}}}}
inbox:
  sources: {{web: {{kind: tracking, write_keys: ["${{LIVE_BENCHMARK_KEY}}"]}}}}
  identifiers: {{user_id: crm_id}}
  tables: {{identify: {{columns: {{plan: text}}}}}}
  limits: {{messages_per_second: 1000000}}
live: {{port: 0, interval_seconds: {interval}}}
identity:
  identifiers:
    - {{type: heap_identity, max_per_profile: 2}}
    - {{type: crm_id, max_per_profile: 1}}
    - {{type: email, max_per_profile: 3}}
    - {{type: heap_user_id, shared_above: 1}}
profiles: {{traits: {{plan: {{from: [inbox/users.plan, contacts.plan]}}}}}}
sync:
  {sync}
"""
SYNCS = {
    "webhook": """crm: {kind: webhook, mode: upsert, source: profiles, key: crm_id, url: "URL", live: true,
        batch_rows: 1000, requests_in_flight: 2, guard: {max_changed: 1.0}, properties: {Plan: plan}}""",
    "heap": "crm: {kind: heap_user_properties, live: true, guard: {max_changed: 1.0}, properties: {Plan: plan}}",
}


def make_lake(folder: Path, people: int, url: str, interval: float, kind: str) -> Project:
    """Make a resolved day of so many people, four identifiers each, whose plans the destination has."""
    day = clock.newest_complete_day()
    (folder / "heap").mkdir(parents=True)
    file = folder / "heap_assets.yaml"
    sync = SYNCS[kind].replace("URL", f"{url}/hook")
    file.write_text(SETTINGS.format(start=day - timedelta(days=3), heap=url, sync=sync, interval=interval))
    project = open_project(file=file)
    n = pl.int_range(people, eager=True)
    at = datetime.combine(day, datetime.min.time(), UTC)
    moment = pl.lit(at, pl.Datetime("us", "UTC"))
    users = pl.DataFrame({"user_id": n, "identity": "u" + n.cast(pl.String)}).with_columns(
        joindate=moment, last_modified=moment, migrated_to=pl.lit(None, pl.Int64)
    )
    contacts = pl.DataFrame(
        {
            "contact_id": "c" + n.cast(pl.String),
            "email": "p" + n.cast(pl.String) + "@x.example",
            "identity": "u" + n.cast(pl.String),
            "plan": "p" + (n % 7).cast(pl.String),
        }
    ).with_columns(created_at=moment)
    schema = {
        "from_user_id": pl.Int64,
        "to_user_id": pl.Int64,
        "resolved_to": pl.Int64,
        "time": users["joindate"].dtype,
    }
    migrations = pl.DataFrame(schema=schema).with_columns(cycle=pl.lit(value=False))
    for asset, rows in (("heap/users", users), ("heap/user_migrations", migrations), ("warehouse/contacts", contacts)):
        store(project, asset, rows.lazy(), Inputs({"rows": str(people)}))
    for asset, table in identity_of_day(project, day).items():
        store(project, asset, table.frame, table.inputs)
    profiles = profiles_of_day(project, day)
    store(project, "profiles", profiles.frame, profiles.inputs)
    report = send(project, "crm", day, "benchmark", RunOptions(confirmed=True)).report
    assert report.sent == people, report
    return project


def store(project: Project, asset: str, rows: pl.LazyFrame, inputs: Inputs | None) -> None:
    day = str(clock.newest_complete_day())
    project.lake.write(asset, day, rows, inputs)
    for check in required_checks(project, asset):
        version = result_store.partition_version(project.lake, asset, day)
        result_store.record(
            *(project.lake.store, CheckResult(True)),
            asset=asset,
            check=check,
            partition=day,
            version=version,
            severity=Severity.ERROR,
            blocking=True,
        )


class Destination:
    """A webhook server without limits, or one that hands calls on to another; remembers when each value was taken."""

    def __init__(self, upstream: int = 0) -> None:
        self.answered: dict[str, float] = {}
        self.upstream = upstream

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other = await asyncio.open_connection("127.0.0.1", self.upstream) if self.upstream else None
        try:
            while True:
                head, body = await read_call(reader)
                answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
                if other is not None:
                    other[1].write(head + body)
                    answer = b"".join(await read_call(other[0]))
                writer.write(answer)
                await writer.drain()
                if answer.split(b" ", 2)[1] == b"200":
                    content, now = json.loads(body), time.monotonic()
                    for row in content.get("rows") or content.get("users") or ():
                        self.answered.setdefault(row["properties"]["Plan"], now)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            if other is not None:
                other[1].close()


async def read_call(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read the head and the body of a call or an answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return head, await reader.readexactly(int(length[1]) if length else 0)


class Client:
    """One connection that posts and waits for the answer."""

    def __init__(self, address: str, path: str) -> None:
        host, _, port = address.rpartition("//")[2].partition(":")
        self._where = (host, int(port))
        basic = base64.b64encode(f"{KEY}:".encode()).decode()
        self._head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic {basic}\r\nContent-Length: "

    async def post(self, body: bytes) -> int:
        if not hasattr(self, "_writer"):
            self._reader, self._writer = await asyncio.open_connection(*self._where)
        self._writer.write(f"{self._head}{len(body)}\r\n\r\n".encode() + body)
        head, _ = await read_call(self._reader)
        return int(head.split(b" ", 2)[1])


async def steady(address: str, rate: int, seconds: int, people: int, first: int) -> tuple[dict[str, float], int]:
    """Post identify calls at a rate, each of another person; returns value to when it was answered, and refusals."""
    answered: dict[str, float] = {}
    queue: asyncio.Queue[int | None] = asyncio.Queue()
    refused = 0

    async def worker() -> None:
        nonlocal refused
        client = Client(address, "/v1/identify")
        while (number := await queue.get()) is not None:
            plan = f"live-{first + number}"
            call = {"userId": f"c{(first + number) % people}", "messageId": plan, "traits": {"plan": plan}}
            if await client.post(json.dumps(call).encode()) == 200:
                answered[plan] = time.monotonic()
            else:
                refused += 1

    workers = [asyncio.create_task(worker()) for _ in range(64)]
    begun = time.monotonic()
    for number in range(rate * seconds):
        queue.put_nowait(number)
        ahead = begun + (number + 1) / rate - time.monotonic()
        if ahead > 0.002:
            await asyncio.sleep(ahead)
    for _ in workers:
        queue.put_nowait(None)
    await asyncio.gather(*workers)
    return answered, refused


async def flood(address: str, path: str, seconds: float, connections: int = 64) -> float:
    """Post as fast as answers come; returns accepted calls a second."""
    until = time.monotonic() + seconds
    count = 0

    async def worker(number: int) -> None:
        nonlocal count
        client = Client(address, path)
        while time.monotonic() < until:
            call = {"userId": f"f{number}", "event": "Seen", "messageId": f"f{number}-{count}-{time.monotonic_ns()}"}
            count += await client.post(json.dumps(call).encode()) == 200

    await asyncio.gather(*(worker(number) for number in range(connections)))
    return count / seconds


PEER = """
import os, sys
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
import uvicorn
file = open(sys.argv[1], "ab", buffering=0)
async def track(request):
    file.write(await request.body() + b"\\n")
    os.fsync(file.fileno())
    return JSONResponse({"success": True})
class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print("Listening at http://127.0.0.1:%d" % self.servers[0].sockets[0].getsockname()[1], flush=True)
app = Starlette(routes=[Route("/v1/track", track, methods=["POST"])])
Server(uvicorn.Config(app, port=0, log_level="warning", access_log=False)).run()
"""


@contextmanager
def process(*command: str, **environment: str) -> Iterator[tuple[str, int]]:
    """Run a server that prints where it listens; gives its address and process id."""
    running = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **environment}, text=True)
    assert running.stdout is not None
    try:
        yield running.stdout.readline().split()[-1], running.pid
    finally:
        running.terminate()
        running.wait(60)


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def following(address: str) -> None:
    """Wait until the service has loaded its base."""
    host, _, port = address.rpartition("//")[2].partition(":")
    for _ in range(600):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
        if re.search(r"heap_assets_live_loaded 1\.0", text):
            return
        await asyncio.sleep(0.5)
    raise SystemExit("the service did not load the base within five minutes")


def quantiles(latencies: list[float]) -> dict[str, float]:
    series = pl.Series(latencies)
    return {f"p{int(q * 100)}": round(float(series.quantile(q) or 0.0), 2) for q in (0.5, 0.95, 0.99)}


async def sampled(pid: int, every: float, samples: list[int]) -> None:
    """Note the memory of a process, in MB, until cancelled."""
    while True:
        samples.append(round(resident_mb(pid)))
        await asyncio.sleep(every)


async def followed(arguments: argparse.Namespace, folder: Path, kind: str) -> dict[str, Any]:
    """Measure one destination: latency and memory at each rate, then what the endpoint accepts at most."""
    with ExitStack() as stack:
        upstream = 0
        if kind == "heap":
            (folder / "server").mkdir(parents=True)
            heap = running_server("heap", folder / "server", arguments=["--app-id", "11"])
            upstream = int(stack.enter_context(heap).base_url.rpartition(":")[2])
        destination = Destination(upstream)
        server = await asyncio.start_server(destination.serve, "127.0.0.1", 0, limit=1 << 26)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        people = arguments.identifiers // 4
        begun = time.monotonic()
        await asyncio.to_thread(make_lake, folder / "lake", people, url, arguments.interval, kind)
        print(f"lake of {arguments.identifiers:,} identifiers made in {time.monotonic() - begun:.0f} s", flush=True)
        results: dict[str, Any] = {}
        settings = {"HEAP_ASSETS_SETTINGS": str(folder / "lake" / "heap_assets.yaml"), "LIVE_BENCHMARK_KEY": KEY}
        address, pid = stack.enter_context(process(sys.executable, "-m", "heap_assets.cli", "live", **settings))
        await following(address)
        first = 0
        for rate in arguments.rate:
            memory: list[int] = []
            sampling = asyncio.create_task(sampled(pid, max(arguments.seconds / 10, 1.0), memory))
            answered, refused = await steady(address, rate, arguments.seconds, people, first)
            first += rate * arguments.seconds
            deadline = time.monotonic() + 60
            while not answered.keys() <= destination.answered.keys() and time.monotonic() < deadline:
                await asyncio.sleep(0.2)
            sampling.cancel()
            lost = len(answered.keys() - destination.answered.keys())
            latencies = [destination.answered[p] - at for p, at in answered.items() if p in destination.answered]
            figures = quantiles(latencies) | {"accepted": len(answered), "refused": refused, "not_arrived": lost}
            results[f"at_{rate}"] = figures | {"memory_mb": memory}
            print(f"{kind}, {rate:>6,} events/s: {results[f'at_{rate}']}", flush=True)
        if kind == "webhook":
            results["accepted_a_second"] = round(await flood(address, "/v1/track", arguments.flood))
        server.close()
    return results


async def measured(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = {"identifiers": arguments.identifiers, "seconds": arguments.seconds}
    for kind in arguments.destination:
        results[kind] = await followed(arguments, folder / kind, kind)
    if accepted := results.get("webhook", {}).get("accepted_a_second"):
        with process(sys.executable, "-c", PEER, str(folder / "peer.jsonl")) as (address, _):
            peer = await flood(address, "/v1/track", arguments.flood)
        ratio = round(accepted / peer, 2)
        results["accepted_a_second_over_bare_starlette_with_fsync"] = ratio
        print(f"accepted, of bare Starlette that writes a line and waits for fsync: {ratio} times")
    results["load_average"] = round(os.getloadavg()[0], 1)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--identifiers", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--flood", type=float, default=10.0, help="Seconds of posting as fast as answers come")
    parser.add_argument("--destination", nargs="+", choices=list(SYNCS), default=list(SYNCS))
    parser.add_argument("--interval", type=float, default=0.5)
    arguments = parser.parse_args()
    os.environ["LIVE_BENCHMARK_KEY"] = KEY
    with tempfile.TemporaryDirectory(prefix="heap-assets-") as folder:
        results = asyncio.run(measured(arguments, Path(folder)))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
