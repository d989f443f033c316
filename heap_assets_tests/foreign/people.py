"""People of a company that was not designed for this product, and how their addresses are typed in forms."""

from __future__ import annotations

import random
import unicodedata
import uuid
from dataclasses import dataclass, field

FIRST_NAMES = ("ana", "bjørn", "chloë", "dev", "eva", "Jörg", "li", "mO", "zoé")
BAD_EMAILS = (None, "", " ", "n/a", "none@none.com", "test@test.com", "no@email", "-")
"""What a form holds of somebody who did not want to give an address."""

ZERO_WIDTH, BYTE_ORDER_MARK, WORD_JOINER, SOFT_HYPHEN = "\u200b", "\ufeff", "\u2060", "\u00ad"
SPELLINGS = (
    lambda email: email.upper(),
    lambda email: f" {email} ",
    lambda email: email.title(),
    lambda email: email + ZERO_WIDTH,
    lambda email: BYTE_ORDER_MARK + email,
    lambda email: email.replace("@", f"{WORD_JOINER}@"),
    lambda email: email.replace("firm", f"fi{SOFT_HYPHEN}rm").replace("mail", f"ma{SOFT_HYPHEN}il"),
    lambda email: unicodedata.normalize("NFD", email),
    lambda email: f"mailto:{email}",
    lambda email: f'"{email}"',
    lambda email: f"{email}.",
    lambda email: f"\u00a0{email}\u00a0",
)
"""Each of these is still the same address."""


@dataclass
class Person:
    """Somebody with everything that names them in some system.

    Attributes
    ----------
    email, more_emails
        As the person would spell them: lower case, NFC.
    identity
        Their Heap identity, if they ever signed in.
    devices
        Heap user ids; all migrate into the first once the person has an identity.
    contact, customer
        Keys in the CRM and in billing.
    """

    number: int
    email: str
    more_emails: list[str]
    firm: int
    identity: str | None
    contact: str | None
    customer: int | None
    devices: list[int] = field(default_factory=list)

    @property
    def inbox(self) -> str:
        """The address that everybody in accounting of this firm reads."""
        return f"billing@firm{self.firm}.example"


def make_person(dice: random.Random, number: int, *, identity_is_email: bool) -> Person:
    """Draw one person; about one in seven has a second address, seven in ten ever signed in."""
    name = f"{dice.choice(FIRST_NAMES).lower()}.{number}"
    firm = dice.randrange(1 + number // 9)
    email = f"{name}@firm{firm}.example"
    more = [f"{name}@mail{number % 7}.example"] if dice.random() < 0.15 else []
    signed_in = dice.random() < 0.7
    identity = email if identity_is_email else str(uuid.UUID(int=dice.getrandbits(128)))
    devices = [2**52 + number * 8 + k for k in range(dice.choice([1, 1, 1, 2, 3]))]
    if dice.random() < 0.3:
        devices.append(2**52 + 2**40 + number)
    return Person(
        number=number,
        email=email,
        more_emails=more,
        firm=firm,
        identity=identity if signed_in else None,
        contact=f"003{number:012d}" if dice.random() < 0.8 else None,
        customer=70_000 + number if dice.random() < 0.5 else None,
        devices=devices,
    )


def typed_by_somebody(dice: random.Random, email: str) -> str:
    """Return an address as people and forms write it: as it is most of the time."""
    return dice.choice(SPELLINGS)(email) if dice.random() < 0.3 else email
