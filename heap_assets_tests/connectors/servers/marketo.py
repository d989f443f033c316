"""A Marketo instance: tokens that are repeated while they live, leads, static lists; errors come with HTTP 200."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Any

from heap_assets_tests.connectors.servers.core import (
    Answer,
    AtOnce,
    Call,
    Fixed,
    Limit,
    Refused,
    Sliding,
    VendorServer,
    route,
)
from heap_assets_tests.connectors.servers.marketo_lists import StaticLists, skipped
from heap_assets_tests.connectors.servers.shapes import fits

ACTIONS = ("createOrUpdate", "createOnly", "updateOnly", "createDuplicate")
LIMITS = {"606": "100 calls in 20 s", "615": "10 calls at once", "607": "calls a day, America/Chicago"}


FORM = "application/x-www-form-urlencoded"
SYNC = {"action": str, "lookupField": str, "partitionName": str}

WRITES = {"lookupField": str, "input": [dict]}


class MarketoServer(StaticLists, VendorServer):
    """An instance; `fields` are data types by REST name, `lists` the lead ids of static lists.

    Parameters
    ----------
    a_day
        Calls a day: 50,000, or 10,000 for older contracts.
    member_words
        Whether repeated changes of lists are told as `memberof` and `notmemberof`, else as `skipped`: not documented.
    """

    client_id, client_secret = "client-1", "secret-1"
    token_seconds = 3600.0
    body_bytes, uri_bytes, most_hits = 1 << 20, 8 << 10, 1000

    def __init__(self, *, a_day: int = 50_000, member_words: bool = True, **core: Any) -> None:
        self.a_day, self.member_words = a_day, member_words
        self.fields = {"id": "integer", "email": "email", "firstName": "string", "lastName": "string"}
        self.fields |= {"unsubscribed": "boolean", "heapId": "string", "company": "string"}
        self.company_fields = {"company"}
        self.lookup_fields = {"id", "email", "heapId"}
        self.list_names: dict[str, str] = {}
        super().__init__(**core)
        self._index: dict[tuple[str, str], list[str]] = {}

    def documented_limits(self) -> list[Limit]:
        return [
            Sliding(LIMITS["606"], 100, 20),
            AtOnce(LIMITS["615"], 10),
            Fixed(LIMITS["607"], self.a_day, zone="America/Chicago"),
        ]

    @route("GET", "/identity/oauth/token", "token")
    @route("POST", "/identity/oauth/token", "token", takes="application/x-www-form-urlencoded")
    def token(self, call: Call) -> Any:
        asked = dict(call.query) | (call.body or {})
        if asked != {
            "grant_type": "client_credentials",
            "client_id": self.client_id,
            "client_secret": self.client_secret,
        }:
            refusal = {"error": "unauthorized", "error_description": "Bad client credentials"}
            raise self.refuse(Answer(401, refusal), "client credentials, and nothing else, give a token")
        now = self.clock()
        living = self.tokens.newest(now) or (self.tokens.issue(self.token_seconds, now), self.token_seconds)
        return {"access_token": living[0], "token_type": "bearer", "expires_in": int(living[1]), "scope": "sync@x.io"}

    def authorise(self, call: Call) -> None:
        token = self.bearer(call)
        if not token:
            raise self.refuse(self.error(200, "600", "Access token not specified"), "the token is sent as Bearer")
        if not self.tokens.knows(token):
            raise self.refuse(self.error(200, "601", "Access token invalid"), "a token of this instance")
        if not self.tokens.lives(token, self.clock()):
            raise self.refuse(self.unauthorised(call))
        if call.size > self.body_bytes:
            raise self.refuse(Answer(413), "a body has at most 1 MB")
        if len(call.path) + 1 + len(str(call.query)) > self.uri_bytes:
            raise self.refuse(Answer(414), "a URI has at most 8 KB")

    def unauthorised(self, call: Call) -> Answer:
        return self.error(200, "602", "Access token expired")

    def throttled(self, call: Call, wait: float, limit: Limit | None, *, code: str = "606") -> Answer:
        codes = {name: code for code, name in LIMITS.items()}
        return self.error(200, codes[limit.name] if limit else code, "limit exceeded")

    def broken(self, call: Call, *, code: str = "611", status: int = 200) -> Answer:
        return self.error(status, code, "System error")

    def refused_batch(self, call: Call, *, code: str = "609") -> Answer:
        return self.error(200, code, "refused")

    def error(self, status: int, code: str, message: str) -> Answer:
        code = {"malformed": "609", "not_found": "610", "encoding": "612"}.get(code, code)
        answer = {"requestId": f"r#{self.next_id()}", "success": False, "errors": [{"code": code, "message": message}]}
        return Answer(200 if status in (400, 404, 415) else status, answer)

    def wrong(self, rule: str, code: str = "1003") -> Refused:
        return self.refuse(self.error(200, code, rule), rule)

    def told(self, result: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {"requestId": f"r#{self.next_id()}", "success": True, "result": result} | more

    # leads

    @route("POST", "/rest/v1/leads.json", takes=f"application/json {FORM}", shape=SYNC)
    def sync(self, call: Call) -> Any:
        body = call.body if isinstance(call.body, dict) else {}
        if call.headers["content-type"].startswith(FORM):
            if body.get("_method") != "GET":
                raise self.wrong("a form is a query that was too long for a URI: _method=GET", "612")
            return self._read(body)
        action, lookup, rows = body.get("action", ACTIONS[0]), body.get("lookupField", "email"), body.get("input")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or not rows:
            raise self.wrong("`input` is a list of leads", "609")
        rules = {
            "at most 300 leads a call": len(rows) <= 300,
            "only documented members": set(body)
            <= {"action", "lookupField", "input", "partitionName", "asyncProcessing"},
            f"the action is one of {', '.join(ACTIONS)}": action in ACTIONS,
            "`id` looks up for updateOnly only": lookup != "id" or action == "updateOnly",
            "partitionName is for actions that create": "partitionName" not in body or action != "updateOnly",
        }
        if broken := [rule for rule, kept in rules.items() if not kept]:
            raise self.wrong(broken[0])
        if lookup not in self.lookup_fields:
            self.broke("the lookup field is one", call)
            return self.told([skipped("1011", f"Field '{lookup}' is not allowed to be lookup") for _ in rows])
        others = [one for one in self.calls if one.running and one is not call and fits(one.body, WRITES)]
        racing = {_key(row.get(lookup)) for one in others for row in one.body.get("input", ())}
        partition = body.get("partitionName", "Default")
        return self.told([self._sync(call, row, action, lookup, partition, racing) for row in rows])

    def _sync(
        self, call: Call, row: dict[str, Any], action: str, lookup: str, partition: str, racing: set[str]
    ) -> dict[str, Any]:
        key = row.get(lookup)
        if key in (None, ""):
            self.broke("every lead has its lookup field", call)
            return skipped("1003", f"Empty value for lookup field {lookup}")
        for name, value in row.items():
            if problem := self._problem(name, value, lookup):
                return skipped(*problem)
        if (bad := self.bad_row(row.values(), call)) is not None:
            return skipped(bad.get("code", "1003"), bad.get("message", "refused by a rule of the instance"))
        ids = self.find(lookup, key)
        if racing & {_key(key)} and action != "updateOnly":
            self.broke("one call at a time writes a lead", call, row=True, key=key)
            ids = []  # concurrent upserts of a key make duplicates
        if action == "createDuplicate":
            ids = []
        if len(ids) > 1:
            return skipped("1007", "Multiple lead match lookup criteria")
        if not ids and action == "updateOnly":
            return skipped("1004", "Lead not found")
        if ids and action == "createOnly":
            return skipped("1005", "Lead already exists")
        if ids and action == "createOrUpdate" and self.table("lead")[ids[0]]["partition"] != partition:
            return skipped("1010", "Lead is in another partition")
        id = self.write(ids[0] if ids else None, row, partition)
        return {"id": int(id), "status": "updated" if ids else "created"}

    def _problem(self, name: str, value: Any, lookup: str) -> tuple[str, str] | None:
        if name not in self.fields or (name == "id" and lookup != "id"):
            return "1006", f"Field '{name}' not found"
        if name in self.company_fields:
            return "1021", f"Field '{name}' is a company field"
        if value is None:
            return None
        kind = self.fields[name]
        if not _fits(kind, value):
            return "1001", f"Invalid value '{value}'. Required of type '{kind}'"
        if (kind in ("string", "email") and len(value) > 255) or (kind == "text" and len(value.encode()) > 30_000):
            return "1003", f"Value of '{name}' is too long"
        if kind == "email" and not re.fullmatch(r"[\x21-\x3f\x41-\x7e]+@[\x21-\x3f\x41-\x7e]+\.[a-zA-Z0-9-]+", value):
            return "1003", f"Value of '{name}' is no e-mail address in ASCII"
        return None

    def find(self, name: str, value: Any) -> list[str]:
        """Return the ids of leads with a value in a lookup field, whatever its case."""
        if name == "id":
            return [str(value)] if str(value) in self.table("lead") else []
        return list(self._index.get((name, _key(value)), ()))

    def write(self, id: str | None, values: dict[str, Any], partition: str = "Default") -> str:
        """Write a lead, as people there do too; returns its id."""
        now = datetime.fromtimestamp(self.clock()).astimezone().strftime("%Y-%m-%dT%H:%M:%SZ")
        id = id or str(self.next_id())
        lead = self.table("lead").setdefault(id, {"id": int(id), "createdAt": now, "partition": partition})
        for name in self.lookup_fields & set(values) - {"id"}:
            if lead.get(name) is not None:
                self._index[name, _key(lead[name])].remove(id)
            if values[name] is not None:
                self._index.setdefault((name, _key(values[name])), []).append(id)
        lead |= {name: value for name, value in values.items() if name != "id"} | {"updatedAt": now}
        return id

    @route("GET", "/rest/v1/leads.json")
    def read(self, call: Call) -> Any:
        return self._read(dict(call.query))

    def _read(self, query: dict[str, str]) -> Any:
        name = query.get("filterType")
        values = [value for value in query.get("filterValues", "").split(",") if value]
        if name not in self.lookup_fields or not 0 < len(values) <= 300:
            raise self.wrong("filterType is a lookup field, filterValues are 1 to 300")
        names = query.get("fields", "id,email,firstName,lastName,createdAt,updatedAt").split(",")
        ids = [id for value in values for id in self.find(name, value)]
        if len(ids) >= self.most_hits:
            raise self.wrong(f"{self.most_hits} leads or more are no answer")
        leads = [self.table("lead")[id] for id in ids]
        return self.told([{"id": lead["id"]} | {n: lead.get(n) for n in names} for lead in leads])

    @route("POST", "/rest/v1/leads/delete.json", shape={"input": [{"id": int}]})
    def delete(self, call: Call) -> Any:
        rows = call.body.get("input", [])
        if not 0 < len(rows) <= 300:
            raise self.wrong("1 to 300 leads")
        gone = [self.table("lead").pop(str(row.get("id")), None) for row in rows]
        for name in self.lookup_fields - {"id"}:
            for lead in filter(None, gone):
                if lead.get(name) is not None:
                    self._index[name, _key(lead[name])].remove(str(lead["id"]))
        return self.told(
            [{"id": lead["id"], "status": "deleted"} if lead else skipped("1004", "Lead not found") for lead in gone]
        )

    @route("GET", "/rest/v1/leads/describe2.json")
    def describe(self, call: Call) -> Any:
        fields = [
            {"name": name, "displayName": name, "dataType": kind, "length": 255, "updateable": name != "id"}
            for name, kind in self.fields.items()
        ]
        searchable = [[name] for name in sorted(self.lookup_fields)]
        return self.told([{"name": "API Lead", "searchableFields": searchable, "fields": fields}])

    @route("GET", "/rest/v1/stats/usage.json")
    def usage(self, call: Call) -> Any:
        used = int(self.a_day - self.limits[-1].left(self.clock()))
        return self.told([{"date": str(date.fromtimestamp(self.clock())), "total": used, "users": []}])


def _key(value: Any) -> str:
    return str(value).lower()


def _fits(kind: str, value: Any) -> bool:
    if kind == "boolean":
        return isinstance(value, bool)
    if kind in ("integer", "score"):
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in ("float", "currency"):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind in ("date", "datetime"):
        shape = r"\d{4}-\d\d-\d\d" + (r"T\d\d:\d\d:\d\d(Z|[+-]\d\d:?\d\d)" if kind == "datetime" else "")
        return isinstance(value, str) and re.fullmatch(shape, value) is not None
    return isinstance(value, str)
