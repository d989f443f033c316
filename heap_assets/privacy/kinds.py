"""Kinds of personal data that values show by their form: addresses, numbers of cards, of phones and of persons."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass

_EMAIL = r"[A-Za-z0-9._%+\-]+@[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)*\.[A-Za-z]{2,}"
_SSN = r"(?:^|[^\d\-])\d{3}-\d{2}-\d{4}(?:$|[^\d\-])"
_PHONE = r"^\s*(?:\+[1-9][\d \-().]{7,18}\d|\(\d{3}\)[ \-.]?\d{3}[ \-.]\d{4}|\d{3}[\-. ]\d{3}[\-. ]\d{4})\s*$"
_DIGITS_LIKE_A_CARD = r"^\s*\d(?:[ \-]?\d){12,18}\s*$"
_GROUPED_CARD = r"\d{4}([ \-])\d{4}[ \-]\d{4}[ \-]\d{1,7}"
_IPV4 = r"^\s*\d{1,3}(?:\.\d{1,3}){3}\s*$"


@dataclass(frozen=True)
class Kind:
    """A kind of personal data: values that match `pattern` (Rust regex) and pass `confirm`.

    With `mostly`, such values also occur by chance (an order number can pass the card checksum), so that most values of
    a column must be of the kind.
    """

    name: str
    pattern: str
    confirm: Callable[[str], bool] | None = None
    mostly: bool = False


def luhn(digits: str) -> bool:
    """Return whether digits pass the checksum of ISO/IEC 7812-1."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (1 + place % 2)
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def is_card(value: str) -> bool:
    """Return whether a text is a payment card number: length and prefix of a known issuer, and the checksum."""
    digits = re.sub(r"[ \-]", "", value.strip())
    prefixes = {13: r"4", 14: r"3[068]", 15: r"3[47]", 16: r"4|5[1-5]|2[2-7]|6011|65|35", 19: r"4|6"}
    prefix = prefixes.get(len(digits))
    return bool(prefix and re.match(prefix, digits) and len(set(digits)) > 1 and luhn(digits))


def _holds_card(value: str) -> bool:
    match = re.search(_GROUPED_CARD, value)
    return bool(match and is_card(match.group()))


def _is_ssn(value: str) -> bool:
    match = re.search(r"(\d{3})-(\d{2})-(\d{4})", value)
    if not match:
        return False
    area, group, serial = match.groups()
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _is_public_address(value: str) -> bool:
    try:
        return ipaddress.ip_address(value.strip()).is_global
    except ValueError:
        return False


KINDS = (
    Kind("email", _EMAIL),
    Kind("social_security_number", _SSN, _is_ssn),
    Kind("card_number", _GROUPED_CARD, _holds_card),
    Kind("card_number", _DIGITS_LIKE_A_CARD, is_card, mostly=True),
    Kind("phone", _PHONE, mostly=True),
    Kind("ip_address", _IPV4, _is_public_address, mostly=True),
)
