"""A server that speaks BigQuery's REST as far as our requests go, keeps them, and answers one of them with an error."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.auth.credentials import Credentials
from google.oauth2.credentials import Credentials as Token

from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount

ENDED = datetime(2026, 11, 3, 6, tzinfo=UTC)
"""When every job ended."""
FIELDS = [{"name": "partition_day", "type": "DATE"}, {"name": "id", "type": "INTEGER"}]


@dataclass(frozen=True)
class Google(BigQueryAccount):
    """An account on Google's own service, as far as the code can tell."""

    @property
    def is_emulated(self) -> bool:
        return False

    def _credentials(self) -> Credentials | None:
        return Token("of an hour")


@dataclass
class RefusingGoogle:
    """What was asked, and what is refused.

    Attributes
    ----------
    refuses
        Part of a path to status, reason and message of the answer; `job` is the outcome of every job.
    times
        Part of a path to how often it is refused; always, unless it is named.
    babbles
        Part of a path to an answer that is none.
    scans
        Part of a query to the bytes that it would scan; of several parts the last one that fits.
    kinds
        Table to what it is, if it is no table.
    received
        The file that was uploaded last.
    named
        Job to its configuration; a name is given only once.
    queried
        The query that was asked last.
    partitions
        Day to the rows of its partition and when it was written last.
    """

    url: str = ""
    storage: str = ""
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    refuses: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)
    babbles: dict[str, bytes] = field(default_factory=dict)
    scans: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    received: bytes = b""
    named: dict[str, dict[str, Any]] = field(default_factory=dict)
    queried: str = ""
    partitions: dict[date, tuple[int, datetime]] = field(default_factory=dict)
    tables: dict[str, list[dict[str, str]]] = field(default_factory=lambda: {"people": FIELDS})

    @property
    def account(self) -> BigQueryAccount:
        return Google("p", endpoint=self.url, storage_endpoint=self.storage or None)

    def jobs(self) -> list[dict[str, Any]]:
        """Return the configurations of the jobs that were asked for."""
        return [body["configuration"] for _, path, body in self.asked if body and "configuration" in body]

    def answer(self, method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        self.asked.append((method, path, body))
        for part, (status, reason, message) in self.refuses.items():
            if part != "job" and part in path and self.times.get(part, 1) > 0:
                self.times[part] = self.times.get(part, 2**30) - 1
                return status, _error(status, reason, message)
        if path.endswith("/token"):
            return 400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
        name = path.rpartition("/")[2].partition("?")[0]
        if method == "GET" and "/jobs/" in path and name.startswith("heap_assets_"):
            known = {"configuration": self.named.get(name)}
            return (200, self._job(known)) if name in self.named else (404, _error(404, "notFound", f"Job p:{name}"))
        if "/jobs" in path or "/queries" in path:
            job = (body or {}).get("jobReference", {}).get("jobId", "")
            if job in self.named and method != "GET" and "resumable" not in path:
                return 409, _error(409, "duplicate", f"Already Exists: Job p:{job}")
            if job and method != "GET" and "resumable" not in path:
                self.named[job] = body["configuration"]
            return 200, self._job(body or {})
        if "/tables/" in path and name not in self.tables:
            return 404, _error(404, "notFound", f"Not found: Table p:d.{name}")
        reference, kind = {"projectId": "p", "datasetId": "d", "tableId": name}, self.kinds.get(name, "TABLE")
        described = {"schema": {"fields": self.tables.get(name, [])}, "type": kind, "etag": "e", "numRows": "1"}
        own = {"projectId": "p", "datasetId": "d"}
        tables = [{"tableReference": {**own, "tableId": table}, "type": "TABLE"} for table in self.tables]
        listed: dict[str, list[Any]] = {"tables": tables, "datasets": [{"datasetReference": own}]}
        return 200, {"tableReference": reference, "datasetReference": reference, **described, **listed}

    def _job(self, body: dict[str, Any]) -> dict[str, Any]:
        status: dict[str, Any] = {"state": "DONE"}
        if "job" in self.refuses and self.times.get("job", 1) > 0:
            self.times["job"] = self.times.get("job", 2**30) - 1
            _, reason, message = self.refuses["job"]
            status |= {"errorResult": {"reason": reason, "message": message}}
        reference = {"projectId": "p", "jobId": "j1", "location": "EU"}
        one = {
            "rows": [{"f": [{"v": "1"}]}],
            "totalRows": "1",
            "schema": {"fields": [{"name": "one", "type": "INTEGER"}]},
        }
        configuration = body.get("configuration", {"query": {}})
        text = configuration.get("query", {}).get("query", "")
        self.queried = text if body else self.queried  # an answer is fetched by a request without a body
        if "INFORMATION_SCHEMA.PARTITIONS" in self.queried:
            one = self._partitions()
        done = {"jobReference": reference, "status": status, "jobComplete": True, **one}
        scanned = str(next((size for part, size in reversed(self.scans.items()) if part in text), 0))
        query = {"totalBytesProcessed": scanned, "totalBytesBilled": scanned}
        ended = {"endTime": str(int(ENDED.timestamp() * 1000))}
        statistics = {"load": {"outputRows": "1"}, "query": query, "totalBytesProcessed": scanned, **ended}
        return {**done, "configuration": configuration, "statistics": statistics}

    def _partitions(self) -> dict[str, Any]:
        rows = [
            {"f": [{"v": f"{day:%Y%m%d}"}, {"v": str(rows)}, {"v": str(int(written.timestamp() * 1_000_000))}]}
            for day, (rows, written) in self.partitions.items()
        ]
        kinds = {"partition_id": "STRING", "total_rows": "INTEGER", "last_modified_time": "TIMESTAMP"}
        fields = [{"name": name, "type": kind} for name, kind in kinds.items()]
        return {"rows": rows, "totalRows": str(len(rows)), "schema": {"fields": fields}}


def _error(status: int, reason: str, message: str) -> dict[str, Any]:
    return {"error": {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}}


@contextmanager
def refusing_google(google: RefusingGoogle | None = None) -> Iterator[RefusingGoogle]:
    """Run the server."""
    google = google or RefusingGoogle()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                body = json.loads(data) if data[:1] == b"{" else None
            except ValueError:
                body = None
            starts = "uploadType=resumable" in self.path and self.command == "POST"
            if self.command == "PUT":
                body = google.asked[-1][2]  # the session's configuration came with the POST
                google.received = data
            status, answer = google.answer(self.command, self.path, body)
            content = json.dumps(answer).encode()
            content = next((text for part, text in google.babbles.items() if part in self.path), content)
            self.send_response(status)
            if starts:
                self.send_header("Location", f"{google.url}/upload/jobs?upload_id=1")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_one

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    google.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield google
    server.shutdown()
    server.server_close()


@contextmanager
def refusing_storage(code: grpc.StatusCode, message: str) -> Iterator[str]:
    """Run a Storage Read API that refuses every call; gives its address."""

    def refuse(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(code, message)
        return b""

    class Refusing(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            return grpc.unary_unary_rpc_method_handler(refuse)

    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Refusing(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)
