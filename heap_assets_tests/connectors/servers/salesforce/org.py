"""The org: who may come in, what it holds, how a row is written, and the calls that every client makes first."""

from __future__ import annotations

import base64
from typing import Any

import jwt

from heap_assets_tests.connectors.servers.core import Answer, AtOnce, Call, Limit, Refused, Sliding, VendorServer, route
from heap_assets_tests.connectors.servers.salesforce.bulk import Bulk
from heap_assets_tests.connectors.servers.salesforce.query import Query
from heap_assets_tests.connectors.servers.salesforce.records import Records
from heap_assets_tests.connectors.servers.salesforce.schema import PREFIXES, Field, problem, standard_objects
from heap_assets_tests.connectors.servers.salesforce.shapes import BASE, DAY, error, stamp

OURS, THEIRS = "005000000000001AAA", "005000000000002AAA"


class SalesforceServer(Query, Records, Bulk, VendorServer):
    """An org with Lead, Contact, Account and Opportunity; `fields[object][name]` is theirs to set.

    Parameters
    ----------
    public_key
        PEM of the certificate of JWT bearer grants.
    session_seconds
        Life of a token; the answer does not tell it.
    login_host
        Behave as `login.salesforce.com`, where client credentials are no grant.
    type_errors
        A value of a wrong type refuses its `row`, or the `batch` (400): no document tells.
    created_member
        Whether rows of collections tell `created`: no document tells.
    view_all_data
        Whether the user may upsert by an external id that is not unique.
    daily_calls, long_call_seconds
        Calls in 24 hours; from how long a call counts among the 25 at once.
    """

    both_slashes = True
    client_id, client_secret, username = "client-1", "secret-1", "sync@example.com"
    refresh_token: str | None = None
    """Of a user who has let the app in."""
    refreshing = 0
    """So many refreshes meet another one of the same token, and are refused."""

    def __init__(
        self,
        *,
        public_key: str | None = None,
        session_seconds: float = 7200.0,
        login_host: bool = False,
        type_errors: str = "row",
        created_member: bool = True,
        view_all_data: bool = False,
        daily_calls: int = 100_000,
        long_call_seconds: float = 20.0,
        versions: tuple[float, float] = (31.0, 68.0),
        **core: Any,
    ) -> None:
        self.fields: dict[str, dict[str, Field]] = standard_objects()
        self.public_key, self.session_seconds, self.login_host = public_key, session_seconds, login_host
        self.type_errors, self.created_member, self.view_all_data = type_errors, created_member, view_all_data
        self.daily_calls, self.long_call_seconds, self.versions = daily_calls, long_call_seconds, versions
        super().__init__(**core)
        self._keys: dict[tuple[str, str], dict[Any, list[str]]] = {}

    def documented_limits(self) -> list[Limit]:
        long = AtOnce("25 long calls at once", 25, cost=lambda call: self.latency >= self.long_call_seconds)
        return [Sliding(f"{self.daily_calls} calls in 24 h", self.daily_calls, DAY), long, *self.bulk_limits()]

    # who may come in

    @route("POST", "/services/oauth2/token", "token", takes="application/x-www-form-urlencoded")
    def token(self, call: Call) -> Any:
        form = dict(call.body or {})
        if (basic := call.headers.get("authorization", "")).startswith("Basic "):
            form["client_id"], _, form["client_secret"] = base64.b64decode(basic[6:]).decode().partition(":")
        if form.get("grant_type") == "client_credentials":
            if self.login_host:
                raise self._no_grant("invalid_grant", "client credentials are granted on the My Domain host only")
            if (form.get("client_id"), form.get("client_secret")) != (self.client_id, self.client_secret):
                raise self._no_grant("invalid_client", "client id and secret are those of the app")
        elif form.get("grant_type") == "urn:ietf:params:oauth:grant-type:jwt-bearer":
            self._check_assertion(form.get("assertion", ""))
        elif form.get("grant_type") == "refresh_token":
            self._check_refresh(form)
        else:
            raise self._no_grant("unsupported_grant_type", "the grant is one of a server or a refresh token")
        token = self.tokens.issue(self.session_seconds, self.clock())
        return {"access_token": token, "instance_url": self.url, "token_type": "Bearer", "id": f"{self.url}/id/1"}

    def _check_refresh(self, form: dict[str, str]) -> None:
        if form.get("client_id") != self.client_id or form.get("client_secret") not in (None, self.client_secret):
            raise self._no_grant("invalid_client", "client id and secret are those of the app")
        if "refresh_token" not in form:
            raise self._no_grant("invalid_request", "a grant by refresh token names one")
        if self.refreshing:
            self.refreshing -= 1
            told = {"error": "invalid_grant", "error_description": "token request is already being processed"}
            raise self.refuse(Answer(400, told))
        if self.refresh_token is None:  # it was revoked, which is no fault of who asks
            raise self.refuse(
                Answer(400, {"error": "invalid_grant", "error_description": "expired access/refresh token"})
            )
        if form.get("refresh_token") != self.refresh_token:
            raise self._no_grant("invalid_grant", "the refresh token is one that a user has granted")

    def _check_assertion(self, assertion: str) -> None:
        hosts = ["https://login.salesforce.com", "https://test.salesforce.com", self.url]
        # the time is judged by the server's own clock
        options = {"verify_exp": False, "require": ["iss", "sub", "aud", "exp"]}
        try:
            claims = jwt.decode(assertion, self.public_key or "", ["RS256"], audience=hosts, options=options)  # type: ignore[arg-type]
        except jwt.PyJWTError as fault:
            raise self._no_grant("invalid_grant", f"the assertion is an RS256 JWT: {fault}") from fault
        if (claims["iss"], claims["sub"]) != (self.client_id, self.username):
            raise self._no_grant("invalid_grant", "iss is the consumer key and sub the user name")
        if not 0 < claims["exp"] - self.clock() <= 300:
            raise self._no_grant("invalid_grant", "exp is at most a few minutes ahead")

    def _no_grant(self, code: str, rule: str) -> Refused:
        return self.refuse(Answer(400, {"error": code, "error_description": rule}), rule)

    def authorise(self, call: Call) -> None:
        token = self.bearer(call)
        if not self.tokens.lives(token, self.clock()):
            raise self.refuse(self.unauthorised(call), None if self.tokens.knows(token) else "a token of this org")

    def unauthorised(self, call: Call) -> Answer:
        return error(401, "INVALID_SESSION_ID", "Session expired or invalid")

    def throttled(self, call: Call, wait: float, limit: Limit | None, **options: Any) -> Answer:
        return error(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")

    def broken(self, call: Call, *, status: int = 503, code: str = "SERVER_UNAVAILABLE") -> Answer:
        return error(status, code, "Server unavailable")

    def refused_batch(self, call: Call, *, code: str = "JSON_PARSER_ERROR", **options: Any) -> Answer:
        return error(400, code, "The request cannot be read")

    def error(self, status: int, code: str, message: str) -> Answer:
        return error(status, {400: "JSON_PARSER_ERROR", 404: "NOT_FOUND"}.get(status, code.upper()), message)

    def finish(self, call: Call, answer: Answer) -> None:
        if call.kind != "token" and self.limits:
            used = self.limits[0].amount - self.limits[0].left(self.clock())
            answer.headers["Sforce-Limit-Info"] = f"api-usage={used:g}/{self.limits[0].amount:g}"

    def check_version(self, call: Call, version: str, least: float = 0.0) -> None:
        oldest, newest = self.versions
        if not max(oldest, least) <= float(version) <= newest:
            raise self.refuse(
                self.error(404, "", "no such version"), f"the call is there in v{max(oldest, least)} to v{newest}"
            )

    def fields_of(self, name: str) -> dict[str, Field]:
        if name not in self.fields:
            raise self.refuse(error(404, "NOT_FOUND", "The requested resource does not exist"), "the object exists")
        return self.fields[name]

    @route("GET", BASE + "/sobjects/{object}/describe")
    def describe(self, call: Call, version: str, object: str) -> Any:
        self.check_version(call, version)
        fields = [field.describe(name) for name, field in self.fields_of(object).items()]
        return {"name": object, "createable": True, "updateable": True, "queryable": True, "fields": fields}

    @route("GET", BASE + "/limits")
    def usage(self, call: Call, version: str) -> Any:
        left = self.limits[0].left(self.clock()) if self.limits else self.daily_calls
        return {"DailyApiRequests": {"Max": self.daily_calls, "Remaining": int(left)}}

    # what it holds

    def find(self, object: str, name: str, value: Any) -> list[str]:
        """Return the ids of records that are there and have a value in a field."""
        if name == "Id":
            return [value] if value in self.table(object) and not self.table(object)[value]["IsDeleted"] else []
        index = self._keys.get((object, name))
        if index is None:
            index = self._keys[object, name] = {}
            for record in self.table(object).values():
                if not record["IsDeleted"] and record.get(name) is not None:
                    index.setdefault(self.fields[object][name].key(record[name]), []).append(record["Id"])
        return index.get(self.fields[object][name].key(value), [])

    def problems(
        self, call: Call, object: str, id: str | None, values: dict[str, Any]
    ) -> list[tuple[str, str, list[str]]]:
        """Return what refuses a row: code, message, fields. Without an `id` the row is a new record."""
        fields, wrong = self.fields_of(object), []
        for name, value in values.items():
            if name not in fields:
                wrong.append(("INVALID_FIELD", f"No such column '{name}' on sobject of type {object}", [name]))
            elif found := problem(fields[name], name, value):
                wrong.append((*found, [name]))
            elif fields[name].unique and value is not None and set(self.find(object, name, value)) - {id}:
                wrong.append(("DUPLICATE_VALUE", f"duplicate value found: {name}", [name]))
        missing = [name for name, field in fields.items() if field.required and name not in values and id is None]
        if missing:
            wrong.append(("REQUIRED_FIELD_MISSING", f"Required fields are missing: {missing}", missing))
        if id is not None and self.table(object)[id].get("IsConverted"):
            wrong.append(("CANNOT_UPDATE_CONVERTED_LEAD", "cannot reference converted lead", []))
        if (options := self.bad_row(values.values(), call)) is not None:
            code = options.get("code", "FIELD_CUSTOM_VALIDATION_EXCEPTION")
            wrong.append((code, options.get("message", "refused by a rule of the org"), []))
        return wrong

    def write(self, object: str, id: str | None, values: dict[str, Any], user: str = OURS) -> tuple[str, bool]:
        """Write a row that has no problems; returns its id and whether it is new."""
        now, created = stamp(self.clock()), id is None
        table = self.table(object)
        if id is None:
            id = f"{PREFIXES.get(object, 'a00')}{self.next_id():012d}AAA"
            table[id] = {"Id": id, "IsDeleted": False, "CreatedDate": now}
            if object == "Lead":
                table[id] |= {"IsConverted": False, "ConvertedContactId": None}
        for (of, name), index in self._keys.items():
            if of == object and name in values:
                key = self.fields[object][name].key
                if table[id].get(name) is not None:
                    index[key(table[id][name])].remove(id)
                if values[name] is not None:
                    index.setdefault(key(values[name]), []).append(id)
        table[id] |= {**values, "SystemModstamp": now, "LastModifiedDate": now, "LastModifiedById": user}
        return id, created

    def edit(self, object: str, id: str | None = None, **values: Any) -> str:
        """Write as somebody else there: what the org's users do; system fields too."""
        return self.write(object, id, values, THEIRS)[0]

    def convert(self, lead: str, contact: str) -> None:
        """Convert a lead, as a salesperson does."""
        self.edit("Lead", lead, IsConverted=True, ConvertedContactId=contact)

    def remove(self, object: str, id: str) -> None:
        self.table(object)[id] |= {"IsDeleted": True, "SystemModstamp": stamp(self.clock())}
        self._keys.clear()
