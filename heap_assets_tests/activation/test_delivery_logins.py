"""Logins: keys in their places, tokens that are fetched once and renewed once, and nothing of them in any log."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import delivery_kit as kit
import jobs_kit
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from scripted_server import Call, Say, scripted

from heap_assets.activation import (
    Api,
    ApiKey,
    Auth,
    BaseDestination,
    Basic,
    Bearer,
    ClientCredentials,
    JwtBearer,
    Limits,
    RefreshToken,
    Request,
    Response,
    Row,
    ServiceAccount,
    Status,
    SyncReport,
    Trouble,
    deliver,
)
from heap_assets.errors import DeliveryError
from heap_assets.http_client import ANYWHERE, AllowedHosts
from heap_assets.redaction import redact
from heap_assets.storage import Store

PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = PRIVATE.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()


class Plain(BaseDestination):
    kind = "plain"
    limits = Limits(batch_rows=5)

    def __init__(self, url: str, auth: Auth) -> None:
        self.url, self.auth = url, auth

    def trouble(self, response: Response) -> Trouble | None:
        return Trouble.expired() if response.status == 401 else super().trouble(response)

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return Request(f"{self.url}/rows", b'{"rows":[' + b",".join(elements) + b"]}")


def send(url: str, lake: Store, auth: Auth, count: int = 5, allowed: AllowedHosts = ANYWHERE) -> SyncReport:
    return deliver(kit.spec(), Plain(url, auth), kit.people(count).lazy(), lake, kit.DAY, "r", allowed=allowed)


def always(call: Call) -> Say:
    del call
    return Say(200, {})


@pytest.mark.parametrize(
    ("auth", "shown"),
    [
        (Bearer("tok-12345"), lambda call: call.headers["authorization"] == "Bearer tok-12345"),
        (Basic("ann", "pass-12345"), lambda call: call.headers["authorization"] == "Basic YW5uOnBhc3MtMTIzNDU="),
        (ApiKey("key-12345", "X-Api-Key"), lambda call: call.headers["x-api-key"] == "key-12345"),
        (ApiKey("key/1 2345", "api_key", "query"), lambda call: call.query == {"api_key": "key/1 2345"}),
        (ApiKey("key-12345", "k", "body"), lambda call: (call.json["k"], len(call.json["rows"])) == ("key-12345", 5)),
    ],
    ids=["bearer", "basic", "header", "query", "body"],
)  # fmt: skip
def test_a_fixed_key_stands_where_the_vendor_wants_it(lake: Store, auth: Auth, shown: Callable[[Call], bool]) -> None:
    with scripted(always) as server:
        assert send(server.url, lake, auth).status == Status.SUCCEEDED
    assert shown(server.calls[0])
    assert "12345" not in repr(auth)


def test_one_token_is_fetched_for_all_workers_and_syncs_and_renewed_once_for_all(tmp_path: Path) -> None:
    vendor = jobs_kit.Vendor(polls=0)
    with scripted(vendor) as server:
        assert jobs_kit.send(server.url, kit.store(tmp_path / "a"), count=60, concurrency=6).sent == 60
        assert len(vendor.tokens) == 1
        assert jobs_kit.send(server.url, kit.store(tmp_path / "b"), count=60, concurrency=6).sent == 60
        assert len(vendor.tokens) == 1
        vendor.tokens.append("the vendor has forgotten ours")
        report = jobs_kit.send(server.url, kit.store(tmp_path / "c"), count=60, concurrency=6)
    assert (report.status, report.sent, report.retried) == (Status.SUCCEEDED, 60, 0)
    assert len(server.asked("POST", "/token")) == 2


def test_a_token_that_expires_again_and_again_ends_the_run(lake: Store) -> None:
    vendor = jobs_kit.Vendor()
    vendor.expires_after = 0
    with scripted(vendor) as server:
        report = jobs_kit.send(server.url, lake, concurrency=1)
    assert (report.status, report.sent, report.unknown) == (Status.STOPPED, 0, 0)
    assert len(server.asked("POST", "/token")) == 2


def test_the_other_grants_say_what_the_vendor_needs_to_hear(tmp_path: Path) -> None:
    def answer(call: Call) -> Say:
        if call.path != "/token":
            return Say(200, {})
        return Say(200, {"access_token": f"token-{len(call.body)}", "expires_in": 600})

    with scripted(answer) as server:
        url = f"{server.url}/token"
        grants: list[Auth] = [
            ClientCredentials(url, "id", "secret-1", {"scope": "all"}, style="basic"),
            ClientCredentials(url, "id", "secret-1", {"account_id": "7"}, style="json"),
            RefreshToken(url, "id", "secret-1", refresh_token="again-1"),
            JwtBearer(url, private_key=PEM, claims={"iss": "app", "sub": "ann", "aud": "https://login"}),
        ]
        for number, auth in enumerate(grants):
            assert send(server.url, kit.store(tmp_path / str(number)), auth).status == Status.SUCCEEDED
    basic, in_json, refresh, signed = server.asked("POST", "/token")
    assert basic.form == {"grant_type": "client_credentials", "scope": "all"}
    assert basic.headers["authorization"] == "Basic aWQ6c2VjcmV0LTE="
    expected = {"client_id": "id", "client_secret": "secret-1", "account_id": "7", "grant_type": "client_credentials"}
    assert in_json.json == expected
    assert (refresh.form["grant_type"], refresh.form["refresh_token"]) == ("refresh_token", "again-1")
    claims = jwt.decode(signed.form["assertion"], PRIVATE.public_key(), ["RS256"], audience="https://login")
    assert (claims["iss"], claims["sub"], claims["exp"] - claims["iat"]) == ("app", "ann", 180)


def test_a_service_account_logs_in_through_our_own_transport(lake: Store) -> None:
    def answer(call: Call) -> Say:
        return Say(200, {"access_token": "ya29.google", "expires_in": 3599} if call.path == "/token" else {})

    with scripted(answer) as server:
        key = {
            "type": "service_account", "client_email": "sync@acme.example", "private_key": PEM,
            "private_key_id": "1", "token_uri": f"{server.url}/token",
        }  # fmt: skip
        auth = ServiceAccount(json.dumps(key), ("https://www.googleapis.com/auth/datamanager",))
        assert send(server.url, lake, auth, count=20).status == Status.SUCCEEDED
    [login] = server.asked("POST", "/token")
    claims = jwt.decode(login.form["assertion"], options={"verify_signature": False})
    assert claims["scope"] == "https://www.googleapis.com/auth/datamanager"
    assert {call.headers["authorization"] for call in server.asked("POST", "/rows")} == {"Bearer ya29.google"}
    assert "PRIVATE" not in repr(auth)


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        (Say(401, {"error": "invalid_client", "error_description": "secret-1 of ann@x.example"}), "invalid_client"),
        (Say(200, {"no": "token"}), "refused: HTTP 200"),
        (Say(500, {}), "cannot be reached: HTTP 500"),
        (Say(hang_up=True), "cannot be reached"),
    ],
    ids=["refused", "no token", "down", "no answer"],
)
def test_a_login_that_fails_ends_the_run_with_its_reason(lake: Store, says: Say, expected: str) -> None:
    with scripted(lambda _: says) as server:
        report = send(server.url, lake, ClientCredentials(f"{server.url}/token", "id", "secret-1"))
    assert (report.status, report.aborted, report.unknown) == (Status.STOPPED, 5, 0)
    assert expected in str(report.reason)
    assert not any(word in str(report.reason) for word in ("secret-1", "ann@"))
    assert not server.asked("POST", "/rows")


def test_tokens_go_to_no_host_that_is_not_allowed_and_to_no_address_of_strangers(lake: Store) -> None:
    def answer(call: Call) -> Say:
        del call
        return Say(200, {"access_token": "tok-for-strangers", "instance_url": "https://evil.example/salesforce.com"})

    with scripted(answer) as server:
        auth = ClientCredentials(
            f"{server.url}/token", "id", "secret-1", base_url_from="instance_url", hosts=("salesforce.com",)
        )
        report = send("", lake, auth)
        assert (report.status, report.aborted) == (Status.STOPPED, 5)
        assert "evil.example" in str(report.reason)
        allowed = AllowedHosts.of(["elsewhere.example"])
        report = send(server.url, lake, ClientCredentials(f"{server.url}/token", "other", "secret-1"), allowed=allowed)
    assert "allowed_hosts" in str(report.reason)
    assert len(server.calls) == 1


def test_a_relative_address_is_below_the_one_that_the_login_names(lake: Store) -> None:
    def answer(call: Call) -> Say:
        return Say(200, {"access_token": "tok-12345", "instance_url": server.url} if call.path == "/token" else {})

    with scripted(answer) as server:
        auth = ClientCredentials(f"{server.url}/token", "id", "secret-2", base_url_from="instance_url")
        assert send("", lake, auth).status == Status.SUCCEEDED
    assert len(server.asked("POST", "/rows")) == 1


def test_nothing_of_a_login_is_logged_and_tokens_are_redacted(lake: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    vendor = jobs_kit.Vendor()
    with scripted(vendor) as server:
        report = jobs_kit.send(server.url, lake)
    logged = caplog.text + str(report)
    assert not any(word in logged for word in (*vendor.tokens, "very-secret-secret", "x.example"))
    assert vendor.tokens[0] not in redact(f"it said {vendor.tokens[0]}")


def test_a_single_call_has_the_login_and_the_patience_of_the_destination() -> None:
    vendor = jobs_kit.Vendor()
    with scripted(vendor) as server:
        vendor.tokens.append("not ours")
        with Api(jobs_kit.Jobs(server.url), allowed=ANYWHERE, retry=kit.QUICK) as api:
            assert api.call(Request(f"{server.url}/jobs")).json == {"id": 0}
            server.answer = lambda _: Say(404, {})
            with pytest.raises(DeliveryError, match="HTTP 404"):
                api.call(Request(f"{server.url}/jobs/7", method="GET"))
