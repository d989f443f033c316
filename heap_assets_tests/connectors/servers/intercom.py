"""An Intercom workspace: contacts one by one, a search that lags, events that are deduplicated by the second."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

from heap_assets_tests.connectors.servers.core import Answer, Call, Fixed, Limit, Refused, VendorServer, route
from heap_assets_tests.connectors.servers.intercom_search import STANDARD, Search


class IntercomServer(Search, VendorServer):
    """A workspace; contacts are in `records["contact"]`, `attributes[name]` is the type of a custom attribute.

    Types are string, integer, float, boolean and date (Unix seconds).

    Parameters
    ----------
    index_seconds
        How long after a write the search does not know it: minutes, by the documents.
    zone
        The workspace's, by whose days dates are searched.
    app_a_minute, workspace_a_minute, searches_a_minute
        Cut into windows of 10 s.
    versions
        What `Intercom-Version` may say.
    """

    token = "token-1"

    def __init__(
        self,
        *,
        index_seconds: float = 0.0,
        zone: str = "America/New_York",
        app_a_minute: int = 10_000,
        workspace_a_minute: int = 25_000,
        searches_a_minute: int = 1_000,
        versions: tuple[str, ...] = ("2.10", "2.11", "2.12", "2.13", "2.14", "2.15", "2.16", "2.17"),
        **core: Any,
    ) -> None:
        self.index_seconds, self.zone, self.versions = index_seconds, ZoneInfo(zone), versions
        self._a_minute = (app_a_minute, workspace_a_minute, searches_a_minute)
        self.attributes: dict[str, str] = {}
        self.merged: set[str] = set()
        self._keys: dict[tuple[str, str], list[str]] = {}
        self._happened: set[tuple[Any, ...]] = set()
        super().__init__(**core)

    def documented_limits(self) -> list[Limit]:
        app, workspace, searches = (amount // 6 for amount in self._a_minute)
        return [
            Fixed("app, 10 s", app, 10),
            Fixed("workspace, 10 s", workspace, 10),
            Fixed("search, 10 s", searches, 10, cost=lambda call: call.path.endswith("/search")),
        ]

    def authorise(self, call: Call) -> None:
        if self.bearer(call) != self.token:
            raise self.refuse(self.unauthorised(call), "the token is sent as Bearer")
        version = call.headers.get("intercom-version")
        if version is None:
            self.broke("a version is always sent: without it the app's own applies", call)
        elif version not in self.versions:
            raise self.wrong("the version is one that is there", "intercom_version_invalid")

    def unauthorised(self, call: Call) -> Answer:
        return self.error(401, "unauthorized", "Access Token Invalid")

    def throttled(self, call: Call, wait: float, limit: Limit | None, **options: Any) -> Answer:
        return self.error(429, "rate_limit_exceeded", "You have exceeded the rate limit")

    def refused_batch(self, call: Call, *, status: int = 422, code: str = "parameter_invalid") -> Answer:
        return self.error(status, code, "refused")

    def error(self, status: int, code: str, message: str) -> Answer:
        errors = [{"code": code, "message": message}]
        return Answer(status, {"type": "error.list", "request_id": f"r-{self.next_id()}", "errors": errors})

    def finish(self, call: Call, answer: Answer) -> None:
        if self.limits:
            # no Retry-After is documented: who is throttled waits until Reset
            limit, now = self.limits[-1 if call.path.endswith("/search") else 0], self.clock()
            answer.headers["X-RateLimit-Limit"] = f"{limit.amount:g}"
            answer.headers["X-RateLimit-Remaining"] = f"{limit.left(now):g}"
            answer.headers["X-RateLimit-Reset"] = f"{limit.resets(now):.0f}"

    def wrong(self, rule: str, code: str = "parameter_invalid", status: int = 400) -> Refused:
        return self.refuse(self.error(status, code, rule), rule)

    # contacts

    @route("GET", "/contacts/find_by_external_id/{key}")
    def find_by_external_id(self, call: Call, key: str) -> Any:
        users = [id for id in self.find("external_id", key) if self.table("contact")[id]["role"] == "user"]
        if not users:
            raise self.refuse(self.error(404, "not_found", "User Not Found"))
        return self.table("contact")[users[0]]

    @route("POST", "/contacts", shape=dict)
    def create(self, call: Call) -> Any:
        if not {"email", "external_id", "role"} & {name for name, value in call.body.items() if value}:
            raise self.wrong("a new contact has an email, an external_id or a role")
        self._check(call, None)
        id = f"{self.next_id():024x}"
        self.write(id, {"role": "user" if call.body.get("external_id") else "lead"} | call.body)
        return self.table("contact")[id]

    @route("PUT", "/contacts/{id}", shape=dict)
    def update(self, call: Call, id: str) -> Any:
        self._there(id)
        self._check(call, id)
        self.write(id, call.body)
        return self.table("contact")[id]

    @route("GET", "/contacts/{id}")
    def read(self, call: Call, id: str) -> Any:
        return self._there(id)

    @route("DELETE", "/contacts/{id}")
    def delete(self, call: Call, id: str) -> Any:
        contact = self._there(id)
        for name in ("external_id", "email"):
            if contact.get(name):
                self._keys[name, str(contact[name]).lower() if name == "email" else contact[name]].remove(id)
        del self.table("contact")[id]
        return {"id": id, "type": "contact", "deleted": True}

    @route("POST", "/contacts/{id}/archive", takes="application/json")
    def archive(self, call: Call, id: str) -> Any:
        self._there(id)["archived"] = True
        return {"id": id, "type": "contact", "archived": True}

    def merge(self, lead: str, user: str) -> None:
        """Merge a lead into a user, as people there do: the old id is gone."""
        self.merged.add(lead)
        self.table("contact")[user]["updated_at"] = int(self.clock())

    def _there(self, id: str) -> dict[str, Any]:
        if id not in self.table("contact") or id in self.merged:
            raise self.refuse(self.error(404, "not_found", "Contact Not Found"))
        return self.table("contact")[id]

    def find(self, name: str, value: str, *, archived: bool = False) -> list[str]:
        ids = self._keys.get((name, value.lower() if name == "email" else value), [])
        return [id for id in ids if id not in self.merged and self.table("contact")[id]["archived"] is archived]

    def _check(self, call: Call, id: str | None) -> None:
        body = call.body
        for name, value in body.items():
            if name not in STANDARD:
                raise self.wrong("fields of a contact are documented ones")
            if value is not None and (
                not isinstance(value, STANDARD[name]) or (STANDARD[name] is int and value is True)
            ):
                raise self.wrong(f"types of fields: {name} is {STANDARD[name].__name__}")
        if body.get("role") not in (None, "user", "lead"):
            raise self.wrong("a role is user or lead")
        for name, value in (body.get("custom_attributes") or {}).items():
            if name not in self.attributes:
                raise self.wrong(f"custom attributes are made before they are written: {name}")
            if value is not None and not _fits(self.attributes[name], value):
                self.broke("custom attributes have their type, texts at most 255 characters", call, row=True)
                raise self.refuse(self.error(400, "parameter_invalid", f"Custom attribute {name} is invalid"))
        plain = [value for value in body.values() if not isinstance(value, dict)]
        if self.bad_row([*plain, *(body.get("custom_attributes") or {}).values()], call) is not None:
            raise self.refuse(self.error(422, "parameter_invalid", "refused by a rule of the workspace"))
        # external ids are unique, e-mails are not
        key = body.get("external_id")
        if key and (others := [one for one in self.find("external_id", key) if one != id]):
            text = f"A contact matching those details already exists with id={others[0]}"
            raise self.refuse(self.error(409, "conflict", text))
        if key and self.find("external_id", key, archived=True) not in ([], [id]):
            text = "A contact matching those details already exists but has been archived"
            raise self.refuse(self.error(409, "conflict", text))

    def write(self, id: str, values: dict[str, Any]) -> None:
        """Write a contact, as people there do, too."""
        now = int(self.clock())
        start = {"type": "contact", "id": id, "created_at": now, "archived": False, "custom_attributes": {}}
        held = self.table("contact").setdefault(id, start)
        for name in ("external_id", "email"):
            if name in values:
                if held.get(name):
                    self._keys[name, held[name].lower() if name == "email" else held[name]].remove(id)
                if values[name]:
                    key = values[name].lower() if name == "email" else values[name]
                    self._keys.setdefault((name, key), []).append(id)
        custom = held["custom_attributes"] | (values.get("custom_attributes") or {})
        held |= {**values, "custom_attributes": custom, "updated_at": now}

    # attributes and events

    @route("GET", "/data_attributes")
    def show_attributes(self, call: Call) -> Any:
        data = [
            {"type": "data_attribute", "name": name, "full_name": f"custom_attributes.{name}", "data_type": kind}
            | {"model": "contact", "custom": True, "api_writable": True, "archived": False}
            for name, kind in self.attributes.items()
        ]
        return {"type": "list", "data": data}

    @route("POST", "/data_attributes", shape={"name": str, "model": str, "data_type": str})
    def make_attribute(self, call: Call) -> Any:
        if call.body.get("model") not in ("contact", "company") or not {"name", "data_type"} <= set(call.body):
            raise self.wrong("an attribute has a name, a model and a data_type")
        if call.body["name"] in self.attributes:
            raise self.refuse(self.error(400, "parameter_invalid", "You already have that attribute"))
        self.attributes[call.body["name"]] = call.body["data_type"]
        return {"type": "data_attribute", **call.body}

    @route("POST", "/events", shape={"event_name": str, "user_id": str, "id": str, "email": str, "metadata": dict})
    def event(self, call: Call) -> Any:
        body = call.body
        who = [name for name in ("user_id", "id", "email") if body.get(name)]
        at, metadata = body.get("created_at"), body.get("metadata", {})
        rules = {
            "an event has an event_name": isinstance(body.get("event_name"), str) and bool(body["event_name"]),
            "created_at is in Unix seconds": isinstance(at, int) and 0 < at < 100_000_000_000,
            "an event has one of user_id, id and email": len(who) == 1,
            "only documented members": set(body) <= {"event_name", "created_at", "user_id", "id", "email", "metadata"},
            "metadata is flat but for {url, value} and {amount, currency}": isinstance(metadata, dict)
            and all(_is_flat(value) for value in metadata.values()),
        }
        if broken := [rule for rule, kept in rules.items() if not kept]:
            raise self.wrong(broken[0])
        name = {"user_id": "external_id"}.get(who[0], who[0])
        ids = [body["id"]] if name == "id" and body["id"] in self.table("contact") else self.find(name, body[who[0]])
        if name != "id":
            ids = [id for id in ids if self.table("contact")[id]["role"] == "user"]  # leads by id only
        if not ids or ids[0] in self.merged:
            raise self.refuse(self.error(404, "not_found", "User Not Found"))
        if self.bad_row([body["event_name"], body[who[0]], *metadata.values()], call) is not None:
            raise self.refuse(self.error(422, "parameter_invalid", "refused by a rule of the workspace"))
        key = (ids[0], body["event_name"], at)
        if key not in self._happened:  # a repeat is ignored, with the same answer
            self._happened.add(key)
            # what comes after ten keys is dropped in silence
            self.events.append({**body, "contact": ids[0], "metadata": dict(list(metadata.items())[:10])})
        return Answer(202)


def _fits(kind: str, value: Any) -> bool:
    if kind == "boolean":
        return isinstance(value, bool)
    if kind in ("integer", "date"):
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "float":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str) and len(value) <= 255


def _is_flat(value: Any) -> bool:
    if isinstance(value, dict):
        return set(value) in ({"url", "value"}, {"amount", "currency"})
    return not isinstance(value, list)
