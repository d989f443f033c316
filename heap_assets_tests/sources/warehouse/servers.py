"""Starts real servers for tests and benchmarks: a PostgreSQL cluster; bqemulator and fakesnow in environments."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from heap_assets_tests.environments import UnavailableError, environment

EMULATOR = (
    "bqemulator==1.4.0",
    "duckdb==1.5.5",
    "duckdb-extensions==1.5.5",
    "duckdb-extension-spatial==1.5.5",
    "duckdb-extension-avro==1.5.5",
    "duckdb-extension-icu==1.5.5",
    "numpy",
    "cramjam",
    "mini-racer",
    "google-cloud-bigquery",
    "google-cloud-bigquery-storage",
)
FAKESNOW = ("fakesnow==0.12.1", "snowflake-connector-python==4.8.1", "uvicorn", "starlette")
EXTENSIONS = "from duckdb_extensions import import_extension as i; i('spatial'); i('avro'); i('icu')"


@dataclass(frozen=True)
class Emulator:
    """A running bqemulator: where it listens, and the folder that stands for gs://."""

    rest: str
    grpc: str
    buckets: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def postgres_cluster() -> Iterator[str]:
    """Run a PostgreSQL of its own; gives `user@host:port` of its superuser, who needs no password."""
    binaries = _postgres_binaries()
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    user = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = "postgres"
        shutil.chown(folder, user)
    port = free_port()

    def run(program: str, *arguments: str) -> None:
        command = [str(binaries / program), "-D", str(folder / "data"), *arguments]
        with (folder / f"{program}.log").open("ab") as log:
            subprocess.run(command, user=user, check=True, stdout=log, stderr=log, cwd=folder, timeout=90)

    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off -c full_page_writes=off"
    try:
        run("initdb", "-A", "trust", "-U", "heap", "--no-sync", "-E", "UTF8", "--locale=C")
        run("pg_ctl", "-w", "-o", options, "-l", str(folder / "server.log"), "start")
        yield f"heap@127.0.0.1:{port}"
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            run("pg_ctl", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def bigquery_emulator() -> Iterator[Emulator]:
    """Run bqemulator, with REST and gRPC on ports of its own."""
    venv = environment("bigquery-emulator", *EMULATOR, prepare=EXTENSIONS)
    folder = Path(tempfile.mkdtemp(prefix="bq-"))
    buckets = folder / "buckets"
    buckets.mkdir()
    emulator = Emulator(f"http://127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", buckets)
    ports = ["--rest-port", emulator.rest.rpartition(":")[2], "--grpc-port", emulator.grpc.rpartition(":")[2]]
    variables = {**os.environ, "HOME": str(venv), "BQEMU_GCS_LOCAL_ROOT": str(buckets)}
    with (folder / "log").open("ab") as log:
        command = [str(venv / "bin" / "bqemulator"), "start", *ports, "--project", "demo"]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=variables)
    try:
        _wait_until_healthy(emulator, process, folder / "log")
        yield emulator
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def snowflake_server() -> Iterator[str]:
    """Run fakesnow, which answers Snowflake's driver from a DuckDB in memory; gives its address."""
    venv = environment("fakesnow", *FAKESNOW)
    folder = Path(tempfile.mkdtemp(prefix="sf-"))
    port = free_port()
    with (folder / "log").open("ab") as log:
        command = [str(venv / "bin" / "fakesnow"), "-s", "-p", str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env={**os.environ, "HOME": str(folder)})
    try:
        _wait_until_listening(port, process, folder / "log")
        yield f"http://localhost:{port}"
    finally:
        process.kill()  # it waits for connections that nobody closes
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_listening(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up_at = time.monotonic() + 90
    while process.poll() is None and time.monotonic() < give_up_at:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise UnavailableError(f"fakesnow does not run: {log.read_text()[-500:]}")


def queries_of(emulator: Emulator) -> list[str]:
    """Return the text of every query that an emulator was asked."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import bigquery

    options = {"api_endpoint": emulator.rest}
    client = bigquery.Client("demo", AnonymousCredentials(), client_options=options)
    return sorted({job.query for job in client.list_jobs(max_results=100_000) if isinstance(job, bigquery.QueryJob)})


def _postgres_binaries() -> Path:
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not installed:
        raise UnavailableError("PostgreSQL is not installed (initdb not found)")
    return installed[-1].parent


def _wait_until_healthy(emulator: Emulator, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up_at = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{emulator.rest}/healthz", trust_env=False).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > give_up_at:
            raise RuntimeError(f"bqemulator did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)
