"""Bulk API 2.0: jobs that take a CSV."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

from heap_assets_tests.connectors.servers.core import Answer, Call, Job, Limit, Sliding, VendorServer, route
from heap_assets_tests.connectors.servers.salesforce.schema import from_text
from heap_assets_tests.connectors.servers.salesforce.shapes import BASE, DAY, error, stamp

_JOBS = BASE + "/jobs/ingest"
_CELL = re.compile(r'(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|\Z)')
_LINE = re.compile(r"[^\n]*(\n|\Z)")
OPERATIONS = ("insert", "update", "upsert", "delete", "hardDelete")
ENDINGS = {"LF": "\n", "CRLF": "\r\n"}


class Bulk(VendorServer):
    """What `SalesforceServer` answers about jobs: rows are applied at `UploadComplete`, told when the job is over."""

    upload_bytes = 100_000_000
    """Before base64, by which 150 MB count."""
    hard_delete = False
    result_columns = ("sf__Id", "sf__Created", "sf__Error")

    def bulk_limits(self) -> list[Limit]:
        return [
            Sliding("150,000,000 records in 24 h", 150_000_000, DAY, cost=_rows_uploaded),
            Sliding(
                "15,000 batches of 10,000 rows in 24 h",
                15_000,
                DAY,
                cost=lambda call: -(-_rows_uploaded(call) // 10_000),
            ),
        ]

    @property
    def open_jobs(self) -> list[str]:
        """Jobs that were neither completed nor aborted: they hang about for days."""
        return [job.id for job in self.jobs.values() if job.state.get("state") == "Open"]

    @route("POST", _JOBS, shape={"object": str, "externalIdFieldName": str})
    def start(self, call: Call, version: str) -> Any:
        self.check_version(call, version, 41)
        body = call.body
        known = {"object", "operation", "externalIdFieldName", "contentType", "lineEnding", "columnDelimiter"}
        rules = {
            f"a job has only {sorted(known)}": isinstance(body, dict) and not set(body) - known,
            "the operation is one of " + ", ".join(OPERATIONS): body.get("operation") in OPERATIONS,
            "hardDelete needs a permission": body.get("operation") != "hardDelete" or self.hard_delete,
            "externalIdFieldName is there for upsert, and only then": ("externalIdFieldName" in body)
            is (body.get("operation") == "upsert"),
            "contentType is CSV": body.get("contentType", "CSV") == "CSV",
            "lineEnding is LF or CRLF": body.get("lineEnding", "LF") in ENDINGS,
            "columnDelimiter is COMMA": body.get("columnDelimiter", "COMMA") == "COMMA",
        }
        if broken := [rule for rule, kept in rules.items() if not kept]:
            raise self.refuse(error(400, "INVALIDJOB", broken[0]), broken[0])
        self.fields_of(body["object"])
        if body["operation"] == "upsert":
            self.external_id(call, body["object"], body["externalIdFieldName"])
        job = self.start_job(call, **{"lineEnding": "LF", "state": "Open", "upload": None, "version": version} | body)
        return self._told(job)

    @route("PUT", _JOBS + "/{id}/batches", takes="text/csv")
    def upload(self, call: Call, version: str, id: str) -> Any:
        job = self._job(id)
        if call.size > self.upload_bytes:
            raise self.refuse(
                error(413, "REQUEST_TOO_LARGE", "too large"), f"an upload has at most {self.upload_bytes} bytes"
            )
        if job.state["state"] != "Open" or job.state["upload"] is not None:
            raise self.refuse(error(400, "INVALIDJOBSTATE", "not open"), "one upload per job, while it is open")
        job.state["upload"] = call.body
        return Answer(201)

    @route("PATCH", _JOBS + "/{id}", shape={"state": str})
    @route("PATCH", _JOBS + "/{id}/", shape={"state": str})
    def close(self, call: Call, version: str, id: str) -> Any:
        job, state = self._job(id), (call.body or {}).get("state")
        if state not in ("UploadComplete", "Aborted") or set(call.body) != {"state"}:
            raise self.refuse(error(400, "INVALIDJOB", "state"), "the state to set is UploadComplete or Aborted")
        if state == "UploadComplete" and job.state["state"] != "Open":
            raise self.refuse(error(400, "INVALIDJOBSTATE", "not open"), "an open job is completed, once")
        if state == "UploadComplete" and job.state["upload"] is None:
            raise self.refuse(error(400, "INVALIDJOBSTATE", "no data"), "a job is completed after its upload")
        job.state["state"] = state
        if state == "UploadComplete":
            self._process(call, job)
        return self._told(job)

    @route("GET", _JOBS + "/{id}")
    def poll(self, call: Call, version: str, id: str) -> Any:
        job = self._job(id)
        if job.state["state"] in ("UploadComplete", "InProgress"):
            job.state["state"] = job.state["end"] if self.is_done(job) else "InProgress"
        return self._told(job)

    @route("DELETE", _JOBS + "/{id}")
    def forget(self, call: Call, version: str, id: str) -> Any:
        if self._job(id).state["state"] not in ("JobComplete", "Failed", "Aborted"):
            raise self.refuse(error(400, "INVALIDJOBSTATE", "running"), "a job is deleted when it is over")
        del self.jobs[id]
        return None  # 204

    @route("GET", _JOBS + "/{id}/{which}")
    def results(self, call: Call, version: str, id: str, which: str) -> Any:
        job = self._job(id)
        kind = {"successfulresults": "good", "failedresults": "bad", "unprocessedrecords": "left"}.get(which.lower())
        if kind is None:
            raise self.refuse(error(404, "NOT_FOUND", which), "results are successful, failed or unprocessed")
        if job.state["state"] not in ("JobComplete", "Failed", "Aborted"):
            raise self.refuse(error(400, "INVALIDJOBSTATE", "running"), "results are there when the job is over")
        id_, created, wrong = self.result_columns
        head = {"good": [id_, created], "bad": [id_, wrong], "left": []}[kind] + job.state.get("columns", [])
        text = io.StringIO()
        writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator=ENDINGS[job.state["lineEnding"]])
        writer.writerow(head)
        # no order is promised
        writer.writerows(reversed(job.state.get(kind, [])))
        return Answer(200, text.getvalue().encode(), {"Content-Type": "text/csv"})

    def _job(self, id: str) -> Job:
        job = self.jobs.get(id)
        if job is None or "lineEnding" not in job.state or job.started < self.clock() - 7 * DAY:
            raise self.refuse(error(404, "NOT_FOUND", "The requested resource does not exist"))
        return job

    def _told(self, job: Job) -> dict[str, Any]:
        state, over = job.state, job.state["state"] in ("JobComplete", "Failed", "Aborted")
        told = {name: state[name] for name in ("object", "operation", "lineEnding", "state")}
        told |= {"externalIdFieldName": state["externalIdFieldName"]} if "externalIdFieldName" in state else {}
        bad, good = (len(state.get(kind, [])) if over else 0 for kind in ("bad", "good"))
        return (
            told
            | {
                "id": job.id,
                "contentType": "CSV",
                "columnDelimiter": "COMMA",
                "concurrencyMode": "Parallel",
                "jobType": "V2Ingest",
                "apiVersion": float(state["version"]),
                "createdDate": stamp(job.started),
                "systemModstamp": stamp(self.clock()),
                "contentUrl": f"services/data/v{state['version']}/jobs/ingest/{job.id}/batches",
                "numberRecordsProcessed": bad + good,
                "numberRecordsFailed": bad,
            }
            | ({"errorMessage": state["message"]} if over and "message" in state else {})
        )

    def _process(self, call: Call, job: Job) -> None:
        state = job.state
        state |= {"end": "JobComplete", "good": [], "bad": [], "left": []}
        rows = _cells(state["upload"], ENDINGS[state["lineEnding"]])
        columns, *rows = rows if isinstance(rows, list) and rows else [[]]
        state["columns"] = columns
        fields = self.fields[state["object"]]
        rules = {
            f"lines end in {state['lineEnding']}": _ends_well(state["upload"], state["lineEnding"]),
            "the header is names of fields": bool(columns) and not [name for name in columns if name not in fields],
            "the header has the key": self._key(state) in columns,
            "at most 5,000 fields": len(columns) <= 5_000,
        }
        if broken := [rule for rule, kept in rules.items() if not kept]:
            self.broke(broken[0], call)
            state |= {"end": "Failed", "message": f"InvalidBatch : {broken[0]}", "left": rows}
            return
        done = len(rows)
        if job.fails is not None:
            done = job.fails.get("done", 0)
            state |= {"end": "Failed", "message": "InternalServerError : the job was stopped", "left": rows[done:]}
        for row in rows[:done]:
            self._row(call, state, columns, row)

    def _key(self, state: dict[str, Any]) -> str | None:
        return {
            "upsert": state.get("externalIdFieldName"),
            "insert": state["columns"][0] if state["columns"] else None,
        }.get(state["operation"], "Id")

    def _row(self, call: Call, state: dict[str, Any], columns: list[str], row: list[str] | None) -> None:
        object, operation, key = state["object"], state["operation"], self._key(state)
        if row is None or len(row) != len(columns):
            self.broke("a row is as long as the header, and nothing stands beside a quote", call)
            state["bad"].append(["", "INVALID_CSV_ROW:cannot be read:--", *(row or [])])
            return
        text = dict(zip(columns, row, strict=True))
        if max(map(len, row)) > 32_000 or sum(map(len, row)) > 400_000:
            self.broke(
                "a field has at most 32,000 characters and a record 400,000", call, row=True, key=text.get(key or "")
            )
            state["bad"].append(["", "STRING_TOO_LONG:too long:--", *row])
            return
        fields = self.fields[object]
        values = {n: None if v == "#N/A" else from_text(fields[n], v) for n, v in text.items() if v != "" and n != "Id"}
        ids = [] if operation == "insert" else self.find(object, key or "Id", text[key or "Id"])
        wrong: list[tuple[str, str, list[str]]] = []
        if operation == "upsert" and text[key or ""] == "":
            wrong = [("MISSING_ARGUMENT", f"{key} not specified", [])]
        elif operation in ("update", "delete", "hardDelete") and not ids:
            wrong = [("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", [])]
        elif len(ids) > 1:
            wrong = [("DUPLICATE_EXTERNAL_ID", f"{key}: more than one record found", [key or ""])]
        elif operation in ("insert", "update", "upsert"):
            wrong = self.problems(call, object, ids[0] if ids else None, values)
        if wrong:
            code, message, named = wrong[0]
            state["bad"].append([ids[0] if ids else "", f"{code}:{message}:{','.join(named) or '--'}", *row])
        elif operation in ("delete", "hardDelete"):
            self.remove(object, ids[0])
            state["good"].append([ids[0], "false", *row])
        else:
            id, created = self.write(object, ids[0] if ids else None, values)
            state["good"].append([id, "true" if created else "false", *row])


def _rows_uploaded(call: Call) -> int:
    return call.raw.count(b"\n") if call.method == "PUT" and "/batches" in call.path else 0


def _ends_well(text: str, ending: str) -> bool:
    ends = text.count("\r\n")
    return ends == (text.count("\n") if ending == "CRLF" else 0)


def _cells(text: str, ending: str) -> list[Any]:
    """Read a CSV; a line that is none (something beside a quote) is None."""
    rows: list[Any] = []
    row: list[str] = []
    at = 0
    while at < len(text):
        cell = _CELL.match(text, at)
        if cell is None:
            rows.append(None)
            row, at = [], _LINE.match(text, at).end()  # type: ignore[union-attr]
            continue
        row.append(cell[2] if cell[1] is None else cell[1].replace('""', '"'))
        at = cell.end()
        if cell[3] != ",":
            rows.append(row)
            row = []
    return rows
