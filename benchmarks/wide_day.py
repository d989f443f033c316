"""A day of many small event tables as one Dagster run, and what of it is Dagster's own.

    python benchmarks/wide_day.py --tables 200 --rows 500

Four figures, each from a process of its own on files of its own: landing the dump; building and judging the tables by
the domain code alone (the data's own time); the same as one run on a real Dagster instance with its SQLite storage as
`dagster.yaml` sets it up; and a run of a trivial step that reports as many materializations and checks and does nothing
else (Dagster's floor). Beside the seconds of each stand its CPU seconds: they change less when a machine is shared. The
last line is one JSON object.
"""

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

HERE = Path(__file__).resolve().parent
DUMP = 7
SETTINGS = """\
start_date: {start}
lake: ./lake
catalogue: ./heap_catalogue.yaml
heap:
  app_id: "1"
  plan: premier
  source: {{kind: folder, path: ./bucket}}
identity:
  identifiers:
    - {{type: heap_identity, max_per_profile: 2}}
    - {{type: heap_user_id, shared_above: 1}}
"""
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def main() -> None:
    arguments = _arguments()
    folder = HERE / "data" / f"wide-{arguments.tables}-{arguments.rows}"
    if arguments.phase:
        os.chdir(folder)
        print(json.dumps(PHASES[arguments.phase](arguments)))
        return
    shutil.rmtree(folder, ignore_errors=True)
    _write_bucket(folder, arguments.tables, arguments.rows)
    told: dict[str, Any] = {}
    for phase in PHASES:
        found = _run(phase, arguments, folder)
        told |= {f"{phase}_{name}": value for name, value in found.items()}
        print(f"{phase:10} {found}", flush=True)
    beyond = told["run_s"] - told["domain_s"]
    result = {
        "tables": arguments.tables,
        "rows": arguments.tables * arguments.rows,
        "beyond_the_data_s": round(beyond, 2),
        "beyond_the_data_cpu_s": round(told["run_cpu_s"] - told["domain_cpu_s"], 2),
    }
    result |= told | {"measured_at": datetime.now(UTC).isoformat(timespec="seconds")}
    if not arguments.keep:
        shutil.rmtree(folder)
    print(json.dumps(result))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=200)
    parser.add_argument("--rows", type=int, default=500, help="rows of each table")
    parser.add_argument("--keep", action="store_true", help="keep the files")
    parser.add_argument("--phase", choices=list(PHASES), help=argparse.SUPPRESS)
    return parser.parse_args()


def _run(phase: str, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    home = folder / f"dagster-{phase}"
    home.mkdir()
    shutil.copy(HERE.parent / "dagster.yaml", home)
    command = [sys.executable, __file__, "--tables", str(arguments.tables), "--rows", str(arguments.rows)]
    environment = {**os.environ, "DAGSTER_HOME": str(home), "DAGSTER_DISABLE_TELEMETRY": "1"}
    with (HERE / "data" / f"wide-{phase}.log").open("wb") as log:
        done = subprocess.run(
            [*command, "--phase", phase], env=environment, stdout=subprocess.PIPE, stderr=log, check=False
        )
    if done.returncode != 0:
        raise SystemExit(f"{phase} ended with {done.returncode}: see {log.name}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _write_bucket(folder: Path, tables: int, rows: int) -> None:
    day = _day()
    begin = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000
    entries = []
    for number in range(tables):
        name, rnd = f"event_{number:03d}", np.random.default_rng(number)
        key = f"sync_{DUMP}/{name}/part-00000-c000.avro"
        ids = number * rows + np.arange(rows)
        moments = pl.Series("time", begin + rnd.integers(0, 86_400_000_000, rows)).cast(pl.Datetime("us"))
        columns = [
            pl.Series("event_id", ids),
            pl.Series("user_id", rnd.integers(0, 10_000, rows)),
            pl.Series("session_id", rnd.integers(0, 20_000, rows)),
            moments.dt.strftime("%Y-%m-%d %H:%M:%S.%6f"),
            *(pl.Series(f"property_{i}", rnd.integers(0, 40, rows)).cast(pl.String) for i in range(8)),
        ]
        (folder / "bucket" / key).parent.mkdir(parents=True)
        frame = pl.DataFrame(columns)
        frame.write_avro(folder / "bucket" / key, compression="snappy", name="topLevelRecord")
        entries.append({"name": name, "files": [f"s3://b/{key}"], "columns": frame.columns, "incremental": True})
    manifest = folder / "bucket" / "manifests" / f"sync_{DUMP}.json"
    manifest.parent.mkdir()
    manifest.write_text(json.dumps({"dump_id": DUMP, "tables": entries}))
    written = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1, hours=4)
    os.utime(manifest, (written.timestamp(), written.timestamp()))
    (folder / "heap_assets.yaml").write_text(SETTINGS.format(start=day - timedelta(days=30)))


def _day() -> date:
    return datetime.now(UTC).date() - timedelta(days=2)


def _platform() -> Any:
    from heap_assets.project import load_settings
    from heap_assets.project.project import open_project

    return open_project(load_settings(Path("heap_assets.yaml")))


def land(_arguments: argparse.Namespace) -> dict[str, Any]:
    """Land the dump and accept its tables."""
    from heap_assets.sources.heap_connect import Catalogue

    project = _platform()
    began = time.perf_counter()
    report = project.landing.land(project.source(), DUMP)
    seconds = time.perf_counter() - began
    Catalogue().accept(Catalogue().missing(project.landing)).save("heap_catalogue.yaml")
    return {"s": round(seconds, 2), "tables": len(report.tables)}


def domain(_arguments: argparse.Namespace) -> dict[str, Any]:
    """Build and judge every table without Dagster, in a lake of its own."""
    from heap_assets.pipelines.suites import checks_of
    from heap_assets.quality.engine import CheckContext
    from heap_assets.sources.heap_connect import build_event_day
    from heap_assets.storage import Lake
    from heap_assets.tables import heap_asset

    project, lake, judged = _platform(), Lake.open("lake-of-domain"), 0
    shared: dict[str, Any] = {}
    began, cpu = time.perf_counter(), time.process_time()
    for table in project.event_tables:
        built = build_event_day(project.landing, table, _day(), project.catalogue.columns(table))
        lake.write(heap_asset(table), str(_day()), built.frame, built.inputs, notes=built.notes)
    written = time.perf_counter()
    for table in project.event_tables:
        for check in checks_of(project, heap_asset(table)):
            if check.evaluate is not None:
                check.evaluate(CheckContext(lake, heap_asset(table), str(_day()), step_shared=shared, check=check.name))
                judged += 1
    finished = time.perf_counter()
    return {"s": round(finished - began, 2), **_cpu(cpu), "building_s": round(written - began, 2), "judged": judged}


def run(_arguments: argparse.Namespace) -> dict[str, Any]:
    """Materialize all tables of the day as one run."""
    import dagster as dg

    from heap_assets.orchestration.checks import asset_key
    from heap_assets.orchestration.definitions import build_definitions
    from heap_assets.tables import heap_asset

    project = _platform()
    definitions = build_definitions(project)
    keys = {asset_key(heap_asset(table)) for table in project.event_tables}
    job = definitions.resolve_implicit_global_asset_job_def().get_subset(asset_selection=keys)
    with dg.DagsterInstance.get() as instance:
        began, cpu = time.perf_counter(), time.process_time()
        result = job.execute_in_process(instance=instance, run_config=QUIET, partition_key=str(_day()))
        seconds, used = time.perf_counter() - began, _cpu(cpu)
    checks = len(list(result.get_asset_check_evaluations()))
    return {"s": round(seconds, 2), **used, "checks": checks, **_events(os.environ["DAGSTER_HOME"])}


def floor(arguments: argparse.Namespace) -> dict[str, Any]:
    """Report as many materializations and checks from a step that does nothing."""
    import dagster as dg

    names = [f"table_{number}" for number in range(arguments.tables)]
    counted = _run_of(Path(os.environ["DAGSTER_HOME"]).parent / "dagster-run")
    each = round(counted["checks"] / arguments.tables)
    specs = [dg.AssetCheckSpec(f"check_{i}", asset=name) for name in names for i in range(each)]

    @dg.multi_asset(specs=[dg.AssetSpec(name, skippable=True) for name in names], check_specs=specs, can_subset=True)
    def trivial(context: dg.AssetExecutionContext) -> Any:
        for name in names:
            yield dg.MaterializeResult(asset_key=name)
            for i in range(each):
                yield dg.AssetCheckResult(check_name=f"check_{i}", asset_key=name, passed=True)

    definitions = dg.Definitions(assets=[trivial])
    with dg.DagsterInstance.get() as instance:
        began, cpu = time.perf_counter(), time.process_time()
        job = definitions.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=instance, run_config=QUIET)
        seconds, used = time.perf_counter() - began, _cpu(cpu)
    checks = len(list(result.get_asset_check_evaluations()))
    return {"s": round(seconds, 2), **used, "checks": checks, **_events(os.environ["DAGSTER_HOME"])}


def _cpu(began: float) -> dict[str, float]:
    """Return the CPU seconds of all threads of this process since `began`."""
    return {"cpu_s": round(time.process_time() - began, 2)}


def _run_of(home: Path) -> dict[str, Any]:
    return _events(str(home))


def _events(home: str) -> dict[str, Any]:
    """Count what a run wrote into Dagster's event log."""
    kinds: dict[str, int] = {}
    for path in (Path(home) / "history" / "runs").glob("*.db"):
        if path.name == "index.db":
            continue
        with sqlite3.connect(path) as connection:
            for kind, count in connection.execute(
                "SELECT dagster_event_type, count(*) FROM event_logs GROUP BY dagster_event_type"
            ):
                kinds[kind or "LOG"] = kinds.get(kind or "LOG", 0) + count
    return {
        "events": sum(kinds.values()),
        "checks": kinds.get("ASSET_CHECK_EVALUATION", 0),
        "by_kind": dict(sorted(kinds.items(), key=lambda item: -item[1])[:8]),
    }


PHASES = {"land": land, "domain": domain, "run": run, "floor": floor}

if __name__ == "__main__":
    main()
