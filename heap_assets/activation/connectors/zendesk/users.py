"""Users, up to 100 a job; a call only starts the job, whose results tell of each user in their order."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import polars as pl
from pydantic import Field, model_validator

from heap_assets.activation.connectors.inputs import PeopleConnector, RecordSettings
from heap_assets.activation.connectors.preflight import Fields
from heap_assets.activation.connectors.zendesk.account import FIELD_TYPES, ToZendesk, ZendeskApi
from heap_assets.activation.connectors.zendesk.read import ZendeskSource
from heap_assets.activation.engine.destination import BaseDestination, Row
from heap_assets.activation.engine.exchange import Exchange, Remember, Request, Wait
from heap_assets.activation.engine.prepare import VALUE
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.verdict import Response, RowVerdict, Verdict, reason_of
from heap_assets.config import PROPERTIES, Match, MatchSettings
from heap_assets.sources.warehouse import Permission

_ROWS, _KEY = 100, 255
_NOT_FOUND = 404
_SLOWER, _SLOWEST = 2.0, 10.0
"""Polls come so many times less often each time, up to so many times."""
_TEXTS = ("external_id", "name", "email", "phone", "alias", "details", "notes", "locale", "time_zone", "signature")
_STANDARD: Mapping[str, str] = {
    **dict.fromkeys((*_TEXTS, "remote_photo_url"), "text"),
    **dict.fromkeys(("organization_id", "default_group_id"), "integer"),
    **dict.fromkeys(("verified", "shared_phone_number"), "checkbox"),
    "tags": "list of texts",
}
"""Zendesk's own properties of a user, with the type of user field that takes the same."""
_FIELDS = Fields(
    "user field",
    "make it in the Admin Center, People, User fields",
    {**FIELD_TYPES, "list of texts": lambda column: column == pl.List(pl.String)},
)
_NEVER = frozenset({"id", "role", "custom_role_id", "suspended", "user_fields", "skip_verify_email"})
_REQUIRED = ("name", "email")
_NO_USER = re.compile(r"not.?found|does not exist", re.IGNORECASE)
_TAKEN = re.compile(r"already (been taken|being used)", re.IGNORECASE)


class ZendeskUsersSync(RecordSettings, MatchSettings, ToZendesk):
    """Users of Zendesk, by external id, e-mail address or id.

    **To create there:** an API token of an administrator (Admin Center, Apps and integrations), or an OAuth token that
    may write users; the user fields that are mapped, by their keys.

    **What is matched:** the key with `identifier`. Keys without a user are left alone (`no_match`) unless
    `match: upsert` is set, which needs a `name` for each. Zendesk's call that only updates does not know addresses: by
    `email` there is only `match: upsert`, which has to be said; it reaches agents too, and never changes a role. By
    `id` there is only `match: update_only`.

    **What is sent:** Zendesk's own properties of a user (`name`, `phone`, `notes`, ...) as such, all others as user
    fields: dates, numbers, true or false, and of a drop-down the tag. A withdrawn value is sent as null, but for name
    and email, which stay. Another email becomes the user's second one. New users get no mail to verify their address
    unless `verification_mails` is set.

    **What can be refused:** a value that does not fit; an external id and an address of two users (`invalid`). A user
    field that the account does not have would be ignored without a word: rows with a value for it are refused. A row
    counts once its job has said so; of a job that Zendesk has lost the rows are sent again. **Never run against Zendesk
    itself.**
    """

    matches: ClassVar[tuple[Match, ...]] = ("update_only", "upsert")

    kind: Literal["zendesk_users"] = "zendesk_users"
    properties: dict[str, str] = PROPERTIES
    identifier: Literal["external_id", "email", "id"] = Field(default="external_id", description="What the key is")
    verification_mails: bool = Field(default=False, description="New users are mailed to verify their address")
    requests_in_flight: int = Field(default=4, ge=1, le=10, description="Jobs at once; Zendesk takes 30 of all apps")
    poll_seconds: float = Field(default=1.0, gt=0, description="Between two looks at a job; up to ten times as long")

    def possible_matches(self) -> tuple[Match, ...]:
        """Return the policies that Zendesk can keep for this identifier."""
        return {"email": ("upsert",), "id": ("update_only",)}.get(self.identifier, self.matches)  # type: ignore[return-value]

    @model_validator(mode="after")
    def _new_users_have_a_name(self) -> ZendeskUsersSync:
        if self.match_policy == "upsert" and "name" not in self.properties:
            raise ValueError("properties: match: upsert makes users, who need a name: map `name`")
        return self


class ZendeskUsersConnector(PeopleConnector[ZendeskUsersSync]):
    """People to users."""

    settings_model = ZendeskUsersSync
    source_model = ZendeskSource

    def destination(self, table: str = "") -> ZendeskUsers:
        return ZendeskUsers(self.settings)

    def preflight(self) -> Iterator[Permission]:
        """Try the login, and whether each user field exists and takes what its column has."""
        destination = self.destination()
        with self.api() as api:
            kinds = api.through(destination.fields())
        yield Permission("login", passed=True, detail="user fields can be read")
        columns, own = self.column_types(), destination.own_fields(self.settings.properties)
        yield from _FIELDS.tried(sorted(own), kinds, columns)
        standard = sorted(self.settings.properties.keys() - own)
        yield from replace(_FIELDS, noun="property").tried(standard, _STANDARD, columns)


class ZendeskUsers(ZendeskApi, BaseDestination):
    """Updates or upserts users; the job of a batch is remembered before it is asked about."""

    kind = "zendesk_users"
    mode = Mode.UPSERT

    def __init__(self, settings: ZendeskUsersSync) -> None:
        self._key, self._poll = settings.identifier, settings.poll_seconds
        self._creates, self._mails = settings.match_policy == "upsert", settings.verification_mails
        self._own = self.own_fields(settings.properties)
        self._known: Mapping[str, str] | None = None
        super().__init__(settings, batch_rows=_ROWS, key_units=_KEY, forbidden_names=_NEVER | {self._key})

    @property
    def target(self) -> str:
        return f"{self.kind}:{self.url}:{self._key}"

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        same = pl.col("key").str.to_lowercase().is_duplicated() & ~pl.col("key").is_duplicated()
        faults = {"another key is the same but for upper case": same}
        if self._key == "id":
            faults["key is no id of a user"] = ~pl.col("key").str.contains(r"^[0-9]{1,18}$")
        if self._creates:
            faults["a new user needs a name"] = pl.col(f"{VALUE}name").is_null()
        return faults

    def element(self, row: Row) -> dict[str, Any]:
        user: dict[str, Any] = {self._key: int(row.key) if self._key == "id" else row.key}
        user |= {n: v for n, v in row.values.items() if n in _STANDARD and not (v is None and n in _REQUIRED)}
        if fields := {name: value for name, value in row.values.items() if name not in _STANDARD}:
            user["user_fields"] = fields
        return user | ({"skip_verify_email": True} if self._creates and not self._mails else {})

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        path, method = ("create_or_update_many", "POST") if self._creates else ("update_many", "PUT")
        return Request(f"{self.url}/api/v2/users/{path}.json", b'{"users":[' + b",".join(elements) + b"]}", method)

    def exchange(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Exchange:
        if self._own and self._known is None:
            self._known = yield from self.fields()
        missing = {i: sorted(self._own & row.filled.keys() - (self._known or {}).keys()) for i, row in enumerate(rows)}
        answer = yield self.request(elements, rows)
        if not answer.accepted:
            return Verdict(rest="not_applied", reason=reason_of(answer))
        state = {
            "job": str(answer.json["job_status"]["id"]),
            "missing": {str(i): n[0] for i, n in missing.items() if n},
        }
        yield Remember(state)
        return (yield from self.resume(state, rows))

    def resume(self, state: Mapping[str, Any], rows: Sequence[Row]) -> Exchange:
        url, wait = f"{self.url}/api/v2/job_statuses/{state['job']}.json", self._poll
        while True:
            answer = yield Request(url, method="GET", reads=frozenset({_NOT_FOUND}))
            if answer.status == _NOT_FOUND:  # they are kept for an hour, and only the last 100
                lost = RowVerdict("unknown", "Zendesk has no job of this id any more; it is sent again")
                return Verdict(dict.fromkeys(range(len(rows)), lost))
            job = answer.json["job_status"]
            if job["status"] in ("completed", "failed", "killed"):
                break
            yield Wait(wait)
            wait = min(wait * _SLOWER, self._poll * _SLOWEST)
        results = job.get("results") or []
        verdicts = {i: self._user(result) for i, result in enumerate(results[: len(rows)])}
        for i, name in state["missing"].items():
            verdicts[int(i)] = RowVerdict("rejected", f"Zendesk has no user field {name}: make it there")
        remaining: Literal["applied", "unknown"] = "applied" if job["status"] == "completed" else "unknown"
        return Verdict(verdicts, remaining if len(verdicts) == len(rows) else "unknown", f"the job {job['status']}")

    def _user(self, result: Mapping[str, Any]) -> RowVerdict:
        if result.get("status") in ("Created", "Updated"):
            return RowVerdict("acknowledged", remote_id=str(result["id"]))
        # the id of a failed result is no user's
        reason = f"{result.get('error')}: {result.get('details')}"
        if not self._creates and _NO_USER.search(reason):
            return RowVerdict("no_match", "Zendesk has no user with this key")
        return RowVerdict("invalid" if _TAKEN.search(reason) else "rejected", reason)

    @staticmethod
    def own_fields(properties: Mapping[str, str]) -> frozenset[str]:
        """Return the properties that are user fields."""
        return frozenset(properties) - _STANDARD.keys()

    def fields(self) -> Generator[Request, Response, Mapping[str, str]]:
        """Ask for key and type of all user fields: what is written to others is ignored, and nobody is told."""
        kinds, page = dict[str, str](), 1
        while page:
            url = f"{self.url}/api/v2/user_fields.json?per_page={_ROWS}&page={page}"
            document = (yield Request(url, method="GET")).json
            fields = [field for field in document["user_fields"] if field.get("active", True)]
            kinds |= {str(field["key"]): str(field.get("type", "")) for field in fields}
            page = page + 1 if document.get("next_page") else 0
        return kinds
