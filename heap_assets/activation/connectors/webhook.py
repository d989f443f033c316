"""Signed JSON batches to any address, configured by settings alone."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from heap_assets.activation.connectors.inputs import GenericConnector, ModeSettings
from heap_assets.activation.engine.destination import BaseDestination, Row
from heap_assets.activation.engine.events import derived_id
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.limits import Limits, Rate
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.verdict import Response, row_errors
from heap_assets.config import HeapSettings
from heap_assets.errors import SettingsError

_TOKEN = re.compile(r"(?i)token|secret|key|sig|pass|auth")


class WebhookSync(ModeSettings):
    """Signed JSON batches to any address."""

    cadence: ClassVar[str] = "* * * * *"
    in_every_plan: ClassVar[bool] = True

    kind: Literal["webhook"] = "webhook"
    url: SecretStr = Field(description="http:// or https:// address; it may hold a secret and is never shown")
    secret: SecretStr | None = Field(default=None, description="Signs the body")
    headers: dict[str, SecretStr] = Field(default={}, description="Such as an API key")
    method: Literal["POST", "PUT", "PATCH"] = Field(default="POST", description="HTTP method")
    batch_rows: int = Field(default=100, ge=1, description="Rows of one request")
    rows_per_minute: int | None = Field(default=None, ge=1, description="Rate limit of the receiver")

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("an address that begins with http:// or https://")
        return value

    def called_url(self, heap: HeapSettings) -> str:
        """Return the URL that is called."""
        del heap
        return self.url.get_secret_value()


class WebhookConnector(GenericConnector[WebhookSync]):
    """Rows as they come, to an address."""

    settings_model = WebhookSync

    def destination(self, table: str = "") -> Webhook:
        sync = self.settings
        target = WebhookSettings(
            sync.url.get_secret_value(),
            secret=sync.secret.get_secret_value() if sync.secret else None,
            headers={name: value.get_secret_value() for name, value in sync.headers.items()},
            method=sync.method,
            batch_rows=sync.batch_rows,
            rows_per_minute=sync.rows_per_minute,
        )
        return Webhook(target, name=self.name, mode=self.mode)


@dataclass(frozen=True)
class WebhookSettings:
    """Address and format of the calls."""

    url: str = field(repr=False)
    """Address, https or http. It may hold a secret and is never shown."""
    secret: str | None = field(default=None, repr=False)
    """Key of the signature; without it calls are not signed."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Further headers, such as an API key. Never shown."""
    method: str = "POST"
    batch_rows: int = 100
    batch_bytes: int | None = 1_000_000
    rows_per_minute: int | None = None
    """Rate limit of the receiver, if it has one."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise SettingsError("webhook: url must be an http:// or https:// address")


class Webhook(BaseDestination):
    """Posts `{"sync", "rows": [{"key", "properties", ...}]}`.

    Signed calls carry `X-Heap-Assets-Signature: t=<unix seconds>,v1=<hex>`, where hex is
    HMAC-SHA256(secret, `<t>.` + body). Every row has an `id` that is the same on a resend.

    `name`: of the sync. `mode`: upsert keeps keys up to date; insert sends each `event_key` once.
    """

    kind = "webhook"

    def __init__(self, settings: WebhookSettings, *, name: str, mode: Mode = Mode.UPSERT) -> None:
        self._settings = settings
        self._name = name
        self.mode = mode
        self.required = ("event_key",) if mode is Mode.INSERT else ()
        self.optional = ("event", "time") if mode is Mode.INSERT else ()
        rate = (Rate(settings.rows_per_minute, 60),) if settings.rows_per_minute else ()
        self.limits = Limits(batch_rows=settings.batch_rows, batch_bytes=settings.batch_bytes, rates=rate)

    @property
    def target(self) -> str:
        return f"{self.kind}:{self._settings.url}"

    @property
    def account(self) -> str:
        """Name the receiver; passwords and tokens in its address are no part of the name."""
        parts = urlsplit(self._settings.url)
        host = parts.netloc.rpartition("@")[2].lower()
        query = [pair for pair in parts.query.split("&") if not _TOKEN.search(pair.partition("=")[0])]
        return f"{self.kind}:{parts.scheme.lower()}://{host}{parts.path.rstrip('/')}?{'&'.join(sorted(query))}"

    def element(self, row: Row) -> dict[str, Any]:
        if self.mode is Mode.INSERT:
            facts = {name: row.extra[name] for name in self.optional if row.extra.get(name) is not None}
            return {"id": derived_id(self._name, row.key), "key": row.person, **facts, "properties": dict(row.values)}
        content = f"{row.key}:{row.extra.get('row_hash')}"
        row_id = derived_id(f"{self._name}:{row.extra.get('fence')}", content)
        return {"id": row_id, "key": row.key, "properties": dict(row.values)}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        prefix = b'{"sync":"' + self._name.encode() + b'","rows":['
        body = prefix + b",".join(elements) + b"]}"
        headers = {**self._settings.headers, "Idempotency-Key": hashlib.sha256(body).hexdigest()}
        if self._settings.secret:
            headers["X-Heap-Assets-Signature"] = signature(self._settings.secret, body, int(time.time()))
        return Request(self._settings.url, body, self._settings.method, headers)

    def rejections(self, response: Response, rows: Sequence[Row]) -> Mapping[int, str] | None:
        return row_errors(response, len(rows))


def signature(secret: str, body: bytes, at: int) -> str:
    """Return the signature header of a body sent at `at` (unix seconds); receivers compare in constant time."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"
