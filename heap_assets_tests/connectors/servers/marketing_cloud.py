"""A Marketing Cloud tenant: tokens of 20 minutes, rows of data extensions (at once and queued)."""

from __future__ import annotations

from typing import Any

from heap_assets_tests.connectors.servers.core import Answer, Call, Job, Limit, Refused, VendorServer, route
from heap_assets_tests.connectors.servers.marketing_cloud_journeys import Column, Journeys, problem, stored

__all__ = ["Column", "MarketingCloudServer"]


class MarketingCloudServer(Journeys, VendorServer):
    """A tenant; `extensions[key][column]` and `event_extensions[event key] = extension key` are the test's to set.

    Rows are in `records[extension]`; those that came without the business unit's `account_id` are in the parent's
    extension, `records["parent/<extension>"]`.

    Parameters
    ----------
    rowset_rows, async_rows, async_bytes
        Rows of a synchronous call, rows and bytes of a queued one: nowhere documented, from memory.
    without_key
        What an upsert into an extension without primary key does: `append` or `refuse`.
    empty_polls
        How many first polls of a request come without `status`.
    """

    client_id, client_secret, account_id = "client-1", "secret-1", "100"
    token_seconds, expires_in = 1200.0, 1079

    def __init__(
        self,
        *,
        rowset_rows: int = 100,
        async_rows: int = 30_000,
        async_bytes: int = 5_800_000,
        without_key: str = "refuse",
        empty_polls: int = 0,
        **core: Any,
    ) -> None:
        self.rowset_rows, self.async_rows, self.async_bytes = rowset_rows, async_rows, async_bytes
        self.without_key, self.empty_polls = without_key, empty_polls
        self.extensions: dict[str, dict[str, Column]] = {}
        self.event_extensions: dict[str, str] = {}
        self._units: dict[str, str] = {}
        super().__init__(**core)

    @route("POST", "/v2/token", "token", takes="application/json application/x-www-form-urlencoded")
    def token(self, call: Call) -> Any:
        body = call.body if isinstance(call.body, dict) else {}
        if body.get("grant_type") != "client_credentials" or set(body) - {
            "grant_type",
            "client_id",
            "client_secret",
            "account_id",
            "scope",
        }:
            refusal = Answer(400, {"error": "unsupported_grant_type", "error_description": "grant_type"})
            raise self.refuse(refusal, "the grant is client_credentials")
        if (body.get("client_id"), body.get("client_secret")) != (self.client_id, self.client_secret):
            refusal = Answer(401, {"error": "invalid_client", "error_description": "Invalid client ID or secret."})
            raise self.refuse(refusal, "client id and secret are those of the package")
        token = self.tokens.issue(self.token_seconds, self.clock())
        self._units[token] = str(body.get("account_id", "parent"))
        hosts = {f"{name}_instance_url": f"{self.url}/" for name in ("rest", "soap")}
        return {"access_token": token, "expires_in": self.expires_in, "token_type": "Bearer"} | hosts

    def authorise(self, call: Call) -> None:
        token = self.bearer(call)
        if not self.tokens.lives(token, self.clock()):
            raise self.refuse(self.unauthorised(call), None if self.tokens.knows(token) else "a token of this tenant")

    def unauthorised(self, call: Call) -> Answer:
        return self.error(401, "0", "Not Authorized")

    def throttled(self, call: Call, wait: float, limit: Limit | None, *, code: int = 50100) -> Answer:
        """50100 tells when to come back, 50200 (temporarily blocked) does not."""
        if code == 50200:
            return Answer(429, {"errorcode": code, "message": "Temporarily blocked", "documentation": ""})
        told = {"errorcode": code, "message": "Rate limit exceeded", "documentation": "", "retryAfter": int(wait)}
        return Answer(429, told, {"Retry-After": f"{wait:.0f}"})

    def refused_batch(self, call: Call, *, code: int = 10006) -> Answer:
        """10006 without `additionalErrors` may be tried again."""
        return self.error(400, str(code), "Unable to save rows for data extension ID")

    def error(self, status: int, code: str, message: str) -> Answer:
        number = int(code) if code.isdigit() else {404: 20000}.get(status, 10001)
        return Answer(status, {"errorcode": number, "message": message, "documentation": ""})

    def wrong(self, rule: str, status: int = 400) -> Refused:
        return self.refuse(self.error(status, "10000", rule), rule)

    # rows at once

    @route("POST", "/hub/v1/dataevents/{extension}/rowset", shape=[{"keys": dict, "values": dict}])
    @route("POST", "/hub/v1/dataevents/key:{extension}/rowset", shape=[{"keys": dict, "values": dict}])
    def rowset(self, call: Call, extension: str) -> Any:
        name, rows = self._extension(call, extension), call.body
        if not isinstance(rows, list) or not 0 < len(rows) <= self.rowset_rows:
            raise self.wrong(f"the body is a list of 1 to {self.rowset_rows} rows")
        if not all(isinstance(row, dict) and set(row) == {"keys", "values"} for row in rows):
            raise self.wrong("a row has `keys` and `values`")
        for row in rows:
            if not row["keys"] or not self._are_keys(name, row["keys"]):
                raise self.wrong("`keys` are the primary key")
            if problem := self._write(call, name, row["keys"] | row["values"]):
                # rows before this one are written, those behind are not, and nothing says which one it was
                told = {"errorcode": 10006, "message": "Unable to save rows for data extension ID", "documentation": ""}
                extra = {"message": problem, "errorcode": 10000, "documentation": ""}
                raise self.refuse(Answer(400, told | {"additionalErrors": [extra]}))
        return rows

    @route("PUT", "/hub/v1/dataevents/key:{extension}/rows/{column}:{value}", shape={"values": dict})
    def put_row(self, call: Call, extension: str, column: str, value: str) -> Any:
        name = self._extension(call, extension)
        if not self._are_keys(name, {column: value}) or not isinstance(call.body.get("values"), dict):
            raise self.wrong("the path names the primary key and the body has `values`")
        if problem := self._write(call, name, {column: value} | call.body["values"]):
            raise self.refuse(self.error(400, "10000", problem))
        return {"keys": {column: value}, "values": call.body["values"]}

    # queued rows

    @route("PUT", "/data/v1/async/dataextensions/key:{extension}/rows")
    def upsert(self, call: Call, extension: str) -> Any:
        return self._queue(call, extension, insert=False)

    @route("POST", "/data/v1/async/dataextensions/key:{extension}/rows")
    def insert(self, call: Call, extension: str) -> Any:
        return self._queue(call, extension, insert=True)

    def _queue(self, call: Call, extension: str, *, insert: bool) -> Answer:
        items = call.body.get("items") if isinstance(call.body, dict) else None
        rules = {
            "the extension exists": extension in self.extensions,
            "`items` is a list of flat rows": isinstance(items, list)
            and bool(items)
            and all(
                isinstance(row, dict) and not any(isinstance(v, dict | list) for v in row.values()) for row in items
            ),
            f"at most {self.async_rows} rows": isinstance(items, list) and len(items) <= self.async_rows,
            f"at most {self.async_bytes} bytes": call.size <= self.async_bytes,
        }
        if broken := [rule for rule, kept in rules.items() if not kept]:
            code = "DataExtensionNotFound" if extension not in self.extensions else "InvalidRequest"
            raise self.refuse(Answer(400, _messages(code, broken[0])), broken[0])
        name = self._extension(call, extension)
        job = self.start_job(call, empty=self.empty_polls)
        done = len(items or ()) if job.fails is None else job.fails.get("done", 0)
        results = [self._write(call, name, row, insert=insert, queued=True) for row in (items or ())[:done]]
        job.state["items"] = [
            {"errorCode": 2 if wrong else 0, "message": wrong or "", "status": "Error" if wrong else "OK"}
            for wrong in results
        ]
        return Answer(202, {"requestId": job.id, "resultMessages": []})

    @route("GET", "/data/v1/async/{request}/status")
    def status(self, call: Call, request: str) -> Any:
        job = self._request(request)
        if job.state["empty"]:
            job.state["empty"] -= 1
            return {"requestId": job.id, "resultMessages": []}
        first, done = job.polls == self.job_polls, self.is_done(job)
        wrong = done and (job.fails is not None or any(item["errorCode"] for item in job.state["items"]))
        told: dict[str, Any] = {"requestId": job.id, "requestStatus": "Pending" if first else "Executing"}
        if done:
            told |= {"requestStatus": "Complete" if job.fails is None else "Error"}
            told |= {"resultStatus": "Has Errors" if wrong else "OK"}
        return {"status": told | {"hasErrors": wrong}, "requestId": job.id, "resultMessages": []}

    @route("GET", "/data/v1/async/{request}/results")
    def results(self, call: Call, request: str) -> Any:
        job = self._request(request)
        if self.clock() < job.ready or job.polls > 0:
            raise self.wrong("results are there when the request is complete")
        items = job.state["items"]
        return {"page": 1, "pageSize": len(items), "count": len(items), "items": items, "requestId": job.id}

    def _request(self, request: str) -> Job:
        job = self.jobs.get(request)
        if job is None or job.started < self.clock() - 86_400:
            text = "The request is not found"
            raise self.refuse(Answer(404, _messages("AsyncRequestStatusNotFound", text)))
        return job

    # what it holds

    def _extension(self, call: Call, extension: str) -> str:
        if extension not in self.extensions:
            raise self.wrong("the extension exists", 404)
        return extension if self._units[self.bearer(call)] == self.account_id else f"parent/{extension}"

    def _columns(self, name: str) -> dict[str, Column]:
        return self.extensions[name.removeprefix("parent/")]

    def _are_keys(self, name: str, keys: dict[str, Any]) -> bool:
        primary = {column.lower() for column, one in self._columns(name).items() if one.primary}
        return {column.lower() for column in keys} == primary

    def _write(
        self, call: Call, name: str, row: dict[str, Any], *, insert: bool = False, queued: bool = False
    ) -> str | None:
        """Write a row, or return what is wrong with it."""
        columns = self._columns(name)
        spelled = {column.lower(): column for column in columns}
        if unknown := [column for column in row if column.lower() not in spelled]:
            return f"the columns exist: {unknown}"
        values = {spelled[column.lower()]: value for column, value in row.items()}
        for column, value in values.items():
            if wrong := problem(columns[column], value):
                return f"{column}: {wrong}"
            values[column] = stored(columns[column], value)
        key = [values.get(column) for column, one in columns.items() if one.primary]
        if None in key:
            return "a value of the primary key is missing"
        if (bad := self.bad_row(values.values(), call)) is not None:
            return str(bad.get("message", "refused by a rule of the extension"))
        if not key:
            if not insert and self.without_key == "refuse":
                return "an upsert needs a primary key"
            key = [self.next_id()]
        id, table = "\x1f".join(map(str, key)), self.table(name)
        missing = [column for column, one in columns.items() if one.required and values.get(column) is None]
        if id not in table and missing:
            return f"required columns are missing: {missing}"
        if insert and id in table:
            return "Violation of PRIMARY KEY constraint"
        table.setdefault(id, {}).update(values)
        return None


def _messages(code: str, message: str) -> dict[str, Any]:
    return {"resultMessages": [{"resultType": "Error", "resultCode": code, "message": message}]}
