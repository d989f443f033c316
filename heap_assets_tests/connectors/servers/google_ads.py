"""Google's older Ads endpoints: jobs of user data with a poll by query, direct user data, click conversions.

`fail("refuse_batch", code="databaseError.CONCURRENT_MODIFICATION")` is the 400 that may be sent again.
"""

from __future__ import annotations

import re
from typing import Any

from heap_assets_tests.connectors.servers.core import Answer, Call, Job, route
from heap_assets_tests.connectors.servers.google_ads_common import CONSENTS, GoogleAdsServer, error
from heap_assets_tests.connectors.servers.shapes import fits, is_sha256, values

JOB_IDENTIFIERS, OPERATION_IDENTIFIERS, CONVERSIONS = 100_000, 20, 2_000
DIRECT_OPERATIONS, DIRECT_IDENTIFIERS = 10, 100
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d")
_JOB = {"job": {"type": str, "customerMatchUserListMetadata": {"userList": str, "consent": dict}}}
_CLICK = dict.fromkeys(("conversionAction", "conversionDateTime", "gclid", "gbraid", "wbraid", "orderId"), str) | {
    "conversionValue": int | float,
    "currencyCode": str,
    "consent": {"adUserData": str},
    "userIdentifiers": [dict],
}
_CUSTOMER = "/{version}/customers/{customer:int}"


class GoogleAds(GoogleAdsServer):
    """The Ads API: what was uploaded is in `lists` by the name of the user list, and in `events`."""

    job_polls = 2

    def __init__(self, *, products: set[str] | None = None, **common: Any) -> None:
        """Make it. `products`: ids of user lists and conversion actions that are there; None: any."""
        super().__init__(**common)
        self.products = products
        self._conversions: set[tuple[str, ...]] = set()

    @route("POST", _CUSTOMER + "/offlineUserDataJobs:create")
    def create_job(self, call: Call, version: str, customer: int) -> dict[str, str]:
        self.admitted()
        job = self.fields(call, _JOB).get("job", {})
        metadata = job.get("customerMatchUserListMetadata", {})
        if job.get("type") != "CUSTOMER_MATCH_USER_LIST":
            raise self.failed("fieldError.REQUIRED", "job.type is CUSTOMER_MATCH_USER_LIST")
        target = metadata.get("userList", "")
        if not re.fullmatch(rf"customers/{customer}/userLists/\d+", target):
            raise self.failed("offlineUserDataJobError.INVALID_USER_LIST", "userList is the customer's")
        self.consents(metadata.get("consent", {}))
        started = self.start_job(call, user_list=target, verb=None, run=False, operations=[])
        name = f"customers/{customer}/offlineUserDataJobs/{started.id.removeprefix('job-')}"
        return {"resourceName": name}

    @route("POST", _CUSTOMER + "/offlineUserDataJobs/{number}:addOperations")
    def add_operations(self, call: Call, version: str, customer: int, number: str) -> Answer | dict[str, Any]:
        self.admitted()
        job = self._job(number)
        if job.state["run"]:
            raise self.failed("offlineUserDataJobError.JOB_ALREADY_STARTED", "no operations after run")
        operations = self.rows(call, "operations")
        self._count(operations, JOB_IDENTIFIERS)
        verbs = {next(iter(operation), None) for operation in operations}
        first_removes_all = job.state["verb"] is None and "removeAll" in operations[0]
        if "removeAll" in verbs and not (first_removes_all and sum("removeAll" in o for o in operations) == 1):
            raise self.failed("offlineUserDataJobError.INVALID_OPERATION_ORDER", "removeAll is the first operation")
        rest = verbs - {"removeAll"}
        if len(rest | {job.state["verb"]} - {None, "removeAll"}) > 1 or not verbs <= {"create", "remove", "removeAll"}:
            raise self.failed("offlineUserDataJobError.CONFLICTING_OPERATION", "a job does not mix create and remove")
        job.state["verb"] = next(iter(rest), "removeAll")
        told = self.apply(call, "operations", operations, _check, job.state["operations"].append)
        consents = [o for o in operations if isinstance(o.get("create"), dict) and "consent" in o["create"]]
        if consents and call.body.get("enableWarnings") and isinstance(told, dict):
            warning = error("offlineUserDataJobError.OPERATION_LEVEL_CONSENT_PROVIDED")
            told["warning"] = {"code": 3, "message": warning["message"], "details": [{"errors": [warning]}]}
        return told

    @route("POST", _CUSTOMER + "/offlineUserDataJobs/{number}:run", takes="application/json")
    def run(self, call: Call, version: str, customer: int, number: str) -> dict[str, str]:
        job = self._job(number)
        if job.state["run"]:
            raise self.failed("offlineUserDataJobError.JOB_ALREADY_STARTED", "a job runs once")
        job.state["run"] = True
        if job.fails is None:
            for operation in job.state["operations"]:
                self._change(job.state["user_list"], operation)
        return {"name": f"customers/{customer}/operations/{number}"}

    @route("POST", _CUSTOMER + "/googleAds:search", "read")
    def search(self, call: Call, version: str, customer: int) -> dict[str, Any]:
        query = self.fields(call, {"query": str}).get("query", "")
        if thing := re.search(r"FROM\s+(user_list|conversion_action)\b.*resource_name\s*=\s*'([^']+)'", query, re.S):
            kind, name = ("userList", "conversionAction")[thing[1] == "conversion_action"], thing[2]
            there = self.products is None or name.rpartition("/")[2] in self.products
            return {"results": [{kind: {"resourceName": name}}] if there else []}
        named = re.search(r"FROM\s+offline_user_data_job\b.*resource_name\s*=\s*['\"]([^'\"]+)['\"]", query, re.S)
        if not re.match(r"\s*SELECT\s", query) or named is None:
            raise self.failed("queryError.UNEXPECTED_INPUT", "the query asks for an offline_user_data_job by its name")
        job = self._job(named[1].rpartition("/")[2])
        told = {"resourceName": named[1], "type": "CUSTOMER_MATCH_USER_LIST", "status": "PENDING"}
        if job.state["run"]:
            told["status"] = "RUNNING" if not self.is_done(job) else "SUCCESS" if job.fails is None else "FAILED"
        if told["status"] == "FAILED":
            told["failureReason"] = (job.fails or {}).get("reason", "INSUFFICIENT_MATCHED_TRANSACTIONS")
        if told["status"] == "SUCCESS":
            told["customerMatchUserListMetadata"] = {"userList": job.state["user_list"]}
            told["operationMetadata"] = {"matchRateRange": "MATCH_RANGE_51_TO_60"}
        return {"results": [{"offlineUserDataJob": told}]}

    @route("POST", _CUSTOMER + ":uploadUserData")
    def upload_user_data(self, call: Call, version: str, customer: int) -> Answer | dict[str, Any]:
        self.admitted()
        operations = self.rows(call, "operations", DIRECT_OPERATIONS)
        self._count(operations, DIRECT_IDENTIFIERS)
        metadata = self.fields(call, _JOB["job"]).get("customerMatchUserListMetadata", {})
        target = metadata.get("userList")
        if not target:
            raise self.failed("fieldError.REQUIRED", "the metadata names the user list")
        answer = self.apply(call, "operations", operations, _check, lambda o: self._change(target, o))
        return answer if isinstance(answer, Answer) else {**answer, "receivedOperationsCount": len(operations)}

    @route("POST", _CUSTOMER + ":uploadClickConversions")
    def upload_click_conversions(self, call: Call, version: str, customer: int) -> Answer | dict[str, Any]:
        self.admitted()
        conversions = self.rows(call, "conversions", CONVERSIONS)
        if call.body.get("partialFailure") is not True:
            raise self.failed("requestError.PARTIAL_FAILURE_REQUIRED", "partialFailure is true")
        prefix = f"customers/{customer}/conversionActions/"
        return self.apply(call, "conversions", conversions, lambda row: self._refuses(row, prefix), self.events.append)

    def _refuses(self, row: dict[str, Any], prefix: str) -> tuple[str, str] | None:
        if not fits(row, _CLICK):
            return "", "fieldError.INVALID_VALUE"
        clicks = [name for name in ("gclid", "gbraid", "wbraid") if row.get(name)]
        users = row.get("userIdentifiers", [])
        if not row.get("conversionAction", "").startswith(prefix):
            return "conversionAction", "conversionUploadError.INVALID_CONVERSION_ACTION"
        if not _TIME.fullmatch(row.get("conversionDateTime", "")):
            return "conversionDateTime", "dateError.INVALID_STRING_DATE_TIME_SECONDS_WITH_OFFSET"
        if len(clicks) != 1 and not (users and not clicks):
            return "gclid", "fieldError.REQUIRED" if not clicks else "conversionUploadError.VALUE_MUST_BE_UNSET"
        if len(users) > 5 or any(set(user) - {"hashedEmail", "hashedPhoneNumber"} for user in users):
            return "userIdentifiers", "conversionUploadError.INVALID_USER_IDENTIFIER"
        if not all(is_sha256(digest) for user in users for digest in user.values()):
            return "userIdentifiers", "conversionUploadError.INVALID_USER_IDENTIFIER"
        consent = row.get("consent", {})
        if consent.get("adUserData", "GRANTED") not in CONSENTS or "adPersonalization" in consent:
            return "consent", "conversionUploadError.VALUE_MUST_BE_UNSET"
        action, order = row["conversionAction"], row.get("orderId")
        click = (action, row[clicks[0]], row["conversionDateTime"]) if clicks else (action, str(users))
        if order and (action, order) in self._conversions:
            return "orderId", "conversionUploadError.ORDER_ID_ALREADY_IN_USE"
        if click in self._conversions:
            return "", "conversionUploadError.CLICK_CONVERSION_ALREADY_EXISTS"
        self._conversions |= {click, *([(action, order)] if order else [])}
        return None

    def _change(self, target: str, operation: dict[str, Any]) -> None:
        verb, user = next(iter(operation.items()))
        if verb == "removeAll":
            self.lists.pop(target, None)
            return
        keys = {text for member in user["userIdentifiers"] for text in values(member)}
        current = self.lists.setdefault(target, set())
        (current.update if verb == "create" else current.difference_update)(keys)

    def _job(self, number: str) -> Job:
        job = self.jobs.get(f"job-{number}")
        if job is None:
            raise self.failed("mutateError.RESOURCE_NOT_FOUND", "the job is there", status=404)
        return job

    def _count(self, operations: list[Any], most: int) -> None:
        users = [next(iter(operation.values())) for operation in operations]
        if sum(len(user.get("userIdentifiers", ())) for user in users if fits(user, {"userIdentifiers": list})) > most:
            code = "offlineUserDataJobError.TOO_MANY_USER_IDENTIFIERS"
            raise self.failed(code, f"at most {most} identifiers a request")


def _check(operation: dict[str, Any]) -> tuple[str, str] | None:
    verb, user = next(iter(operation.items()))
    if verb == "removeAll":
        return None
    members = user.get("userIdentifiers", []) if fits(user, {"userIdentifiers": [dict]}) else []
    if not 1 <= len(members) <= OPERATION_IDENTIFIERS:
        return "userIdentifiers", "offlineUserDataJobError.TOO_MANY_USER_IDENTIFIERS"
    if not all(len(member) == 1 and _identifies(*next(iter(member.items()))) for member in members):
        return "userIdentifiers", "offlineUserDataJobError.INVALID_SHA256_FORMAT"
    return None


def _identifies(kind: str, value: Any) -> bool:
    if kind in ("hashedEmail", "hashedPhoneNumber"):
        return is_sha256(value)
    if kind == "addressInfo" and fits(value, {"countryCode": str}):
        hashed = all(is_sha256(value.get(name)) for name in ("hashedFirstName", "hashedLastName"))
        return hashed and len(value.get("countryCode", "")) == 2 and bool(value.get("postalCode"))
    return kind in ("mobileId", "thirdPartyUserId") and isinstance(value, str)
