"""Rows per second of each connector to the local server of its vendor; drt-core beside it where that has the same one.

``python benchmarks/destinations.py --rows 100000``. Connectors and servers are those of the shared suite of the tests.
Neither side keeps to the vendor's rate: what is measured is the work for a row. A connector whose calls hold few rows
gets a twentieth of the rows. The peer gets the same server, rows, and match policy.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import delivery_peer  # noqa: E402

from heap_assets.activation import deliver  # noqa: E402
from heap_assets_tests.connectors import kit  # noqa: E402
from heap_assets_tests.connectors.suite import ConnectorSuite  # noqa: E402
from heap_assets_tests.connectors.table import suites  # noqa: E402

_VARIABLE = re.compile(r"\$\{(\w+)\}")
FEW_ROWS = 20
"""A call that holds fewer rows is of a connector that gets a twentieth of them."""
_IN_FLIGHT = re.compile(r"^ *requests_in_flight: .*\n", re.MULTILINE)
"""The suites send little at once; here it is what settings are without it."""


@dataclass(frozen=True)
class Peer:
    """drt-core's destination of a vendor.

    Attributes
    ----------
    setup
        Points its module `m` at the local server `url` and makes the destination `d`.
    settings
        Of its model. `@row` in them stands for the JSON template of a row.
    key
        Column that holds the key.
    row
        Makes its record of a key and the properties that are expected there.
    calls
        How a destination is called that takes all rows before it sends them.
    """

    setup: str
    settings: dict[str, Any]
    key: str
    row: Callable[[dict[str, Any]], dict[str, Any]] = dict
    template: Callable[[dict[str, str]], dict[str, Any]] | None = None
    calls: str = "d.load(rows, model(**settings), options)"


_STAGED = "(d.stage(rows, model(**settings), options), d.finalize(model(**settings), options))[1]"
_LOGIN = (
    "import httpx; post = httpx.Client.post; httpx.Client.post = lambda self, to, **k: post(self, to, **(k | {'data': "
)
_LOGIN += "k['data'] | {'grant_type': 'client_credentials'}} if 'data' in k else k))"
PEERS: dict[str, Peer] = {
    "HubSpotContacts": Peer(
        "import drt.destinations.hubspot as m; m._HUBSPOT_API = url + '/crm/v3/objects'; d = m.HubSpotDestination()",
        {"type": "hubspot", "id_property": "heap_id", "auth": {"type": "bearer", "token_env": "PEER_0"}},
        "heap_id",
        template=dict,
    ),
    "IntercomContacts": Peer(
        "import drt.destinations.intercom as m; d = m.IntercomDestination(); d.BASE_URL = url + '/contacts'; "
        "d.SEARCH_URL = d.BASE_URL + '/search'",
        {"type": "intercom", "auth": {"type": "bearer", "token_env": "PEER_0"}},
        "external_id",
        template=lambda marks: _parted(marks, ("external_id", "name"), "custom_attributes"),
    ),
    "ZendeskUsers": Peer(
        "import drt.destinations.zendesk as m; m._base_url = lambda _: url + '/api/v2'; d = m.ZendeskDestination()",
        {"type": "zendesk", "subdomain": "x", "email": "admin@example.com", "api_token_env": "PEER_0"},
        "external_id",
        lambda row: _parted(row, ("external_id", "notes"), "user_fields"),
    ),
    "AmplitudeUsers": Peer(
        "import drt.destinations.amplitude as m; m._AMPLITUDE_HOSTS = {'default': url}; d = m.AmplitudeDestination()",
        {"type": "amplitude", "api_key_env": "PEER_0", "batch_size": 200},
        "user_id",
    ),
    "MixpanelUsers": Peer(
        "import drt.destinations.mixpanel as m; m._MIXPANEL_HOSTS = {'default': url}; d = m.MixpanelDestination()",
        {"type": "mixpanel", "project_token_env": "PEER_0", "batch_size": 1000},
        "distinct_id",
    ),
    "SalesforceBulk": Peer(  # its login, by password, is none that the local server takes
        f"import drt.destinations.salesforce_bulk as m; d = m.SalesforceBulkDestination(); {_LOGIN}",
        {"type": "salesforce_bulk", "object_name": "Lead", "external_id_field": "Heap_Id__c", "instance_url": "@url"}
        | {"client_id_env": "PEER_0", "client_secret_env": "PEER_1", "username_env": "PEER_0"}
        | {"password_env": "PEER_1", "poll_interval_seconds": 1},
        "Heap_Id__c",
        calls=_STAGED,
    ),
}
"""By connector."""
_PEER = """
import json, sys, time
from pydantic import TypeAdapter
from drt.config import destinations_saas
from drt.config.sync_options import SyncOptions
url, rows, settings = json.load(sys.stdin)
{setup}
m.resolve_rate_limiter = lambda *_, **__: type("Free", (), {{"acquire": lambda self: None}})()
model = next(c for c in vars(destinations_saas).values() if getattr(c, "model_fields", {{}}).get("type") is not None
             and "'" + settings["type"] + "'" in str(c.model_fields["type"].annotation))
options = SyncOptions(match_policy="update_only", rate_limit={{"requests_per_second": 100000}}, on_error="skip")
begun = time.perf_counter()
result = {calls}
print(json.dumps([result.success, time.perf_counter() - begun, [str(e)[:200] for e in result.row_errors[:1]]]))
"""


def _parted(row: dict[str, Any], plain: tuple[str, ...], below: str) -> dict[str, Any]:
    return {n: v for n, v in row.items() if n in plain} | {below: {n: v for n, v in row.items() if n not in plain}}


def serve(name: str, count: int) -> None:
    """Serve until standard input ends: the vendor as the suite makes it, with the records that must be there."""
    suite = _adapter(name)
    server = suite.make_server()
    server.keep_calls, server.limits = False, []
    with server:
        suite.seed(server, [suite.row(number) for number in range(count)])
        secrets = dict(suite.secrets)
        if hasattr(server, "service_account"):
            secrets["GOOGLE_SERVICE_ACCOUNT"] = json.dumps(server.service_account())
        print(json.dumps([server.url, secrets]), flush=True)
        sys.stdin.read()
        print(json.dumps(sorted({violation.rule for violation in server.violations})), flush=True)


@contextmanager
def running(name: str, count: int, *, is_strict: bool = True) -> Iterator[tuple[str, dict[str, str]]]:
    """Run that in a process of its own; yields its address and its secrets, by the variables that hold them.

    `is_strict`: a broken rule of the vendor ends the run.
    """
    command = [sys.executable, __file__, "--serve", name, "--rows", str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url, secrets = json.loads(process.stdout.readline())
        yield url, secrets
        broken, _ = process.communicate()
        if is_strict and json.loads(broken):
            raise RuntimeError(f"{name} broke rules of its vendor: {broken}")


def ours(name: str, count: int) -> dict[str, Any]:
    """Send the rows of a connector; returns rows, requests, seconds and MB that memory grew by."""
    suite = _adapter(name)
    with tempfile.TemporaryDirectory() as folder, running(name, count) as (url, secrets):
        os.environ.update(secrets)
        settings = _IN_FLIGHT.sub("", suite.settings).replace("{url}", url)
        deployment = kit.Deployment.make(Path(folder), settings)
        destination = deployment.connector.destination()
        # in a process of its own: memory that it takes and gives back would be there for the sync
        command = [sys.executable, __file__, "--write", name, "--rows", str(count), "--file", str(deployment.file)]
        subprocess.run(command, check=True)
        destination.limits = replace(destination.limits, rates=(), quotas=())
        deployment.connector.check()
        deployment.connector.remember_enabled()
        spec, rows = deployment.connector.spec(day=kit.day(0)), deployment.connector.rows(kit.day(0))
        _forget_peak()
        before, begun = _memory_mb("VmRSS"), time.perf_counter()
        report = deliver(spec, destination, rows, deployment.store, kit.day(0), "bench", confirmed=True)
        seconds = time.perf_counter() - begun
    if report.sent != count:
        raise RuntimeError(f"{name}: {report.sent} of {count} rows were sent: {report.reason} {report.rejections}")
    return {"rows": count, "requests": report.requests, "seconds": seconds, "mb": _memory_mb("VmHWM") - before}


def write(name: str, count: int, file: Path) -> None:
    """Write the rows of a connector into the lake of a deployment."""
    suite = _adapter(name)
    kit.Deployment(file).write(0, [suite.row(number) for number in range(count)], suite.schema)


def peer(name: str, count: int) -> float:
    """Send the same rows with drt-core; returns seconds."""
    suite, peer = _adapter(name), PEERS[name]
    with running(name, count, is_strict=False) as (url, secrets):
        properties = [suite.expected(suite.row(number)) for number in range(count)]
        keys = [str(suite.row(number)[suite.key]) for number in range(count)]
        rows = [peer.row({peer.key: key, **one}) for key, one in zip(keys, properties, strict=True)]
        settings = peer.settings
        if peer.template is not None:
            template = json.dumps(peer.template({column: "@" + column for column in rows[0]}))
            for column in rows[0]:
                template = template.replace(f'"@{column}"', "{{ row." + column + " | tojson }}")
            settings = settings | {"properties_template": template}
        asked = json.dumps([url, rows, settings], default=str).replace('"@url"', json.dumps(url))
        done = subprocess.run(
            [str(delivery_peer.ENVIRONMENT / "bin" / "python"), "-c", _PEER.format(setup=peer.setup, calls=peer.calls)],
            input=asked,
            env={**os.environ, **{f"PEER_{number}": secret for number, secret in enumerate(secrets.values())}},
            capture_output=True,
            text=True,
            check=True,
        )
    sent, seconds, errors = json.loads(done.stdout.splitlines()[-1])
    if sent != count:
        raise RuntimeError(f"drt-core sent {sent} of {count} rows to {name}: {errors}")
    return float(seconds)


def _adapter(name: str) -> Any:
    return next(one for one in suites() if one.__name__ == f"Test{name}")()


def _measured(name: str, count: int) -> dict[str, Any] | None:
    """Send rows in a process of its own, whose memory is that of one connector; None if that fails."""
    command = [sys.executable, __file__, "--one", name, "--rows", str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return None if done.returncode else dict(json.loads(done.stdout.splitlines()[-1]))


def _is_of_few_rows(name: str) -> bool:
    suite = _adapter(name)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(dict.fromkeys(_VARIABLE.findall(suite.settings), "{}") | suite.secrets)
        deployment = kit.Deployment.make(Path(folder), suite.settings.replace("{url}", "http://127.0.0.1:1"))
        return deployment.connector.destination().limits.batch_rows < FEW_ROWS


def _names() -> list[str]:
    """Return a suite of each kind of sync, but of functions, which `benchmarks/functions.py` measures."""
    kinds: dict[str, type[ConnectorSuite]] = {}
    for one in sorted(suites(), key=lambda one: one.__name__.removeprefix("Test") not in PEERS):
        kinds.setdefault(one.settings.split("kind: ")[1].split()[0], one)
    del kinds["javascript"]
    return sorted(one.__name__.removeprefix("Test") for one in kinds.values())


def _memory_mb(name: str) -> float:
    """Return `VmRSS`, what this process holds, or `VmHWM`, the most that it held since :func:`_forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name))) / 1024


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--serve", default="")
    parser.add_argument("--one", default="")
    parser.add_argument("--write", default="")
    parser.add_argument("--file", type=Path)
    asked = parser.parse_args()
    if asked.serve:
        return serve(asked.serve, asked.rows)
    if asked.write:
        return write(asked.write, asked.rows, asked.file)
    if asked.one:  # in a process of its own: memory is that of one connector
        return print(json.dumps(ours(asked.one, asked.rows)))
    print("| connector | rows | rows a call | rows/s | memory, MB: a fifth, all | drt-core rows/s | times as fast |")
    print("|---|---|---|---|---|---|---|")
    for name in asked.only or _names():
        few = _is_of_few_rows(name)
        count = asked.rows // 20 if few else asked.rows
        small, result = _measured(name, count // 5), _measured(name, count)
        if small is None or result is None:
            print(f"| {name} | failed |", flush=True)
            continue
        rows, seconds = result["rows"], result["seconds"]
        line = f"| {name} | {rows:,} | {rows / result['requests']:.1f} | {rows / seconds:,.0f} "
        line += f"| {small['mb']:.0f}, {result['mb']:.0f} |"
        if name in PEERS:
            delivery_peer.install()
            by_row = few or PEERS[name].template is not None
            of_them = min(rows, 2000) if by_row else rows  # a call each: more rows change nothing
            speed = of_them / peer(name, of_them)
            line += f" {speed:,.0f} | {rows / seconds / speed:.1f} |"
        else:
            line += " | |"
        print(line, flush=True)
    return None


if __name__ == "__main__":
    main()
