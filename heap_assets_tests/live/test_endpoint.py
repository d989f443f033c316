"""What the endpoint takes, from whom, and what it says otherwise; with the libraries that people use."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from heap_assets.project import Project
from heap_assets.sources.inbox import REFUSED, stored_parts
from heap_assets.storage import from_parquet
from heap_assets_tests.live.service_process import (
    SEGMENT_SECRETS,
    SERVER_KEY,
    SHOP_SECRET,
    WEB_KEY,
    ServiceInThread,
    landed,
    opened,
    serving,
    write_settings,
)

TRACK: dict[str, Any] = {"userId": "u1", "event": "Paid", "messageId": "m1", "timestamp": "2026-11-01T10:00:00Z"}


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, ServiceInThread]]:
    file = write_settings(tmp_path_factory.mktemp("endpoint"), inbox="  roll_seconds: 0.2")
    with serving(file) as service:
        yield opened(file), service


@pytest.fixture
def web(deployed: tuple[Project, ServiceInThread]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=deployed[1].address, auth=(WEB_KEY, "")) as client:
        yield client


def _signed(body: bytes, secret: str, algorithm: str = "sha1") -> dict[str, str]:
    return {"X-Signature": hmac.new(secret.encode(), body, algorithm).hexdigest()}


def test_libraries_of_segment_and_rudderstack_post_here_unchanged(tmp_path: Path) -> None:
    import rudderstack.analytics as rudder
    from segment.analytics.client import Client

    file = write_settings(tmp_path)
    errors: list[Exception] = []
    with serving(file) as service:
        client = Client(WEB_KEY, host=service.address, on_error=lambda error, _: errors.append(error), gzip=True)
        client.identify("ann", {"email": "ann@shop.example", "plan": "pro", "company": {"name": "Acme"}})
        for number in range(250):
            client.track("ann", "Paid", {"total": number})
        client.group("ann", "acme", {"name": "Acme", "tier": "gold"})
        client.page("ann", "Docs", "Home", {"url": "/"})
        client.screen("ann", "App", "Start")
        client.alias("anon-1", "ann")
        client.shutdown()
        rudder.write_key = SERVER_KEY
        rudder.dataPlaneUrl = service.address
        rudder.on_error = lambda error, _: errors.append(error)
        rudder.identify("bob", {"plan": "free"})
        rudder.track("bob", "Paid", {"total": 7})
        rudder.group("bob", "acme")
        rudder.alias("anon-2", "bob")
        rudder.shutdown()
        service.stop()
    assert errors == []
    project = opened(file)
    counts = {t: len(landed(project, t)) for t in ("identify", "track", "group", "page", "screen", "alias")}
    assert counts == {"identify": 2, "track": 251, "group": 2, "page": 1, "screen": 1, "alias": 2}
    assert set(landed(project, "alias").select("previous_id", "user_id").iter_rows()) == {
        ("anon-1", "ann"),
        ("anon-2", "bob"),
    }
    assert landed(project, "track")["message_id"].is_unique().all()


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"event": None}, 400, "event: missing"),
        ({"userId": None}, 400, "userId: missing, and so is anonymousId: one of the two is needed"),
        ({"userId": {"a": 1}}, 400, "userId: expected text"),
        ({"userId": True}, 400, "userId: expected text"),
        ({"properties": [1]}, 400, "properties: no JSON object"),
        ({"timestamp": "yesterday"}, 400, "timestamp: expected a time as ISO 8601"),
        ({"type": "page"}, 400, "type: it is not of the type that this path is for, track"),
        ({"messageId": "x" * 2000}, 400, "messageId: expected 1 to 1024 characters"),
        ({"properties": {"long": "x" * 40_000}}, 413, "a message of more than 32 KB"),
    ],
)
def test_a_message_that_lacks_what_it_needs_is_refused_with_its_field(
    web: httpx.Client, change: dict[str, Any], status: int, reason: str
) -> None:
    answer = web.post("/v1/track", json=TRACK | change)
    assert (answer.status_code, answer.json()["message"]) == (status, reason)


def test_a_batch_is_taken_without_the_messages_that_cannot_be(
    deployed: tuple[Project, ServiceInThread], web: httpx.Client
) -> None:
    batch = [TRACK | {"type": "track", "messageId": "b1"}, {"type": "track", "userId": "u"}, 5]
    answer = web.post("/v1/batch", json={"batch": batch})
    assert answer.status_code == 200
    assert answer.json()["rejected"] == ["batch[1].event: missing", "batch[2]: no JSON object"]
    project = deployed[0]
    _until(lambda: stored_parts(project.lake.store, REFUSED))
    reasons = from_parquet(project.lake.store.read(stored_parts(project.lake.store, REFUSED)[0].info.key))["reason"]
    assert sorted(reasons) == ["batch[1].event: missing", "batch[2]: no JSON object"]
    none_good = web.post("/v1/batch", json={"batch": batch[1:]})
    assert (none_good.status_code, none_good.json()["message"]) == (400, "batch[0].event: missing")


def test_bodies_are_json_of_the_right_form_and_size(web: httpx.Client) -> None:
    def refused(content: bytes, **headers: str) -> tuple[int, str]:
        answer = web.post("/v1/batch", content=content, headers={k.replace("_", "-"): v for k, v in headers.items()})
        return answer.status_code, answer.json()["message"]

    assert refused(b"{") == (400, "the body is not JSON in UTF-8 (at byte 1)")
    assert refused(b"\xff\xfe") == (400, "the body is not JSON in UTF-8 (at byte 0)")
    assert refused(b"[1]") == (400, "the body is no JSON object")
    assert refused(b"{}") == (400, "batch: a list of messages is missing")
    assert refused(b"[" * 100_000)[0] == 400
    assert refused(b"x" * (5 << 20)) == (413, "the body is larger than 4096 KB")
    assert refused(gzip.compress(b" " * (50 << 20)), Content_Encoding="gzip")[0] == 413
    assert refused(gzip.compress(b"{}")[:-4], Content_Encoding="gzip")[0] == 400
    assert refused(b"{}", Content_Encoding="br")[0] == 415
    many = json.dumps({"batch": [{}] * 2501}).encode()
    assert refused(many) == (413, "batch: more than 2500 messages")
    compressed = gzip.compress(json.dumps({"batch": [TRACK | {"type": "track"}]}).encode())
    assert web.post("/v1/batch", content=compressed, headers={"Content-Encoding": "gzip"}).status_code == 200


def test_a_write_key_opens_and_none_else(deployed: tuple[Project, ServiceInThread]) -> None:
    url = f"{deployed[1].address}/v1/track"
    assert httpx.post(url, json=TRACK).json() == {"success": False, "message": "writeKey: missing"}
    assert httpx.post(url, json=TRACK | {"writeKey": "other"}).status_code == 401
    assert httpx.post(url, json=TRACK | {"writeKey": SERVER_KEY}).status_code == 200
    quoted = base64.b64encode(f'{WEB_KEY}:""'.encode()).decode()
    assert httpx.post(url, json=TRACK, headers={"Authorization": f"Basic {quoted}"}).status_code == 200
    assert httpx.post(url, json=TRACK, headers={"Authorization": "Basic %%%"}).status_code == 401
    assert httpx.post(f"{deployed[1].address}/v1/delete", json=TRACK).status_code == 404
    assert httpx.get(url).status_code == 405


def test_browsers_may_post_from_any_site_by_the_short_paths_of_segments_library(
    deployed: tuple[Project, ServiceInThread],
) -> None:
    project, service = deployed
    page = {"Origin": "https://www.acme.example"}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    before = httpx.options(f"{service.address}/v1/t", headers=page | asked)
    assert (before.status_code, before.headers["access-control-allow-origin"]) == (200, "*")
    assert before.headers["access-control-allow-headers"] == "authorization,content-type"
    ids = {}
    for letter, kind in {"t": "track", "i": "identify", "g": "group", "p": "page", "s": "screen", "a": "alias"}.items():
        # as @segment/analytics-next 1.84 posts: JSON as text, the key in the body
        call = TRACK | {"type": kind, "groupId": "acme", "previousId": "v1", "messageId": f"short-{letter}"}
        text = json.dumps(call | {"writeKey": WEB_KEY, "sentAt": "2026-11-01T10:00:01Z"})
        answer = httpx.post(
            f"{service.address}/v1/{letter}", content=text, headers=page | {"Content-Type": "text/plain"}
        )
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")
        ids[kind] = f"short-{letter}"
    batch = {"writeKey": WEB_KEY, "batch": [TRACK | {"type": "track", "messageId": "short-b"}]}
    assert httpx.post(f"{service.address}/v1/b", json=batch, headers=page).status_code == 200
    _until(lambda: all(id in landed(project, kind)["message_id"] for kind, id in ids.items()))
    _until(lambda: "short-b" in landed(project, "track")["message_id"])
    assert httpx.options(f"{service.address}/v1/track").status_code == 405
    refused = httpx.post(f"{service.address}/v1/t", json=TRACK, headers=page)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "*")
    assert "access-control-allow-origin" not in httpx.get(f"{service.address}/healthz", headers=page).headers


def test_webhooks_of_segment_are_signed_by_the_old_or_the_new_secret(deployed: tuple[Project, ServiceInThread]) -> None:
    url = f"{deployed[1].address}/webhooks/segment"
    body = json.dumps({"version": 1, "type": "identify", "userId": "u2", "traits": {"plan": "pro"}}).encode()
    for secret in SEGMENT_SECRETS:
        assert httpx.post(url, content=body, headers=_signed(body, secret)).status_code == 200
    assert httpx.post(url, content=body).json()["message"] == "X-Signature: missing"
    assert httpx.post(url, content=body + b" ", headers=_signed(body, SEGMENT_SECRETS[0])).status_code == 401
    assert httpx.post(url, content=body, headers=[(b"X-Signature", b"\xe9" * 50)]).status_code == 401
    unknown = json.dumps({"type": "video", "userId": "u2"}).encode()
    assert httpx.post(url, content=unknown, headers=_signed(unknown, SEGMENT_SECRETS[0])).status_code == 501
    assert httpx.post(f"{deployed[1].address}/webhooks/none", content=body).status_code == 404
    classic = json.dumps({"type": "alias", "Previous ID": "d1", "User ID": "u2"}).encode()
    assert httpx.post(url, content=classic, headers=_signed(classic, SEGMENT_SECRETS[0])).status_code == 200


def test_a_batch_that_is_signed_by_its_first_message_only_is_refused(deployed: tuple[Project, ServiceInThread]) -> None:
    url = f"{deployed[1].address}/webhooks/segment"
    first = b'{"type":"track","userId":"u","event":"a [b] \\" {","n":1.50}'
    body = b"[ " + first + b', {"type":"track","userId":"attacker","event":"x"}]'
    answer = httpx.post(url, content=body, headers=_signed(first, SEGMENT_SECRETS[0]))
    assert answer.status_code == 401
    assert "of the first message only" in answer.json()["message"]
    assert httpx.post(url, content=body, headers=_signed(body, SEGMENT_SECRETS[0])).status_code == 200


def test_a_signed_webhook_of_any_kind_and_its_replay(deployed: tuple[Project, ServiceInThread]) -> None:
    project, service = deployed
    body = json.dumps({"kind": "order", "order": {"id": 77, "at": 1793527200, "amount": 9.5}}).encode()
    signature = "sha256=" + hmac.new(SHOP_SECRET.encode(), body, hashlib.sha256).hexdigest()
    for _ in range(3):
        url = f"{service.address}/webhooks/shop"
        assert httpx.post(url, content=body, headers={"X-Signature": signature}).status_code == 200
    _until(lambda: len(landed(project, "shop")) == 3)
    assert set(landed(project, "shop").select("message_id", "event").iter_rows()) == {("77", "order")}


def test_health_and_metrics_count_what_came(deployed: tuple[Project, ServiceInThread], web: httpx.Client) -> None:
    assert web.post("/v1/track", json=TRACK).json() == {"success": True}
    assert web.get("/healthz").json()["status"] == "ok"
    metrics = web.get("/metrics").text
    assert 'heap_assets_live_messages_total{source="web"}' in metrics
    assert 'heap_assets_live_answers_total{status="200"}' in metrics
    assert "u1" not in metrics


def _until(holds: Any, seconds: float = 10.0) -> None:
    import time

    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
