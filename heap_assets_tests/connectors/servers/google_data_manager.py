"""Google's Data Manager: members and events are queued whole or refused whole; later there are counts, not rows.

What no document states is an option: how the path of a refused field reads (`row_paths`), what a record without consent
becomes (`missing_consent`), how old an event may be. `job_fails` makes a request end as FAILED, `reason=` names why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from heap_assets_tests.connectors.servers.core import Answer, Call, Job, route
from heap_assets_tests.connectors.servers.google_accounts import GoogleServer
from heap_assets_tests.connectors.servers.google_rules import MEMBER_KINDS, refusals
from heap_assets_tests.connectors.servers.limits import Limit, Sliding
from heap_assets_tests.connectors.servers.shapes import Refusal, values

DAY = 86_400.0
_REASON = "PROCESSING_ERROR_REASON_"


def _ingests(call: Call) -> float:
    return float(call.kind == "write")


def _reads(call: Call) -> float:
    return float(call.kind == "read")


def identifiers(member: Mapping[str, Any]) -> list[str]:
    """Return what a member is matched by: each digest, address or id by itself."""
    told = []
    for identifier in member.get("userData", {}).get("userIdentifiers", ()):
        address = identifier.get("address", {})
        told.append("|".join(values(address)) if address else next(values(identifier)))
    others = {name: member[name] for name in MEMBER_KINDS if name in member and name != "userData"}
    return told + list(values(others))


class GoogleDataManager(GoogleServer):
    """The Data Manager API.

    Parameters
    ----------
    products
        Ids of user lists and conversion actions that are there; None: any.
    accounts
        Ids of accounts that the caller may operate; None: any.
    row_paths
        How a refusal names a row: `long` (`events.events[3].…`), `short` (`events[3].…`), or not at all.
    missing_consent
        Whether a record without consent is taken, or counted as UNKNOWN_CONSENT afterwards.
    event_age
        Days after which an event is counted as EVENT_TOO_OLD.
    late_errors
        Value in a record, and the reason (without its prefix) by which that record fails after it was queued.
    """

    scope = "https://www.googleapis.com/auth/datamanager"

    def __init__(
        self,
        *,
        products: set[str] | None = None,
        accounts: set[str] | None = None,
        row_paths: Literal["long", "short"] | None = "long",
        missing_consent: Literal["taken", "unknown"] = "taken",
        event_age: float = 90.0,
        late_errors: Mapping[str, str] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.products, self.accounts, self.row_paths = products, accounts, row_paths
        self.missing_consent, self.event_age, self.late_errors = missing_consent, event_age, dict(late_errors or {})
        self._transactions: set[tuple[str, ...]] = set()

    def documented_limits(self) -> list[Limit]:
        return [
            Sliding("IngestionRequestsPerMinutePerProject", 300, 60.0, _ingests),
            Sliding("IngestionRequestsPerDayPerProject", 100_000, DAY, _ingests),
            Sliding("ReadRequestsPerMinutePerProject", 300, 60.0, _reads),
            Sliding("ReadRequestsPerDayPerProject", 50_000, DAY, _reads),
        ]

    @route("POST", "/v1/audienceMembers:ingest")
    def ingest_members(self, call: Call) -> Answer | dict[str, str]:
        return self._queue(call, "members:ingest", "audienceMembers")

    @route("POST", "/v1/audienceMembers:remove")
    def remove_members(self, call: Call) -> Answer | dict[str, str]:
        return self._queue(call, "members:remove", "audienceMembers")

    @route("POST", "/v1/audienceMembers:removeAll")
    def remove_all_members(self, call: Call) -> Answer | dict[str, str]:
        return self._queue(call, "members:removeAll", "")

    @route("POST", "/v1/events:ingest")
    def ingest_events(self, call: Call) -> Answer | dict[str, str]:
        return self._queue(call, "events:ingest", "events")

    @route("GET", "/v1/requestStatus:retrieve")
    def request_status(self, call: Call) -> dict[str, Any]:
        job = self.jobs.get(call.query.get("requestId", ""))
        if job is None:
            raise self.refuse(self.error(404, "", "Request not found."), "requestId is of a queued request")
        done = self.is_done(job)
        return {"requestStatusPerDestination": [_status(outcome, done) for outcome in job.state["outcomes"]]}

    def _queue(self, call: Call, verb: str, rows: str) -> Answer | dict[str, str]:
        told = refusals(verb, call.body)
        if told:
            raise self.refuse(self._refusal(told), f"{told[0][0]}: {told[0][1]}")
        body = call.body
        records = body.get(rows, [])
        bad = [index for index, record in enumerate(records) if self.is_bad(values(record), call)]
        if bad:
            return self._refusal([(f"{rows}[{index}]", "Invalid value.") for index in bad])
        for index, destination in enumerate(body["destinations"]):
            self._know(destination, f"destinations[{index}].productDestinationId")
        if body.get("validateOnly"):
            return {}
        job = self.start_job(call)
        job.state["outcomes"] = [
            self._process(verb, destination, body, records, job) for destination in body["destinations"]
        ]
        return {"requestId": job.id}

    def _know(self, destination: dict[str, Any], path: str) -> None:
        if self.accounts is not None and destination["operatingAccount"]["accountId"] not in self.accounts:
            answer = self.error(403, "", "The caller does not have permission.")
            raise self.refuse(answer, "the caller may operate the account")
        if self.products is not None and destination["productDestinationId"] not in self.products:
            raise self.refuse(self._refusal([(path, "No such destination.")]), "the destination is there")

    def _refusal(self, told: list[Refusal]) -> Answer:
        answer = self.error(400, "", "There was a problem with the request.")
        violations = [{"field": self._path(path), "description": text} for path, text in told]
        if self.row_paths is not None:
            detail = {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations}
            answer.body["error"]["details"] = [detail]
        return answer

    def _path(self, path: str) -> str:
        prefixes = {"events": "events.", "audienceMembers": "audience_members."} if self.row_paths == "long" else {}
        return prefixes.get(path.partition("[")[0], "") + path

    def _process(
        self, verb: str, destination: dict[str, Any], body: dict[str, Any], records: list[dict[str, Any]], job: Job
    ) -> dict[str, Any]:
        product = destination["productDestinationId"]
        errors: Counter[str] = Counter()
        if job.fails is not None:
            errors[job.fails.get("reason", "INTERNAL_ERROR")] = len(records)
        elif verb == "members:removeAll":
            self.lists.pop(product, None)
        else:
            for record in records:
                reason = self._late(record, body, product, verb)
                if reason:
                    errors[reason] += 1
                elif verb == "events:ingest":
                    self.events.append({"destination": product, **record})
                elif verb == "members:ingest":
                    self.lists.setdefault(product, set()).update(identifiers(record))
                else:
                    self.lists.setdefault(product, set()).difference_update(identifiers(record))
        return {"destination": destination, "verb": verb, "records": records, "errors": dict(errors)}

    def _late(self, record: dict[str, Any], body: dict[str, Any], product: str, verb: str) -> str | None:
        if self.late_errors:
            for value in values(record):
                if value in self.late_errors:
                    return self.late_errors[value]
        if verb == "members:remove":
            return None
        consent = (record.get("consent") or body.get("consent") or {}).values()
        if "CONSENT_DENIED" in consent:
            return "DENIED_CONSENT"
        if self.missing_consent == "unknown" and "CONSENT_GRANTED" not in consent:
            return "UNKNOWN_CONSENT"
        return self._late_event(record, product) if verb == "events:ingest" else None

    def _late_event(self, event: dict[str, Any], product: str) -> str | None:
        at = datetime.fromisoformat(event["eventTimestamp"]).timestamp()
        if self.clock() - at > self.event_age * DAY:
            return "EVENT_TOO_OLD"
        transaction, click = event.get("transactionId"), event.get("adIdentifiers", {}).get("gclid")
        if transaction:
            key, reason = (product, transaction), "DUPLICATE_TRANSACTION_ID"
        elif click:
            key, reason = (product, click, str(at)), "DUPLICATE_GCLID"
        else:
            return None
        if key in self._transactions:
            return reason
        self._transactions.add(key)
        return None


def _status(outcome: dict[str, Any], done: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"destination": outcome["destination"], "requestStatus": "PROCESSING"}
    if not done:
        return told
    records, errors = outcome["records"], outcome["errors"]
    failed = sum(errors.values())
    told["requestStatus"] = "SUCCESS" if not failed else "PARTIAL_SUCCESS" if failed < len(records) else "FAILED"
    if errors:
        # int64 is text in the JSON of protocol buffers
        counts = [{"recordCount": str(count), "reason": _REASON + reason} for reason, count in errors.items()]
        told["errorInfo"] = {"errorCounts": counts}
    if outcome["verb"] == "events:ingest":
        told["eventsIngestionStatus"] = {"recordCount": str(len(records))}
    elif outcome["verb"] != "members:removeAll":
        removal = outcome["verb"] == "members:remove"
        users = sum(len(record.get("userData", {}).get("userIdentifiers", ())) for record in records)
        counts = {"recordCount": str(len(records)), "userIdentifierCount": str(users)}
        name = "audienceMembersRemovalStatus" if removal else "audienceMembersIngestionStatus"
        told[name] = {"userDataRemovalStatus" if removal else "userDataIngestionStatus": counts}
    return told
