"""Heap's server-side API: user properties and account properties (heap.md 1.5, 1.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from heap_assets.activation.connectors.base import BaseDestination, Limits, Rate, Request, Response, Row
from heap_assets.activation.engine.spec import Mode
from heap_assets.errors import SettingsError

HOSTS: Mapping[str, str] = {"us": "https://heapanalytics.com", "eu": "https://c.eu.heap-api.com"}
"""heap.md 1.1."""
IDENTITY_UNITS, NAME_UNITS, VALUE_UNITS, EVENT_UNITS = 255, 512, 1023, 1024
"""heap.md 1.9, counted in UTF-16 code units."""
JUNK_IDENTITIES = frozenset({"undefined", "null", "none", "nan", "user", "guest", "anonymous", "0"})
"""Identities never to send (heap.md 1.9, 4)."""
SINGLE = Rate(30, 30, per_key=True, per_call=True)
"""30 requests per 30 seconds per identity and app (heap.md 1.4)."""
BULK_ROWS = 1000
_TEXT = {True: "true", False: "false"}


@dataclass(frozen=True)
class HeapApp:
    """One Heap environment.

    Attributes
    ----------
    app_id
        Environment ID, digits.
    region
        `us` or `eu`.
    base_url
        Stands in for the region's host.
    """

    app_id: str
    region: Literal["us", "eu"] = "us"
    base_url: str | None = None

    def __post_init__(self) -> None:
        if not self.app_id.isdigit():
            raise SettingsError(
                "heap.app_id must be the environment ID, digits only (Heap: Account > Manage > Projects)"
            )
        if self.region not in HOSTS:
            raise SettingsError(f"heap.region is {self.region!r}; it must be us or eu")

    @property
    def url(self) -> str:
        return (self.base_url or HOSTS[self.region]).rstrip("/")


class HeapDestination(BaseDestination):
    """What all calls to Heap have in common."""

    path: str

    def __init__(self, app: HeapApp, *, cleared: str = "(none)") -> None:
        self.app = app
        self.cleared = cleared

    @property
    def target(self) -> str:
        return f"{self.kind}:{self.app.url}:{self.app.app_id}"

    def properties(self, row: Row) -> dict[str, Any]:
        """Return properties as Heap takes them: text and numbers (heap.md 1.2)."""
        cleared = self.cleared
        return {
            name: cleared if value is None else _TEXT[value] if value is True or value is False else value
            for name, value in row.values.items()
        }

    def rejections(self, response: Response, rows: Sequence[Row]) -> Mapping[int, str] | None:
        return named_rows(response, len(rows))

    def _post(self, list_name: str | None, elements: Sequence[bytes]) -> Request:
        """Build a bulk call, or a single one from the fields of its only element."""
        app_id = f'{{"app_id":"{self.app.app_id}",'.encode()
        if list_name is None:
            return Request(self.app.url + self.path, app_id + elements[0][1:])
        return Request(self.app.url + self.path, app_id + f'"{list_name}":['.encode() + b",".join(elements) + b"]}")


def named_rows(response: Response, rows: int) -> dict[int, str] | None:
    """Read `{"errors": [{"index": 3, "message": "..."}]}`, the usual form in which an API names the rows it refuses.

    Heap documents none (heap.md 1.3); where an answer has it, splitting is spared.
    """
    try:
        # unlike json it has a limit of depth, and does not exhaust the stack before
        errors = orjson.loads(response.body).get("errors")
    except (ValueError, AttributeError):
        return None
    if not isinstance(errors, list):
        return None
    named = [e for e in errors if isinstance(e, dict) and type(e.get("index")) is int and 0 <= e["index"] < rows]
    return {e["index"]: f"HTTP {response.status}: {e.get('message', 'refused')}" for e in named} or None


class HeapUserProperties(HeapDestination):
    """Upserts user properties by identity, up to 1000 users a call (heap.md 1.5).

    Parameters
    ----------
    bulk
        Many users per call; otherwise one.
    """

    kind = "heap_user_properties"
    mode = Mode.UPSERT
    path = "/api/add_user_properties"

    def __init__(
        self, app: HeapApp, *, bulk: bool = True, cleared: str = "(none)", batch_rows: int = BULK_ROWS
    ) -> None:
        super().__init__(app, cleared=cleared)
        self._bulk = bulk
        self.limits = Limits(
            batch_rows=min(batch_rows, BULK_ROWS) if bulk else 1,
            key_units=IDENTITY_UNITS,
            name_units=NAME_UNITS,
            value_units=VALUE_UNITS,
            rates=() if bulk else (SINGLE,),
            junk_keys=JUNK_IDENTITIES,
            forbidden_names=frozenset({"id", "user_id", "identity"}),
        )

    def element(self, row: Row) -> dict[str, Any]:
        return {"identity": row.key, "properties": self.properties(row)}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return self._post("users" if self._bulk else None, elements)


class HeapAccountProperties(HeapDestination):
    """Upserts account properties by account id, up to 1000 accounts a call (heap.md 1.6).

    Parameters
    ----------
    account_id_configured
        Somebody has chosen the Account ID property in Heap; without it Heap drops the data.
    users_synced
        Users of these accounts have been sent before.
    """

    kind = "heap_account_properties"
    mode = Mode.UPSERT
    path = "/api/add_account_properties"

    def __init__(
        self,
        app: HeapApp,
        *,
        account_id_configured: bool,
        users_synced: bool,
        cleared: str = "(none)",
        batch_rows: int = BULK_ROWS,
    ) -> None:
        super().__init__(app, cleared=cleared)
        self._account_id_configured = account_id_configured
        self._users_synced = users_synced
        self.limits = Limits(
            batch_rows=min(batch_rows, BULK_ROWS),
            key_units=VALUE_UNITS,
            name_units=NAME_UNITS,
            value_units=VALUE_UNITS,
            junk_keys=JUNK_IDENTITIES,
            forbidden_names=frozenset({"id"}),
        )

    def refusal(self) -> str | None:
        if not self._account_id_configured:
            return (
                "Heap drops account properties until an Account ID property is chosen in Heap (Account > Manage > "
                "Account ID). Choose it, then set account_id_configured: true"
            )
        if not self._users_synced:
            return (
                "no user was synced yet: Heap joins accounts to users by a user property, so sync heap_user_properties "
                "first"
            )
        return None

    def element(self, row: Row) -> dict[str, Any]:
        return {"account_id": row.key, "properties": self.properties(row)}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return self._post("accounts", elements)
