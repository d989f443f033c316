"""Reading: SOQL of one object, what was updated and deleted in a time."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from starlette.datastructures import QueryParams

from heap_assets_tests.connectors.servers.core import Answer, Call, Refused, VendorServer, route
from heap_assets_tests.connectors.servers.salesforce.schema import DATE, DATETIME, NUMBER, Field
from heap_assets_tests.connectors.servers.salesforce.shapes import BASE, DAY, error, moment, stamp

_QUERY = re.compile(
    r"\s*SELECT\s+(?P<fields>[\w\s,]+?)\s+FROM\s+(?P<object>\w+)(\s+WHERE\s+(?P<where>.+?))?"
    r"(\s+ORDER\s+BY\s+(?P<order>\w+)(\s+(?P<way>ASC|DESC))?)?(\s+LIMIT\s+(?P<limit>\d+))?\s*",
    re.IGNORECASE | re.DOTALL,
)
_TEXT = r"'(?:[^'\\]|\\.)*'"
_VALUE = rf"(?:{_TEXT}|[\w.:+-]+)"
_TERM = re.compile(
    rf"\s*(?P<field>\w+)\s*(?P<sign><=|>=|!=|=|<|>|\s(?:NOT\s+)?IN(?=[\s(]))\s*"
    rf"(?P<value>{_VALUE}|\(\s*{_VALUE}(?:\s*,\s*{_VALUE})*\s*\))\s*(?P<more>AND\b|OR\b|$)",
    re.IGNORECASE,
)
_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: bool(a == b),
    "!=": lambda a, b: bool(a != b),
    "<": lambda a, b: a is not None and a < b,
    ">": lambda a, b: a is not None and a > b,
    "<=": lambda a, b: a is not None and a <= b,
    ">=": lambda a, b: a is not None and a >= b,
}


class Query(VendorServer):
    """What `SalesforceServer` answers about many records; a page has `page_rows` of them."""

    page_rows = 2_000
    uri_bytes = 16_384

    @route("GET", BASE + "/query")
    def query(self, call: Call, version: str) -> Any:
        return self._first(call, version, deleted=False)

    @route("GET", BASE + "/queryAll")
    def query_all(self, call: Call, version: str) -> Any:
        return self._first(call, version, deleted=True)

    @route("GET", BASE + "/query/{cursor}")
    def more(self, call: Call, version: str, cursor: str) -> Any:
        name, _, start = cursor.rpartition("-")
        if name not in self.jobs:
            raise self.refuse(error(400, "INVALID_QUERY_LOCATOR", "invalid query locator"), "a cursor that was given")
        return self._page(name, int(start), version)

    @route(
        "POST",
        BASE + "/composite",
        "read",
        shape={"allOrNone": bool, "compositeRequest": [{"method": str, "url": str, "referenceId": str}]},
    )
    def composite(self, call: Call, version: str) -> Any:
        """Answer several queries that come in the body of one call; other parts are not needed yet."""
        self.check_version(call, version, 38)
        parts = call.body["compositeRequest"]
        rules = {
            "a part is a GET of /query of the same version": all(
                part["method"] == "GET" and part["url"].startswith(f"/services/data/v{version}/query?q=")
                for part in parts
            ),
            "1 to 5 queries": 0 < len(parts) <= 5,
            "each part has a name of its own": len({part["referenceId"] for part in parts}) == len(parts),
        }
        if broken := [rule for rule, kept in rules.items() if not kept]:
            raise self.refuse(error(400, "JSON_PARSER_ERROR", broken[0]), broken[0])
        return {"compositeResponse": [self._part(call, part, version) for part in parts]}

    def _part(self, call: Call, part: dict[str, Any], version: str) -> dict[str, Any]:
        query = QueryParams(part["url"].partition("?")[2])
        try:
            status, body = 200, self._first(replace(call, query=query, path=""), version, deleted=False)
        except Refused as refused:
            self.broke(refused.rule or "a part is answered", call)
            status, body = refused.answer.status, refused.answer.body
        return {"body": body, "httpHeaders": {}, "httpStatusCode": status, "referenceId": part["referenceId"]}

    def _first(self, call: Call, version: str, *, deleted: bool) -> Any:
        self.check_version(call, version)
        if len(call.path) + len(str(call.query)) > self.uri_bytes:
            raise self.refuse(Answer(414, "URI Too Long"), f"a URI has at most {self.uri_bytes} bytes")
        job = self.start_job(call, rows=self._select(call, version, deleted=deleted))
        return self._page(job.id, 0, version)

    def _page(self, name: str, start: int, version: str) -> dict[str, Any]:
        rows = self.jobs[name].state["rows"]
        end = start + self.page_rows
        page = {"totalSize": len(rows), "done": end >= len(rows), "records": rows[start:end]}
        if end < len(rows):
            page["nextRecordsUrl"] = f"/services/data/v{version}/query/{name}-{end}"
        return page

    def _select(self, call: Call, version: str, *, deleted: bool) -> list[dict[str, Any]]:
        parts = _QUERY.fullmatch(call.query.get("q", ""))
        if parts is None or parts["object"] not in self.fields:
            raise self._wrong("MALFORMED_QUERY", "the query is SELECT … FROM an object")
        object, fields = parts["object"], self.fields[parts["object"]]
        names = [name.strip() for name in parts["fields"].split(",")]
        order = parts["order"] or "Id"
        if unknown := [name for name in (*names, order) if name not in fields]:
            raise self._wrong("INVALID_FIELD", f"the fields of a query exist: {unknown}")
        fits = self._where(parts["where"] or "", fields)
        rows = [row for row in self.table(object).values() if (deleted or not row["IsDeleted"]) and fits(row)]
        # null comes first
        rows.sort(
            key=lambda row: ((value := row.get(order)) is not None, value or 0),
            reverse=parts["way"] in ("DESC", "desc"),
        )
        url = f"/services/data/v{version}/sobjects/{object}/"
        return [
            {"attributes": {"type": object, "url": url + row["Id"]}, **{name: row.get(name) for name in names}}
            for row in rows[: int(parts["limit"]) if parts["limit"] else None]
        ]

    def _where(self, text: str, fields: dict[str, Field]) -> Callable[[dict[str, Any]], bool]:
        terms: list[Callable[[dict[str, Any]], bool]] = []
        words: set[str] = set()
        at = 0
        while at < len(text):
            term = _TERM.match(text, at)
            if term is None:
                raise self._wrong("MALFORMED_QUERY", "conditions are `field sign value`, texts in quotes and escaped")
            if term["field"] not in fields:
                raise self._wrong("INVALID_FIELD", f"the fields of a query exist: {term['field']}")
            terms.append(self._term(term["field"], fields[term["field"]], term["sign"].upper().split(), term["value"]))
            words |= {term["more"].upper()} - {""}
            at = term.end()
        if len(words) > 1:
            raise self._wrong("MALFORMED_QUERY", "AND and OR are not mixed without parentheses")
        join = any if words == {"OR"} else all
        return lambda row: join(term(row) for term in terms)

    def _term(self, name: str, field: Field, sign: list[str], text: str) -> Callable[[dict[str, Any]], bool]:
        def comparable(value: Any) -> Any:
            if field.type == "datetime" and value is not None:
                return moment(value)
            return field.key(value)

        if sign[-1] == "IN":
            if not text.startswith("("):
                raise self._wrong("MALFORMED_QUERY", "IN takes a list in parentheses")
            values = {comparable(self._value(one, field)) for one in re.findall(_VALUE, text[1:-1])}
            return lambda row: (comparable(row.get(name)) in values) is (len(sign) == 1)
        value, compare = comparable(self._value(text, field)), _SIGNS[sign[0]]
        return lambda row: compare(comparable(row.get(name)), value)

    def _value(self, text: str, field: Field) -> Any:
        if text.lower() == "null":
            return None
        quoted = text.startswith("'")
        if field.type in ("boolean", "datetime", "date", "double", "int", "currency", "percent"):
            good = {"boolean": re.compile("(?i)true|false"), "datetime": DATETIME, "date": DATE}.get(field.type, NUMBER)
            if quoted or not good.fullmatch(text):
                raise self._wrong("INVALID_FIELD", f"a value of type {field.type} is written without quotes, as itself")
            return text.lower() == "true" if field.type == "boolean" else float(text) if good is NUMBER else text
        if not quoted:
            raise self._wrong("INVALID_FIELD", "texts are in quotes")
        return re.sub(r"\\(.)", lambda found: {"n": "\n", "t": "\t", "r": "\r"}.get(found[1], found[1]), text[1:-1])

    def _wrong(self, code: str, rule: str) -> Exception:
        return self.refuse(error(400, code, rule), rule)

    @route("GET", BASE + "/sobjects/{object}/updated")
    def updated(self, call: Call, version: str, object: str) -> Any:
        rows, end = self._changed(call, object, 30)
        ids = [row["Id"] for row in rows if not row["IsDeleted"]]
        if len(ids) > 600_000:
            raise self.refuse(error(400, "EXCEEDED_ID_LIMIT", "too many"), "at most 600,000 ids")
        return {"ids": ids, "latestDateCovered": stamp(end)}

    @route("GET", BASE + "/sobjects/{object}/deleted")
    def deleted(self, call: Call, version: str, object: str) -> Any:
        rows, end = self._changed(call, object, 15)
        gone = [{"id": row["Id"], "deletedDate": row["SystemModstamp"]} for row in rows if row["IsDeleted"]]
        earliest = stamp(self.clock() - 15 * DAY)
        return {"deletedRecords": gone, "earliestDateAvailable": earliest, "latestDateCovered": stamp(end)}

    def _changed(self, call: Call, object: str, days: int) -> tuple[list[dict[str, Any]], float]:
        self.fields_of(object)
        texts = [call.query.get("start", ""), call.query.get("end", "")]
        if not all(DATETIME.fullmatch(text) for text in texts):
            raise self._wrong("INVALID_REPLICATION_DATE", "start and end are ISO 8601 with a zone")
        # seconds are ignored
        start, end = (moment(text) // 60 * 60 for text in texts)
        if start < self.clock() - days * DAY or start >= end:
            raise self._wrong("INVALID_REPLICATION_DATE", f"start is before end and at most {days} days back")
        return [row for row in self.table(object).values() if start <= moment(row["SystemModstamp"]) < end], end
