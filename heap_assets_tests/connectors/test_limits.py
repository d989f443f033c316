"""Each documented window is used to 95 % and never overrun, in one run and in the next: on a virtual clock, each call
counted by the stand-in server as its vendor does."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from heap_assets.activation import Limits, Quota, Request, Status, SyncReport, deliver
from heap_assets.activation.engine import auth, http_client
from heap_assets.activation.engine.api import Api
from heap_assets.activation.engine.http_client import Transport
from heap_assets.errors import DeliveryError
from heap_assets_tests.connectors import kit, test_both_ways_elsewhere
from heap_assets_tests.connectors.servers.in_process import VirtualClock, Wire
from heap_assets_tests.connectors.suite import ConnectorSuite
from heap_assets_tests.connectors.table import suites

WINDOWS, MOST = 3, 10
"""So many windows are filled, of so many units each: larger ones are scaled down on both sides."""
_BYTES = 1e9
LIMITED = {
    "HubSpotContacts": "TEN_SECONDLY_ROLLING",
    "HubSpotEvents": "TEN_SECONDLY_ROLLING",
    "MarketoLeads": "100 calls in 20 s",
    "IterableUsersByEmail": "bulkUpdate",
    "IterableEvents": "trackBulk",
    "IterableLists": "lists",
    "BrazeUsers": "calls in 3 s",
    "PipedrivePersons": "burst",
    "ZendeskUsers": "calls a minute",
    "IntercomEvents": "app, 10 s",
    "IntercomContacts": "search, 10 s",
    "GoogleConversions": "IngestionRequestsPerMinutePerProject",
    "AmplitudeEvents": "events a second",
    "MixpanelEvents": "30,000 events",
    "MParticleUsers": "account",
    "OptimizelyProfiles": "profiles",
    "OptimizelyList": "subscriptions",
}
"""Suite to the part of a limit's name that its calls fill."""


class Rig:
    """A connector whose calls go to its stand-in server on a virtual clock."""

    def __init__(self, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.suite: ConnectorSuite = next(one for one in suites() if one.__name__ == f"Test{name}")()
        self.server: Any = self.suite.make_server()
        self.server.job_polls, self.server.starter = 0, True
        self.server.limits = [one for one in self.server.documented_limits() if one.name != "batches a second"]
        monkeypatch.setattr(auth, "_tokens", {})
        self.clock = VirtualClock(time.time() // 86_400 * 86_400)
        self.wire = Wire(self.server, self.clock)
        monkeypatch.setattr(http_client, "time", SimpleNamespace(time=self.clock.epoch))
        for variable, value in self.suite.secrets.items():
            monkeypatch.setenv(variable, value)
        if name.startswith("Google"):
            monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", json.dumps(self.server.service_account()))
        plan = "\nevents_per_second: 1000" if name.startswith("Amplitude") else ""
        self.deployment = kit.Deployment.make(folder, self.suite.settings.replace("{url}", self.server.url) + plan)

    def scaled(self, limits: Limits, share: float) -> Limits:
        """Return limits of one row a call with a share of the units in a window, as the server now counts them, too."""
        for limit in self.server.limits:
            limit.amount = max(1, round(limit.amount * share)) if limit.amount < _BYTES else limit.amount
        rates = (
            rate if rate.rows > _BYTES else replace(rate, rows=max(1, round(rate.rows * share)))
            for rate in limits.rates
        )
        return replace(limits, rates=tuple(rates), batch_rows=1)

    def send(self, run: str, count: int, limits: Limits) -> SyncReport:
        connector, rows = self.deployment.connector, self.suite.rows(count)
        self.deployment.write(0, rows, self.suite.schema)
        connector.remember_enabled()
        destination = connector.destination()
        destination.limits = limits
        spec = replace(connector.spec(day=kit.day(0)), concurrency=1, retry=kit.QUICK)
        transport = Transport(self.clock, self.wire)
        source = connector.rows_to_send(kit.day(0))
        return deliver(
            spec, destination, source, self.deployment.store, kit.day(0), run, confirmed=True, transport=transport
        )


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda name: Rig(name, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", LIMITED)
def test_a_documented_window_is_filled_and_never_overrun_in_a_run_and_the_next(name: str, made: Any) -> None:
    rig = made(name)
    [limit] = [limit for limit in rig.server.limits if LIMITED[name] in limit.name]
    limits = rig.scaled(rig.deployment.connector.destination().limits, min(1.0, MOST / limit.amount))
    rows = int(limit.amount * (WINDOWS + 1))
    rig.suite.seed(rig.server, rig.suite.rows(rows))
    reports = [rig.send("r1", rows // 2, limits), rig.send("r2", rows, limits)]
    assert [report.status for report in reports] == [Status.SUCCEEDED] * 2, reports
    assert [report.throttled for report in reports] == [0, 0]
    assert rig.server.violations == []
    assert rig.wire.used(limit.name, WINDOWS * limit.seconds) >= 0.95 * WINDOWS * limit.amount


@pytest.mark.parametrize(
    "name", ["HubSpotContacts", "MarketoLeads", "PipedrivePersons", "GoogleConversions", "GoogleAdsConversions"]
)
def test_a_days_quota_is_used_up_and_never_overrun_by_runs_that_follow_one_another(name: str, made: Any) -> None:
    rig = made(name)
    limits = rig.deployment.connector.destination().limits
    [*_, day] = [
        limit for limit in rig.server.limits if getattr(limit, "seconds", 0) == 86_400 and "Read" not in limit.name
    ]
    day.amount = 60
    limits = replace(limits, rates=(), quotas=(replace(limits.quotas[0], calls=60),), batch_rows=1)
    for limit in rig.server.limits:
        limit.amount = limit.amount if limit is day else 1e9
    rig.suite.seed(rig.server, rig.suite.rows(80))
    first = rig.send("r1", 20, limits)
    assert first.throttled == 0
    second, third = rig.send("r2", 80, limits), rig.send("r3", 80, limits)
    assert second.status is third.status is Status.STOPPED
    assert "are used up until" in str(second.reason)
    assert third.requests <= 1
    assert rig.server.violations == []
    assert rig.wire.used(day.name, 86_400) >= 0.95 * day.amount


@pytest.mark.parametrize("rounds", [test_both_ways_elsewhere.HubSpotRounds, test_both_ways_elsewhere.ZendeskRounds])
def test_reading_fills_the_windows_of_its_account_and_draws_from_its_day(
    rounds: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBSPOT_TOKEN", "pat-1")
    monkeypatch.setenv("ZENDESK_TOKEN", "token-1")
    server = rounds.make_server()
    clock = VirtualClock(time.time())
    wire = Wire(server, clock)
    deployment = rounds(tmp_path, server).deployment
    source: Any = deployment.project.settings.sources["crm"]
    label, name, seconds = ("search", "SECONDLY", 1.0) if source.kind == "hubspot" else ("export", "exports", 60.0)
    [limit] = [limit for limit in server.limits if name in limit.name.split()[-3:] or limit.name == name]
    limit.amount, calls = 6, 6 * (WINDOWS + 1)
    service = source.reader()
    rates = tuple(replace(rate, rows=6) if rate.label == label else rate for rate in service.limits.rates)
    service.limits = replace(service.limits, rates=rates, quotas=(Quota(2 * calls),))
    choices: dict[str, Any] = {"share": 1.0, "store": deployment.store, "transport": Transport(clock, wire)}
    for _ in range(2):
        with Api(service, **choices) as api:
            for _ in range(calls // 2):
                list(source.pages(api, rounds.relation.partition(".")[2], None))
    assert server.violations == []
    assert wire.used(limit.name, WINDOWS * seconds) >= 0.95 * WINDOWS * limit.amount
    with Api(service, **choices) as api, pytest.raises(DeliveryError, match="the day's 48 calls are used up"):
        api.call(Request(service.url, method="GET"))
