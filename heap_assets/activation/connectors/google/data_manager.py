"""The Data Manager API: requests are queued or refused as a whole; their status tells later, in counts and not rows."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import quote

import orjson
from pydantic import Field

from heap_assets import clock
from heap_assets.activation.connectors.google.login import (
    PACIFIC,
    GoogleDestination,
    ToGoogle,
    begun_now,
    details_of,
    digits,
    overdue,
)
from heap_assets.activation.engine.api import Api
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.exchange import LATER, Exchange, Remember, Request, Wait
from heap_assets.activation.engine.limits import Limits, Quota, Rate
from heap_assets.activation.engine.verdict import Response, RowVerdict, Trouble, Verdict, reason_of
from heap_assets.sources.warehouse import Permission

_SCOPE = "https://www.googleapis.com/auth/datamanager"
_A_MINUTE, _INGESTED_A_DAY, _READ_A_DAY = 300, 100_000, 50_000
_INGEST, _STATUS = "ingest", "status"
_ROW = re.compile(r"(?:audience_?members|events)\[(\d+)\]", re.IGNORECASE)
_PREFIX = "PROCESSING_ERROR_REASON_"
_THERE_ALREADY = frozenset({"DUPLICATE_TRANSACTION_ID", "DUPLICATE_GCLID"})
_LATER = frozenset({"INTERNAL_ERROR"})
_AGAIN_AFTER = timedelta(hours=1)
_ENDED = frozenset({"SUCCESS", "PARTIAL_SUCCESS", "FAILED"})
EXAMPLE_DIGEST = hashlib.sha256(b"sync-check@example.com").hexdigest()
"""The hashed address of nobody, for requests that are only checked."""
UNTRIED = "identifiers are checked when loading; a request that Google only checks tells of the rest"
GRANTED = {"adUserData": "CONSENT_GRANTED", "adPersonalization": "CONSENT_GRANTED"}

AccountType = Literal["GOOGLE_ADS", "DISPLAY_VIDEO_PARTNER", "DISPLAY_VIDEO_ADVERTISER", "DATA_PARTNER"]


class ToDataManager(ToGoogle):
    """An account of Google's advertising, by the Data Manager API."""

    account_id: str = Field(pattern=r"^[0-9-]+$", description="Id of the account that owns the audience or conversion")
    account_type: AccountType = Field(default="GOOGLE_ADS", description="What kind of account it is")
    login_account_id: str | None = Field(
        default=None, pattern=r"^[0-9-]+$", description="Manager account through which the login may use it"
    )
    poll_seconds: float = Field(default=60.0, gt=0, description="Between two looks at the status of a request")
    polls: int = Field(
        default=10, ge=1, description="Looks in one run; a request that is not done by then is asked for by a later one"
    )

    @property
    def url(self) -> str:
        """The address that is called."""
        return (self.base_url or "https://datamanager.googleapis.com").rstrip("/")


class DataManagerDestination(GoogleDestination):
    """Base of the destinations at the Data Manager.

    `product`: id of the user list or of the conversion action. `rows_are`: the member of a request that has the rows.
    """

    rows_are = ""

    def __init__(self, settings: ToDataManager, product: str, batch_rows: int) -> None:
        self.url, self._product = settings.url, product
        self._account = f"{settings.account_type}:{digits(settings.account_id)}"
        self._every, self._looks = settings.poll_seconds, settings.polls
        self.auth = settings.login(_SCOPE)
        account = {"accountType": settings.account_type, "accountId": digits(settings.account_id)}
        self._to: dict[str, Any] = {"operatingAccount": account, "productDestinationId": product}
        if settings.login_account_id is not None:
            login = {"accountType": "GOOGLE_ADS", "accountId": digits(settings.login_account_id)}
            self._to["loginAccount"] = login
        rates = [Rate(_A_MINUTE, 60, per_call=True, label=label) for label in (_INGEST, _STATUS)]
        self.limits = Limits(
            batch_rows=batch_rows,
            rates=tuple(rates),
            quotas=(
                Quota(_INGESTED_A_DAY, zone=PACIFIC, label=_INGEST),
                Quota(_READ_A_DAY, zone=PACIFIC, label=_STATUS),
            ),
            shared_by=f"google_data_manager:{self.url}:{settings.caller}",
        )

    @property
    def target(self) -> str:
        return f"{self.kind}:{self.url}:{self._account}:{self._product}"

    def call(self, path: str, elements: Sequence[bytes], **beside: Any) -> Request:
        """Return a request that queues rows."""
        head = orjson.dumps({"destinations": [self._to], "encoding": "HEX", **beside})[:-1]
        body = head + f',"{self.rows_are}":['.encode() + b",".join(elements) + b"]}"
        return Request(f"{self.url}/v1/{path}", body, label=_INGEST)

    def exchange(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Exchange:
        answer = yield self.request(elements, rows)
        if not answer.accepted:
            named = {
                index: RowVerdict("rejected", f"{field}: {text}")
                for index, field, text in _violations(answer)
                if index is not None
            }
            return Verdict(named, "not_applied", reason_of(answer))
        state = {"request": answer.json["requestId"], **begun_now()}
        yield Remember(state)
        return (yield from self.resume(state, rows))

    def resume(self, state: Mapping[str, Any], rows: Sequence[Row]) -> Exchange:
        url = f"{self.url}/v1/requestStatus:retrieve?requestId={quote(state['request'], safe='')}"
        look = 0
        while True:
            answer = yield Request(url, method="GET", reads=frozenset({400, 404}), label=_STATUS)
            if not answer.accepted:
                return Verdict(rest="unknown", reason="Google does not know the request any more")
            status = (answer.fields.get("requestStatusPerDestination") or [{}])[0]
            if status.get("requestStatus") in _ENDED:
                return _processed(status, len(rows))
            if (late := overdue(state, len(rows))) is not None:
                return late
            look += 1
            yield Wait(self._every) if look < self._looks else LATER

    def trouble(self, response: Response) -> Trouble | None:
        violations = _violations(response)
        if violations and all(index is None for index, _, _ in violations):
            _, field, text = violations[0]
            return Trouble.stop(f"Google refuses the request: {field}: {text}")
        return super().trouble(response)


def previewed(api: Api, request: Request) -> Iterator[Permission]:
    """Yield what Google says of a request that it only checks."""
    answer = api.call(request)
    refusals = [f"{field}: {text}" for _, field, text in _violations(answer)] or [reason_of(answer)]
    detail = "Google takes a request, which it only checked" if answer.accepted else refusals[0]
    yield Permission("login, account and where to", answer.accepted, detail, "check account_id and the id below it")


def _violations(response: Response) -> list[tuple[int | None, str, str]]:
    """Return place of the row (None: the request itself), path and text of each field that is refused."""
    violations = []
    for violation in (v for detail in details_of(response) for v in detail.get("fieldViolations") or ()):
        path = str(violation.get("field", ""))
        row = _ROW.search(path)
        violations.append((int(row[1]) if row else None, path, str(violation.get("description", "refused"))))
    return violations


def _processed(status: Mapping[str, Any], rows: int) -> Verdict:
    """Return what the counts of a request that was processed say of its rows."""
    counts: Counter[str] = Counter()
    for one in (status.get("errorInfo") or {}).get("errorCounts") or ():
        counts[str(one.get("reason", "")).removeprefix(_PREFIX)] += int(one.get("recordCount") or 0)
    failed = Counter({reason: count for reason, count in counts.items() if reason not in _THERE_ALREADY})
    if not failed and (counts or status["requestStatus"] == "SUCCESS"):
        return Verdict()
    if status["requestStatus"] == "FAILED" and set(failed) <= _LATER and failed:
        deferred = RowVerdict("deferred", ", ".join(failed), until=clock.now() + _AGAIN_AFTER)
        return Verdict(dict.fromkeys(range(rows), deferred))
    if status["requestStatus"] == "FAILED" and failed.total() in (0, rows):
        refused = RowVerdict("rejected", f"Google: {', '.join(failed) or 'FAILED'}")
        return Verdict(dict.fromkeys(range(rows), refused))
    unnamed = {f"Google: {reason}": count for reason, count in failed.items()} or {"Google: PARTIAL_SUCCESS": 1}
    return Verdict(dict.fromkeys(range(rows), RowVerdict("sent")), unnamed=unnamed)
