"""Mixpanel: profiles of users and groups, and events; an import that is refused in part, and profiles whose refusal is
a 200."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import polars as pl
from pydantic import Field, SecretStr, model_validator

from heap_assets import clock
from heap_assets.activation.connectors.deletion import Calls, Deleted, Deletion, DeletionApi, json_call, refused
from heap_assets.activation.connectors.inputs import (
    EventRowConnector,
    EventRowSettings,
    PeopleConnector,
    RecordSettings,
)
from heap_assets.activation.engine.auth import Basic, Bearer
from heap_assets.activation.engine.destination import BaseDestination, Row
from heap_assets.activation.engine.events import derived_id, event_faults, unix_ms
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.limits import Limits, Rate
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.verdict import Response, RowVerdict, Verdict, reason_of
from heap_assets.config import PROPERTIES, VendorSettings
from heap_assets.errors import SettingsError
from heap_assets.values import read_times

_HOSTS: Mapping[str, str] = {
    "us": "https://api.mixpanel.com",
    "eu": "https://api-eu.mixpanel.com",
    "in": "https://api-in.mixpanel.com",
}
_DELETION: Mapping[str, str] = {
    "us": "https://mixpanel.com",
    "eu": "https://eu.mixpanel.com",
    "in": "https://in.mixpanel.com",
}
_EVENTS, _PROFILES, _GROUPS, _EVENT_BYTES, _TEXT, _ID = 2_000, 2_000, 200, 1_000_000, 255, 36
_BATCH_BYTES = 1_900_000
"""Newer pages allow 10 MB, older ones 2."""
_SURELY_MS = 10**12
_EARLIEST, _AHEAD = datetime(1971, 1, 1, tzinfo=UTC), timedelta(hours=1)
_JUNK = frozenset(
    ("anon", "anonymous", "nil", "none", "null", "n/a", "na", "undefined", "unknown", "<nil>", "0", "-1")
) | {"true", "false", "[]", "{}", "00000000-0000-0000-0000-000000000000"}
_UNTRIED = "with what sends Mixpanel has no call that only looks, and any property and event is made when it comes"


class ToMixpanel(VendorSettings):
    """A project of Mixpanel."""

    project_id: int = Field(ge=1, description="Project ID (in Mixpanel: Project Settings, Overview)")
    token: SecretStr = Field(description="Project token, as ${MIXPANEL_TOKEN}")
    region: Literal["us", "eu", "in"] = Field(default="us", description="Where the project's data resides")
    base_url: str | None = Field(default=None, description="Stands in for Mixpanel's host")

    deletion_token: SecretStr | None = Field(
        default=None, description="GDPR OAuth token of a person, with which erased people are deleted; it ends yearly"
    )
    deletion_url: str | None = Field(default=None, description="Stands in for the host of deletion requests")
    compliance: Literal["GDPR", "CCPA"] = Field(default="GDPR", description="Law that deletion requests name")

    @property
    def url(self) -> str:
        """The address that is called."""
        return (self.base_url or _HOSTS[self.region]).rstrip("/")


class MixpanelUsersSync(RecordSettings, ToMixpanel):
    """Profiles of Mixpanel's users, by distinct_id.

    **What is matched:** the key with `distinct_id`. Missing profiles are made; values that are gone are unset.

    **What can be refused:** placeholders, and texts above 255 characters, which Mixpanel would cut, are not sent.

    **Never run against Mixpanel itself:** profiles beside a refused one are sent again, as nobody says they were taken.
    """

    kind: Literal["mixpanel_users"] = "mixpanel_users"
    properties: dict[str, str] = PROPERTIES


class MixpanelGroupsSync(RecordSettings, ToMixpanel):
    """Profiles of Mixpanel's groups, such as accounts, by group id. **To create there:** the group key of `group_key`
    (Project Settings, Group Keys). **What is matched:** the key with the group id. Missing groups are made; values
    that are gone are unset. **Never run against Mixpanel itself.**
    """

    kind: Literal["mixpanel_groups"] = "mixpanel_groups"
    properties: dict[str, str] = PROPERTIES
    group_key: str = Field(min_length=1, description="Group key of the project, such as company")


class MixpanelEventsSync(EventRowSettings, ToMixpanel):
    """Rows of a table as events of Mixpanel, each once.

    **What is matched:** nothing. A row that arrives twice has the same `$insert_id` and counts once.

    **What can be refused:** events without a time (`timestamp_column`, or the table's `created_at`), and those before
    1971 or more than an hour ahead, are not sent. Mixpanel names the rows that it refuses and takes the others of the
    call. **Never run against Mixpanel itself.**
    """

    kind: Literal["mixpanel_events"] = "mixpanel_events"
    service_account: str | None = Field(
        default=None, description="User name of a service account, instead of the token"
    )
    service_secret: SecretStr | None = Field(default=None, description="Its secret, as ${MIXPANEL_SECRET}")

    @model_validator(mode="after")
    def _account_is_whole(self) -> MixpanelEventsSync:
        if (self.service_account is None) != (self.service_secret is None):
            raise ValueError("service_account: give both service_account and service_secret, or neither")
        return self


class MixpanelDeletion(Deletion):
    """`/api/app/data-deletions/v3.0`, up to 1,999 users; a task that is done within 30 days."""

    ids_per_call = 1_999

    def __init__(self, settings: ToMixpanel) -> None:
        self._settings = settings
        host = (settings.deletion_url or _DELETION[settings.region]).rstrip("/")
        self._url, self._token = f"{host}/api/app/data-deletions/v3.0/", settings.token.get_secret_value()
        self.missing = "" if settings.deletion_token else "deletion_token"

    def destination(self) -> DeletionApi:
        token = self._settings.deletion_token
        limits = Limits(rates=(Rate(1, 1, per_call=True),), shared_by=f"mixpanel deletion:{self._settings.project_id}")
        login = Bearer(token.get_secret_value() if token else "")
        return DeletionApi("mixpanel", str(self._settings.project_id), auth=login, limits=limits)

    def ask(self, keys: Sequence[str]) -> Calls:
        body = {"distinct_ids": list(keys), "compliance_type": self._settings.compliance}
        answer = yield json_call(f"{self._url}?token={self._token}", body)
        results = answer.fields.get("results")
        results = results[0] if isinstance(results, list) and results else results
        if not answer.accepted or not isinstance(results, dict):
            return refused(answer)
        return Deleted("pending", str(results["tracking_id"]))

    def poll(self, request_id: str) -> Calls:
        answer = yield Request(f"{self._url}{request_id}?token={self._token}", method="GET", rows=0)
        results = answer.fields.get("results")
        results = results[0] if isinstance(results, list) and results else results
        status = results.get("status") if isinstance(results, dict) else None
        if status == "SUCCESS":
            return Deleted("complete", request_id)
        if status in ("FAILURE", "REVOKED", "NOT_FOUND"):
            return Deleted("failed", request_id, f"Mixpanel says {status}")
        return Deleted("pending", request_id) if answer.accepted else refused(answer)


class MixpanelUsersConnector(PeopleConnector[MixpanelUsersSync]):
    """Rows to users."""

    settings_model = MixpanelUsersSync
    untried = _UNTRIED
    deletes = MixpanelDeletion

    def destination(self, table: str = "") -> MixpanelProfiles:
        return MixpanelProfiles(self.settings, "/engage", _PROFILES)


class MixpanelGroupsConnector(PeopleConnector[MixpanelGroupsSync]):
    """Rows to groups."""

    settings_model = MixpanelGroupsSync
    untried = _UNTRIED

    def destination(self, table: str = "") -> MixpanelProfiles:
        return MixpanelProfiles(self.settings, "/groups", _GROUPS, group_key=self.settings.group_key)


class MixpanelEventsConnector(EventRowConnector[MixpanelEventsSync]):
    """Rows to events."""

    settings_model = MixpanelEventsSync
    untried = _UNTRIED
    deletes = MixpanelDeletion

    def destination(self, table: str = "") -> MixpanelEvents:
        return MixpanelEvents(self.settings)

    def check(self) -> None:
        sync = self.settings
        if sync.timestamp_column is None and self.warehouse_tables[sync.source].created_at is None:
            raise SettingsError(
                f"sync.{self.name}.timestamp_column: Mixpanel takes no event without a time: name the column of "
                f"{sync.source} that says when it happened"
            )


class MixpanelProfiles(BaseDestination):
    """Sets and unsets properties of profiles.

    `path`, `most`: where to, and the updates that one call takes. `group_key`: of groups.
    """

    def __init__(
        self, settings: MixpanelUsersSync | MixpanelGroupsSync, path: str, most: int, group_key: str | None = None
    ) -> None:
        self.kind, self._url, self._path, self._group_key = settings.kind, settings.url, path, group_key
        self._token, self._project = settings.token.get_secret_value(), settings.project_id
        # a row that sets and unsets makes two updates
        self.limits = Limits(
            batch_rows=most // 2, batch_bytes=_BATCH_BYTES, key_units=_TEXT, value_units=_TEXT, junk_keys=_JUNK
        )

    @property
    def target(self) -> str:
        group = "" if self._group_key is None else f":{self._group_key}"
        return f"{self.kind}:{self._url}:{self._project}{group}"

    def element(self, row: Row) -> list[dict[str, Any]]:
        address = {"$token": self._token, "$distinct_id": row.key}
        if self._group_key is not None:
            address = {"$token": self._token, "$group_key": self._group_key, "$group_id": row.key}
        return [
            {**address, operator: value} for operator, value in (("$set", row.filled), ("$unset", row.cleared)) if value
        ]

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        body = b"[" + b",".join(element[1:-1] for element in elements) + b"]"
        return Request(f"{self._url}{self._path}?verbose=1&strict=1&ip=0", body)

    def verdict(self, response: Response, rows: Sequence[Row]) -> Verdict:
        """A call is taken if its body says so: a refused one has the status 200 too."""
        answer = response.json
        taken = answer.get("status") if isinstance(answer, dict) else answer
        if response.accepted and taken == 1:
            return Verdict()
        return Verdict(rest="unknown", reason=reason_of(response))


class MixpanelEvents(BaseDestination):
    """Imports events; the same event, time, distinct_id and `$insert_id` count once."""

    kind = "mixpanel_events"
    mode = Mode.INSERT
    required = ("event_key", "event", "time")

    def __init__(self, settings: MixpanelEventsSync) -> None:
        self._url, self._project, self._source = settings.url, settings.project_id, settings.source
        secret = settings.service_secret
        token = settings.token.get_secret_value()
        account = settings.service_account
        self.auth = Basic(account, secret.get_secret_value()) if account and secret else Basic(token)
        self.limits = Limits(
            batch_rows=_EVENTS,
            batch_bytes=_BATCH_BYTES,
            row_bytes=_EVENT_BYTES,
            key_units=_TEXT,
            value_units=_TEXT,
            rates=(Rate(1_800_000, 60), Rate(2_000_000_000, 60, per_byte=True)),
            in_flight=20,
            shared_by=f"mixpanel:{self._url}:{self._project}",
            junk_keys=_JUNK,
            forbidden_names=frozenset({"time", "distinct_id", "$insert_id", "token"}),
        )

    @property
    def target(self) -> str:
        return f"{self.kind}:{self._url}:{self._project}"

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        at = read_times(pl.col("time"))
        return {
            **event_faults(rows, _TEXT),
            "it has no time": pl.col("time").is_null(),
            "time is before 1971 or more than an hour ahead": (at < _EARLIEST) | (at > clock.now() + _AHEAD),
        }

    def element(self, row: Row) -> dict[str, Any]:
        insert_id = derived_id(self._source, row.key)[:_ID]
        own = {"time": _time(row.extra["time"]), "distinct_id": row.person, "$insert_id": insert_id}
        return {"event": row.extra["event"], "properties": {**own, "ip": "0", **row.filled}}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        url = f"{self._url}/import?strict=1&project_id={self._project}"
        return Request(url, b"[" + b",".join(elements) + b"]")

    def verdict(self, response: Response, rows: Sequence[Row]) -> Verdict:
        """A 400 that names rows has taken the others; its field of the id has two names, so only the index is read."""
        answer = response.fields
        failed = answer.get("failed_records")
        named = [one for one in failed if type(one.get("index")) is int] if isinstance(failed, list) else []
        rows_refused = {one["index"]: RowVerdict("rejected", _reason(one)) for one in named}
        if response.accepted or (rows_refused and answer.get("num_records_imported") == len(rows) - len(rows_refused)):
            return Verdict(rows_refused)
        return Verdict(rows_refused, "unknown", reason_of(response))


def _time(text: str) -> int:
    """Return milliseconds, or seconds where milliseconds are so few that they would be read as seconds."""
    ms = unix_ms(text)
    return ms if ms >= _SURELY_MS else ms // 1000


def _reason(record: Mapping[str, Any]) -> str:
    return f"{record.get('field', 'event')}: {record.get('message', 'refused')}"
