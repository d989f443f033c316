"""The 20 rounds of `test_both_ways` at HubSpot and Zendesk: both sides change, and nothing circles."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from heap_assets import clock
from heap_assets_tests.connectors import kit, test_both_ways
from heap_assets_tests.connectors.servers.core import ManualClock
from heap_assets_tests.connectors.servers.hubspot import HubSpotServer, Property
from heap_assets_tests.connectors.servers.zendesk import ZendeskServer

_HUBSPOT = "base_url: {url}\nhub_id: 123\ntoken: ${HUBSPOT_TOKEN}\n"
_ZENDESK = "base_url: {url}\nemail: admin@example.com\napi_token: ${ZENDESK_TOKEN}\n"


class HubSpotRounds(test_both_ways.Rounds):
    """Contacts."""

    sync = (
        "kind: hubspot_contacts\nkey_property: heap_id\n"
        + _HUBSPOT
        + """properties: {plan: company, jobtitle: title, phone: phone}
read_back: {table: crm/leads, key: heap_id, changed_at: changed_at}
conflicts: {jobtitle: theirs, phone: newest}
"""
    )
    source = (
        "kind: hubspot\n"
        + _HUBSPOT
        + """properties: [heap_id, plan, jobtitle, phone]
searches_per_second: 1000
tables: {leads: {relation: hubspot.contacts, key: hs_object_id, updated_at: lastmodifieddate}}
"""
    )
    relation, id, changed_at = "hubspot.contacts", "hs_object_id", "lastmodifieddate"
    company_is_required = False
    names = {"Company": "plan", "Title": "jobtitle", "Phone": "phone"}

    @staticmethod
    def make_server() -> HubSpotServer:
        server = HubSpotServer(searches=1000)
        server.properties["contacts"] |= dict.fromkeys(("plan", "jobtitle", "phone"), Property())
        return server

    def lead(self, key: str, **values: Any) -> None:
        id = self.server.find("contacts", "heap_id", key)
        written = {self.names[name]: value or "" for name, value in values.items()}
        self.server.write("contacts", id, {"heap_id": key, **written})

    def there(self, key: str) -> tuple[Any, ...]:
        held = self.server.table("contacts")[self.server.find("contacts", "heap_id", key)]["properties"]
        return tuple(held.get(name) for name in self.names.values())


class ZendeskRounds(test_both_ways.Rounds):
    """Users; an export shows what is a minute old, so a minute passes before each."""

    sync = (
        "kind: zendesk_users\npoll_seconds: 0.01\n"
        + _ZENDESK
        + """properties: {plan: company, notes: title, phone: phone}
read_back: {table: crm/leads, key: external_id, changed_at: changed_at}
conflicts: {notes: theirs, phone: newest}
"""
    )
    source = (
        "kind: zendesk\n"
        + _ZENDESK
        + """user_fields: [plan]
exports_per_minute: 1000
tables: {leads: {relation: zendesk.users, key: id, updated_at: updated_at}}
"""
    )
    relation, id, changed_at = "zendesk.users", "id", "updated_at"
    company_is_required = False

    @staticmethod
    def make_server() -> ZendeskServer:
        server = ZendeskServer(clock=ManualClock(time.time() - 7200), exports_a_minute=1000)
        server.user_fields["plan"] = "text"
        return server

    def read_back(self) -> None:
        self.server.clock.advance(120)
        super().read_back()

    def lead(self, key: str, **values: Any) -> None:
        names = {"Title": "notes", "Phone": "phone"}
        user = {names[name]: value for name, value in values.items() if name in names}
        own = {"plan": values["Company"]} if "Company" in values else {}
        user |= {"external_id": key, "name": "N", "user_fields": own}
        self.server.write(self.server.find("external_id", key), user)

    def there(self, key: str) -> tuple[Any, ...]:
        user = self.server.table("user")[self.server.find("external_id", key)]
        return user["user_fields"].get("plan"), user.get("notes"), user.get("phone")


@pytest.mark.parametrize("rounds", [HubSpotRounds, ZendeskRounds])
def test_in_20_rounds_nothing_is_sent_after_the_second(
    rounds: type[HubSpotRounds] | type[ZendeskRounds], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(clock.VARIABLE, f"{kit.DAY}T20:00:00+00:00")
    with rounds.make_server() as server:
        monkeypatch.setenv("HUBSPOT_TOKEN", "pat-1")
        monkeypatch.setenv("ZENDESK_TOKEN", "token-1")
        twenty = rounds(tmp_path, server)
        test_both_ways.twenty_rounds(twenty)
        assert server.violations == []
        store = twenty.deployment.store
        counted = sum(json.loads(store.read(info.key)).get("used", 0) for info in store.list("_quotas"))
        assert counted == (len(server.calls) if rounds is HubSpotRounds else 0), "reads draw from the day, too"
