"""Identifiers of people as Google's APIs take them: normalised, hashed with SHA-256, four parts to an address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from heap_assets.activation.engine.value_rules import Recipe
from heap_assets.config import HashedSettings

_ADDRESS = ("given_name", "family_name", "region_code", "postal_code")
NAMES = ("email", "phone", *_ADDRESS)
CONSENT: Any = Field(description="Boolean trait or column of who consents to advertising; without true none is sent")
"""The field `consent` of kinds that send nobody without it."""
CLICKS = ("gclid", "gbraid", "wbraid")
"""Ids of a click, of which a conversion has one."""


class GooglePeopleSettings(HashedSettings):
    """How people are known to Google."""

    gmail_suffix: Literal["kept", "dropped"] = Field(
        default="kept", description="What follows a + in addresses at gmail.com; older samples of Google drop it"
    )

    @property
    def recipes(self) -> Mapping[str, Recipe]:
        """Property to how it is written (destinations_b.md 1.4)."""
        email = "email_without_dots" if self.gmail_suffix == "kept" else "email_without_suffix"
        return {
            "email": Recipe(email),
            "phone": Recipe("phone_e164"),
            "given_name": Recipe("name"),
            "family_name": Recipe("name"),
            "region_code": Recipe("country_upper", hashed=False),
            "postal_code": Recipe("trim", hashed=False),
        }


@dataclass(frozen=True)
class Spelling:
    """What the identifiers are called in one of the APIs."""

    email: str
    phone: str
    postal: str
    parts: tuple[str, str, str, str]

    def identifiers(self, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the identifiers that a row has; an address needs all of its parts."""
        identifiers: list[dict[str, Any]] = [
            {called: values[name]}
            for name, called in (("email", self.email), ("phone", self.phone))
            if values.get(name) is not None
        ]
        address = [values.get(name) for name in _ADDRESS]
        if None not in address:
            identifiers.append({self.postal: dict(zip(self.parts, address, strict=True))})
        return identifiers


DATA_MANAGER = Spelling(
    "emailAddress", "phoneNumber", "address", ("givenName", "familyName", "regionCode", "postalCode")
)
ADS = Spelling(
    "hashedEmail",
    "hashedPhoneNumber",
    "addressInfo",
    ("hashedFirstName", "hashedLastName", "countryCode", "postalCode"),
)
