"""Single records, batches that read or archive, properties, search."""

from __future__ import annotations

from typing import Any

from heap_assets_tests.connectors.servers.core import Answer, Call, VendorServer, route
from heap_assets_tests.connectors.servers.hubspot.properties import Property, moment, objects_path

OPERATORS = ("EQ", "NEQ", "LT", "LTE", "GT", "GTE", "BETWEEN", "IN", "NOT_IN", "HAS_PROPERTY", "NOT_HAS_PROPERTY")


SEARCH = {
    "filterGroups": [{"filters": [{"propertyName": str, "operator": str, "values": list}]}],
    "sorts": [{"propertyName": str, "direction": str}],
    "properties": [str],
}


class Reading(VendorServer):
    """What `HubSpotServer` answers about records it holds; `wrong`, `find`, `write`, `properties` are the account's."""

    search_rows, search_depth = 200, 10_000

    @objects_path("POST", "/batch/read", "read", shape={"inputs": list, "idProperty": str, "properties": [str]})
    def read_many(self, call: Call, of: str, version: str = "2026-03") -> Any:
        inputs, name = self.inputs(call, of, version), call.body.get("idProperty", "hs_object_id")
        self._unique_name(of, name)
        ids = [(one.get("id"), self.find(of, name, str(one.get("id")))) for one in inputs]
        told = {
            "status": "COMPLETE",
            "results": [self._shown(of, id, call.body.get("properties")) for _, id in ids if id],
        }
        missing = [asked for asked, id in ids if id is None]
        if missing:
            text = "Could not get some objects, they may be deleted or not exist."
            error = {"status": "error", "category": "OBJECT_NOT_FOUND", "message": text, "context": {"ids": missing}}
            told |= {"numErrors": 1, "errors": [error]}
        return Answer(207 if missing else 200, told)

    @objects_path("POST", "/batch/archive")
    def archive_many(self, call: Call, of: str, version: str = "2026-03") -> Any:
        for one in self.inputs(call, of, version):
            if id := self.find(of, "hs_object_id", str(one.get("id"))):
                self.table(of)[id] |= {"archived": True, "updatedAt": self.stamp()}
        return None  # 204

    @objects_path("POST", "/search", "read", shape=SEARCH)
    def search(self, call: Call, of: str, version: str = "2026-03") -> Any:
        fields, body = self.object(of, version), call.body
        groups, after, limit = body.get("filterGroups", []), body.get("after", "0"), body.get("limit", 10)
        filters = [one for group in groups for one in group.get("filters", [])]
        if not isinstance(limit, int) or not 0 < limit <= self.search_rows:
            raise self.wrong(f"a search gives at most {self.search_rows} rows a page")
        if not str(after).isdigit() or int(after) + limit > self.search_depth:
            raise self.wrong(f"a search gives at most {self.search_depth} rows in all")
        if len(groups) > 5 or any(len(group.get("filters", [])) > 6 for group in groups) or len(filters) > 18:
            raise self.wrong("at most 5 groups, 6 filters a group and 18 in all")
        sorts = [sort.get("propertyName") for sort in body.get("sorts", [])]
        if len(sorts) > 1 or not {one.get("propertyName") for one in filters} | set(sorts) <= fields.keys():
            raise self.wrong("filters and the one sort name properties that exist")
        if not all(one.get("operator") in OPERATORS and _has_value(one) for one in filters):
            raise self.wrong(f"a filter has a value, and an operator of {', '.join(OPERATORS)}")
        rows = [row for row in self.table(of).values() if not row["archived"]]
        if groups:
            rows = [r for r in rows if any(all(_fits(f, fields, r) for f in g["filters"]) for g in groups)]
        if sorts:
            down = body["sorts"][0].get("direction") == "DESCENDING"
            rows.sort(
                key=lambda row: _comparable(fields[sorts[0]], row["properties"].get(sorts[0]) or ""), reverse=down
            )
        start = int(after)
        page = rows[start : start + limit]
        told = {"total": len(rows), "results": [self._shown(of, row["id"], body.get("properties")) for row in page]}
        more = {"paging": {"next": {"after": str(start + limit)}}} if start + limit < len(rows) else {}
        return told | more

    @objects_path("POST", "", shape=dict)
    def create_one(self, call: Call, of: str, version: str = "2026-03") -> Any:
        self.object(of, version)
        return Answer(201, self._write_one(call, of, None))

    @objects_path("PATCH", "/{id}", shape=dict)
    def update_one(self, call: Call, of: str, id: str, version: str = "2026-03") -> Any:
        return self._write_one(call, of, self._there(call, of, id, version))

    @objects_path("GET", "/{id}")
    def read_one(self, call: Call, of: str, id: str, version: str = "2026-03") -> Any:
        names = call.query.get("properties")
        return self._shown(of, self._there(call, of, id, version), names.split(",") if names else None)

    def _write_one(self, call: Call, of: str, target: str | None) -> dict[str, Any]:
        values = call.body.get("properties")
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            raise self.wrong("`properties` are texts")
        code, message = self._problem(call, of, {"properties": values}, target, "create")
        if code:
            raise self.refuse(self.error(409 if code == "CONFLICT" else 400, code, message))
        return self.write(of, target, values)

    def _there(self, call: Call, of: str, id: str, version: str) -> str:
        self.object(of, version)
        name = call.query.get("idProperty", "hs_object_id")
        self._unique_name(of, name)
        found = self.find(of, name, id)
        if found is None:
            raise self.refuse(self.error(404, "OBJECT_NOT_FOUND", "resource not found"))
        return found

    def _unique_name(self, of: str, name: str) -> None:
        if name != "hs_object_id" and not self.object(of).get(name, Property()).unique:
            raise self.wrong("the `idProperty` is unique")

    def _shown(self, of: str, id: str, names: list[str] | None) -> dict[str, Any]:
        record = self.table(of)[id]
        always = ("createdate", "hs_object_id", "lastmodifieddate", "hs_lastmodifieddate")
        shown = [
            name for name in self.object(of) if name in (names or ("email", "firstname", "lastname")) or name in always
        ]
        return record | {"properties": {name: record["properties"].get(name) for name in shown}}

    # properties

    @route("GET", "/crm/v3/properties/{of}")
    def list_properties(self, call: Call, of: str) -> Any:
        return {"results": [_described(name, one) for name, one in self.object(of).items()]}

    @route("GET", "/crm/v3/properties/{of}/{name}")
    def read_property(self, call: Call, of: str, name: str) -> Any:
        if name not in self.object(of):
            raise self.refuse(self.error(404, "OBJECT_NOT_FOUND", "no such property"))
        return _described(name, self.properties[of][name])

    @route("POST", "/crm/v3/properties/{of}", shape=dict)
    def create_property(self, call: Call, of: str) -> Any:
        if not {"name", "label", "type", "fieldType", "groupName"} <= set(call.body):
            raise self.wrong("a property has name, label, type, fieldType and groupName")
        if call.body["name"] in self.object(of):
            raise self.refuse(self.error(409, "OBJECT_ALREADY_EXISTS", "the property exists"))
        options = tuple(one["value"] for one in call.body.get("options", []))
        made = Property(call.body["type"], bool(call.body.get("hasUniqueValue")), options=options)
        self.properties[of][call.body["name"]] = made
        return Answer(201, _described(call.body["name"], made))


def _described(name: str, one: Property) -> dict[str, Any]:
    kinds = {"bool": "booleancheckbox", "enumeration": "checkbox" if one.many else "select", "string": "text"}
    return {
        "name": name,
        "label": name,
        "type": one.type,
        "fieldType": kinds.get(one.type, one.type),
        "hasUniqueValue": one.unique,
        "options": [{"label": value, "value": value} for value in one.options],
        "modificationMetadata": {"readOnlyValue": one.read_only},
    }


def _has_value(one: dict[str, Any]) -> bool:
    names = {"IN": ("values",), "NOT_IN": ("values",), "BETWEEN": ("value", "highValue")}
    return "HAS_PROPERTY" in one["operator"] or set(names.get(one["operator"], ("value",))) <= set(one)


def _comparable(field: Property, value: str) -> Any:
    if field.type in ("date", "datetime"):
        return moment(value) or 0.0
    return float(value or 0) if field.type == "number" else value.lower()


def _fits(one: dict[str, Any], fields: dict[str, Property], row: dict[str, Any]) -> bool:
    field, held, sign = fields[one["propertyName"]], row["properties"].get(one["propertyName"]), one["operator"]
    if sign in ("HAS_PROPERTY", "NOT_HAS_PROPERTY"):
        return (held is not None) is (sign == "HAS_PROPERTY")
    if held is None:
        return sign in ("NEQ", "NOT_IN")
    mine = _comparable(field, held)
    if sign in ("IN", "NOT_IN"):
        return (mine in [_comparable(field, value) for value in one["values"]]) is (sign == "IN")
    value = _comparable(field, str(one["value"]))
    if sign == "BETWEEN":
        return bool(value <= mine <= _comparable(field, str(one["highValue"])))
    signs = {"EQ": mine == value, "NEQ": mine != value, "LT": mine < value, "GT": mine > value}
    return bool({**signs, "LTE": mine <= value, "GTE": mine >= value}[sign])
