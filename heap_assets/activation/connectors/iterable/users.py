"""Users, up to 1,000 a call; the only call that leaves unknown ones alone is one of lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import orjson
from pydantic import Field, model_validator

from heap_assets.activation.connectors.inputs import PeopleConnector, RecordSettings
from heap_assets.activation.connectors.iterable.preflight import tried, tried_fields
from heap_assets.activation.connectors.iterable.project import IterableDeletion, IterableDestination, ToIterable
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.verdict import Response, RowVerdict, Verdict
from heap_assets.config import PROPERTIES, Match, MatchSettings
from heap_assets.sources.warehouse import Permission

_FORBIDDEN = frozenset({"email", "userid", "emaillistids", "unsubscribedchannelids", "unsubscribedmessagetypeids"}) | {
    "subscribedmessagetypeids"
}
"""Keys, and fields that change consent without leaving a trace."""


class IterableUsersSync(RecordSettings, MatchSettings, ToIterable):
    """Fields of Iterable's users, by user id or e-mail address.

    **To create there:** a server-side API key; the fields that are mapped, unless `create_fields` is set; a static list
    for `list_id`, if it is needed.

    **What is matched:** the key with `identifier`. Unknown people are left alone (`no_match`) unless `match: upsert` is
    set; in a project by e-mail every address becomes a user, and `match: upsert` has to be said. By user id in such a
    project nothing more is needed. In other projects Iterable leaves nobody alone but in one call, which subscribes
    people to a list: there `match: update_only` makes everybody whom it writes to a member of `list_id`, a list that is
    made for it and that no campaign and no journey uses.

    **What can be refused:** people whom Iterable has forgotten, keys that cannot be one, rows with a field that the
    project does not have. The type of a field is fixed for ever; one value of another type refuses the whole call, and
    its row is told by splitting. A withdrawn value is sent as null. Fields that change consent are never written. What
    depends on a new value, such as an e-mail or an event, has to wait 60 seconds: Iterable queues each kind of call by
    itself. **Never run against Iterable itself.**
    """

    kind: Literal["iterable_users"] = "iterable_users"
    properties: dict[str, str] = PROPERTIES
    list_id: int | None = Field(default=None, ge=1, description="Static list that match: update_only writes through")
    create_fields: bool = Field(default=False, description="Make fields that the project does not have")

    def possible_matches(self) -> tuple[Match, ...]:
        """Return the policies that Iterable can keep."""
        return self.policies

    @property
    def needs_list(self) -> bool:
        """Whether the call that leaves unknown people alone is one of lists."""
        return self.project != "email" and self.match_policy == "update_only"

    @model_validator(mode="after")
    def _has_its_list(self) -> IterableUsersSync:
        if self.needs_list and self.list_id is None:
            raise ValueError("list_id: match: update_only writes through a static list that is made for it: which one?")
        if self.list_id is not None and not self.needs_list:
            raise ValueError("list_id: leave it out: users are written through a list only where nothing else updates")
        return self


class IterableUsersConnector(PeopleConnector[IterableUsersSync]):
    """Rows to users."""

    settings_model = IterableUsersSync
    untried = "whether `project` says what the project tells users apart by: no call is known that tells it"
    deletes = IterableDeletion

    def destination(self, table: str = "") -> IterableUsers:
        return IterableUsers(self.settings)

    def preflight(self) -> Iterator[Permission]:
        sync, project = self.settings, self.destination()
        with self.api() as api:
            yield from tried(api, project, sync.list_id)
            makes = sync.create_fields or sync.needs_list
            yield from tried_fields(api, project, sync.properties, self.column_types(), makes=makes)


class IterableUsers(IterableDestination):
    """Updates or upserts fields."""

    mode = Mode.UPSERT

    def __init__(self, settings: IterableUsersSync) -> None:
        queue = "lists" if settings.needs_list else "users"
        super().__init__(settings, queue, 5, forbidden_names=_FORBIDDEN)
        self._list = settings.list_id
        self._creates = settings.match_policy == "upsert"
        self._fields = b"true" if settings.create_fields else b"false"

    def element(self, row: Row) -> dict[str, Any]:
        user = {self.key_field: row.key, "dataFields": dict(row.values)}
        by_id = self.key_field == "userId" and self._list is None
        return user | ({"preferUserId": self._creates} if by_id else {})

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        people = b"[" + b",".join(elements) + b"]}"
        if self._list is None:
            head = b'{"createNewFields":' + self._fields + b',"users":'
            return Request(f"{self.url}/api/users/bulkUpdate", head + people)
        head = b'{"listId":' + orjson.dumps(self._list) + b',"updateExistingUsersOnly":true,"subscribers":'
        return Request(f"{self.url}/api/lists/subscribe", head + people)

    def verdict(self, response: Response, rows: Sequence[Row]) -> Verdict:
        """A user may be taken without a field that the project does not have, which is no failure there."""
        verdict, fields = super().verdict(response, rows), set(response.fields.get("filteredOutFields") or ())
        missing = {i: sorted(fields & row.filled.keys()) for i, row in enumerate(rows)}
        dropped = {
            i: RowVerdict("rejected", f"the project has no field {names[0]}: make it there, or set create_fields")
            for i, names in missing.items()
            if names
        }
        return replace(verdict, rows={**dropped, **verdict.rows})
