"""Rates of reading from and publishing to a warehouse, beside google-cloud-bigquery's to_dataframe and dlt.

    make bench-warehouse ROWS=1000000

Every contender handles the same rows in a process of its own, so that its peak memory is its own. BigQuery is
bqemulator, Snowflake fakesnow on this machine: their figures compare clients, they say nothing about the services. dlt
is measured on PostgreSQL, which it both reads and loads, and reading from Snowflake: fakesnow takes neither the
statements by which dlt loads there nor those of Snowflake's own write_pandas.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from heap_assets_tests.sources.warehouse import servers  # noqa: E402

PEERS = ROOT / ".venvs" / "bench-warehouse"
PEER_PACKAGES = (
    "dlt[postgres,parquet,sql_database]",
    "sqlalchemy",
    "psycopg2-binary",
    "pandas",
    "db-dtypes",
    "google-cloud-bigquery",
    "google-cloud-bigquery-storage",
)

SNOWFLAKE_PEERS = (
    "dlt[parquet,sql_database]",
    "snowflake-connector-python==4.8.1",
    "snowflake-sqlalchemy",
    "sqlalchemy<2.1",
)
"""In an environment of their own: fakesnow answers version 4 of the driver."""

PREAMBLE = """
import json, sys, time
task = json.loads(sys.argv[1])
def done(rows, seconds):
    # not ru_maxrss: that one is inherited from the parent over fork and exec
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024
    print("RESULT " + json.dumps({"rows": rows, "seconds": seconds, "peak_mb": peak}))
"""
OURS_READ = """
from pathlib import Path
if task["kind"] == "postgres":
    from heap_assets.sources.warehouse.postgres.reader import PostgresWarehouse
    warehouse = PostgresWarehouse(task["uri"])
elif task["kind"] == "duckdb":
    from heap_assets.sources.warehouse.duckdb.reader import DuckDBWarehouse
    warehouse = DuckDBWarehouse(Path(task["path"]))
elif task["kind"] == "snowflake":
    from heap_assets.sources.warehouse.snowflake.connection import SnowflakeAccount
    from heap_assets.sources.warehouse.snowflake.reader import SnowflakeWarehouse
    warehouse = SnowflakeWarehouse(SnowflakeAccount("fakesnow", "u", "BENCH", endpoint=task["server"], password="none"))
else:
    from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
    from heap_assets.sources.warehouse.bigquery.reader import BigQueryWarehouse
    warehouse = BigQueryWarehouse(BigQueryAccount("demo", endpoint=task["rest"], storage_endpoint=task["grpc"]))
started = time.monotonic()
reading = warehouse.read(task["relation"], None, Path(task["folder"]) / "out.parquet")
done(reading.rows, time.monotonic() - started)
"""
OURS_LAKE = """
import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from heap_assets.sources.heap_connect import Catalogue
from heap_assets.storage import Lake
from heap_assets.project import Project, parse_settings
from heap_assets.pipelines.snapshots import snapshot_of_day
from heap_assets.pipelines.table import Task
postgres = task["kind"] == "postgres"
os.environ["WAREHOUSE_DSN"] = task["uri"] if postgres else ""
where = "kind: postgres, dsn: '${WAREHOUSE_DSN}'" if postgres else f"kind: duckdb, path: '{task['path']}'"
schema = "public" if postgres else "main"
table = f"{{relation: {schema}.people, key: id, updated_at: updated_at, identifiers: {{email: email}}}}"
settings = parse_settings(f'''
start_date: 2026-01-01
lake: ./lake
heap: {{app_id: "1", source: {{kind: folder, path: ./bucket}}}}
identity: {{identifiers: [{{type: email}}]}}
warehouse: {{{where}, tables: {{people: {table}}}}}
''', Path(task["folder"]) / "heap_assets.yaml")
project = Project(settings, Catalogue(), Lake.open(settings.lake.url))
day = datetime.now(UTC).date() - timedelta(days=1)
def build():
    with tempfile.TemporaryDirectory() as scratch:
        made = snapshot_of_day(Task(project, day, Path(scratch)), name="people")
        return project.lake.write("warehouse/people", str(day), made.frame, made.inputs, notes=made.notes), made.notes
if task.get("again"):
    build()
started = time.monotonic()
written, notes = build()
assert notes["read"] == ("unchanged" if task.get("again") else "full"), notes
done(written.partition.rows, time.monotonic() - started)
"""
OURS_PUBLISH = """
from datetime import date
import polars as pl
from heap_assets.storage import Store
from heap_assets.sources.warehouse.publish import Publication
store = Store(task["folder"] + "/lake")
if task["kind"] == "postgres":
    from heap_assets.sources.warehouse.postgres.publisher import PostgresPublisher
    publisher = PostgresPublisher(task["uri"], "ours", store)
elif task["kind"] == "snowflake":
    from heap_assets.sources.warehouse.snowflake.connection import SnowflakeAccount
    from heap_assets.sources.warehouse.snowflake.publisher import SnowflakePublisher
    account = SnowflakeAccount("fakesnow", "u", "BENCH", endpoint=task["server"], password="none")
    publisher = SnowflakePublisher(account, "OURS", store)
else:
    from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount
    from heap_assets.sources.warehouse.bigquery.publisher import BigQueryPublisher
    account = BigQueryAccount("demo", endpoint=task["rest"], storage_endpoint=task["grpc"])
    publisher = BigQueryPublisher(account, "bench", store)
started = time.monotonic()
published = publisher.publish(Publication("ours"), date(2026, 11, 1), pl.scan_parquet(task["parquet"]), "v1")
done(published.rows, time.monotonic() - started)
"""
TO_DATAFRAME = """
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
import grpc
from google.cloud.bigquery_storage_v1 import BigQueryReadClient
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport
client = bigquery.Client("demo", AnonymousCredentials(), client_options={"api_endpoint": task["rest"]})
options = [("grpc.max_receive_message_length", 128 * 1024 * 1024)]
storage = BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=grpc.insecure_channel(task["grpc"], options)))
started = time.monotonic()
frame = client.list_rows(task["relation"]).to_dataframe(bqstorage_client=storage)
frame.to_parquet(task["folder"] + "/out.parquet")
done(len(frame), time.monotonic() - started)
"""
LOAD_DATAFRAME = """
import pandas
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
client = bigquery.Client("demo", AnonymousCredentials(), client_options={"api_endpoint": task["rest"]})
fields = client.get_table("demo." + task["relation"]).schema
client.create_table(bigquery.Table("demo.bench.theirs", fields))
started = time.monotonic()
frame = pandas.read_parquet(task["parquet"])
config = bigquery.LoadJobConfig(schema=fields, source_format="PARQUET", write_disposition="WRITE_TRUNCATE")
# load_table_from_dataframe does just this, with an upload that the emulator refuses
frame.to_parquet(task["folder"] + "/frame.parquet")
with open(task["folder"] + "/frame.parquet", "rb") as file:
    client.load_table_from_file(file, "demo.bench.theirs", job_config=config).result()
done(len(frame), time.monotonic() - started)
"""
DLT_READ = """
import os
os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
import dlt
from dlt.sources.sql_database import sql_table
credentials = task["uri"].replace("postgresql:", "postgresql+psycopg2:")
source = sql_table(credentials=credentials, schema="public", table="people", backend="pyarrow", chunk_size=100_000)
started = time.monotonic()
pipeline = dlt.pipeline("read", destination=dlt.destinations.filesystem("file://" + task["folder"] + "/out"),
                        dataset_name="out", pipelines_dir=task["folder"] + "/dlt")
pipeline.run(source, loader_file_format="parquet")
done(task["rows"], time.monotonic() - started)
"""
DLT_PUBLISH = """
import os
os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
import dlt, pyarrow.parquet as pq
@dlt.resource(name="theirs", write_disposition="replace")
def rows():
    for batch in pq.ParquetFile(task["parquet"]).iter_batches(100_000):
        yield batch
started = time.monotonic()
pipeline = dlt.pipeline("write", destination=dlt.destinations.postgres(task["uri"]), dataset_name="theirs",
                        pipelines_dir=task["folder"] + "/dlt")
pipeline.run(rows())
done(task["rows"], time.monotonic() - started)
"""
SNOWFLAKE_DLT_READ = """
import os
os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["SNOWFLAKE_SQLALCHEMY_LEGACY_URL_PARAMS"] = "1"
import dlt
from dlt.sources.sql_database import sql_table
port = task["server"].rpartition(":")[2]
credentials = f"snowflake://u:none@fakesnow/BENCH/PUBLIC?host=localhost&port={port}&protocol=http"
source = sql_table(credentials=credentials, schema="public", table="people", backend="pyarrow", chunk_size=100_000)
started = time.monotonic()
pipeline = dlt.pipeline("read", destination=dlt.destinations.filesystem("file://" + task["folder"] + "/out"),
                        dataset_name="out", pipelines_dir=task["folder"] + "/dlt")
pipeline.run(source, loader_file_format="parquet")
done(task["rows"], time.monotonic() - started)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ours", action="store_true", help="Reading by this package alone, up to the lake: for memory")
    parser.add_argument("--only", choices=("snowflake",), help="One engine alone")
    options = parser.parse_args()
    peers = "" if options.ours or options.only else _peers(PEERS, PEER_PACKAGES)
    print(f"{options.rows:,} rows: bigint, 3 texts, timestamp, decimal, double, boolean; each contender alone\n")
    print(f"{'':44}{'rows/s':>12}{'seconds':>10}{'peak MB':>10}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parquet = _write_rows(folder, options.rows, options.seed)
        base = {"rows": options.rows, "parquet": str(parquet)}
        if options.only == "snowflake":
            _snowflake(base, parquet, folder)
            return
        duck = {**base, "kind": "duckdb", "path": str(folder / "w.duckdb"), "relation": "people"}
        _run("DuckDB → Parquet      heap_assets", sys.executable, OURS_READ, duck)
        _run("DuckDB → lake         heap_assets", sys.executable, OURS_LAKE, duck)
        _run("  a second time       heap_assets", sys.executable, OURS_LAKE, {**duck, "again": True})
        with servers.postgres_cluster() as address:
            uri = f"postgresql://{address.replace('@', ':none@')}/postgres"
            postgres = {**base, "kind": "postgres", "uri": uri, "relation": "people"}
            _fill_postgres(uri, parquet)
            _run("PostgreSQL → Parquet  heap_assets", sys.executable, OURS_READ, postgres)
            if options.ours:
                _run("PostgreSQL → lake     heap_assets", sys.executable, OURS_LAKE, postgres)
                return
            _run("                      dlt", peers, DLT_READ, postgres)
            _run("Parquet → PostgreSQL  heap_assets", sys.executable, OURS_PUBLISH, postgres)
            _run("                      dlt", peers, DLT_PUBLISH, postgres)
        with servers.bigquery_emulator() as emulator:
            bigquery = {**base, "kind": "bigquery", "rest": emulator.rest, "grpc": emulator.grpc}
            bigquery["relation"] = "bench.people"
            _fill_bigquery(bigquery, parquet)
            _run("BigQuery* → Parquet   heap_assets", sys.executable, OURS_READ, bigquery)
            _run("                      to_dataframe, to_parquet", peers, TO_DATAFRAME, bigquery)
            _run("Parquet → BigQuery*   heap_assets", sys.executable, OURS_PUBLISH, bigquery)
            _run("                      pandas, load_table_from_file", peers, LOAD_DATAFRAME, bigquery)
        _snowflake(base, parquet, folder)
    print("\n* bqemulator or fakesnow on this machine; its server is part of every figure")


def _snowflake(base: dict[str, object], parquet: Path, folder: Path) -> None:
    with servers.snowflake_server() as server:
        snowflake = {**base, "kind": "snowflake", "server": server, "relation": "PUBLIC.PEOPLE"}
        peers = _peers(PEERS.with_name("bench-snowflake"), SNOWFLAKE_PEERS)
        _fill_snowflake(server, parquet, folder)
        _run("Snowflake* → Parquet  heap_assets", sys.executable, OURS_READ, snowflake)
        _run("                      dlt", peers, SNOWFLAKE_DLT_READ, snowflake)
        _run("Parquet → Snowflake*  heap_assets", sys.executable, OURS_PUBLISH, snowflake)


def _run(title: str, python: str, code: str, task: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [python, "-W", "ignore", "-c", PREAMBLE + code, json.dumps({**task, "folder": folder})]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    results = [line.removeprefix("RESULT ") for line in ran.stdout.splitlines() if line.startswith("RESULT ")]
    if not results:
        reason = (ran.stderr.strip().splitlines() or ["no answer"])[-1][:300]
        print(f"{title:<44}failed: {reason}", flush=True)
        return
    result = json.loads(results[0])
    rate = result["rows"] / result["seconds"]
    print(f"{title:<44}{rate:>12,.0f}{result['seconds']:>10.2f}{result['peak_mb']:>10,}", flush=True)


def _peers(folder: Path, packages: tuple[str, ...]) -> str:
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        print("Installing the peers into an environment of their own ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
        (folder / ".ready").touch()
    return str(python)


def _write_rows(folder: Path, rows: int, seed: int) -> Path:
    """Write the rows as a DuckDB table and as a Parquet file."""
    import duckdb

    path = folder / "rows.parquet"
    with duckdb.connect(str(folder / "w.duckdb")) as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.execute(
            f"""
            CREATE TABLE people AS SELECT
                range AS id, 'user' || hash(range + {seed}) % 1000000000 || '@example.com' AS email,
                'Name ' || range % 10007 AS name, ['free', 'pro', 'team'][range % 3 + 1] AS plan,
                TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_seconds(range % 20000000) AS updated_at,
                (hash(range * 7 + {seed}) % 1000000 / 100.0)::DECIMAL(12, 2) AS amount,
                (range % 1000) / 7.0 AS score, range % 2 = 0 AS active
            FROM range({rows})
            """
        )
        connection.execute(f"COPY people TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 100000)")
    return path


def _fill_postgres(uri: str, parquet: Path) -> None:
    import pyarrow.parquet as pq
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE people (id bigint, email text, name text, plan text, updated_at timestamptz, "
            "amount numeric(12,2), score double precision, active boolean)"
        )
        for batch in pq.ParquetFile(parquet).iter_batches(200_000):
            cursor.adbc_ingest("staged", batch, mode="create_append")
        cursor.execute("INSERT INTO people SELECT * FROM staged")
        cursor.execute("DROP TABLE staged")


def _fill_snowflake(server: str, parquet: Path, folder: Path) -> None:
    import polars as pl

    from heap_assets.sources.warehouse.publish import Publication
    from heap_assets.sources.warehouse.snowflake.connection import SnowflakeAccount
    from heap_assets.sources.warehouse.snowflake.publisher import SnowflakePublisher
    from heap_assets.storage import Store

    account = SnowflakeAccount("fakesnow", "u", "BENCH", endpoint=server, password="none")
    publisher = SnowflakePublisher(account, "PUBLIC", Store(str(folder / "filled")))
    publisher.publish(Publication("people", by_day=False), None, pl.scan_parquet(parquet), "v1")


def _fill_bigquery(task: dict[str, object], parquet: Path) -> None:
    from google.cloud import bigquery

    from heap_assets.sources.warehouse.bigquery.client import BigQueryAccount

    account = BigQueryAccount("demo", endpoint=str(task["rest"]), storage_endpoint=str(task["grpc"]))
    with account.client() as client:
        client.create_dataset("bench")
        client.query(
            "CREATE TABLE bench.people (id INT64, email STRING, name STRING, plan STRING, updated_at TIMESTAMP, "
            "amount NUMERIC(12, 2), score FLOAT64, active BOOL)"
        ).result()
        config = bigquery.LoadJobConfig(source_format="PARQUET", write_disposition="WRITE_APPEND")
        with parquet.open("rb") as file:
            client.load_table_from_file(file, "demo.bench.people", job_config=config).result()


if __name__ == "__main__":
    main()
