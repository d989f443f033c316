"""Members of an audience (a user list) by the Data Manager API, up to 10,000 a request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, ClassVar, Literal

import orjson
from pydantic import Field, model_validator

from heap_assets.activation.connectors.google.data_manager import (
    EXAMPLE_DIGEST,
    GRANTED,
    UNTRIED,
    DataManagerDestination,
    ToDataManager,
    previewed,
)
from heap_assets.activation.connectors.google.people import CONSENT, DATA_MANAGER, NAMES, GooglePeopleSettings
from heap_assets.activation.connectors.inputs import MemberConnector, MemberSettings
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.spec import Mode
from heap_assets.sources.warehouse import Permission

_MEMBERS = 10_000
_NO_DEVICE = "00000000-0000-0000-0000-000000000000"
_TERMS = {"customerMatchTermsOfServiceStatus": "ACCEPTED"}


class GoogleAudiencesSync(MemberSettings, GooglePeopleSettings, ToDataManager):
    """Members of a Customer Match audience of Google, by the Data Manager API.

    **To create there:** the Data Manager API in a Google Cloud project; a service account (or a user) that may use the
    Google Ads account; in Google Ads an audience of the type customer list, for contact data, mobile ids or user ids.

    **What is matched:** the key is an identifier: `email`, `phone` (with its country code), `mobile_id` or `user_id`.
    `properties` add identifiers of the same person: email, phone, and an address of given_name, family_name,
    region_code and postal_code. They are normalised and hashed with SHA-256 here. Who left, or has no `consent` any
    more, is removed: by all that the row says, or by the key alone if the row is gone; so keep rows and use `member`
    where there are several identifiers. Members end by the list's own membership duration, too.

    **What can be refused:** a request is queued whole or refused whole; a row that it is refused for is named, and the
    others are sent without it. What becomes of a request is asked for until it is done, if need be by later runs; what
    is not done within 48 hours is sent once more, which does no harm. Rows that are refused then are counted and not
    named. The first population of an audience takes up to 48 hours, in which its unanswered rows raise no alarm.
    **Never run against Google itself.**

    ```yaml
    kind: google_audiences
    account_id: 123-456-7890
    service_account: ${GOOGLE_SERVICE_ACCOUNT}
    audience_id: "8000000001"
    terms: accepted
    key: email                 # identifier type of profiles; key_identifier says what it is to Google
    member: in_trial           # audience or boolean trait
    consent: ads_consent
    properties: {phone: phone}
    ```
    """

    first_population: ClassVar[timedelta] = timedelta(hours=48)

    kind: Literal["google_audiences"] = "google_audiences"
    consent: str = CONSENT
    audience_id: str = Field(pattern=r"^[0-9]+$", description="Id of the audience (user list)")
    key_identifier: Literal["email", "phone", "mobile_id", "user_id"] = Field(
        default="email", description="What the key is"
    )
    terms: Literal["accepted"] = Field(
        description="accepted: you have accepted the terms of Customer Match, which every request says"
    )

    @model_validator(mode="after")
    def _properties_are_identifiers(self) -> GoogleAudiencesSync:
        contact = self.key_identifier in NAMES
        allowed = [name for name in NAMES if contact and name != self.key_identifier]
        if unknown := sorted(set(self.properties) - set(allowed)):
            raise ValueError(f"properties: {unknown[0]!r} is none of {', '.join(allowed) or 'them: there are none'}")
        return self


class GoogleAudiencesConnector(MemberConnector[GoogleAudiencesSync]):
    """Members of an audience to a user list."""

    settings_model = GoogleAudiencesSync
    untried = UNTRIED

    def destination(self, table: str = "") -> GoogleAudience:
        return GoogleAudience(self.settings)

    def preflight(self) -> Iterator[Permission]:
        with self.api() as api:
            yield from previewed(api, self.destination().preview())


class GoogleAudience(DataManagerDestination):
    """Adds and removes members."""

    kind = "google_audiences"
    mode = Mode.SET
    rows_are = "audienceMembers"

    def __init__(self, settings: GoogleAudiencesSync) -> None:
        super().__init__(settings, settings.audience_id, _MEMBERS)
        self._key, self.recipes = settings.key_identifier, settings.recipes
        self.key_recipe = self.recipes.get(self._key)

    def element(self, row: Row) -> dict[str, Any]:
        if self._key == "mobile_id":
            return {"mobileData": {"mobileIds": [row.identifier]}}
        if self._key == "user_id":
            return {"userIdData": {"userId": row.identifier}}
        values = {**row.values, self._key: row.identifier}
        return {"userData": {"userIdentifiers": DATA_MANAGER.identifiers(values)}}

    def preview(self) -> Request:
        """Return a call that Google only checks, of nobody."""
        identifier = {"mobile_id": _NO_DEVICE, "user_id": "sync-check"}.get(self._key, EXAMPLE_DIGEST)
        element = orjson.dumps(self.element(Row("", "", {}, identifier=identifier)))
        beside = {"consent": GRANTED, "termsOfService": _TERMS, "validateOnly": True}
        return self.call("audienceMembers:ingest", [element], **beside)

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        if rows[0].removed:
            return self.call("audienceMembers:remove", elements)
        return self.call("audienceMembers:ingest", elements, consent=GRANTED, termsOfService=_TERMS)
