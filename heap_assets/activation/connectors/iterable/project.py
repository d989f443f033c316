"""The project: its address, its key, its limits, and how an answer names the people that were not taken."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import polars as pl
from pydantic import Field, SecretStr

from heap_assets.activation.connectors.deletion import Calls, Deleted, Deletion, DeletionApi, json_call, refused
from heap_assets.activation.engine.auth import ApiKey
from heap_assets.activation.engine.destination import BaseDestination, Row
from heap_assets.activation.engine.limits import Limits, Rate
from heap_assets.activation.engine.value_rules import ValueRules
from heap_assets.activation.engine.verdict import Response, RowStatus, RowVerdict, Trouble, Verdict, reason_of
from heap_assets.config import Match, Region, VendorSettings

_HOSTS: Mapping[str, str] = {"us": "https://api.iterable.com", "eu": "https://api.eu.iterable.com"}
_ROWS, _BATCH_BYTES = 1_000, 4 << 20
_NOT_THERE = 404
_AROUND = 256
"""Bytes of a body that are not rows."""
_JUNK = frozenset({"null", "none", "nil", "undefined", "unknown", "anonymous", "0", "-1"})
_BUCKETS: Mapping[str, RowStatus] = {
    "conflict": "rejected",
    "forgotten": "invalid",
    "invalidData": "rejected",
    "invalid": "rejected",
    "notFound": "no_match",
}
"""What an answer says of people, to what it means for their rows."""
_STOP = {
    "BadApiKey": "Iterable does not accept api_key: it has to be a server-side key, of a project in this region",
    "NotFound": "Iterable has no list of list_id",
    "UniqueFieldsLimitExceeded": "the Iterable project has as many fields as it may have",
}


class ToIterable(VendorSettings):
    """A project of Iterable."""

    api_key: SecretStr = Field(description="Server-side API key of the project, as ${ITERABLE_API_KEY}")
    region: Region = Field(default=Region.US, description="Where the project's data resides")
    base_url: str | None = Field(default=None, description="Stands in for Iterable's host")
    project: Literal["email", "userID", "hybrid"] = Field(
        description="What the project tells users apart by (in Iterable: Settings, Project Settings)"
    )
    identifier: Literal["email", "userId"] | None = Field(
        default=None, description="What the key is; email in projects by e-mail, userId in others unless given"
    )

    @property
    def url(self) -> str:
        """The address that is called."""
        return (self.base_url or _HOSTS[self.region.value]).rstrip("/")

    @property
    def key_field(self) -> str:
        """Member of a row in a call that holds the key."""
        return self.identifier or ("email" if self.project == "email" else "userId")

    @property
    def policies(self) -> tuple[Match, ...]:
        """The match policies that Iterable can keep: a project by e-mail makes a user of any address."""
        return ("upsert",) if (self.project, self.key_field) == ("email", "email") else ("update_only", "upsert")


class IterableDestination(BaseDestination):
    """Base of the destinations at Iterable. `queue`: the kind of calls of which so many are taken in a second."""

    values = ValueRules(time="%Y-%m-%d %H:%M:%S +00:00")

    def __init__(self, settings: ToIterable, queue: str, calls_a_second: int, **limits: Any) -> None:
        key = settings.api_key.get_secret_value()
        self.kind, self.url, self.key_field = settings.kind, settings.url, settings.key_field
        self.auth = ApiKey(key, "Api-Key")
        self._account = hashlib.sha256(key.encode()).hexdigest()[:16]
        self.limits = Limits(
            batch_rows=_ROWS,
            batch_bytes=_BATCH_BYTES - _AROUND,
            row_bytes=_BATCH_BYTES - _AROUND,
            rates=(Rate(calls_a_second, 1, per_call=True),),
            shared_by=f"iterable:{self.url}:{self._account}:{queue}",
            junk_keys=_JUNK,
            **limits,
        )

    @property
    def target(self) -> str:
        return f"{self.kind}:{self.url}:{self._account}:{self.key_field}"

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        if self.key_field != "email":
            return {}
        same = pl.col("key").str.to_lowercase().is_duplicated() & ~pl.col("key").is_duplicated()
        return {"another key is the same e-mail address but for upper case": same}

    def trouble(self, response: Response) -> Trouble | None:
        code = str(response.fields.get("code"))
        return Trouble.stop(_STOP[code]) if code in _STOP and not response.accepted else super().trouble(response)

    def verdict(self, response: Response, rows: Sequence[Row]) -> Verdict:
        """A refused call takes nothing; an accepted one counts its failures, and names the people of most."""
        answer = response.fields
        fails = answer.get("failCount")
        if not response.accepted or not isinstance(fails, int):
            return Verdict(rest="unknown" if response.accepted else "not_applied", reason=reason_of(response))
        buckets, people = self._buckets(answer), [self._spelled(row.person) for row in rows]
        failed = {i: self.failed(rows[i], buckets[person]) for i, person in enumerate(people) if person in buckets}
        refused = self.refused(answer, rows)
        if fails > len(failed | refused):
            return Verdict(refused | failed, "unknown", f"Iterable refused {fails} rows and named {len(failed)}")
        if fails >= len(failed):
            return Verdict(refused | failed)
        # some events of a person failed, and nobody says which: they are sent again
        times = Counter(people)
        taken = {i: RowVerdict(self.accepted) for i, person in enumerate(people) if person not in buckets}
        return Verdict(taken | refused | {i: one for i, one in failed.items() if times[people[i]] == 1}, "unknown")

    def refused(self, answer: Mapping[str, Any], rows: Sequence[Row]) -> dict[int, RowVerdict]:
        """Return what an answer says of rows otherwise than by naming people."""
        del answer, rows
        return {}

    def failed(self, row: Row, bucket: str) -> RowVerdict:
        """Return the verdict of a row whose person is named."""
        del row
        return RowVerdict(_BUCKETS[bucket], f"{bucket}: Iterable does not take this {self.key_field}")

    def _buckets(self, answer: Mapping[str, Any]) -> dict[str, str]:
        """Return why each person failed, by the new names of the answer or the old ones."""
        kind = "Emails" if self.key_field == "email" else "UserIds"
        new = answer.get("failedUpdates") or {}
        buckets = {self._spelled(person): "invalid" for person in answer.get(f"invalid{kind}") or ()}
        return buckets | {self._spelled(person): why for why in _BUCKETS for person in new.get(why + kind) or ()}

    def _spelled(self, key: Any) -> str:
        # an answer has addresses in lower case
        return str(key).lower() if self.key_field == "email" else str(key)


class IterableDeletion(Deletion):
    """`/api/users/forget`: deletes, and keeps the person from being made again, until `/api/users/unforget`."""

    def __init__(self, settings: ToIterable) -> None:
        self._settings = settings

    def destination(self) -> DeletionApi:
        key = self._settings.api_key.get_secret_value()
        account = hashlib.sha256(key.encode()).hexdigest()[:16]
        limits = Limits(rates=(Rate(3, 1, per_call=True),), shared_by=f"iterable:{self._settings.url}:{account}:forget")
        return DeletionApi("iterable", f"{self._settings.url}:{account}", auth=ApiKey(key, "Api-Key"), limits=limits)

    def ask(self, keys: Sequence[str]) -> Calls:
        body = {self._settings.key_field: keys[0]}
        answer = yield json_call(f"{self._settings.url}/api/users/forget", body, reads=frozenset({_NOT_THERE}))
        if answer.status == _NOT_THERE:
            return Deleted("complete", note="no user has this key")
        return Deleted("requested", note="forgotten") if answer.accepted else refused(answer)
