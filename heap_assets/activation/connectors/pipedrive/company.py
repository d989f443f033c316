"""The company: its address, its token, what calls cost of the day, and its fields, whose keys are hashes."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlencode

import orjson
from pydantic import Field, SecretStr, model_validator

from heap_assets.activation.engine.auth import ApiKey
from heap_assets.activation.engine.destination import Destination
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.limits import Hint, Limits, Quota, Rate
from heap_assets.activation.engine.verdict import Response, RowVerdict, Trouble, reason_of
from heap_assets.config import VendorSettings

Objects = Literal["persons", "organizations", "deals"]
MISSING_STATUSES = frozenset({404, 410})
PAGE = 500
_OF_BOTH = {"name": "varchar", "owner_id": "int", "visible_to": "int"}
STANDARD: Mapping[str, Mapping[str, str]] = {
    "persons": {**_OF_BOTH, "org_id": "int", "marketing_status": "varchar"},
    "organizations": _OF_BOTH,
    "deals": {
        **dict.fromkeys(("title", "currency", "status"), "varchar"),
        **dict.fromkeys(("stage_id", "pipeline_id", "person_id", "org_id", "owner_id"), "int"),
        "value": "double",
        "expected_close_date": "date",
    },
}
"""Pipedrive's own fields that are written, with the type of custom field that takes the same."""
_THROTTLED, _FORBIDDEN = 429, 403
_COSTS = {"search": 20, "list": 10, "GET": 1, "POST": 5, "PATCH": 5}
"""Tokens of a call; Pipedrive's documents only say that a search costs most."""


class ToPipedrive(VendorSettings):
    """A company of Pipedrive."""

    company: str | None = Field(
        default=None, pattern=r"^[a-z0-9][a-z0-9-]*$", description="The part of its address before .pipedrive.com"
    )
    base_url: str | None = Field(default=None, description="Stands in for the company's address")
    api_token: SecretStr = Field(description="API token of a user, as ${PIPEDRIVE_API_TOKEN}")
    tokens_per_day: int = Field(
        default=30_000, ge=100, description="The company's budget, other apps included: 30,000 by plan and seats"
    )
    calls_per_2_seconds: int = Field(default=20, ge=1, description="Of one user's token, by plan")

    @property
    def url(self) -> str:
        """The address that is called."""
        return (self.base_url or f"https://{self.company}.pipedrive.com").rstrip("/")

    @model_validator(mode="after")
    def _address_is_whole(self) -> ToPipedrive:
        if self.company is None and self.base_url is None:
            raise ValueError("company: which one is it? It stands before .pipedrive.com in the address")
        return self


@dataclass(frozen=True)
class CompanyField:
    """A custom field: its key, its type, and of one with options their ids by label in lower case."""

    code: str
    type: str
    options: Mapping[str, int]

    def written(self, value: Any) -> Any:
        """Return a value as the field takes it. Raises ValueError for a label that it does not have."""
        if value is None or self.type not in ("enum", "set"):
            return value
        labels = str(value).casefold().split("||") if self.type == "set" else [str(value).casefold()]
        if unknown := [label for label in labels if label not in self.options]:
            raise ValueError(f"the field has no option {unknown[0]!r}")
        ids = [self.options[label] for label in labels]
        return ids if self.type == "set" else ids[0]


class PipedriveDestination(Destination):
    """Base of the destinations at Pipedrive. `of`: the objects, as paths name them."""

    def __init__(self, settings: ToPipedrive, of: Objects, **limits: Any) -> None:
        self.kind, self.url, self.of = settings.kind, settings.url, of
        self.auth = ApiKey(settings.api_token.get_secret_value(), "x-api-token")
        self.limits = Limits(
            rates=(Rate(settings.calls_per_2_seconds, 2, per_call=True),),
            # a call counts as so many rows as it costs tokens
            quotas=(Quota(settings.tokens_per_day, per_row=True, unit="tokens"),),
            hints=(Hint("x-ratelimit-remaining", "x-ratelimit-reset"),),
            shared_by=f"pipedrive:{self.url}",
            **limits,
        )

    def get(self, path: str, **query: Any) -> Request:
        """Return a call that reads: a search, a list, or one record, which may be gone."""
        cost = "search" if path.endswith("/search") else "GET" if path[-1].isdigit() else "list"
        query_text = f"?{urlencode(query)}" if query else ""
        reads = MISSING_STATUSES if cost == "GET" else frozenset[int]()
        return Request(f"{self.url}/api/v2/{path}{query_text}", method="GET", rows=_COSTS[cost], reads=reads)

    def write(self, record: Mapping[str, Any], id: str | None = None) -> Request:
        """Return a call that makes a record, or changes one, which may be gone. To make one twice makes two."""
        path, method = (self.of, "POST") if id is None else (f"{self.of}/{id}", "PATCH")
        choices: dict[str, Any] = {"repeatable": id is not None, "rows": _COSTS[method]}
        reads = frozenset[int]() if id is None else MISSING_STATUSES
        return Request(f"{self.url}/api/v2/{path}", orjson.dumps(record), method, reads=reads, **choices)

    def trouble(self, response: Response) -> Trouble | None:
        if response.status == 401:
            return Trouble.stop("Pipedrive does not accept api_token")
        if response.status == _FORBIDDEN and not response.fields:
            return Trouble.throttled(reason="HTTP 403 of the edge, after HTTP 429")
        if response.status == _THROTTLED and _tokens_left(response) < _COSTS["search"]:
            return Trouble.stop("the day's tokens of the Pipedrive company are used up")
        return super().trouble(response)

    def listed(self, path: str, **query: Any) -> Generator[Request, Response, list[Any]]:
        """Ask for all pages of a list."""
        items: list[Any] = []
        cursor: str | None = ""
        while cursor is not None:
            answer = yield self.get(path, limit=PAGE, **query, **({"cursor": cursor} if cursor else {}))
            items += answer.json["data"] or ()
            cursor = (answer.json.get("additional_data") or {}).get("next_cursor")
        return items

    def fields(self) -> Generator[Request, Response, dict[str, CompanyField]]:
        """Ask for the custom fields, by name and by key."""
        described = yield from self.listed(f"{self.of[:-1]}Fields")
        custom: dict[str, CompanyField] = {}
        for one in described:
            if one.get("is_custom_field", True):
                options = {str(o["label"]).casefold(): o["id"] for o in one.get("options") or ()}
                field = CompanyField(str(one["field_code"]), str(one["field_type"]), options)
                custom |= {str(one["field_name"]): field, field.code: field}
        return custom


def _tokens_left(response: Response) -> float:
    """Return what is left of the day's tokens, if an answer says it."""
    try:
        return float(response.headers["x-daily-ratelimit-token-remaining"])
    except (KeyError, ValueError):
        return math.inf


def why(response: Response) -> str:
    """Return the text of an answer that refuses."""
    return f"HTTP {response.status}: {response.fields.get('error') or reason_of(response)}"


def outcome(answer: Response) -> RowVerdict:
    """Return what became of the row of a write."""
    if answer.accepted and answer.fields.get("success") is not False:
        return RowVerdict("acknowledged", remote_id=str(answer.json["data"]["id"]))
    return RowVerdict("rejected", why(answer))
