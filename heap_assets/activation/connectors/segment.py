"""Base of the connectors that write to Segment's HTTP tracking API (heap.md 5)."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import polars as pl
from pydantic import Field, SecretStr

from heap_assets.activation.connectors.deletion import Calls, Deleted, Deletion, DeletionApi, json_call, refused
from heap_assets.activation.connectors.heap import JUNK_IDENTITIES
from heap_assets.activation.engine.auth import Bearer
from heap_assets.activation.engine.destination import BaseDestination, Row
from heap_assets.activation.engine.events import derived_id
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.limits import Limits, Rate
from heap_assets.activation.engine.verdict import Response, row_errors
from heap_assets.config import HeapSettings, Region, SyncSettings
from heap_assets.errors import SettingsError
from heap_assets.identity import HEAP_IDENTITY

HOSTS: Mapping[str, str] = {"us": "https://api.segment.io", "eu": "https://events.eu1.segmentapis.com"}
"""EU workspaces that post to the US host get no error and lose the data (heap.md 5)."""
PUBLIC_API: Mapping[str, str] = {"us": "https://api.segmentapis.com", "eu": "https://eu1.api.segmentapis.com"}
EVENT_BYTES, BATCH_BYTES, BATCH_EVENTS = 32 * 1024, 500 * 1024, 2500
_ENVELOPE = 1024
_SUFFIX = b'],"context":{"library":{"name":"heap_assets","version":"1"}},"integrations":{"Heap":false}}'


@dataclass(frozen=True)
class SegmentSource:
    """One Segment source.

    `write_key`: its write key; never shown.
    """

    write_key: str = field(repr=False)
    region: Literal["us", "eu"] = "us"
    base_url: str | None = None

    def __post_init__(self) -> None:
        if not self.write_key.strip():
            raise SettingsError("segment: write_key is empty; set it, for example to ${SEGMENT_WRITE_KEY}")
        if self.region not in HOSTS:
            raise SettingsError(f"segment: region is {self.region!r}; it must be us or eu")

    @classmethod
    def of(cls, sync: ToSegment) -> Self:
        """Return the source that a sync's settings name."""
        return cls(sync.write_key.get_secret_value(), sync.region.value, sync.url)

    @property
    def url(self) -> str:
        return (self.base_url or HOSTS[self.region]).rstrip("/")


class ToSegment(SyncSettings):
    """Settings of a sync that calls Segment."""

    cadence: ClassVar[str] = "* * * * *"
    in_every_plan: ClassVar[bool] = True

    write_key: SecretStr = Field(description="Segment's write key, as ${SEGMENT_WRITE_KEY}")
    region: Region = Field(default=Region.US, description="An EU workspace loses what is posted to the US host")
    url: str | None = Field(default=None, description="Base URL instead of Segment's own")
    deletion_token: SecretStr | None = Field(
        default=None, description="Token of Segment's public API, with which erased people are suppressed and deleted"
    )
    deletion_url: str | None = Field(default=None, description="Stands in for the host of Segment's public API")

    def called_url(self, heap: HeapSettings) -> str:
        """Return the URL that is called."""
        del heap
        return self.url or HOSTS[self.region.value]


class ToSegmentUser(ToSegment):
    """Settings of a sync that names users of Segment."""

    user_id: str = Field(default=HEAP_IDENTITY, description="Identifier type that is Segment's userId")

    @property
    def identifier_type(self) -> str | None:
        """The identifier type by which people are addressed."""
        return self.user_id or super().identifier_type


class SegmentDeletion(Deletion):
    """A regulation `SUPPRESS_WITH_DELETE`, up to 5,000 userIds: suppressed at once, deleted within 30 days."""

    ids_per_call = 5_000

    def __init__(self, settings: ToSegment) -> None:
        self._token = settings.deletion_token
        self._url = (settings.deletion_url or PUBLIC_API[settings.region.value]).rstrip("/")
        self.missing = "" if settings.deletion_token else "deletion_token"

    def destination(self) -> DeletionApi:
        limits = Limits(rates=(Rate(1, 1, per_call=True),), shared_by=f"segment regulations:{self._url}")
        login = Bearer(self._token.get_secret_value() if self._token else "")
        return DeletionApi("segment", self._url, auth=login, limits=limits)

    def ask(self, keys: Sequence[str]) -> Calls:
        body = {"regulationType": "SUPPRESS_WITH_DELETE", "subjectType": "USER_ID", "subjectIds": list(keys)}
        answer = yield json_call(f"{self._url}/regulations", body)
        data = answer.fields.get("data")
        if not answer.accepted or not isinstance(data, dict):
            return refused(answer)
        return Deleted("pending", str(data["regulateId"]), "suppressed")

    def poll(self, request_id: str) -> Calls:
        answer = yield Request(f"{self._url}/regulations/{request_id}", method="GET", rows=0)
        data = answer.fields.get("data") or {}
        status = (data.get("regulation") or data).get("overallStatus")
        if status == "FINISHED":
            return Deleted("complete", request_id, "suppressed and deleted")
        if status in ("FAILED", "PARTIAL_SUCCESS", "NOT_SUPPORTED", "INVALID"):
            # it says so if any destination of theirs cannot delete, although Segment itself has
            return Deleted("requested", request_id, f"Segment says {status}: look at its streams there")
        return Deleted("pending", request_id) if answer.accepted else refused(answer)


class SegmentDestination(BaseDestination):
    """Base of the destinations at Segment. Rows go to `key` (userId), `anonymous_id`, or both."""

    key_may_be_null = True
    limits = Limits(
        batch_rows=BATCH_EVENTS,
        batch_bytes=BATCH_BYTES - _ENVELOPE,
        row_bytes=EVENT_BYTES,
        rates=(Rate(1000, 1, per_call=True),),
        junk_keys=JUNK_IDENTITIES,
    )

    def __init__(self, source: SegmentSource) -> None:
        self.source = source

    @property
    def target(self) -> str:
        return f"{self.kind}:{self.source.url}:{self.source.write_key}"

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        has_anonymous = "anonymous_id" in rows.collect_schema()
        anonymous = pl.col("key").is_null() & (
            pl.col("anonymous_id").is_null() if has_anonymous else pl.lit(value=True)
        )
        return {"neither userId nor anonymousId": anonymous}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        token = base64.b64encode(f"{self.source.write_key}:".encode()).decode()
        body = b'{"batch":[' + b",".join(elements) + _SUFFIX
        return Request(f"{self.source.url}/v1/batch", body, headers={"Authorization": f"Basic {token}"})

    def rejections(self, response: Response, rows: Sequence[Row]) -> Mapping[int, str] | None:
        return row_errors(response, len(rows))

    def _addressed(self, kind: str, row: Row, message_id: str) -> dict[str, Any]:
        message: dict[str, Any] = {"type": kind, "messageId": message_id}
        if row.person is not None:
            message["userId"] = row.person
        if row.extra.get("anonymous_id") is not None:
            message["anonymousId"] = row.extra["anonymous_id"]
        return message

    def _upsert_id(self, row: Row) -> str:
        """Return a message id from content and run: Segment drops a repeated call, but not a value that returns."""
        return "heap_assets-" + derived_id(f"{self.kind}:{row.extra['fence']}", f"{row.key}:{row.extra['row_hash']}")


def anonymous_id(app_id: str, user_id: pl.Expr) -> pl.Expr:
    """Return the anonymousId under which a Heap user_id is known at Segment: `heap|<app>|<user_id>`."""
    return pl.concat_str(pl.lit(f"heap|{app_id}|"), user_id.cast(pl.String))
