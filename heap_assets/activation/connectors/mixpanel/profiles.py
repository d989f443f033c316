"""Profiles of users and groups, whose refusal is a 200."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from heap_assets.activation.connectors.inputs import PeopleConnector, RecordSettings
from heap_assets.activation.connectors.mixpanel.project import (
    BATCH_BYTES,
    JUNK,
    LONGEST_TEXT,
    UNTRIED,
    MixpanelDeletion,
    ToMixpanel,
)
from heap_assets.activation.engine.destination import BaseDestination, Row
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.limits import Limits
from heap_assets.activation.engine.verdict import Response, Verdict, reason_of
from heap_assets.config import PROPERTIES

_PROFILES, _GROUPS = 2_000, 200


class MixpanelUsersSync(RecordSettings, ToMixpanel):
    """Profiles of Mixpanel's users, by distinct_id.

    **To create there:** nothing; the project's token.

    **What is matched:** the key with `distinct_id`. Missing profiles are made; values that are gone are unset.

    **What can be refused:** placeholders, and texts above 255 characters, which Mixpanel would cut, are not sent.

    **Never run against Mixpanel itself:** profiles beside a refused one are sent again, as nobody says they were taken.
    """

    kind: Literal["mixpanel_users"] = "mixpanel_users"
    properties: dict[str, str] = PROPERTIES


class MixpanelGroupsSync(RecordSettings, ToMixpanel):
    """Profiles of Mixpanel's groups, such as accounts, by group id. **To create there:** the group key of `group_key`
    (Project Settings, Group Keys). **What is matched:** the key with the group id. Missing groups are made; values
    that are gone are unset. **What can be refused:** as of users. **Never run against Mixpanel itself.**
    """

    kind: Literal["mixpanel_groups"] = "mixpanel_groups"
    properties: dict[str, str] = PROPERTIES
    group_key: str = Field(min_length=1, description="Group key of the project, such as company")


class MixpanelUsersConnector(PeopleConnector[MixpanelUsersSync]):
    """Rows to users."""

    settings_model = MixpanelUsersSync
    untried = UNTRIED
    deletes = MixpanelDeletion

    def destination(self, table: str = "") -> MixpanelProfiles:
        return MixpanelProfiles(self.settings, "/engage", _PROFILES)


class MixpanelGroupsConnector(PeopleConnector[MixpanelGroupsSync]):
    """Rows to groups."""

    settings_model = MixpanelGroupsSync
    untried = UNTRIED

    def destination(self, table: str = "") -> MixpanelProfiles:
        return MixpanelProfiles(self.settings, "/groups", _GROUPS, group_key=self.settings.group_key)


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
            batch_rows=most // 2,
            batch_bytes=BATCH_BYTES,
            key_units=LONGEST_TEXT,
            value_units=LONGEST_TEXT,
            junk_keys=JUNK,
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
