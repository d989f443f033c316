"""The company's profiles at the stand-ins of four vendors, sent from its lake as a run does, without Dagster."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import yaml

from heap_assets import clock
from heap_assets.activation import Status
from heap_assets.pipelines import delivery
from heap_assets.pipelines.sync_qa import is_same
from heap_assets.project import open_project
from heap_assets.tables import PROFILES
from heap_assets_tests.connectors.servers.amplitude import Amplitude
from heap_assets_tests.connectors.servers.braze import BrazeServer
from heap_assets_tests.connectors.servers.core import VendorServer
from heap_assets_tests.connectors.servers.hubspot import HubSpotServer, Property
from heap_assets_tests.connectors.servers.intercom import IntercomServer
from heap_assets_tests.foreign import comparison
from heap_assets_tests.foreign.scenario import Scenario

_TOKEN = "foreign-token"
_PROPERTIES = {"plan": "plan", "mrr": "mrr", "deal_stage": "stage", "payment": "payment"}
_SYNCS: Mapping[str, Mapping[str, Any]] = {
    "hubspot_contacts": {"key_property": "heap_id", "hub_id": 1, "token": "${FOREIGN}", "match": "upsert"},
    "intercom_contacts": {"workspace": "w1", "token": "${FOREIGN}", "match": "upsert"},
    "braze_users": {"api_key": "${FOREIGN}", "match": "upsert"},
    "amplitude_users": {"api_key": "${FOREIGN}"},
}


@dataclass
class Vendors:
    """Servers by kind of sync."""

    world: Scenario
    servers: Mapping[str, VendorServer]

    def send(self) -> None:
        """Send the newest profiles, and once more, which sends nothing."""
        folder = self.world.deployment.folder
        settings = yaml.safe_load((folder / "heap_assets.yaml").read_text())
        for kind, server in self.servers.items():
            own = {"base_url": server.url, "mode": "upsert", "properties": _PROPERTIES, "schedule": None}
            settings["sync"][kind] = {**own, **_SYNCS[kind]}
        file = folder / "elsewhere.yaml"
        file.write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
        with patch.dict(os.environ, {**self.world.deployment.environment, "FOREIGN": _TOKEN}):
            project = open_project(file=file)
            day = project.lake.newest_partition(PROFILES, clock.today())
            assert day is not None
            for kind in self.servers:
                for number in range(2):
                    run, options = f"elsewhere-{kind}-{day}-{number}", delivery.RunOptions(confirmed=True)
                    report = delivery.send(project, kind, day, run, options).report
                    assert report.status is Status.SUCCEEDED or report.invalid, report
                    assert report.rejected == report.unknown == 0, report
                assert report.requests == 0, report

    def differences(self) -> dict[str, str]:
        """Return kind to how what its vendor holds differs from the truth; empty if nothing does."""
        expected = comparison.expected_at_heap(self.world.company, _PROPERTIES)
        wrong = {}
        for kind, server in self.servers.items():
            held = _held(kind, server)
            others = {key for key in expected.keys() | held.keys() if not _same(expected.get(key), held.get(key))}
            if others:
                key = min(others)
                wrong[kind] = f"{len(others)} of {len(expected)}, such as {expected.get(key)}, {held.get(key)}"
            if server.violations:
                wrong[f"{kind}, rules"] = str(server.violations[:3])
        return wrong


@contextmanager
def vendors(world: Scenario) -> Iterator[Vendors]:
    """Run the stand-ins."""
    hubspot, intercom, braze, amplitude = HubSpotServer(), IntercomServer(), BrazeServer(), Amplitude()
    hubspot.token = intercom.token = braze.api_key = amplitude.api_key = _TOKEN
    hubspot.properties["contacts"] |= {name: Property("number" if name == "mrr" else "string") for name in _PROPERTIES}
    intercom.attributes |= dict.fromkeys(_PROPERTIES, "string")  # amounts of money are text, which has all digits
    with ExitStack() as stack:
        servers: list[VendorServer] = [hubspot, intercom, braze, amplitude]
        yield Vendors(world, {kind: stack.enter_context(s) for kind, s in zip(_SYNCS, servers, strict=True)})


def _held(kind: str, server: VendorServer) -> dict[str, Mapping[str, Any]]:
    if kind == "hubspot_contacts":
        records = [record["properties"] for record in server.records.get("contacts", {}).values()]
        return {record["heap_id"]: record for record in records}
    if kind == "intercom_contacts":
        return {one["external_id"]: one["custom_attributes"] for one in server.records.get("contact", {}).values()}
    if kind == "braze_users":
        return {one["external_id"]: one for one in server.records.get("user", {}).values()}
    return server.records.get("users", {})


def _same(expected: Mapping[str, Any] | None, held: Mapping[str, Any] | None) -> bool:
    present = {name: held[name] for name in _PROPERTIES if held and held.get(name) not in (None, "")}
    filled = {name: value for name, value in (expected or {}).items() if value is not None}
    return present.keys() == filled.keys() and all(is_same(filled[name], value) for name, value in present.items())
