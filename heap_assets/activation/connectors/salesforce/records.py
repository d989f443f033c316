"""Writing records, 200 a call or many as a job: by the external id, or by ids that are looked up before."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
import polars as pl

from heap_assets.activation.connectors.salesforce.account import SalesforceApi
from heap_assets.activation.connectors.salesforce.bulk import EMPTY_CELL, JOB_BYTES, JOB_ROWS, Jobs
from heap_assets.activation.connectors.salesforce.results import Result, Work, Write, result_of
from heap_assets.activation.connectors.salesforce.settings import SalesforceSettings
from heap_assets.activation.connectors.salesforce.soql import Hit, RefusedQueryError, hit_of, look_up
from heap_assets.activation.engine.destination import BaseDestination, Row
from heap_assets.activation.engine.exchange import Exchange, Request, Step, Wait
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.value_rules import ValueRules
from heap_assets.activation.engine.verdict import Response, RowVerdict, reason_of

COLLECTION_ROWS = 200
_LONGEST_FIELD, _LONGEST_RECORD = 32_000, 400_000
_PAUSES = (1.0, 4.0, None)
"""Seconds between attempts at rows that others have locked."""
_ID = r"^[A-Za-z0-9]{15}([A-Za-z0-9]{3})?$"
Steps = Generator[Step, Response, None]


class SalesforceRecords(SalesforceApi, BaseDestination):
    """Updates, upserts or makes records."""

    mode = Mode.UPSERT
    values = ValueRules(longest=_LONGEST_FIELD)

    def __init__(self, settings: SalesforceSettings) -> None:
        self.kind = settings.kind
        self._settings, self._objects, self._key = settings, settings.records, settings.key_field
        own = {self._key.lower(), "id"}
        own |= {f"{object.lower()}.{name}" for object in settings.choice for name in own}
        super().__init__(
            settings,
            batch_rows=COLLECTION_ROWS,
            batch_bytes=JOB_BYTES,
            row_bytes=_LONGEST_RECORD,
            forbidden_names=frozenset(own),
        )

    @property
    def target(self) -> str:
        return f"{self.account}:{'+'.join(self._settings.choice)}:{self._key}"

    def batch_rows(self, planned: int) -> int:
        return COLLECTION_ROWS if planned < self._settings.bulk_from_rows else JOB_ROWS

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        key = pl.col("key")
        if self._key == "Id":
            return {"key is no id of a record": ~key.str.contains(_ID)}
        if self._settings.case_sensitive:
            return {}
        same = key.str.to_lowercase().is_duplicated() & ~key.is_duplicated()
        return {"another key is the same but for upper case": same}

    def element(self, row: Row) -> dict[str, Any]:
        object, fields = self._objects.record(row)
        if EMPTY_CELL in fields.values():
            raise ValueError(f"{EMPTY_CELL} would empty the field")
        return {"attributes": {"type": object}, self._key: row.key, **fields}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        object, _ = self._objects.record(rows[0])
        return self._collection("upsert", object, elements)

    def exchange(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Exchange:
        work = self._work(rows)
        try:
            yield from self._deliver(work, self._jobs())
        except RefusedQueryError as error:
            return work.verdict(stop=str(error))
        return work.verdict(stop=self.used_up)

    def resume(self, state: Mapping[str, Any], rows: Sequence[Row]) -> Exchange:
        work = self._work(rows)
        yield from self._jobs().resume(state["jobs"], work)
        return work.verdict(stop=self.used_up)

    def _work(self, rows: Sequence[Row]) -> Work:
        return Work(rows, self._key, self._settings.match_policy == "create_only")

    def _jobs(self) -> Jobs:
        return Jobs(self.base, self._key, self._settings.poll_seconds)

    def _deliver(self, work: Work, jobs: Jobs) -> Steps:
        policy, updates = self._settings.match_policy, []
        makes: dict[str, list[Write]] = defaultdict(list)
        for index, row in enumerate(work.rows):
            object, fields = self._objects.record(row)
            if policy == "update_only" or not row.filled:  # who only loses values is not made for that
                updates.append(index)
            else:
                makes[object].append(Write(index, row.key, fields))
        for object, writes in makes.items():
            yield from self._write("upsert" if policy == "upsert" else "insert", object, writes, work, jobs)
        if work.creates_only:
            stays = RowVerdict("no_match", "create_only leaves records as they are")
            work.verdicts |= dict.fromkeys(updates, stays)
        else:
            yield from self._update(updates, work, jobs)
        yield from self._update(list(work.converted), work, jobs)

    def _update(self, indices: Sequence[int], work: Work, jobs: Jobs) -> Steps:
        """Look records up, and write those that are exactly one; a converted lead's contact in its place."""
        writes_by_object: dict[str, list[Write]] = defaultdict(list)
        for index in indices:
            object, fields = self._objects.record(work.rows[index])
            writes_by_object[object].append(Write(index, work.rows[index].key, fields))
        targets: dict[str, list[Write]] = defaultdict(list)
        for object, writes in writes_by_object.items():
            by_key = yield from self._hits(object, [write.key for write in writes])
            for write in writes:
                hits = by_key[self._spelled(write.key)]
                target = self._target(object, write, [one for one in hits if not one.converted] or hits)
                if isinstance(target, RowVerdict):
                    work.verdicts[write.index] = target
                else:
                    targets[target[0]].append(target[1])
        for object, writes in targets.items():
            count = Counter(write.id for write in writes)
            for write in (write for write in writes if count[write.id] > 1):
                work.verdicts[write.index] = RowVerdict("invalid", "another key has the same record")
            yield from self._write("update", object, [write for write in writes if count[write.id] == 1], work, jobs)

    def _hits(self, object: str, keys: Sequence[str]) -> Generator[Step, Response, Mapping[str, list[Hit]]]:
        in_address = self._settings.look_up_by == "query"
        records = yield from look_up(self.base, object, self._key, keys, in_address=in_address)
        by_key: dict[str, list[Hit]] = defaultdict(list)
        for record in records:
            hit = hit_of(record, self._key)
            by_key[self._spelled(hit.key)].append(hit)
        return by_key

    def records_of(self, object: str, key: str) -> Generator[Request, Response, list[Mapping[str, Any]]]:
        """Look up the records of a key that are not converted, with the fields that are mapped.

        Raises RefusedQueryError.
        """
        fields, in_address = list(self._objects.fields(object)), self._settings.look_up_by == "query"
        records = yield from look_up(self.base, object, self._key, [key], in_address=in_address, more=fields)
        return [record for record in records if not hit_of(record, self._key).converted]

    def _target(self, object: str, write: Write, hits: Sequence[Hit]) -> tuple[str, Write] | RowVerdict:
        if not hits:
            return RowVerdict("no_match", f"Salesforce has no {object} with this key")
        if len(hits) > 1:
            return RowVerdict("invalid", f"{len(hits)} records have this key")
        [record] = hits
        if not record.converted:
            if not write.fields:
                return RowVerdict("acknowledged", remote_id=record.id)
            return object, replace(write, id=record.id)
        fields = {name: v for name, v in write.fields.items() if name in self._settings.converted_fields}
        if record.contact is None or not fields:
            return RowVerdict("no_match", "the lead was converted, and nothing of the row is for its contact")
        return "Contact", replace(write, id=record.contact, fields=fields)

    def _spelled(self, key: str) -> str:
        if self._key == "Id":
            return key[:15]
        return key if self._settings.case_sensitive else key.lower()

    def _write(self, operation: str, object: str, writes: Sequence[Write], work: Work, jobs: Jobs) -> Steps:
        if len(writes) > min(COLLECTION_ROWS, self._settings.bulk_from_rows - 1):
            yield from jobs.write(operation, object, writes, work)
            return
        left = list(writes)
        for pause in _PAUSES if left else ():
            answer = yield self._collection(operation, object, [self._record(object, one) for one in left])
            if not answer.accepted:
                work.refused = reason_of(answer)
                return
            left = self._judged(left, answer.json, work, last=pause is None)
            if not left or pause is None:
                return
            yield Wait(pause)

    def _judged(self, writes: Sequence[Write], results: Sequence[Any], work: Work, *, last: bool) -> list[Write]:
        """Note what is said of rows, which is in their order; returns those to try once more."""
        if len(results) != len(writes):
            unsaid = RowVerdict("unknown", f"Salesforce said something of {len(results)} of {len(writes)} records")
            work.verdicts |= {write.index: unsaid for write in writes}
            return []
        pairs = [(write, result_of(result)) for write, result in zip(writes, results, strict=True)]
        locked = [write for write, result in pairs if result.is_locked and not last]
        for write, result in pairs:
            if write not in locked:
                work.tell(write.index, self._with_id(write, result))
        return locked

    @staticmethod
    def _with_id(write: Write, result: Result) -> Result:
        return result if result.id or result.code else replace(result, id=write.id)

    def _record(self, object: str, write: Write) -> bytes:
        key = {self._key: write.key} if write.id is None else {"id": write.id}
        return orjson.dumps({"attributes": {"type": object}, **key, **write.fields})

    def _collection(self, operation: str, object: str, records: Sequence[bytes]) -> Request:
        path = f"{self.base}/composite/sobjects"
        path += f"/{object}/{self._key}" if operation == "upsert" else ""
        body = b'{"allOrNone":false,"records":[' + b",".join(records) + b"]}"
        return Request(path, body, "POST" if operation == "insert" else "PATCH")
