"""What `sync check` tries at each vendor: all passes where all is there, and what is missing is named with a remedy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heap_assets import clock
from heap_assets.activation import Connector, Permission, connectors
from heap_assets.errors import DeliveryError
from heap_assets_tests.connectors import kit
from heap_assets_tests.connectors.servers.hubspot import Property
from heap_assets_tests.connectors.table import suites

Change = Callable[[Any], object]
FAULTS: dict[str, list[tuple[Change, str]]] = {
    "HubSpotContacts": [
        (lambda s: s.properties["contacts"].pop("plan"), "property plan"),
        (lambda s: s.properties["contacts"].update(score=Property("bool")), "property score"),
        (lambda s: s.properties["contacts"].update(is_pql=Property(read_only=True)), "property is_pql"),
        (lambda s: s.properties["contacts"].update(heap_id=Property()), "key heap_id"),
    ],
    "HubSpotLists": [(lambda s: s.lists.clear(), "list")],
    "MarketoLeads": [
        (lambda s: s.fields.pop("productStage"), "field productStage"),
        (lambda s: s.fields.update(leadScore="boolean"), "field leadScore"),
        (lambda s: s.lookup_fields.clear(), "key email"),
    ],
    "MarketoLists": [(lambda s: s.lookup_fields.clear(), "key email")],
    "ZendeskUsers": [
        (lambda s: s.user_fields.pop("plan"), "user field plan"),
        (lambda s: s.user_fields.update(seats="date"), "user field seats"),
        (lambda s: s.user_fields.update(is_pql="integer"), "user field is_pql"),
        (lambda s: s.user_fields.update(trial_end="checkbox"), "user field trial_end"),
    ],
    "ZendeskTickets": [
        (lambda s: setattr(s, "ticket_fields", {71: "integer", 72: "integer"}), "ticket field session_link"),
        (lambda s: setattr(s, "ticket_fields", {72: "integer"}), "ticket field session_link"),
    ],
    "PipedrivePersons": [
        (lambda s: _retyped(s, "Seats", "varchar"), "field Seats"),
        (lambda s: _retyped(s, "Trial end", "double"), "field Trial end"),
        (lambda s: _retyped(s, "Heap id", "enum"), "key Heap id"),
        (lambda s: s.fields["persons"].clear(), "field Plan"),
    ],
    "PipedriveDeals": [(lambda s: s.fields["deals"].clear(), "field Plan")],
    "IntercomContacts": [
        (lambda s: s.attributes.pop("plan"), "attribute plan"),
        (lambda s: s.attributes.update(seats="boolean"), "attribute seats"),
        (lambda s: s.attributes.update(is_pql="string"), "attribute is_pql"),
        (lambda s: s.attributes.update(trial_end_at="string"), "attribute trial_end_at"),
    ],
    "IntercomEvents": [],
    "MarketingCloudRows": [],
    "MarketingCloudJourneys": [],
    "IterableUsers": [(lambda s: s.field_types.update(plan="boolean"), "field plan")],
    "IterableLists": [(lambda s: (s.lists.clear(), s.list_names.clear()), "list")],
    "MetaAudience": [(lambda s: s.flagged.update(s.lists), "uploads")],
    "GoogleAudiences": [(lambda s: setattr(s, "products", {"1"}), "")],
    "GoogleConversions": [(lambda s: setattr(s, "products", {"1"}), "")],
    "GoogleAdsAudiences": [(lambda s: setattr(s, "products", {"1"}), "user list")],
    "GoogleAdsConversions": [(lambda s: setattr(s, "products", {"1"}), "conversion action")],
}
"""By suite: what is changed there, and the results that then fail; without a name the call itself is refused."""


def _retyped(server: Any, field: str, kind: str) -> None:
    fields = server.fields["persons"]
    code = next(code for code, (name, _, _) in fields.items() if name == field)
    fields[code] = (field, kind, fields[code][2])


@pytest.mark.parametrize("name", FAULTS)
def test_what_a_sync_needs_is_tried_before_anything_is_sent(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite: Any = next(one for one in suites() if one.__name__ == f"Test{name}")()
    monkeypatch.setattr(clock, "today", lambda: kit.DAY)
    with suite.make_server() as server:
        for variable, value in suite.secrets.items():
            monkeypatch.setenv(variable, value)
        if name.startswith("Google"):
            monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", json.dumps(server.service_account()))
        deployment = kit.Deployment.make(tmp_path, suite.settings.replace("{url}", server.url))
        deployment.write(0, suite.rows(), suite.schema)
        suite.seed(server, suite.rows())
        held = suite.held(server)
        tried = list(deployment.connector.preflight())
        assert tried
        assert [result for result in tried if not result.passed] == []
        assert suite.held(server) == held, "nothing was sent"
        for change, failing in FAULTS[name]:
            change(server)
            if not failing:
                with pytest.raises(DeliveryError, match="Google refuses the request"):
                    failed(deployment)
            else:
                assert failing in " ".join(failed(deployment))
        assert server.violations == [] or name.startswith("Google")


def failed(deployment: kit.Deployment) -> list[str]:
    results: list[Permission] = list(deployment.connector.preflight())
    assert all(result.remedy for result in results if not result.passed)
    return [result.name for result in results if not result.passed]


def test_every_vendor_has_a_preflight_or_says_why_not() -> None:
    ours = ("heap_", "segment_", "webhook", "javascript", "custom")
    for kind, connector in connectors().items():
        tries = connector.preflight is not Connector.preflight
        assert tries or connector.untried or kind.startswith(ours), kind
