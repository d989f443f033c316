"""Heap's user deletion API (heap.md 1.8)."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from typing import Any

import orjson

from heap_assets.activation.connectors.base import Deployment
from heap_assets.activation.connectors.heap import HOSTS, HeapApp
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.http_client import Transport, Unanswered
from heap_assets.activation.engine.verdict import Response
from heap_assets.errors import DeliveryError, SettingsError
from heap_assets.http_client import ANYWHERE, AllowedHosts

MOST_USERS = 10_000
_TOKEN_SECONDS = 240
"""Tokens live five minutes; this one is renewed after four."""
_TIMEOUT = 30.0
_ROOT = "/api/public/v0"


class HeapDeletion:
    """Asks Heap to delete users, in **all environments** of the account; that cannot be undone.

    `app`: the Main Production environment: no other may ask. Both regions use the same host. `api_key`: from Heap:
    Account > Manage > Privacy & Security. Never shown.
    """

    def __init__(self, app: HeapApp, api_key: str, *, allowed: AllowedHosts = ANYWHERE) -> None:
        self._url = (app.base_url or HOSTS["us"]).rstrip("/") + _ROOT
        self._basic = base64.b64encode(f"{app.app_id}:{api_key}".encode()).decode()
        self._transport = Transport(allowed=allowed)
        self._token = ""
        self._token_until = 0.0

    def delete(self, identities: Sequence[str], user_ids: Sequence[int] = ()) -> list[str]:
        """Ask for the deletion of users by identity or by Heap's own id; returns one request id per 10,000 users.

        Raises DeliveryError if Heap refuses; requests made before are listed in the message.
        """
        requests: list[str] = []
        everybody = [*({"identity": one} for one in identities), *({"user_id": one} for one in user_ids)]
        for start in range(0, len(everybody), MOST_USERS):
            users = everybody[start : start + MOST_USERS]
            about = f"made before: {requests or 'none'}"
            requests.append(self._call("POST", "/user_deletion", {"users": users}, about, "deletion_request_id"))
        return requests

    def status(self, request_id: str) -> str:
        """Return `pending` or `complete`."""
        return self._call("GET", f"/deletion_status/{request_id}", None, f"request {request_id}", "status")

    def close(self) -> None:
        """Close connections."""
        self._transport.close()

    def _call(self, method: str, path: str, body: dict[str, Any] | None, about: str, field: str) -> str:
        response = self._send(method, path, body, f"Bearer {self._fresh_token()}")
        if response.status == 401:
            self._token_until = 0.0
            response = self._send(method, path, body, f"Bearer {self._fresh_token()}")
        return _read(response, f"{path.split('/')[1]} ({about})", field)

    def _fresh_token(self) -> str:
        if time.monotonic() >= self._token_until:
            answer = self._send("POST", "/auth_token", None, f"Basic {self._basic}")
            self._token = _read(answer, "auth_token", "access_token")
            self._token_until = time.monotonic() + _TOKEN_SECONDS
        return self._token

    def _send(self, method: str, path: str, body: dict[str, Any] | None, authorization: str) -> Response:
        data = b"" if body is None else json.dumps(body).encode()
        request = Request(self._url + path, data, method, {"Authorization": authorization})
        answer = self._transport.send(request, _TIMEOUT)
        if isinstance(answer, Unanswered):
            raise DeliveryError(
                f"Heap's user deletion API gave {answer.reason}; ask again, a second request does no harm"
            )
        return answer


def heap_deletion(deployment: Deployment, name: str) -> HeapDeletion:
    """Return what asks Heap to delete users; keys of the sync must be Heap identities.

    Raises SettingsError: the sync sends elsewhere, or the settings have no key for it.
    """
    if not deployment.settings.sync[name].by_heap_identity:
        raise SettingsError(f"sync.{name} is not addressed by Heap identity: Heap cannot be asked to delete its keys")
    return deletion_of_heap(deployment)


def deletion_of_heap(deployment: Deployment) -> HeapDeletion:
    """Return what asks Heap to delete users of the deployment's environment.

    Raises SettingsError: the settings have no key for it.
    """
    heap = deployment.settings.heap
    if heap.deletion_key is None:
        raise SettingsError("heap.deletion_key is not set: an API key from Account > Manage > Privacy & Security")
    return HeapDeletion(HeapApp.of(heap), heap.deletion_key.get_secret_value(), allowed=deployment.allowed_hosts)


def _read(response: Response, endpoint: str, field: str) -> str:
    if not response.accepted:
        hint = "; the key must be that of the Main Production environment" if response.status == 401 else ""
        raise DeliveryError(f"Heap's user deletion API answered HTTP {response.status} to {endpoint}{hint}")
    try:
        answer = orjson.loads(response.body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get(field), str | int):
        raise DeliveryError(f"Heap's user deletion API answered {endpoint} without {field}; ask again, it does no harm")
    return str(answer[field])
