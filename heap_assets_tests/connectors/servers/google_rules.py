"""What Google's Data Manager refuses at once: the rules of its request messages."""

from __future__ import annotations

from typing import Any

from heap_assets_tests.connectors.servers.shapes import (
    Check,
    Refusal,
    anything,
    flag,
    instant,
    items,
    message,
    number,
    one_of,
    pattern,
    text,
)

MEMBERS, EVENTS, DESTINATIONS, IDENTIFIERS = 10_000, 2_000, 10, 10
CONSENTS = ("CONSENT_STATUS_UNSPECIFIED", "CONSENT_GRANTED", "CONSENT_DENIED")
ACCOUNT_TYPES = (
    "GOOGLE_ADS",
    "DISPLAY_VIDEO_PARTNER",
    "DISPLAY_VIDEO_ADVERTISER",
    "DATA_PARTNER",
    "GOOGLE_ANALYTICS_PROPERTY",
)
EVENT_SOURCES = ("WEB", "APP", "IN_STORE", "PHONE", "OTHER")
MEMBER_KINDS = ("userData", "mobileData", "pairData", "userIdData", "ppidData")
_HASHES = {"HEX": "[0-9a-f]{64}", "BASE64": "[A-Za-z0-9+/]{43}="}


def _user_data(encoding: Any) -> Check:
    digest = pattern(
        _HASHES["BASE64" if encoding == "BASE64" else "HEX"], "a SHA-256 digest in the encoding is expected"
    )
    address = {
        "givenName": digest,
        "familyName": digest,
        "regionCode": pattern("[A-Z]{2}", "two upper-case letters are expected"),
        "postalCode": text,
    }
    identifier = {
        "emailAddress": digest,
        "phoneNumber": digest,
        "address": message(address, required=tuple(address)),
    }
    return message(
        {"userIdentifiers": items(message(identifier, exactly_one=tuple(identifier)), 1, IDENTIFIERS)},
        required=("userIdentifiers",),
    )


CONSENT = message({"adUserData": one_of(CONSENTS), "adPersonalization": one_of(CONSENTS)})
_ACCOUNT = message(
    {"accountType": one_of(ACCOUNT_TYPES), "accountId": pattern(r"\d+", "digits are expected")},
    required=("accountType", "accountId"),
)
_DESTINATION = message(
    {
        "reference": text,
        "operatingAccount": _ACCOUNT,
        "loginAccount": _ACCOUNT,
        "linkedAccount": _ACCOUNT,
        "productDestinationId": text,
    },
    required=("operatingAccount", "productDestinationId"),
)
_TERMS = message({"customerMatchTermsOfServiceStatus": one_of(("ACCEPTED", "REJECTED"))})


def _member(encoding: Any, consent: bool) -> Check:
    names = items(text, 1, IDENTIFIERS)
    kinds: dict[str, Check] = {
        "userData": _user_data(encoding),
        "mobileData": message({"mobileIds": names}, required=("mobileIds",)),
        "pairData": message({"pairIds": names}, required=("pairIds",)),
        "userIdData": message({"userId": text}, required=("userId",)),
        "ppidData": message({"ppids": names}, required=("ppids",)),
    }
    rest: dict[str, Check] = {"destinationReferences": items(text, 0, DESTINATIONS)}
    return message({**kinds, **rest, **({"consent": CONSENT} if consent else {})}, exactly_one=MEMBER_KINDS)


def _event(encoding: Any) -> Check:
    ids = ("gclid", "gbraid", "wbraid")
    identifiers = dict.fromkeys(ids, text) | {"sessionAttributes": text, "landingPageDeviceInfo": anything}
    return message(
        {
            "destinationReferences": items(text, 0, DESTINATIONS),
            "transactionId": text,
            "eventTimestamp": instant,
            "lastUpdatedTimestamp": instant,
            "userData": _user_data(encoding),
            "consent": CONSENT,
            "adIdentifiers": message(identifiers, exactly_one=ids),
            "currency": pattern("[A-Z]{3}", "a currency code of three letters is expected"),
            "conversionValue": number,
            "eventSource": one_of(EVENT_SOURCES),
            "cartData": anything,
            "customVariables": items(
                message({"variable": text, "value": text}, required=("variable", "value")), 0, 100
            ),
        },
        required=("eventTimestamp",),
    )


def refusals(verb: str, body: Any) -> list[Refusal]:
    """Return what is wrong with a body; verbs are `members:` `ingest`, `remove`, `removeAll`, and `events:ingest`."""
    encoding = body.get("encoding") if isinstance(body, dict) else None
    common: dict[str, Check] = {"destinations": items(_DESTINATION, 1, DESTINATIONS), "validateOnly": flag}
    encodings: dict[str, Check] = {"encoding": one_of(tuple(_HASHES))}
    if verb == "members:removeAll":
        return list(message(common, required=("destinations",))(body, ""))
    rows = "events" if verb == "events:ingest" else "audienceMembers"
    record = _event(encoding) if rows == "events" else _member(encoding, consent=verb == "members:ingest")
    fields = common | encodings | {rows: items(record, 1, EVENTS if rows == "events" else MEMBERS)}
    if verb != "members:remove":
        fields["consent"] = CONSENT
    if verb == "members:ingest":
        fields["termsOfService"] = _TERMS
    told = list(message(fields, required=("destinations", rows))(body, ""))
    if not isinstance(body, dict) or told:
        return told
    if encoding is None and any("userData" in record for record in body[rows]):
        return [("encoding", "Required field is not set.")]
    accepted = body.get("termsOfService", {}).get("customerMatchTermsOfServiceStatus") == "ACCEPTED"
    if verb == "members:ingest" and not accepted and any("userData" in record for record in body[rows]):
        return [("termsOfService", "The terms of service of Customer Match are not accepted.")]
    return []
