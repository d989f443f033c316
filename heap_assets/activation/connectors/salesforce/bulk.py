"""Jobs of the Bulk API 2.0: a CSV is uploaded, worked on, and each row that was refused is named with its columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from heap_assets.activation.connectors.salesforce.account import error_of
from heap_assets.activation.connectors.salesforce.results import Result, Work, Write
from heap_assets.activation.engine.exchange import Remember, Request, Step, Wait
from heap_assets.activation.engine.verdict import Response, RowVerdict, reason_of

EMPTY_CELL = "#N/A"
"""Empties a field; a cell without anything leaves it alone."""
JOB_ROWS, JOB_BYTES = 10_000, 90_000_000
"""Rows that Salesforce works on at once; an upload has 100 MB at most."""
_OVER = frozenset({"JobComplete", "Failed", "Aborted"})
_LONGEST_RESULTS = 3 * JOB_BYTES
_SLOWER, _LONGEST_PAUSE = 1.5, 60.0
_NO_JOB = 404
Steps = Generator[Step, Response, None]


@dataclass
class Jobs:
    """The jobs of one batch. `pause`: seconds before the first look at a job."""

    base: str
    key: str
    pause: float
    started: list[dict[str, Any]] = field(default_factory=list)

    def write(self, operation: str, object: str, writes: Sequence[Write], work: Work) -> Steps:
        """Write rows as one job."""
        job = {"object": object, "operation": operation, "contentType": "CSV", "lineEnding": "LF"}
        job |= {"externalIdFieldName": self.key} if operation == "upsert" else {}
        answer = yield Request(f"{self.base}/jobs/ingest", orjson.dumps(job))
        if not answer.accepted:
            work.refused = reason_of(answer)
            return
        state: dict[str, Any] = {"id": answer.fields["id"], "rows": [write.index for write in writes]}
        if operation == "update":
            state["ids"] = [write.id for write in writes]
        self.started.append(state)
        yield Remember({"jobs": self.started})
        text = as_csv("Id" if operation == "update" else self.key, writes)
        upload = yield Request(self._address(state, "/batches"), text, "PUT", headers={"Content-Type": "text/csv"})
        # one upload a job: a second one after a lost answer is refused, and the job goes on with the first
        if not upload.accepted and error_of(upload)[0] != "INVALIDJOBSTATE":
            work.refused = reason_of(upload)
            yield self._change(state, "Aborted")
            return
        yield self._change(state, "UploadComplete")
        yield Wait(self.pause)
        yield from self._end(state, work)

    def resume(self, started: Sequence[Mapping[str, Any]], work: Work) -> Steps:
        """Go on with jobs that an earlier run started."""
        for state in started:
            yield from self._end(state, work)
        unsent = RowVerdict("unknown", "its lead was converted: the row is sent again, to its contact")
        work.verdicts |= dict.fromkeys(work.converted, unsent)

    def _end(self, state: Mapping[str, Any], work: Work) -> Steps:
        pause = self.pause
        while True:
            answer = yield Request(self._address(state), method="GET", reads=frozenset({_NO_JOB}))
            if answer.status == _NO_JOB:
                unanswered = RowVerdict("unknown", "the job is not kept any more: the row is sent again")
                work.verdicts |= dict.fromkeys(state["rows"], unanswered)
                return
            job = answer.fields
            if job["state"] in _OVER:
                break
            if job["state"] == "Open":  # its upload never came
                work.refused = "the job was not completed"
                yield self._change(state, "Aborted")
                return
            yield Wait(pause)
            pause = min(pause * _SLOWER, max(_LONGEST_PAUSE, self.pause))
        yield from self._read(state, job, work)

    def _read(self, state: Mapping[str, Any], job: Mapping[str, Any], work: Work) -> Steps:
        """Read what became of the rows: only what was refused, where the job's own figures cover all of them."""
        ids, rows = state.get("ids"), state["rows"]
        column = "Id" if ids else self.key
        places = dict(zip(ids or (work.rows[row].key for row in rows), rows, strict=True))
        is_whole = job["state"] == "JobComplete" and int(job.get("numberRecordsProcessed") or 0) >= len(rows)
        refused = int(job.get("numberRecordsFailed") or 0)
        if refused or not is_whole:
            answer = yield self._results(state, "failedResults")
            for value, result in _results(answer, column):
                if value in places:
                    work.tell(places.pop(value), result if result.code else Result(code="FAILED"))
        if is_whole and len(rows) - len(places) == refused:
            for value, row in places.items():
                work.tell(row, Result(value if ids else None))
            return
        answer = yield self._results(state, "successfulResults")
        for value, result in _results(answer, column):
            if value in places:
                work.tell(places[value], result)
        work.refused = str(job.get("errorMessage") or f"the job ended as {job['state']}")

    def _results(self, state: Mapping[str, Any], name: str) -> Request:
        return Request(self._address(state, f"/{name}"), method="GET", longest_answer=_LONGEST_RESULTS)

    def _change(self, state: Mapping[str, Any], to: str) -> Request:
        return Request(self._address(state), orjson.dumps({"state": to}), "PATCH")

    def _address(self, state: Mapping[str, Any], below: str = "") -> str:
        return f"{self.base}/jobs/ingest/{state['id']}{below}"


def as_csv(key: str, writes: Sequence[Write]) -> bytes:
    """Write rows as a job takes them; what a row does not have leaves its field alone."""
    names = list(dict.fromkeys(name for write in writes for name in write.fields))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([key, *names])
    for write in writes:
        cells = [_cell(write.fields[name]) if name in write.fields else "" for name in names]
        writer.writerow([write.id or write.key, *cells])
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    if value is None or value == "":
        return EMPTY_CELL
    if isinstance(value, bool):
        return "true" if value else "false"
    # lines of the file end in LF, and one within a cell that ends otherwise would refuse the file
    return str(value).replace("\r\n", "\n").replace("\r", "\n")


def _results(answer: Response, column: str) -> Iterator[tuple[str, Result]]:
    """Yield what a row had in a column, and what became of it; Salesforce's own columns begin with `sf__`."""
    for row in csv.DictReader(io.StringIO(answer.body.decode("utf-8-sig"))):
        own = {name.lower(): cell for name, cell in row.items() if name and name.lower().startswith("sf__")}
        code, _, text = own.get("sf__error", "").partition(":")
        message, _, fields = text.rpartition(":")
        named = tuple(name for name in fields.split(",") if name.strip("-"))
        yield row[column], Result(own.get("sf__id") or None, code, message or text, named)
