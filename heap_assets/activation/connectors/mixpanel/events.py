"""Events; an import that is refused in part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import polars as pl
from pydantic import Field, SecretStr, model_validator

from heap_assets import clock
from heap_assets.activation.connectors.inputs import EventRowConnector, EventRowSettings
from heap_assets.activation.connectors.mixpanel.project import (
    BATCH_BYTES,
    JUNK,
    LONGEST_TEXT,
    UNTRIED,
    MixpanelDeletion,
    ToMixpanel,
)
from heap_assets.activation.engine.auth import Basic
from heap_assets.activation.engine.destination import BaseDestination, Row
from heap_assets.activation.engine.events import derived_id, event_faults, unix_ms
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.limits import Limits, Rate
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.verdict import Response, RowVerdict, Verdict, reason_of
from heap_assets.errors import SettingsError
from heap_assets.values import read_times

_EVENTS, _EVENT_BYTES, _ID = 2_000, 1_000_000, 36
_SURELY_MS = 10**12
_EARLIEST, _AHEAD = datetime(1971, 1, 1, tzinfo=UTC), timedelta(hours=1)


class MixpanelEventsSync(EventRowSettings, ToMixpanel):
    """Rows of a table as events of Mixpanel, each once.

    **To create there:** nothing; the project's token, or a service account that may import.

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


class MixpanelEventsConnector(EventRowConnector[MixpanelEventsSync]):
    """Rows to events."""

    settings_model = MixpanelEventsSync
    untried = UNTRIED
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
            batch_bytes=BATCH_BYTES,
            row_bytes=_EVENT_BYTES,
            key_units=LONGEST_TEXT,
            value_units=LONGEST_TEXT,
            rates=(Rate(1_800_000, 60), Rate(2_000_000_000, 60, per_byte=True)),
            in_flight=20,
            shared_by=f"mixpanel:{self._url}:{self._project}",
            junk_keys=JUNK,
            forbidden_names=frozenset({"time", "distinct_id", "$insert_id", "token"}),
        )

    @property
    def target(self) -> str:
        return f"{self.kind}:{self._url}:{self._project}"

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        at = read_times(pl.col("time"))
        return {
            **event_faults(rows, LONGEST_TEXT),
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
