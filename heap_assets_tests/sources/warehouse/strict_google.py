"""A BigQuery that keeps what Google's documents say of partition filters, types and loads, where the emulator does not.

It holds rows in DuckDB and answers REST and the Storage Read API as far as our requests go. Refused are: a read of a
table that demands a partition filter unless one of the conditions that are joined by AND names the partition column
alone; a comparison of a column with a literal of another type; a change of type that ALTER COLUMN does not make; a load
whose schema is not the table's, whose file has other types than its schema, or that leaves a REQUIRED column null.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import unquote

import duckdb
import grpc  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
import sqlglot
from google.cloud.bigquery_storage_v1 import types as storage
from sqlglot import exp

from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
from heap_assets_tests.sources.warehouse.refusing_google import ENDED, Google, RefusingGoogle, refusing_google

STANDARD = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}
PSEUDO = "_PARTITIONTIME"
COERCED = {
    "INT64": {"NUMERIC", "BIGNUMERIC", "FLOAT64"},
    "NUMERIC": {"BIGNUMERIC", "FLOAT64"},
    "BIGNUMERIC": {"FLOAT64"},
}
LITERALS = {"TIMESTAMPTZ": "TIMESTAMP", "TIMESTAMP": "DATETIME", "DATE": "DATE"}
"""What sqlglot calls BigQuery's types, and they themselves."""
ANSWERS = {"BIGINT": "INTEGER", "HUGEINT": "INTEGER", "INTEGER": "INTEGER", "VARCHAR": "STRING", "DATE": "DATE"}
COMPARISONS = (exp.GT, exp.GTE, exp.LT, exp.LTE, exp.EQ, exp.NEQ)


class RefusedError(Exception):
    """A request that BigQuery answers with 400; its text is the message."""


@dataclass(repr=False)
class StrictGoogle(RefusingGoogle):
    """See above.

    Attributes
    ----------
    resources
        Table or view to its description, as tables.get answers it.
    project, payer
        Whose tables they are, and who asks for jobs; there is no other.
    etag
        Of every table, until it is changed.
    reads
        View to the table that it reads.
    hidden
        Views that keep a filter from their table, as one that numbers its rows does.
    restrictions
        The conditions of all reads that were let pass.
    """

    resources: dict[str, dict[str, Any]] = field(default_factory=dict)
    project: str = "p"
    payer: str = ""
    etag: str = "e0"
    reads: dict[str, str] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    restrictions: list[str] = field(default_factory=list)
    database: duckdb.DuckDBPyConnection = field(default_factory=duckdb.connect)
    sessions: dict[str, pa.Table] = field(default_factory=dict)
    results: dict[str, pa.Table] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.database.execute("SET TimeZone = 'UTC'")
        self.database.execute("CREATE MACRO FARM_FINGERPRINT(x) AS CAST(hash(x) % 1000000007 AS BIGINT)")

    @property
    def account(self) -> BigQueryAccount:
        return Google(self.payer or self.project, endpoint=self.url, storage_endpoint=self.storage)

    def hold(self, table: str, fields: str, query: str, partition: str | None = None, **described: Any) -> None:
        """Make a table of a DuckDB query; `fields` as `id INT64 REQUIRED, at TIMESTAMP`."""
        self.database.execute(f"CREATE OR REPLACE TABLE {table} AS {query}")
        parts = [entry.split() for entry in fields.split(", ")]
        schema = [{"name": name, "type": kind, "mode": (mode or ["NULLABLE"])[0]} for name, kind, *mode in parts]
        kinds = {entry["name"]: entry["type"] for entry in schema}
        if partition is not None:
            by = {} if partition == PSEUDO else {"field": partition}
            limits = {"start": "0", "end": "100", "interval": "10"}
            ranged = {"rangePartitioning": {**by, "range": limits}}
            timed = {"timePartitioning": {"type": "DAY", **by}}
            described |= ranged if kinds.get(partition) == "INT64" else timed
            described["requirePartitionFilter"] = True
        self.resources[table] = {"schema": {"fields": schema}, "type": "TABLE", **described}

    def change(self, statement: str) -> None:
        """Change rows by a statement of DuckDB."""
        self.database.execute(statement)
        self.etag = f"e{int(self.etag[1:]) + 1}"

    def answer(self, method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        self.asked.append((method, path, body))
        try:
            return 200, self._answered(method, path.partition("?")[0], body or {})
        except RefusedError as refused:
            error = {"reason": "invalidQuery", "message": str(refused)}
            return 400, {"error": {"code": 400, "message": str(refused), "errors": [error]}}
        except KeyError as missing:
            message = f"Not found: Table p:d.{missing.args[0]}"
            return 404, {"error": {"code": 404, "message": message, "errors": [{"reason": "notFound"}]}}

    def _answered(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        asking = unquote(path.partition("/projects/")[2].partition("/")[0]) or self.project
        self._own(self.project if asking == self.payer and "/datasets" not in path else asking)
        own = {"projectId": self.project, "datasetId": "d"}
        if path.endswith("/tables") and method == "POST":
            self._own(body["tableReference"]["projectId"])
            name = body["tableReference"]["tableId"]
            self.resources[name] = {"type": "TABLE", **body}
            return body
        if path.endswith("/tables"):
            listed = [(name, resource["type"]) for name, resource in self.resources.items()]
            return {"tables": [{"tableReference": {**own, "tableId": name}, "type": kind} for name, kind in listed]}
        if path.endswith("/datasets/d"):
            return {"datasetReference": own}
        if "/tables/" in path:
            name = path.rpartition("/")[2]
            resource = self.resources[name]
            if method == "DELETE":
                return self.resources.pop(name)
            if method == "PATCH":
                _refuse_other_than_additions(resource["schema"]["fields"], body["schema"]["fields"])
                resource["schema"] = body["schema"]
            return {
                **resource,
                "tableReference": {**own, "tableId": name},
                "etag": self.etag,
            }
        if method == "GET":
            return self._done(path.rpartition("/")[2])
        job = body.get("jobReference", {}).get("jobId") or "j1"
        configuration = body["configuration"]
        if "load" in configuration:
            if method == "PUT":
                self._load(configuration["load"])
            return self._done(job, configuration)
        text = configuration["query"]["query"]
        if text.startswith("ALTER TABLE"):
            self._alter(text)
            self.results[job] = pa.table({})
        else:
            self.results[job] = self._selected(text)
        return self._done(job, configuration)

    def _own(self, project: str) -> None:
        if project != self.project:
            raise RefusedError(f"The project {project} has not enabled BigQuery.")

    def _done(self, job: str, configuration: dict[str, Any] | None = None) -> dict[str, Any]:
        rows = self.results.get(job, pa.table({}))
        fields = [{"name": entry.name, "type": _answer_type(entry.type)} for entry in rows.schema]
        cells = [{"f": [{"v": _cell(value)} for value in row.values()]} for row in rows.to_pylist()]
        scanned = {"totalBytesProcessed": "10", "totalBytesBilled": "10"}
        return {
            "jobReference": {"projectId": self.payer or self.project, "jobId": job, "location": "EU"},
            "status": {"state": "DONE"},
            "jobComplete": True,
            "schema": {"fields": fields},
            "rows": cells,
            "totalRows": str(len(cells)),
            "configuration": configuration or {"query": {}},
            "statistics": {
                "load": {"outputRows": "1"},
                "query": scanned,
                **scanned,
                "endTime": str(int(ENDED.timestamp() * 1000)),
            },
        }

    def _selected(self, text: str) -> pa.Table:
        tree = sqlglot.parse_one(text, dialect="bigquery")
        where = tree.args.get("where")
        if "INFORMATION_SCHEMA.PARTITIONS" in text:
            return self._partitions_of(where.this.right.this)
        for project, name in {(table.catalog, table.name) for table in tree.find_all(exp.Table) if table.db}:
            self._own(project)
            self.admit(name, where.this if where else None)
        for table in tree.find_all(exp.Table):
            if table.db:
                table.set("db", None)
                table.set("catalog", None)
        return self.database.sql(tree.sql(dialect="duckdb")).to_arrow_table()

    def _partitions_of(self, table: str) -> pa.Table:
        day = self.resources[table]["timePartitioning"]["field"]
        return self.database.sql(
            f"SELECT strftime({day}, '%Y%m%d') AS partition_id, count(*) AS total_rows, "
            f"TIMESTAMPTZ '{ENDED.isoformat()}' AS last_modified_time FROM {table} GROUP BY {day}"
        ).to_arrow_table()

    def admit(self, name: str, where: exp.Expression | None) -> None:
        """Let a read pass, or raise what it is refused for."""
        kinds = self._kinds(name)
        conditions = list(where.flatten()) if isinstance(where, exp.And) else [where] if where is not None else []
        for comparison in where.find_all(*COMPARISONS) if where is not None else ():
            column, literal = kinds.get(comparison.left.name), _literal(comparison.right)
            if column and literal and column != literal:
                operator = comparison.key.upper()
                raise RefusedError(
                    f"No matching signature for operator {operator} for argument types: {column}, {literal}"
                )
        base = self.reads.get(name, name)
        partition = self._demanded(base)
        passed = [{column.name for column in condition.find_all(exp.Column)} == {partition} for condition in conditions]
        if partition and (name in self.hidden or not any(passed)):
            columns = (
                f"'_PARTITION_LOAD_TIME', '_PARTITIONDATE', '{PSEUDO}'" if partition == PSEUDO else f"'{partition}'"
            )
            raise RefusedError(
                f"Cannot query over table 'p.d.{base}' without a filter over column(s) {columns} that can be used for "
                "partition elimination"
            )
        self.restrictions.append(where.sql(dialect="bigquery") if where is not None else "")

    def _demanded(self, table: str) -> str | None:
        resource = self.resources[table]
        if not resource.get("requirePartitionFilter"):
            return None
        by = resource.get("timePartitioning") or resource["rangePartitioning"]
        return str(by.get("field", PSEUDO))

    def _kinds(self, table: str) -> dict[str, str]:
        fields = self.resources[table]["schema"]["fields"]
        return {PSEUDO: "TIMESTAMP", **{entry["name"]: _kind(entry) for entry in fields}}

    def _alter(self, text: str) -> None:
        widened = re.fullmatch(r"ALTER TABLE `[^`]*\.([^`]*)` ALTER COLUMN `([^`]*)` SET DATA TYPE (.*)", text)
        added = re.fullmatch(r"ALTER TABLE `[^`]*\.([^`]*)` ADD COLUMN IF NOT EXISTS `([^`]*)` (\S+).*", text)
        match = widened or added
        assert match, text
        fields = self.resources[match[1]]["schema"]["fields"]
        wanted = _parsed(match[2], sqlglot.parse_one(f"CAST(NULL AS {match[3]})", dialect="bigquery").to)
        if added:
            fields.append(wanted)
            return
        index = next(index for index, entry in enumerate(fields) if entry["name"] == match[2])
        if not _coerces(fields[index], wanted):
            raise RefusedError(
                f"ALTER TABLE ALTER COLUMN SET DATA TYPE requires that the existing type is assignable: {text}"
            )
        fields[index] = {**wanted, "mode": fields[index].get("mode", "NULLABLE")}

    def _load(self, load: dict[str, Any]) -> None:
        self._own(load["destinationTable"]["projectId"])
        table = load["destinationTable"]["tableId"].partition("$")[0]
        own, told = self.resources[table]["schema"]["fields"], load["schema"]["fields"]
        mine, theirs = [{_described(entry) for entry in fields} for fields in (own, told)]
        if mine != theirs:
            raise RefusedError(f"Provided Schema does not match Table p:d.{table}: {sorted(mine ^ theirs)}")
        rows = pq.read_table(io.BytesIO(self.received))
        for entry in own:
            _refuse_other_types(entry, rows.schema.field(entry["name"]).type)
            if entry.get("mode") == "REQUIRED" and rows[entry["name"]].null_count:
                raise RefusedError(f"Required field {entry['name']} cannot be null")
        self.database.execute(f'CREATE OR REPLACE TABLE "{table}" AS SELECT * FROM rows')

    def create_read_session(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        asked = storage.CreateReadSessionRequest.deserialize(request).read_session
        name, options = asked.table.rpartition("/")[2], asked.read_options
        self._own(asked.table.split("/")[1])
        columns = ", ".join(f'"{column}"' for column in options.selected_fields)
        where = sqlglot.parse_one(options.row_restriction, dialect="bigquery") if options.row_restriction else None
        try:
            self.admit(name, where)
        except RefusedError as refused:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(refused))
        rows = self.database.sql(
            f'SELECT {columns} FROM "{name}" WHERE {where.sql(dialect="duckdb") if where is not None else "true"}'
        ).to_arrow_table()
        session = f"projects/p/locations/eu/sessions/{len(self.sessions)}"
        self.sessions[f"{session}/streams/1"] = rows
        answer = storage.ReadSession(
            name=session,
            arrow_schema=storage.ArrowSchema(serialized_schema=rows.schema.serialize().to_pybytes()),
            streams=[storage.ReadStream(name=f"{session}/streams/1")],
        )
        return storage.ReadSession.serialize(answer)  # type: ignore[no-any-return]

    def read_rows(self, request: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
        for batch in self.sessions[storage.ReadRowsRequest.deserialize(request).read_stream].to_batches():
            data = storage.ArrowRecordBatch(serialized_record_batch=batch.serialize().to_pybytes())
            answer = storage.ReadRowsResponse(arrow_record_batch=data, row_count=batch.num_rows)
            yield storage.ReadRowsResponse.serialize(answer)


@contextmanager
def strict_google(project: str = "p") -> Iterator[StrictGoogle]:
    """Run both servers."""
    google = StrictGoogle(project=project)

    class Storage(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            if call.method.endswith("/ReadRows"):
                return grpc.unary_stream_rpc_method_handler(google.read_rows)
            return grpc.unary_unary_rpc_method_handler(google.create_read_session)

    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((Storage(),))
    google.storage = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    with refusing_google(google):
        yield google
    server.stop(None)
    google.database.close()


def _literal(side: exp.Expression) -> str | None:
    if isinstance(side, exp.Cast):
        return LITERALS.get(side.to.this.name)
    number = side.this if isinstance(side, exp.Neg) else side
    if isinstance(number, exp.Literal):
        return "STRING" if number.is_string else "INT64"
    return None


def _kind(entry: dict[str, Any]) -> str:
    return STANDARD.get(entry["type"], str(entry["type"]))


def _described(entry: dict[str, Any]) -> str:
    inner = ", ".join(sorted(_described(child) for child in entry.get("fields", ())))
    limits = [str(entry[limit]) for limit in ("precision", "scale", "maxLength") if limit in entry]
    return f"{entry['name'].casefold()} {entry.get('mode', 'NULLABLE')} {_kind(entry)}{limits} <{inner}>"


def _parsed(name: str, kind: exp.DataType) -> dict[str, Any]:
    if kind.this.name == "ARRAY":
        return {**_parsed(name, kind.expressions[0]), "mode": "REPEATED"}
    if kind.this.name == "STRUCT":
        children = [_parsed(child.name, child.args["kind"]) for child in kind.expressions]
        return {"name": name, "type": "STRUCT", "mode": "NULLABLE", "fields": children}
    return {"name": name, "type": kind.sql(dialect="bigquery"), "mode": "NULLABLE"}


def _coerces(old: dict[str, Any], new: dict[str, Any]) -> bool:
    if (old.get("mode") == "REPEATED") != (new["mode"] == "REPEATED"):
        return False
    if _kind(old) == _kind(new) == "STRUCT":
        names = [child["name"] for child in new["fields"]]
        return names == [child["name"] for child in old["fields"]] and all(map(_coerces, old["fields"], new["fields"]))
    return _kind(old) == _kind(new) or _kind(new) in COERCED.get(_kind(old), ())


def _refuse_other_than_additions(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> None:
    for before, after in zip(old, new, strict=False):
        if before.get("fields"):
            _refuse_other_than_additions(before["fields"], after["fields"])
        elif _described(before) != _described(after):
            raise RefusedError(f"Provided Schema does not match Table: {_described(before)}, {_described(after)}")
    if len(new) < len(old) or any(entry.get("mode") == "REQUIRED" for entry in new[len(old) :]):
        raise RefusedError("Provided Schema does not match Table: fields are missing, or REQUIRED")


def _refuse_other_types(entry: dict[str, Any], kind: pa.DataType) -> None:
    if entry.get("mode") == "REPEATED":
        assert pa.types.is_list(kind), f"{entry['name']} is {kind}"
        kind = kind.value_type
    if entry.get("fields"):
        assert pa.types.is_struct(kind), f"{entry['name']} is {kind}"
        for child in entry["fields"]:
            _refuse_other_types(child, kind.field(child["name"]).type)
        return
    fits = {
        "INT64": pa.types.is_int64, "FLOAT64": pa.types.is_float64, "NUMERIC": pa.types.is_decimal,
        "BIGNUMERIC": pa.types.is_decimal, "STRING": pa.types.is_string, "DATE": pa.types.is_date32,
    }  # fmt: skip
    if not fits[_kind(entry)](kind):
        raise RefusedError(f"Parquet column '{entry['name']}' has type {kind} which does not match {_kind(entry)}")


def _answer_type(kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP" if kind.tz else "DATETIME"
    if pa.types.is_floating(kind):
        return "FLOAT"
    return "STRING" if pa.types.is_string(kind) else "DATE" if pa.types.is_date(kind) else "INTEGER"


def _cell(value: Any) -> str | None:
    if isinstance(value, datetime):
        at = value if value.tzinfo else value.replace(tzinfo=UTC)
        return str(int(at.timestamp() * 1_000_000)) if value.tzinfo else value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    return None if value is None else str(value)
