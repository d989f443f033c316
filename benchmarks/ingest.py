"""One dump through this platform and through Stitch's tap-heap, from the same local S3 server, in one run.

    python benchmarks/ingest.py --rows 1000000 --seed 1

Ours is everything from the listing to the finished day partitions in the lake; the tap's is its own work, records on
its standard output. Both are timed as whole processes. Afterwards the rows are compared. The last line is one JSON
object: rows_per_s, peer_rows_per_s, ratio, peak_mb, peer_peak_mb and what else was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import boto3
import ingest_data as data
import peers_tap_heap as tap
import polars as pl

BUCKET = "heap-rs3-bench"
HERE = Path(__file__).resolve().parent
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_DEFAULT_REGION": "us-east-1"}


def main() -> None:
    arguments = _arguments()
    if arguments.ours:
        _ours(arguments.ours, Path(arguments.lake))
        return
    folder = HERE / "data" / f"ingest-{arguments.rows}-{arguments.seed}"
    print(f"Writing {arguments.rows:,} rows of {len(data.COLUMNS)} columns", flush=True)
    data.write_dump(folder / "bucket", arguments.rows, arguments.seed)
    scratch = folder / "run"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    _compile_once(scratch)
    readers = _readers(folder / "bucket") if arguments.readers else {}
    with _S3(folder / "bucket") as endpoint:
        ours = _timed(
            "heap_assets", [sys.executable, __file__, "--ours", endpoint, "--lake", str(scratch / "lake")], endpoint
        )
        peer = None
        if arguments.peer:
            command = tap.command(scratch, BUCKET, data.TABLE, list(data.COLUMNS))
            peer = _timed("tap-heap", command, endpoint, output=scratch / "messages.jsonl")
    equal = _compare(scratch, arguments.rows) if peer else None
    result = _result(arguments.rows, ours, peer, readers, equal)
    if arguments.clean:
        shutil.rmtree(scratch)
    print(json.dumps(result))
    if equal is False:
        sys.exit("The rows differ.")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-peer", dest="peer", action="store_false", help="leave tap-heap out")
    parser.add_argument("--no-readers", dest="readers", action="store_false", help="do not time Avro readers alone")
    parser.add_argument("--keep", dest="clean", action="store_false", help="keep the lake and the tap's messages")
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    parser.add_argument("--lake", help=argparse.SUPPRESS)
    return parser.parse_args()


def _ours(endpoint: str, lake_folder: Path) -> None:
    """Land the dump and build every day it touched; runs as a process of its own."""
    # numba loads scipy if there is one, for a quarter of a second; only the tests install it, no user has it
    sys.modules["scipy"] = None  # type: ignore[assignment]
    from heap_assets.sources.heap_connect import Landing, LandingConfig, S3Source, build_event_day
    from heap_assets.storage import Lake

    began = time.perf_counter()
    client = boto3.client("s3", endpoint_url=endpoint)
    lake = Lake.open(str(lake_folder))
    landing = Landing(lake.store, LandingConfig(start_date=date(2026, 1, 1)))
    source = S3Source(client, BUCKET)
    for manifest in landing.pending(source):
        report = landing.land(source, manifest)
        if report.failed:
            raise SystemExit(str(report.failed))
        landed = time.perf_counter()
        for day in sorted(report.touched[data.TABLE]):
            built = build_event_day(landing, data.TABLE, day)
            lake.write(f"heap/{data.TABLE}", day.isoformat(), built.frame, built.inputs)
    finished = time.perf_counter()
    print(json.dumps({"landing_s": round(landed - began, 2), "building_s": round(finished - landed, 2)}))


ONCE = """
import sys
from datetime import date
from heap_assets.sources.heap_connect import FolderSource, Landing, LandingConfig, build_event_day
from heap_assets.storage import Lake
lake = Lake.open(sys.argv[2])
landing = Landing(lake.store, LandingConfig(start_date=date(2026, 1, 1)))
for manifest in landing.pending(FolderSource(sys.argv[1])):
    for table, days in landing.land(FolderSource(sys.argv[1]), manifest).touched.items():
        for day in days:
            lake.write("once", str(day), build_event_day(landing, table, day).frame)
"""


def _compile_once(scratch: Path) -> None:
    """Do the same with a few rows: loops are compiled the first time after an installation, and kept."""
    began = time.perf_counter()
    data.write_dump(scratch / "few", 3 * data.ROWS_PER_FILE, seed=2)
    subprocess.run([sys.executable, "-c", ONCE, str(scratch / "few"), str(scratch / "once")], check=True)
    print(f"Compiled loops are in their cache ({time.perf_counter() - began:.1f} s)", flush=True)


def _timed(name: str, command: list[str], endpoint: str, output: Path | None = None) -> dict[str, Any]:
    """Run a process to its end: seconds of wall clock, and the peak memory of it and its children together."""
    environment = {**os.environ, **CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}
    began, spent = time.perf_counter(), _children_cpu()
    log_path = HERE / "data" / f"{name}.log"
    with (output or Path(os.devnull)).open("wb") as sink, log_path.open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=sink if output else subprocess.PIPE, stderr=log)
        watch = _Memory(process.pid)
        told = process.communicate()[0]
    seconds = time.perf_counter() - began
    if process.returncode != 0:
        raise SystemExit(f"{name} ended with {process.returncode}: see {log_path}")
    peak, cpu = watch.stop(), _children_cpu() - spent
    print(f"{name:12} {seconds:8.2f} s   cpu {cpu:7.1f} s   peak {peak:6.0f} MB", flush=True)
    return {"seconds": seconds, "peak_mb": peak, "cpu_s": cpu, **(json.loads(told) if told else {})}


def _children_cpu() -> float:
    """Return the processor seconds of all finished children: what does not depend on who else uses the machine."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class _Memory:
    """Adds up the resident memory of a process and its children, twenty times a second.

    Pages that several share count for each: to tell them apart, the kernel would walk all pages while the process that
    is measured waits for it.
    """

    def __init__(self, pid: int) -> None:
        self.pid, self.peak, self._done = pid, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        self._done.set()
        self._thread.join()
        return self.peak

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            self.peak = max(self.peak, sum(_megabytes(pid) for pid in _family(self.pid)))


def _family(pid: int) -> list[int]:
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        children = [int(c) for task in tasks for c in (task / "children").read_text().split()]
    except OSError:
        return [pid]
    return [pid, *(member for child in children for member in _family(child))]


def _megabytes(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * resource.getpagesize() / (1 << 20)


class _S3:
    """A local S3 server, filled from a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        endpoint = f"http://127.0.0.1:{port}"
        os.environ.update(CREDENTIALS)
        client = boto3.client("s3", endpoint_url=endpoint)
        for _ in range(100):
            try:
                client.create_bucket(Bucket=BUCKET)
                break
            except Exception:  # the server is still starting
                time.sleep(0.2)
        for path in sorted(self.folder.rglob("*")):
            if path.is_file():
                client.upload_file(str(path), BUCKET, path.relative_to(self.folder).as_posix())
        return endpoint

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


READERS = {
    "polars.read_avro": "import polars as pl\nfor f in files: rows += pl.read_avro(f).height",
    "jetliner": "import jetliner\nfor f in files:\n for d in jetliner.AvroReader(f): rows += d.height",
    "polars-avro": "import polars_avro\nfor f in files: rows += polars_avro.read_avro(f).height",
    "fastavro": "import fastavro\nfor f in files: rows += sum(1 for _ in fastavro.reader(open(f, 'rb')))",
}
OURS_ALONE = (
    "from pathlib import Path\nfrom heap_assets.sources.heap_connect.avro import read_batches\n"
    "list(read_batches(Path(files[0])))\nbegan = time.perf_counter()\n"
    "for f in files:\n for d in read_batches(Path(f)): rows += d.rows.height"
)


def _readers(folder: Path) -> dict[str, float]:
    """Time what each Avro reader alone decodes of the same files, rows a second."""
    files = [str(path) for path in sorted(folder.rglob("*.avro"))[:4]]
    home = HERE.parent / ".venvs" / "readers"
    if not home.exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        packages = ["jetliner", "polars-avro", "fastavro", "cramjam", f"polars=={pl.__version__}"]
        subprocess.run([home / "bin" / "pip", "install", "-q", *packages], check=True)
    found = {name: _alone(home / "bin" / "python", code, files) for name, code in READERS.items()}
    found["heap_assets"] = _alone(Path(sys.executable), OURS_ALONE, files)
    for name, rate in sorted(found.items(), key=lambda item: -item[1]):
        print(f"{name:18} alone decodes {rate:10,.0f} rows/s", flush=True)
    return found


def _alone(python: Path, code: str, files: list[str]) -> float:
    program = f"import time\nfiles = {files!r}\nrows = 0\nbegan = time.perf_counter()\n{code}\n"
    program += "print(rows / (time.perf_counter() - began))"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else 0.0


def _compare(scratch: Path, rows: int) -> bool:
    """Hold our partitions against the tap's records, row by row; duplicates are not in the dump."""
    columns = list(data.COLUMNS)
    theirs = tap.records(scratch / "messages.jsonl", columns)
    ours = pl.scan_parquet(scratch / "lake" / f"heap/{data.TABLE}" / "*.parquet").with_columns(
        pl.col("time").dt.strftime("%Y-%m-%d %H:%M:%S.%6f")
    )
    left, right = _digests(ours, columns), _digests(theirs, columns)
    equal = left.height == right.height == rows and left.equals(right)
    print(f"Rows         {left.height:,} here, {right.height:,} there, {'equal' if equal else 'DIFFERENT'}", flush=True)
    return equal


def _digests(frame: pl.LazyFrame, columns: list[str]) -> pl.DataFrame:
    """Return one hash for each row, sorted: equal lists, equal sets of rows."""
    hashed = frame.select(pl.struct(pl.col(columns)).hash().alias("row"))
    return hashed.collect(engine="streaming").sort("row")


def _result(
    rows: int, ours: dict[str, Any], peer: dict[str, Any] | None, readers: dict[str, float], equal: bool | None
) -> dict[str, Any]:
    rate = rows / ours["seconds"]
    peer_rate = rows / peer["seconds"] if peer else None
    others = {name: value for name, value in readers.items() if name != "heap_assets"}
    fastest = max(others.values(), default=0.0)
    return {
        "rows": rows,
        "rows_per_s": round(rate),
        "peer_rows_per_s": round(peer_rate) if peer_rate else None,
        "ratio": round(rate / peer_rate, 1) if peer_rate else None,
        "peak_mb": round(ours["peak_mb"]),
        "peer_peak_mb": round(peer["peak_mb"]) if peer else None,
        "cpu_s": round(ours["cpu_s"], 1),
        "peer_cpu_s": round(peer["cpu_s"], 1) if peer else None,
        "cpu_ratio": round(peer["cpu_s"] / ours["cpu_s"], 1) if peer else None,
        "rows_equal": equal,
        "seconds": round(ours["seconds"], 2),
        "landing_s": ours.get("landing_s"),
        "building_s": ours.get("building_s"),
        "fastest_reader_alone_rows_per_s": round(fastest) or None,
        "share_of_fastest_reader": round(rate / fastest, 2) if fastest else None,
        "readers_alone_rows_per_s": {name: round(value) for name, value in readers.items()} or None,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    main()
