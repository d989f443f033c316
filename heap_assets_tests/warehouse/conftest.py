"""Real servers for the warehouse tests: a private PostgreSQL cluster, a BigQuery emulator of its own environment."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def _postgres_binaries() -> Path | None:
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return installed[-1].parent if installed else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[str]:
    """Start a PostgreSQL of its own; give `user@host:port` of its superuser."""
    binaries = _postgres_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (initdb not found): its warehouse was NOT tested")
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


@pytest.fixture
def postgres(postgres_cluster: str) -> Iterator[str]:
    """Give the URI of an empty database."""
    from adbc_driver_postgresql import dbapi

    name = f"t{os.urandom(4).hex()}"
    with dbapi.connect(f"postgresql://{postgres_cluster}/postgres", autocommit=True) as admin, admin.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
        yield f"postgresql://{postgres_cluster}/{name}"
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
