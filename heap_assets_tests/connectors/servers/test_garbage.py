"""No call makes one of these servers fail itself: each documented body, with each of its parts replaced by another."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from heap_assets_tests.connectors.servers import test_amplitude as amplitude
from heap_assets_tests.connectors.servers import test_deletions as deletions
from heap_assets_tests.connectors.servers import test_google_ads as ads
from heap_assets_tests.connectors.servers import test_google_data_manager as manager
from heap_assets_tests.connectors.servers import test_meta as meta
from heap_assets_tests.connectors.servers import test_mixpanel as mixpanel
from heap_assets_tests.connectors.servers import test_mparticle as mparticle
from heap_assets_tests.connectors.servers import test_optimizely as optimizely
from heap_assets_tests.connectors.servers.amplitude import Amplitude
from heap_assets_tests.connectors.servers.census import Census
from heap_assets_tests.connectors.servers.clients import client
from heap_assets_tests.connectors.servers.core import VendorServer
from heap_assets_tests.connectors.servers.deletions import AmplitudeDeletion, MixpanelDeletion, SegmentDeletion
from heap_assets_tests.connectors.servers.google_ads import GoogleAds
from heap_assets_tests.connectors.servers.google_data_manager import GoogleDataManager
from heap_assets_tests.connectors.servers.hightouch import Hightouch
from heap_assets_tests.connectors.servers.meta import Meta
from heap_assets_tests.connectors.servers.mixpanel import Mixpanel
from heap_assets_tests.connectors.servers.mparticle import MParticle
from heap_assets_tests.connectors.servers.optimizely import OptimizelyDataPlatform, OptimizelyEvents
from heap_assets_tests.connectors.servers.shapes import basic

_EVENT = {"event_name": "A", "event_time": 1, "action_source": "email", "user_data": {"em": ["x"]}}
_MEMBERSHIPS = [{"ids": ["a"], "id_type": "BY_NAME", "operation": "ADD"}]
_COHORT = {"name": "n", "app_id": 1, "id_type": "BY_USER_ID", "ids": ["a"], "owner": "o", "published": True}
_DIRECT = {"customerMatchUserListMetadata": ads.METADATA, "operations": [ads.member("a")]}
_CLICK = {**ads.CLICK, "userIdentifiers": [{"hashedEmail": "a"}]}
_QUERY = {"query": "SELECT a FROM offline_user_data_job WHERE offline_user_data_job.resource_name = 'x/1'"}
_DELETED = {"$token": "token", "$distinct_id": "u", "$add": {"n": 1}}

NEEDS_MORE = (
    "/v25/customers/1/offlineUserDataJobs/1:addOperations",
    "/v25/customers/1/googleAds:search",
    "/v25.0/5/events",
)
"""Calls that a state or a time must go before."""
BODIES: list[tuple[type[VendorServer], Mapping[str, str], Mapping[str, Any]]] = [
    (
        GoogleDataManager,
        {},
        {
            "/v1/audienceMembers:ingest": manager.AUDIENCE,
            "/v1/audienceMembers:removeAll": {"destinations": [manager.DESTINATION]},
            "/v1/events:ingest": {**manager.EVENTS, "encoding": "HEX", "consent": manager.GRANTED},
        },
    ),
    (
        GoogleAds,
        {"developer_token": "developer"},
        {
            "/v25/customers/1/offlineUserDataJobs:create": ads.JOB,
            "/v25/customers/1/offlineUserDataJobs/1:addOperations": {
                "operations": [ads.member("a"), {"removeAll": True}]
            },
            "/v25/customers/1:uploadUserData": _DIRECT,
            "/v25/customers/1:uploadClickConversions": ads.clicks(_CLICK),
            "/v25/customers/1/googleAds:search": _QUERY,
        },
    ),
    (
        Meta,
        {"Authorization": "Bearer token"},
        {
            "/v25.0/1001/users": {"payload": meta.PAYLOAD, "session": meta.session(1)},
            "/v25.0/1001/usersreplace": {"payload": meta.one("a"), "session": meta.session(1)},
            "/v25.0/5/events": {"data": [_EVENT]},
        },
    ),
    (
        Amplitude,
        {"Authorization": basic("key", "secret")},
        {
            "/batch": {"api_key": "key", "events": [amplitude.ORDER], "options": {"min_id_length": 1}},
            "/api/3/cohorts/upload": _COHORT,
            "/api/3/cohorts/membership": {"cohort_id": "cohort-1", "memberships": _MEMBERSHIPS},
        },
    ),
    (
        Mixpanel,
        {"Authorization": basic("token", "")},
        {"/import?strict=1": [mixpanel.event()], "/engage": [mixpanel.profile(), _DELETED], "/groups": [_DELETED]},
    ),
    (MParticle, {"Authorization": basic("key", "secret")}, {"/v2/bulkevents": [mparticle.BATCH]}),
    (
        OptimizelyDataPlatform,
        {"x_api_key": "key"},
        {
            "/v3/profiles": [optimizely.ANN],
            "/v3/events": [optimizely.ORDER],
            "/v3/lists/subscriptions": [{"list_id": "a", "email": "b", "subscribed": True}],
            "/v3/compliance/gdpr/delete": [{"email": "a"}],
            "/v3/schema/objects/customers/fields": {"name": "a", "type": "b", "display_name": "c"},
        },
    ),
    (OptimizelyEvents, {}, {"/v1/events": optimizely.impression()}),
    (
        Hightouch,
        {"Authorization": "Bearer token"},
        {"/api/v1/syncs/11/trigger": {"fullResync": True}, "/api/v1/syncs/trigger": {"syncSlug": "users-to-crm"}},
    ),
    (SegmentDeletion, {"Authorization": "Bearer token"}, {"/regulations": deletions.regulation("u-1")}),
    (
        AmplitudeDeletion,
        {"Authorization": basic("key", "secret")},
        {deletions.AMPLITUDE: {"user_ids": ["u-1"], "amplitude_ids": [1], "ignore_invalid_id": "true"}},
    ),
    (
        MixpanelDeletion,
        {"Authorization": "Bearer oauth"},
        {f"{deletions.MIXPANEL}?token=token": {"distinct_ids": ["u-1"], "compliance_type": "GDPR"}},
    ),
    (Census, {"Authorization": "Bearer personal"}, {"/api/v2/syncs/21/trigger": {}}),
]


def variants(body: Any) -> Iterator[Any]:
    """Return copies with one part each replaced by null, a number, a list."""

    def places(part: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        yield path
        inner = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
        for name, value in inner:
            yield from places(value, (*path, name))

    for path in places(body, ()):
        for value in (None, 7, [None]):
            if not path:
                yield value
                continue
            new = copy.deepcopy(body)
            place = new
            for name in path[:-1]:
                place = place[name]
            place[path[-1]] = value
            yield new


@pytest.mark.parametrize(("kind", "headers", "bodies"), BODIES, ids=lambda value: getattr(value, "__name__", ""))
def test_whatever_comes_in_is_answered(
    kind: type[VendorServer], headers: Mapping[str, str], bodies: Mapping[str, Any]
) -> None:
    with kind(limits=[]) as server, client(server, **headers) as http:
        if hasattr(server, "grant"):
            http.headers["Authorization"] = f"Bearer {server.grant()}"
        if kind is GoogleAds:
            http.post("/v25/customers/1/offlineUserDataJobs:create", json=ads.JOB)
        for path, body in bodies.items():
            statuses = {http.post(path, json=variant).status_code for variant in variants(body)}
            assert max(statuses) < 500
            # the body as it is documented is in good form
            assert http.post(path, json=body).status_code < 400 or path in NEEDS_MORE
