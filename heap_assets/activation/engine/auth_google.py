"""Logins of Google's service accounts, with google-auth, through our own transport."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from heap_assets import clock
from heap_assets.activation.engine.auth import AuthError, Fetch, TokenAuth
from heap_assets.activation.engine.exchange import Request


@dataclass(frozen=True)
class ServiceAccount(TokenAuth):
    """A service account of Google.

    `key`: its key file's JSON. `subject`: a user in whose name it acts.
    """

    key: str = field(repr=False)
    scopes: tuple[str, ...]
    subject: str | None = None

    @property
    def _token_url(self) -> str:
        return str(json.loads(self.key).get("token_uri", ""))

    def fetched(self, fetch: Fetch) -> tuple[str, float, Mapping[str, Any]]:
        from google.auth import exceptions
        from google.oauth2 import service_account

        try:
            info = json.loads(self.key)
            credentials = service_account.Credentials.from_service_account_info(
                info, scopes=list(self.scopes), subject=self.subject
            )
        except (ValueError, TypeError) as error:
            raise AuthError(
                f"the key of the service account cannot be read ({type(error).__name__}): give the JSON of its key file"
            ) from error
        try:
            credentials.refresh(_Transport(fetch))
        except exceptions.GoogleAuthError as error:
            raise AuthError(f"the service account is refused ({type(error).__name__}); check key and scopes") from error
        ends = credentials.expiry.timestamp() if credentials.expiry.tzinfo else _utc(credentials.expiry)
        return str(credentials.token), ends - clock.now().timestamp(), {}


def _utc(expiry: Any) -> float:
    return float(expiry.replace(tzinfo=clock.now().tzinfo).timestamp())


class _Transport:
    """What google-auth calls to reach the token endpoint."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    def __call__(
        self, url: str, method: str = "GET", body: Any = None, headers: Any = None, timeout: Any = None, **_: Any
    ) -> _Answer:
        data = body.encode() if isinstance(body, str) else body or b""
        answer = self._fetch(Request(url, data, method, dict(headers or {})))
        return _Answer(answer.status, answer.headers, answer.body)


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    data: bytes
