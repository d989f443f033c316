"""No call makes the servers of CRMs and of lifecycle tools fail themselves: documented bodies with a part replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

from heap_assets_tests.connectors.servers import salesforce_calls as salesforce
from heap_assets_tests.connectors.servers import test_braze as braze
from heap_assets_tests.connectors.servers import test_hubspot as hubspot
from heap_assets_tests.connectors.servers import test_intercom as intercom
from heap_assets_tests.connectors.servers import test_iterable as iterable
from heap_assets_tests.connectors.servers import test_marketing_cloud as cloud
from heap_assets_tests.connectors.servers import test_marketo as marketo
from heap_assets_tests.connectors.servers import test_pipedrive as pipedrive
from heap_assets_tests.connectors.servers import test_zendesk as zendesk
from heap_assets_tests.connectors.servers.braze import BrazeServer
from heap_assets_tests.connectors.servers.clients import client
from heap_assets_tests.connectors.servers.core import VendorServer
from heap_assets_tests.connectors.servers.hubspot import HubSpotServer
from heap_assets_tests.connectors.servers.intercom import IntercomServer
from heap_assets_tests.connectors.servers.iterable import IterableServer
from heap_assets_tests.connectors.servers.marketing_cloud import MarketingCloudServer
from heap_assets_tests.connectors.servers.marketo import MarketoServer
from heap_assets_tests.connectors.servers.pipedrive import PipedriveServer
from heap_assets_tests.connectors.servers.salesforce import SalesforceServer
from heap_assets_tests.connectors.servers.test_garbage import variants
from heap_assets_tests.connectors.servers.zendesk import ZendeskServer

V = salesforce.V
_SEARCH = {
    "filterGroups": [{"filters": [{"propertyName": "email", "operator": "EQ", "value": "a"}]}],
    "sorts": [{"propertyName": "email", "direction": "DESCENDING"}],
    "limit": 5,
    "after": "0",
}
_MEMBER = {"recordIdsToAdd": ["1"], "recordIdsToRemove": ["2"]}
_PERSON = {"name": "A", "emails": [pipedrive.EMAIL], "phones": [pipedrive.EMAIL], "custom_fields": {}}
_QUERY = {"operator": "AND", "value": [{"field": "email", "operator": "=", "value": "a"}]}
_ATTRIBUTE = {"name": "a", "model": "contact", "data_type": "string"}


def _key(**headers: str) -> Callable[[Any], httpx.Client]:
    return lambda server: client(server, **headers)


CASES: list[tuple[type[VendorServer], Callable[[Any], httpx.Client], Mapping[tuple[str, str], Any]]] = [
    (
        SalesforceServer,
        salesforce.signed_in,
        {
            ("PATCH", salesforce.LEADS): {"allOrNone": False, "records": [salesforce.lead()]},
            ("PATCH", f"{V}/composite/sobjects"): {"records": [salesforce.lead(id="00Q000000000001AAA")]},
            ("POST", f"{V}/composite/sobjects"): {"records": [salesforce.lead("u-2")]},
            ("PATCH", f"{V}/sobjects/Lead/Heap_Id__c/u-3"): {"LastName": "Ng", "Company": "Acme"},
            ("POST", f"{V}/sobjects/Lead"): {"LastName": "Ng", "Company": "Acme"},
            ("POST", f"{V}/jobs/ingest"): {"object": "Lead", "operation": "insert", "contentType": "CSV"},
        },
    ),
    (
        HubSpotServer,
        _key(Authorization="Bearer pat-1"),
        {
            ("POST", hubspot.UPSERT): {"inputs": [hubspot.contact(firstname="A")]},
            ("POST", "/crm/v3/objects/contacts/batch/create"): {"inputs": [{"properties": {"firstname": "A"}}]},
            ("POST", "/crm/v3/objects/contacts/batch/read"): {"inputs": [{"id": "1"}], "properties": ["email"]},
            ("POST", "/crm/v3/objects/contacts/batch/archive"): {"inputs": [{"id": "1"}]},
            ("POST", "/crm/v3/objects/contacts/search"): _SEARCH,
            ("POST", "/crm/v3/objects/contacts"): {"properties": {"firstname": "A"}},
            ("POST", "/crm/v3/lists"): {"name": "x", "objectTypeId": "0-1", "processingType": "MANUAL"},
            ("POST", "/events/v3/send"): hubspot.EVENT,
            ("POST", "/events/v3/send/batch"): {"inputs": [hubspot.EVENT]},
            ("PUT", "/crm/v3/lists/7/memberships/add-and-remove"): _MEMBER,
        },
    ),
    (
        MarketoServer,
        marketo.signed_in,
        {
            ("POST", marketo.LEADS): {
                "action": "createOrUpdate",
                "lookupField": "email",
                "input": [{"email": "a@x.io", "firstName": "A"}],
            },
            ("POST", "/rest/v1/leads/delete.json"): {"input": [{"id": 1}]},
            ("POST", "/rest/v1/lists/7/leads.json"): {"input": [{"id": 1}]},
        },
    ),
    (
        MarketingCloudServer,
        cloud.signed_in,
        {
            ("PUT", cloud.QUEUED): {"items": [cloud.ROW]},
            ("POST", cloud.ROWSET): [{"keys": {"ContactKey": "a"}, "values": {"Score": 1}}],
            ("PUT", "/hub/v1/dataevents/key:people/rows/ContactKey:u-9"): {"values": {"Score": 9}},
            ("POST", "/interaction/v1/events"): cloud.ENTRY,
            ("POST", "/interaction/v1/async/events"): {
                "eventDefinitionKey": "APIEvent-1",
                "members": [{"contactKey": "a", "data": {"plan": "x"}}],
            },
        },
    ),
    (
        IterableServer,
        _key(Api_Key="key-1"),
        {
            ("POST", iterable.USERS): {"createNewFields": True, "users": [iterable.user(score=1, plan={"a": 1})]},
            ("POST", iterable.EVENTS): {"events": [iterable.event()]},
            ("POST", "/api/lists"): {"name": "x"},
            ("POST", "/api/lists/subscribe"): {"listId": 7, "subscribers": [{"email": "a@x.io", "dataFields": {}}]},
            ("POST", "/api/lists/unsubscribe"): {"listId": 7, "subscribers": [{"email": "a@x.io"}]},
        },
    ),
    (
        BrazeServer,
        _key(Authorization="Bearer key-1"),
        {
            ("POST", braze.TRACK): {"attributes": [{**braze.ATTRIBUTES, "n": {"add": ["a"]}}], "events": [braze.EVENT]},
            ("POST", "/users/export/ids"): {"external_ids": ["u-1"]},
        },
    ),
    (
        PipedriveServer,
        _key(x_api_token="token-1"),
        {
            ("POST", pipedrive.PERSONS): _PERSON,
            ("PATCH", f"{pipedrive.PERSONS}/1"): _PERSON,
            ("POST", "/api/v2/deals"): {"title": "A", "value": 1.5},
        },
    ),
    (
        ZendeskServer,
        zendesk.signed_in,
        {
            ("POST", zendesk.MANY): {"users": [zendesk.user(email="a@x.io", user_fields={"plan": "pro"})]},
            ("PUT", "/api/v2/users/update_many.json"): {"users": [zendesk.user()]},
            ("PUT", "/api/v2/users/update_many.json?external_ids=u-1"): {"user": {"name": "A"}},
            ("POST", "/api/v2/users/create_or_update.json"): {"user": zendesk.user()},
            ("PUT", "/api/v2/tickets/7.json"): {"ticket": {"custom_fields": [{"id": 1, "value": "x"}]}},
        },
    ),
    (
        IntercomServer,
        intercom.signed_in,
        {
            ("POST", "/contacts"): {**intercom.CONTACT, "custom_attributes": {}},
            ("POST", "/contacts/search"): {"query": _QUERY, "pagination": {"per_page": 5, "starting_after": "0"}},
            ("POST", "/events"): intercom.EVENT,
            ("POST", "/data_attributes"): _ATTRIBUTE,
        },
    ),
]


@pytest.mark.parametrize(("kind", "sign_in", "bodies"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_whatever_comes_in_is_answered(
    kind: Any, sign_in: Callable[[Any], httpx.Client], bodies: Mapping[tuple[str, str], Any]
) -> None:
    server = kind(limits=[])
    if kind in (HubSpotServer, MarketingCloudServer):
        {HubSpotServer: hubspot.setup, MarketingCloudServer: cloud.people}[kind](server)
    with server, sign_in(server) as http:
        server.lists["7"] = set()
        for kind_of_record in ("ticket", "persons"):
            server.table(kind_of_record)
        failing = [
            (method, path, variant)
            for (method, path), body in bodies.items()
            for variant in variants(body)
            if http.request(method, path, json=variant).status_code >= 500
        ]
        assert failing == []
