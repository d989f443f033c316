"""With `allowed_hosts: []` a whole run opens no socket beyond the lake and the sources, and says what it left out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from heap_assets.config.load import PATH_VARIABLE
from heap_assets.demo import Company, write_company
from heap_assets_tests.orchestration.company_platform import yesterday

ROOT = Path(__file__).parent.parent.parent
BUCKET = "heap-rs3-closed"
S3 = f"{{kind: s3, bucket: {BUCKET}, endpoint_url: '%s'}}"
TABLES = ["users", "user_migrations", "sessions", "pageviews", "sign_up", "plan_upgraded", "invite_teammate"]
KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
OUTSIDE = """
allowed_hosts: []
publish:
  bi: {kind: postgres, dsn: "host=bi.vendor.example dbname=bi", assets: [heap/users], resolved_views: null}
  bq: {kind: bigquery, project: p, dataset: d, credentials: ./key.json, assets: [heap/users], resolved_views: null}
alerts:
  - {kind: webhook, url: "${ALERT_URL}"}
  - {kind: email, host: mail.vendor.example, recipients: [ops@vendor.example]}
"""
HOOK = "  hook: {kind: webhook, url: '${HOOK_URL}', properties: {plan: plan}}\n"
HOSTS = {
    "run of heap_user_properties": "heapanalytics.com",
    "sync confirm heap_user_properties": "heapanalytics.com",
    "sync confirm heap_events": "heapanalytics.com",
    "sync confirm segment_identify": "api.segment.io",
    "sync confirm hook": "hooks.vendor.example",
    "publish": "bi.vendor.example",
    "alert by webhook": "alerts.vendor.example",
    "alert by email": "mail.vendor.example",
}


SEND = """
from heap_assets.http_client import HttpClient
print(HttpClient().exchange("POST", "https://heapanalytics.com/api/track", b"{}", {}, 5))
"""


@pytest.fixture
def bucket(tmp_path: Path, company: Company) -> Iterator[str]:
    """Give the address of an S3 server of this machine that holds the company's dumps."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1", **KEYS)
    client.create_bucket(Bucket=BUCKET)
    for path in company.bucket.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), BUCKET, path.relative_to(company.bucket).as_posix())
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def company(tmp_path: Path) -> Company:
    return write_company(tmp_path / "company", people=20, days=3, seed=5, until=yesterday(), faults=False)


def test_nothing_but_lake_and_sources_is_reached(company: Company, bucket: str, tmp_path: Path) -> None:
    settings = (ROOT / "heap_assets.yaml").read_text().replace("2026-01-01", str(company.first_day), 1)
    for theirs, ours in (
        ('{kind: folder, path: "${HEAP_ASSETS_DEMO:-./data/demo}/bucket"}', S3 % bucket),
        ("  base_url: ${HEAP_BASE_URL", "  # base_url: ${HEAP_BASE_URL"),
        ("    url: ${SEGMENT_BASE_URL", "    # url: ${SEGMENT_BASE_URL"),
        (":-demo}", "}"),
        ("\nchecks:", f"\n{HOOK}\nchecks:"),
        ("alerts: []", OUTSIDE),
        ('tables: {include: ["*"]', f"tables: {{include: {TABLES}"),
    ):
        assert theirs in settings, theirs
        settings = settings.replace(theirs, ours)
    (tmp_path / "heap_assets.yaml").write_text(settings)
    shutil.copy(ROOT / "heap_catalogue.yaml", tmp_path)
    where = {
        PATH_VARIABLE: str(tmp_path / "heap_assets.yaml"),
        "HEAP_ASSETS_DEMO": str(company.folder),
        "SEGMENT_WRITE_KEY": "write-key-0001",
        "HOOK_URL": "https://hooks.vendor.example/in",
        "ALERT_URL": "https://alerts.vendor.example/in",
    }

    output, addresses = watched(tmp_path, ["-m", "heap_assets_tests.end_to_end.closed_run"], where)

    found = json.loads(output.splitlines()[-1])
    assert {"audiences", "identity/graph", "profiles"} <= set(found["built"])
    port = bucket.rpartition(":")[2]
    assert any(port in address for address in addresses), "nothing was watched"
    assert [address for address in addresses if port not in address] == []
    for door, host in HOSTS.items():
        assert f"allowed_hosts in the settings does not have {host}" in found["said"].get(door, ""), found["said"]


def test_the_watch_sees_calls_and_refuses_them(tmp_path: Path) -> None:
    output, addresses = watched(tmp_path, ["-c", SEND], {})
    assert "no connection" in output
    assert any("heapanalytics.com" in address for address in addresses)


def watched(folder: Path, arguments: list[str], environment: dict[str, str]) -> tuple[str, list[str]]:
    """Run Python, its addresses written down, those of other machines refused; return output and addresses."""
    log = folder / "addresses.log"
    watch = {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent / "network_watch"), str(ROOT)]),
        "NETWORK_WATCH_LOG": str(log),
        "NETWORK_WATCH_REFUSES": "all",
        **{f"AWS_{name.upper().removeprefix('AWS_')}": value for name, value in KEYS.items()},
    }
    done = subprocess.run(
        [sys.executable, *arguments], env={**os.environ, **watch, **environment}, capture_output=True, text=True,
        check=False, timeout=300, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, log.read_text().splitlines() if log.exists() else []
