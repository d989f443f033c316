"""What an answer means: for the call as a whole (:class:`Trouble`), and for each row of it (:class:`Verdict`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, get_args

import orjson

from heap_assets.errors import DeliveryError

FATAL = frozenset({401, 402, 403, 404, 405, 407, 410})
"""Statuses that neither a retry nor splitting the batch will change."""
TRANSIENT = frozenset({408, 425})
"""Statuses below 500 that are worth a retry."""
_THROTTLED = 429
_READ = 4096

RowStatus = Literal["acknowledged", "sent", "invalid", "rejected", "deferred", "no_match", "unknown"]
"""What became of a row. `acknowledged`: the destination has it; `sent`: it said that it took it, and only a later look
proves it. `rejected`: refused, and tried again, less often after equal refusals. `invalid` (cannot be meant: several
records have its key) and `no_match` (there is no record, and none is to be made): tried again when the row changes, or
after some days. `deferred`: to be sent at `until` or later. `unknown`: nobody knows."""
Remainder = Literal["applied", "not_applied", "unknown"]
"""What became of the rows that a verdict does not name."""


@dataclass(frozen=True)
class Response:
    """The answer to a request."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    """By lower-case name."""

    @property
    def accepted(self) -> bool:
        """Whether the call as a whole was accepted: any 2xx (heap.md 1.1)."""
        return 200 <= self.status < 300

    @property
    def json(self) -> Any:
        """The body as JSON; None if it is none."""
        try:
            # unlike json it has a limit of depth, and does not exhaust the stack before
            return orjson.loads(self.body)
        except ValueError:
            return None

    @property
    def fields(self) -> Mapping[str, Any]:
        """The members of the JSON object that the body is; empty if it is none."""
        document = self.json
        return document if isinstance(document, dict) else {}


@dataclass(frozen=True, slots=True)
class RowVerdict:
    """What became of one row."""

    status: RowStatus
    reason: str | None = None
    """Why; it may quote the destination, and is redacted before it is kept."""
    until: datetime | None = None
    """Of a deferred row: when it may be sent again (UTC)."""
    remote_id: str | None = None
    """The id of its record at the destination: kept, and given to later runs as `Row.remote_id`."""

    def __post_init__(self) -> None:
        if self.status not in get_args(RowStatus):
            raise DeliveryError(f"{self.status!r} is no status of a row; there are {', '.join(get_args(RowStatus))}")
        if self.until is not None and self.until.tzinfo is None:
            raise DeliveryError("`until` needs a zone")
        if (self.until is None) == (self.status == "deferred"):
            raise DeliveryError(f"a row that is {self.status} {'needs' if self.until is None else 'has no'} `until`")


@dataclass(frozen=True)
class Verdict:
    """What became of the rows of a call.

    Rows that are not named share the fate of `rest`: `applied` ones are what the destination's `accepted` says. Ones
    that were not applied are sent again without the named ones; if none is named, the batch is split until the row
    that is to blame is alone, and rejected for `reason`.
    """

    rows: Mapping[int, RowVerdict] = field(default_factory=dict)
    """By position in the call."""
    rest: Remainder = "applied"
    reason: str | None = None
    stop: str | None = None
    """Why the run must end here; what the verdict says of the rows is kept."""
    unnamed: Mapping[str, int] = field(default_factory=dict)
    """Reason to number of the rows that were refused, where the destination counts them and does not name them: reports
    count them as rejected, whatever the ledger holds of the rows."""


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a call as a whole, whatever its rows are; made by the four methods."""

    kind: Literal["throttled", "expired", "retry", "stop"]
    reason: str = ""
    seconds: float | None = None
    arrived: bool = True

    @classmethod
    def throttled(cls, seconds: float | None = None, reason: str = "HTTP 429") -> Trouble:
        """All calls pause for so many seconds (else a growing while); it uses up no attempt."""
        return cls("throttled", reason, seconds)

    @classmethod
    def expired(cls) -> Trouble:
        """The token is not valid any more: a new one is fetched once, and the call made again."""
        return cls("expired", "the token is not accepted")

    @classmethod
    def retry(cls, reason: str, seconds: float = 0.0, *, arrived: bool = True) -> Trouble:
        """The call failed for now. `arrived`: whether it may have been carried out nevertheless."""
        return cls("retry", reason, seconds, arrived)

    @classmethod
    def stop(cls, reason: str) -> Trouble:
        """The run must end: no further call will fare better, such as after the end of a daily quota."""
        return cls("stop", reason)

    @classmethod
    def of_status(cls, response: Response) -> Trouble | None:
        """Return what the status alone says: the usual meaning of 401 to 405, 429 and 5xx."""
        status = response.status
        if status == _THROTTLED:
            return cls.throttled(retry_after(response))
        if status in FATAL or 300 <= status < 400:
            return cls.stop(f"HTTP {status}: {hint(status)}")
        if status >= 500 or status < 200 or status in TRANSIENT:
            return cls.retry(f"HTTP {status}", retry_after(response) or 0.0)
        return None


def retry_after(response: Response) -> float | None:
    """Return the seconds of a `Retry-After` header, None if there is none that can be read."""
    text = next((v for k, v in response.headers.items() if k.lower() == "retry-after"), "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
    return None if math.isnan(seconds) else max(0.0, seconds)


def reason_of(response: Response) -> str:
    """Return status and text of an answer; redact it before it is cut or shown."""
    text = response.body[:_READ].decode("utf-8", "replace").strip()
    return f"HTTP {response.status}" + (f": {text}" if text not in ("", "{}") else "")


def hint(status: int) -> str:
    """Return what to do about a status that ends the run."""
    if status in (401, 403):
        return "the destination does not accept these credentials; check app_id or key"
    if status == 404:
        return "there is nothing at this address; check region and URL"
    return "the destination does not take calls of this kind at this address"


def row_errors(response: Response, rows: int) -> dict[int, str] | None:
    """Read `{"errors": [{"index": 3, "message": "..."}]}`, the usual form in which an API names the rows it rejects."""
    document = response.json
    errors = document.get("errors") if isinstance(document, dict) else None
    if not isinstance(errors, list):
        return None
    rejected = [e for e in errors if isinstance(e, dict) and type(e.get("index")) is int and 0 <= e["index"] < rows]
    return {e["index"]: f"HTTP {response.status}: {e.get('message', 'refused')}" for e in rejected} or None
