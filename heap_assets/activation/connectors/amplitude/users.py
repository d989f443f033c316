"""User properties by Identify."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import quote_plus

from heap_assets.activation.connectors.amplitude.project import (
    SHORTEST_ID,
    UNTRIED,
    AmplitudeDeletion,
    AmplitudeDestination,
    ToAmplitude,
)
from heap_assets.activation.connectors.inputs import PeopleConnector, RecordSettings
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.exchange import Request
from heap_assets.config import PROPERTIES

_USERS, _USER_BYTES = 200, 300_000


class AmplitudeUsersSync(RecordSettings, ToAmplitude):
    """User properties of Amplitude, by user id.

    **To create there:** nothing; the project's API key.

    **What is matched:** the key with the user id. Amplitude makes users that it does not know, and shows new values
    only after the user's next event.

    **What can be refused:** ids below 5 characters, placeholders as ids, and texts above 1,024 characters, which
    Amplitude would cut: they are not sent. Values that are gone are unset; one of country, region, city and dma resets
    the other three.

    **Never run against Amplitude itself,** and not said in its documents: how many users an Identify call may hold.
    """

    kind: Literal["amplitude_users"] = "amplitude_users"
    properties: dict[str, str] = PROPERTIES


class AmplitudeUsersConnector(PeopleConnector[AmplitudeUsersSync]):
    """Rows to users."""

    settings_model = AmplitudeUsersSync
    untried = UNTRIED
    deletes = AmplitudeDeletion

    def destination(self, table: str = "") -> AmplitudeUsers:
        return AmplitudeUsers(self.settings)


class AmplitudeUsers(AmplitudeDestination):
    """Sets and unsets user properties."""

    def __init__(self, settings: AmplitudeUsersSync) -> None:
        super().__init__(settings, SHORTEST_ID, batch_rows=_USERS, batch_bytes=_USER_BYTES)

    def element(self, row: Row) -> dict[str, Any]:
        cleared = dict.fromkeys(row.cleared, "-")
        changes = {operator: value for operator, value in (("$set", row.filled), ("$unset", cleared)) if value}
        return {"user_id": row.key, "user_properties": changes}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        body = b"identification=" + quote_plus(b"[" + b",".join(elements) + b"]").encode()
        return Request(f"{self.url}/identify", body, headers={"Content-Type": "application/x-www-form-urlencoded"})
