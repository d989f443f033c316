"""A deployment as a new user makes it: an empty folder, `init`, the settings edited, and `dev` as a real process."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
import httpx
import yaml
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

from heap_assets_tests.end_to_end.dagster_process import Dagster, free_port, until
from heap_assets_tests.foreign.heap_export import BUCKET

APP = "2463913201"
SYNC = "heap_user_properties"
HEAP_PROPERTIES = {"Plan": "plan", "MRR": "mrr", "Deal Stage": "stage", "Payment": "payment"}
"""Property at Heap to trait."""
START_SECONDS = 120
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}


@dataclass
class Deployment:
    """One folder with its settings, lake and Dagster home.

    Attributes
    ----------
    source
        `heap.source` of the settings.
    dsn
        Of the PostgreSQL database that is the warehouse.
    heap_url
        Where the local Heap listens.
    now
        The moment that the deployment believes it is.
    """

    folder: Path
    source: Mapping[str, Any]
    dsn: str
    heap_url: str
    now: datetime
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder.parent / f"{self.folder.name}.log"

    @property
    def lake(self) -> Path:
        return self.folder / "data" / "lake"

    def command(self, *arguments: str, check: bool = True) -> str:
        """Run a `heap-assets` command in the folder and return what it printed."""
        run = subprocess.run(
            [sys.executable, "-m", "heap_assets.cli", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert not check or run.returncode == 0, f"heap-assets {' '.join(arguments)}: {run.stdout}{run.stderr}"
        return run.stdout + run.stderr

    def init(self, *, identity_is_email: bool) -> None:
        """Write the settings with `init` and edit what is particular to this company, as the README says."""
        where = ["--folder", self.source["path"]] if self.source["kind"] == "folder" else []
        if not where:
            where = ["--bucket", self.source["bucket"], "--endpoint-url", self.source["endpoint_url"]]
        self.command("init", *where)
        path = self.folder / "heap_assets.yaml"
        settings = yaml.safe_load(path.read_text())
        settings["heap"] |= {"base_url": "${HEAP_BASE_URL}", "manifest_poll_seconds": 30}
        if identity_is_email:
            settings["heap"]["identifiers"]["users"] = {
                "user_id": "heap_user_id", "identity": ["heap_identity", "email"], "email": "email"
            }  # fmt: skip
        settings["warehouse"] = _WAREHOUSE
        settings["identity"]["identifiers"] = _IDENTIFIERS
        settings["profiles"]["traits"] = _TRAITS
        settings["sync"] = {SYNC: {"mode": "upsert", "properties": HEAP_PROPERTIES, "schedule": "* * * * *"}}
        path.write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))

    @contextmanager
    def dev(self) -> Iterator[Dagster]:
        """Run `heap-assets dev` for the time of a `with` block; it and its children end with SIGINT, as by Ctrl-C."""
        process, dagster = self._start()
        try:
            yield dagster
        except BaseException:
            print(self.log.read_text(errors="replace")[-8_000:])
            raise
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    raise

    def kill_when(self, happened: Any, seconds: float, what: str) -> None:
        """Start `dev`, wait until `happened(dagster)` is not None, and kill every process of it at once."""
        process, dagster = self._start()
        try:
            until(lambda: happened(dagster), seconds, what)
        finally:
            for pid in _descendants(process.pid):
                os.kill(pid, signal.SIGKILL)
            process.wait(10)

    def _start(self) -> tuple[subprocess.Popen[bytes], Dagster]:
        port = free_port()
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "heap_assets.cli", "dev", "--port", str(port)],
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        dagster = Dagster(f"http://127.0.0.1:{port}", self.log)

        def is_up() -> bool | None:
            assert process.poll() is None, self.log.read_text(errors="replace")[-4_000:]
            try:
                answer = dagster.ask("{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }")
            except httpx.TransportError:
                return None
            return True if answer["repositoriesOrError"].get("nodes") else None

        until(is_up, START_SECONDS, "start of heap-assets dev")
        return process, dagster

    @property
    def environment(self) -> dict[str, str]:
        """Variables of its processes."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HEAP_ASSETS_", "DAGSTER_"))}
        own = {"HEAP_APP_ID": APP, "WAREHOUSE_DSN": self.dsn, "HEAP_BASE_URL": self.heap_url}
        return inherited | _CREDENTIALS | own | {"HEAP_ASSETS_NOW": self.now.isoformat()}


@contextmanager
def s3_bucket() -> Iterator[tuple[str, Any]]:
    """Run a local S3 server with an empty bucket; gives its address and a client."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request would hide the figures
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        client.create_bucket(Bucket=BUCKET)
        yield endpoint, client
    finally:
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].reset()
        server.stop()


def upload(client: Any, folder: Path, at: datetime) -> None:
    """Copy what the bucket does not have yet, manifests last: all of it gets the time of the copy, `at`."""
    listing = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    stored = {item["Key"] for page in listing for item in page.get("Contents", [])}
    paths = sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: (p.suffix == ".json", p))
    for path in paths:
        key = path.relative_to(folder).as_posix()
        if key not in stored:
            client.upload_file(str(path), BUCKET, key)
            s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[BUCKET].keys[key].last_modified = at.replace(tzinfo=None)


def psql(dsn: str, script: Path) -> None:
    """Run an SQL file in one transaction."""
    subprocess.run(["psql", dsn, "-q", "-1", "-v", "ON_ERROR_STOP=1", "-f", str(script)], check=True)


def _descendants(pid: int) -> list[int]:
    """Return a process and all its descendants, parents first."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    below = children.read_text().split() if children.exists() else []
    return [pid, *(one for child in below for one in _descendants(int(child)))]


_WAREHOUSE: Mapping[str, Any] = {
    "kind": "postgres",
    "dsn": "${WAREHOUSE_DSN}",
    "tables": {
        "contacts": {
            "relation": "crm.contacts",
            "key": "Contact_ID",
            "created_at": "created",
            "updated_at": "updated_at",
            "identifiers": {"Contact_ID": "crm_id", "Email": "email"},
        },
        "accounts": {
            "relation": "crm.accounts",
            "key": "account_id",
            "updated_at": "updated_at",
            "required": False,
        },
        "subscriptions": {
            "relation": "billing.subscriptions",
            "key": "id",
            "updated_at": "updated_at",
            "identifiers": {"customer_id": "customer_id", "contact_email": "email"},
        },
        "tickets": {
            "relation": "support.tickets",
            "key": "ticket_id",
            "identifiers": {"requester": "email"},
            "required": False,
        },
    },
}
_IDENTIFIERS = [
    {"type": "heap_identity", "max_per_profile": 1},
    {"type": "crm_id", "max_per_profile": 1},
    {"type": "customer_id", "max_per_profile": 1},
    {"type": "email", "max_per_profile": 3, "normalise": "email"},
    {"type": "heap_user_id", "shared_above": 1},
]
_TRAITS = {
    "plan": {"from": ["subscriptions.plan", "contacts.plan"], "choose": "first_present"},
    "mrr": {"from": ["subscriptions.mrr"], "choose": "sum"},
    "stage": {"from": ["contacts.stage"], "choose": "newest"},
    "payment": {"from": ["subscriptions.Payment Method"], "choose": "first_present"},
}
