"""Single records and collections of up to 200: create, update, upsert, delete."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from heap_assets_tests.connectors.servers.core import Answer, Call, VendorServer, route
from heap_assets_tests.connectors.servers.salesforce.shapes import BASE, error, row_errors

if TYPE_CHECKING:
    from heap_assets_tests.connectors.servers.salesforce.schema import Field

Wrong = list[tuple[str, str, list[str]]]
Plan = tuple[str, "str | None", dict[str, Any], Wrong]
"""Object, id (None makes one), values, what is wrong with the row."""


class Records(VendorServer):
    """What `SalesforceServer` answers about records; `fields`, `find`, `problems` and `write` are the org's."""

    @route("PATCH", BASE + "/composite/sobjects/{object}/{field}")
    def upsert_many(self, call: Call, version: str, object: str, field: str) -> Any:
        self.check_version(call, version, 46)
        self.external_id(call, object, field)
        rows = self._rows(call)
        keys = Counter(self.fields[object][field].key(row.get(field)) for row in rows)
        plans: list[Plan] = []
        for row in rows:
            if row["attributes"]["type"] != object:
                raise self.refuse(error(400, "INVALID_TYPE", "types differ"), "all records are of the URI's type")
            values = {name: value for name, value in row.items() if name != "attributes"}
            key = row.get(field)
            ids = self.find(object, field, key) if key is not None else []
            wrong = self.problems(call, object, ids[0] if ids else None, values)
            if "id" in row or "Id" in row:
                self.broke("records of an upsert have no id", call)
                wrong.insert(0, ("INVALID_FIELD", "cannot specify Id in an upsert call", ["Id"]))
            if key in (None, ""):
                self.broke("every record has the external id", call)
                wrong.insert(0, ("MISSING_ARGUMENT", f"{field} not specified", []))
            elif keys[self.fields[object][field].key(key)] > 1:
                self.broke("an external id is once in a call", call, row=True, key=key)
                wrong.insert(0, ("DUPLICATE_VALUE", f"Duplicate external id specified: {key}", [field]))
            elif len(ids) > 1:
                wrong.insert(0, ("DUPLICATE_EXTERNAL_ID", f"{field}: more than one record found: {ids}", [field]))
            plans.append((object, ids[0] if ids else None, values, wrong))
        return self._carry_out(call, plans)

    @route("PATCH", BASE + "/composite/sobjects")
    def update_many(self, call: Call, version: str) -> Any:
        self.check_version(call, version, 42)
        plans: list[Plan] = []
        rows = self._rows(call)
        ids = Counter(row.get("id", row.get("Id")) for row in rows)
        for row in rows:
            object, id = row["attributes"]["type"], row.get("id", row.get("Id"))
            values = {name: value for name, value in row.items() if name not in ("attributes", "id", "Id")}
            self.fields_of(object)
            if id is None:
                self.broke("every record of an update has its id", call)
                plans.append((object, None, values, [("MISSING_ARGUMENT", "Id not specified in an update call", [])]))
            elif ids[id] > 1:
                self.broke("an id is once in a call", call, row=True, key=id)
                plans.append((object, None, values, [("DUPLICATE_VALUE", "duplicate id in list", ["Id"])]))
            elif not self.find(object, "Id", id):
                deleted = id in self.table(object)
                code = "ENTITY_IS_DELETED" if deleted else "INVALID_CROSS_REFERENCE_KEY"
                plans.append((object, None, values, [(code, "invalid cross reference id", [])]))
            else:
                plans.append((object, id, values, self.problems(call, object, id, values)))
        return self._carry_out(call, plans)

    @route("POST", BASE + "/composite/sobjects")
    def create_many(self, call: Call, version: str) -> Any:
        self.check_version(call, version, 42)
        plans: list[Plan] = []
        for row in self._rows(call):
            values = {name: value for name, value in row.items() if name != "attributes"}
            object = row["attributes"]["type"]
            plans.append((object, None, values, self.problems(call, object, None, values)))
        return self._carry_out(call, plans)

    def _rows(self, call: Call) -> list[dict[str, Any]]:
        body = call.body
        rows = body.get("records") if isinstance(body, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or not rows:
            raise self.refuse(error(400, "JSON_PARSER_ERROR", "records"), "the body has a list of `records`")
        if not isinstance(body.get("allOrNone", False), bool) or set(body) - {"records", "allOrNone"}:
            raise self.refuse(
                error(400, "JSON_PARSER_ERROR", "members"), "beside `records` there is `allOrNone`, a bool"
            )
        if len(rows) > 200:
            text = "record limit reached. cannot submit more than 200 records into this call"
            raise self.refuse(error(400, "EXCEEDED_ID_LIMIT", text), "at most 200 records a call")
        if any(isinstance(value, dict | list) for row in rows for name, value in row.items() if name != "attributes"):
            raise self.refuse(error(400, "JSON_PARSER_ERROR", "values"), "values are single ones")
        if not all(
            isinstance(row.get("attributes"), dict) and isinstance(row["attributes"].get("type"), str) for row in rows
        ):
            raise self.refuse(error(400, "INVALID_TYPE", "attributes.type"), "every record has `attributes.type`")
        return rows

    def _carry_out(self, call: Call, plans: list[Plan]) -> list[dict[str, Any]]:
        if self.type_errors == "batch":
            for _, _, _, wrong in plans:
                for code, message, _ in wrong:
                    if code == "INVALID_TYPE_ON_FIELD_IN_RECORD":
                        raise self.refuse(error(400, "JSON_PARSER_ERROR", message))
        rolled_back = call.body.get("allOrNone", False) and any(wrong for *_, wrong in plans)
        answers = []
        for object, id, values, wrong in plans:
            if rolled_back and not wrong:
                wrong = [("ALL_OR_NONE_OPERATION_ROLLED_BACK", "a neighbour was refused", [])]
            # rows of one call see each other: what an earlier one took is taken
            wrong = wrong or self.problems_of_neighbours(object, id, values)
            if wrong:
                answers.append({"success": False, "errors": row_errors(wrong)})
                continue
            fresh, created = self.write(object, id, values)
            answers.append({"id": fresh, "success": True, "errors": []})
            if self.created_member:
                answers[-1]["created"] = created
        return answers

    def problems_of_neighbours(self, object: str, id: str | None, values: dict[str, Any]) -> Wrong:
        unique = [name for name in values if self.fields[object][name].unique and values[name] is not None]
        taken = [name for name in unique if set(self.find(object, name, values[name])) - {id}]
        return [("DUPLICATE_VALUE", f"duplicate value found: {taken}", taken)] if taken else []

    # one record

    @route("PATCH", BASE + "/sobjects/{object}/{field}/{value:path}", shape=dict)
    def upsert_one(self, call: Call, version: str, object: str, field: str, value: str) -> Any:
        self.check_version(call, version)
        self.external_id(call, object, field)
        if value.endswith(".inc"):
            raise self.refuse(error(404, "NOT_FOUND", "not found"), "a value in a path does not end like a file")
        if field in call.body:
            rule = "the external id of a single upsert is in the path only"
            raise self.refuse(error(400, "INVALID_FIELD", rule, [field]), rule)
        ids = self.find(object, field, value)
        if len(ids) > 1:
            return Answer(300, [f"/services/data/v{version}/sobjects/{object}/{id}" for id in ids])
        if not ids and call.query.get("updateOnly") == "true":
            return error(404, "NOT_FOUND", "Provided external ID field does not exist or is not accessible")
        wrong = self.problems(call, object, ids[0] if ids else None, {**call.body, field: value})
        if wrong:
            return error(400, *wrong[0])
        id, created = self.write(object, ids[0] if ids else None, {**call.body, field: value})
        return Answer(201 if created else 200, {"id": id, "success": True, "errors": [], "created": created})

    @route("GET", BASE + "/sobjects/{object}/{field}/{value:path}")
    def read_by_key(self, call: Call, version: str, object: str, field: str, value: str) -> Any:
        self.external_id(call, object, field)
        ids = self.find(object, field, value)
        if len(ids) > 1:
            return Answer(300, [f"/services/data/v{version}/sobjects/{object}/{id}" for id in ids])
        return self.read_one(call, version, object, ids[0] if ids else "")

    @route("POST", BASE + "/sobjects/{object}", shape=dict)
    def create_one(self, call: Call, version: str, object: str) -> Any:
        if wrong := self.problems(call, object, None, call.body):
            return error(400, *wrong[0])
        id, _ = self.write(object, None, call.body)
        return Answer(201, {"id": id, "success": True, "errors": []})

    @route("PATCH", BASE + "/sobjects/{object}/{id}", shape=dict)
    def update_one(self, call: Call, version: str, object: str, id: str) -> Any:
        self._there(object, id)
        if wrong := self.problems(call, object, id, call.body):
            return error(400, *wrong[0])
        self.write(object, id, call.body)
        return None

    @route("GET", BASE + "/sobjects/{object}/{id}")
    def read_one(self, call: Call, version: str, object: str, id: str) -> Any:
        self._there(object, id)
        url = f"/services/data/v{version}/sobjects/{object}/{id}"
        return {"attributes": {"type": object, "url": url}, **self.table(object)[id]}

    @route("DELETE", BASE + "/sobjects/{object}/{id}")
    def delete_one(self, call: Call, version: str, object: str, id: str) -> Any:
        self._there(object, id)
        self.remove(object, id)
        return None  # 204

    def _there(self, object: str, id: str) -> None:
        self.fields_of(object)
        if not self.find(object, "Id", id):
            raise self.refuse(error(404, "NOT_FOUND", "The requested resource does not exist"))

    def external_id(self, call: Call, object: str, name: str) -> Field:
        field = self.fields_of(object).get(name)
        if field is None or not (field.external_id or name == "Id"):
            raise self.refuse(
                error(400, "INVALID_FIELD", f"{name} is no external id"), "the key field is an external id"
            )
        if name != "Id" and not field.unique and not self.view_all_data:
            rule = "an external id that is not unique needs View All Data"
            raise self.refuse(error(400, "INSUFFICIENT_ACCESS_OR_READONLY", rule), rule)
        return field
