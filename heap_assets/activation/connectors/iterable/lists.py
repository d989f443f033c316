"""Members of a static list, up to 1,000 a call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import orjson
from pydantic import Field, model_validator

from heap_assets.activation.connectors.inputs import MemberConnector, MemberSettings
from heap_assets.activation.connectors.iterable.preflight import tried
from heap_assets.activation.connectors.iterable.project import IterableDestination, ToIterable
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.verdict import RowVerdict
from heap_assets.config import Match
from heap_assets.sources.warehouse import Permission


class IterableListsSync(MemberSettings, ToIterable):
    """Members of a static list of Iterable.

    **To create there:** a server-side API key, and a static list. **What is matched:** the key with `identifier`.
    People whom Iterable does not have are left alone (`no_match`) unless `match: upsert` is set; in a project by e-mail
    every address becomes a user, and `match: upsert` has to be said. Who is no member any more is taken off the list,
    and from nothing else; members that were added in Iterable stay.

    **What can be refused:** addresses that Iterable does not take, which it names. **Never run against Iterable
    itself.**
    """

    takes_properties: ClassVar[bool] = False

    kind: Literal["iterable_lists"] = "iterable_lists"
    list_id: int = Field(ge=1, description="Id of the static list")
    match: Match = Field(default="update_only", description="update_only: no new users; upsert: missing ones are made")

    @model_validator(mode="after")
    def _match_is_possible(self) -> IterableListsSync:
        if self.match not in self.policies:
            raise ValueError(f"match: {self.match} is not possible here; it must be {' or '.join(self.policies)}")
        return self


class IterableListsConnector(MemberConnector[IterableListsSync]):
    """Members of an audience to a static list."""

    settings_model = IterableListsSync
    untried = "whether `project` says what the project tells users apart by: no call is known that tells it"

    def destination(self, table: str = "") -> IterableLists:
        return IterableLists(self.settings)

    def preflight(self) -> Iterator[Permission]:
        with self.api() as api:
            yield from tried(api, self.destination(), self.settings.list_id)


class IterableLists(IterableDestination):
    """Subscribes and unsubscribes."""

    mode = Mode.SET

    def __init__(self, settings: IterableListsSync) -> None:
        super().__init__(settings, "lists", 5)
        self._list = settings.list_id
        # what a project by e-mail has instead is that a user id alone makes nobody
        self._only_existing = settings.match == "update_only" and settings.project != "email"
        self._prefer_id = settings.match == "upsert" and settings.key_field == "userId"

    @property
    def target(self) -> str:
        return f"{super().target}:{self._list}"

    def element(self, row: Row) -> dict[str, Any]:
        member: dict[str, Any] = {self.key_field: row.key}
        return member | ({"preferUserId": True} if self._prefer_id and not row.removed else {})

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        removed = rows[0].removed
        only = b"" if removed or not self._only_existing else b'"updateExistingUsersOnly":true,'
        body = b'{"listId":' + orjson.dumps(self._list) + b"," + only + b'"subscribers":[' + b",".join(elements) + b"]}"
        return Request(f"{self.url}/api/lists/{'unsubscribe' if removed else 'subscribe'}", body)

    def failed(self, row: Row, bucket: str) -> RowVerdict:
        # who is not there is no member, and who was forgotten is none any more
        left = row.removed and bucket in ("notFound", "forgotten")
        return RowVerdict("acknowledged") if left else super().failed(row, bucket)
