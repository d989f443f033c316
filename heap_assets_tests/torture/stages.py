"""The stages of the platform as work that can be stopped anywhere and begun again, and what they leave behind."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from heap_assets import clock
from heap_assets.demo import write_company
from heap_assets.pipelines.landing import land
from heap_assets.pipelines.people import audit_of_day, identity_of_day, profiles_of_day
from heap_assets.pipelines.retention import delete_results, expired, expired_results, forget
from heap_assets.pipelines.table import BuiltTable
from heap_assets.project import parse_settings
from heap_assets.project.project import Project, open_project
from heap_assets.quality import result_store
from heap_assets.quality.results import CheckResult, Severity
from heap_assets.sources.heap_connect import Catalogue, build_event_day, build_user_migrations, build_users
from heap_assets.storage import Inputs, Lake, Store
from heap_assets.tables import AUDIT, MIGRATIONS, PROFILES, USERS, heap_asset

DAYS = [date(2026, 11, day) for day in (18, 19, 20)]
NOW = datetime.fromisoformat("2026-11-21T06:00:00+00:00")
_LATER = timedelta(days=90)
_SETTINGS = """
start_date: 2026-11-01
lake: ./lake
catalogue: ./heap_catalogue.yaml
heap: {app_id: "11", source: {kind: folder, path: ../company/bucket}}
identity:
  identifiers:
    - {type: heap_identity, max_per_profile: 2}
    - {type: email, max_per_profile: 3, normalise: email}
    - {type: heap_user_id, shared_above: 1}
profiles:
  traits: {joined: {from: [users.joindate], choose: earliest}}
keep: {snapshot_days: 35, verdict_days: 60}
"""


def make_company(folder: Path, people: int = 20, days: int = 3) -> None:
    """Write the dumps that all worlds land."""
    write_company(folder / "company", people=people, days=days, seed=2, until=DAYS[-1], faults=False)


def make_world(folder: Path) -> None:
    """Write the settings of a deployment that has done nothing yet; the company lies beside its folder."""
    folder.mkdir()
    (folder / "heap_assets.yaml").write_text(_SETTINGS)


def read_settings() -> None:
    """Read the settings of a world that is not there."""
    parse_settings(_SETTINGS, Path("heap_assets.yaml"))


def platform_of(folder: Path) -> Project:
    """Open a world as its settings say."""
    return open_project(parse_settings((folder / "heap_assets.yaml").read_text(), folder / "heap_assets.yaml"))


def landing(folder: Path) -> None:
    """Land what is pending, as runs of the sensor do: a dump whose run fails does not keep the next from its own."""
    there = platform_of(folder)
    errors: list[Exception] = []
    for manifest in there.landing.pending(there.source()):
        try:
            done = land(there, manifest.dump_id)
            with (folder / "announced.jsonl").open("a") as announced:
                for day, tables in done.days.items():
                    announced.write(json.dumps([str(day), sorted(tables)]) + "\n")
            there.landing.confirm(manifest.dump_id, done.report.touched)
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]


def catalogue(folder: Path) -> None:
    """Accept everything that landed."""
    there = platform_of(folder)
    for table in there.catalogue.missing(there.landing).tables:
        Catalogue.update(
            there.settings.catalogue, lambda now, name=table: now.accept(now.missing(there.landing), [name])
        )


def days(folder: Path) -> None:
    """Build every day of every event table."""
    there = platform_of(folder)
    for table in there.event_tables:
        for day in sorted({*DAYS, *there.landing.days(table)}):
            built = build_event_day(there.landing, table, day, there.catalogue.columns(table))
            _write(there.lake, heap_asset(table), day, BuiltTable(built.frame, built.inputs, built.notes))
            _judged(there.lake, heap_asset(table), day)


def people(folder: Path) -> None:
    """Fold users and migrations of every day."""
    there = platform_of(folder)
    for day in DAYS:
        columns = there.catalogue.columns("users")
        users = build_users(there.landing, day, columns, lake=there.lake, asset=USERS)
        _write(there.lake, USERS, day, BuiltTable(users.frame, users.inputs, users.notes))
        moved = build_user_migrations(there.landing, day)
        _write(there.lake, MIGRATIONS, day, BuiltTable(moved.frame, moved.inputs, moved.notes))


def identity(folder: Path) -> None:
    """Resolve two days, the second upon the first."""
    there = platform_of(folder)
    for day in DAYS[1:]:
        for asset, made in identity_of_day(there, day).items():
            _write(there.lake, asset, day, made)


def profiles(folder: Path) -> None:
    """Make golden records and the audit of two days."""
    there = platform_of(folder)
    for day in DAYS[1:]:
        for asset, make in ((PROFILES, profiles_of_day), (AUDIT, audit_of_day)):
            _write(there.lake, asset, day, make(there, day))
            _judged(there.lake, asset, day)


def retention(folder: Path) -> None:
    """Forget what is not kept three months later."""
    os.environ[clock.VARIABLE] = (NOW + _LATER).isoformat()
    there = platform_of(folder)
    forget(there, expired(there))
    delete_results(there, expired_results(there))


STAGES: Mapping[str, Callable[[Path], None]] = {
    "landing": landing,
    "catalogue": catalogue,
    "days": days,
    "people": people,
    "identity": identity,
    "profiles": profiles,
    "retention": retention,
}


def settle(stage: str, folder: Path) -> dict[str, Any]:
    """Do a stage until nothing is left of it, hours apart where something waits, and say how things then stand."""
    for hours in range(0, 60, 7):
        os.environ[clock.VARIABLE] = (NOW + timedelta(hours=hours)).isoformat()
        STAGES[stage](folder)
        there = platform_of(folder)
        failed = there.landing.reports()["error"].count()
        if stage != "landing" or not (failed or there.landing.pending(there.source())):
            break
    os.environ[clock.VARIABLE] = NOW.isoformat()
    return state(folder, landed_anew=stage in ("landing", "catalogue"))


def state(folder: Path, *, landed_anew: bool = True) -> dict[str, Any]:
    """Return what a world holds, without what tells when and how it came about.

    Parameters
    ----------
    landed_anew
        Whether what landed may have come about in another order: then days are built to compare them; otherwise no
        file of it may have changed.
    """
    there = platform_of(folder)
    landed = there.landing.index().drop("version").rows()
    announced = folder / "announced.jsonl"
    lines = [json.loads(line) for line in announced.read_text().splitlines()] if announced.exists() else []
    store = there.lake.store
    tables = [info.key for info in store.list() if info.key.endswith(".parquet") and not info.key.startswith("_")]
    return {
        "landed": [str(row) for row in landed],
        "failed": there.landing.reports().filter(pl.col("error").is_not_null()).height,
        # Days that come while a table waits to be tried again are announced by their dump, otherwise by the sensor.
        "announced": sorted({(day, table) for day, names in lines for table in names if day <= str(NOW.date())}),
        "days": _days(there) if landed_anew else _files(store),
        "catalogue": Path(there.settings.catalogue).read_text() if Path(there.settings.catalogue).exists() else "",
        "tables": {key: _digest(store.scan(key)) for key in tables if not key.startswith("heap_connect/")},
        "results": sorted("/".join(result_store.parts(info.key)) for info in store.list(result_store.ROOT)),
        "partial files": _partial_files(store.root),
    }


def copy_world(source: Path, target: Path) -> None:
    """Copy a world, times of its files included."""
    shutil.copytree(source, target)


def _partial_files(root: Path) -> int:
    for path in root.rglob(".tmp-*"):
        os.utime(path, (0, 0))
    Lake.open(str(root)).store.tidy()
    return sum(not path.name.startswith(".tmp-lock") for path in root.rglob(".tmp-*"))


def _days(there: Project) -> dict[str, str]:
    tables = _events(there)
    return {f"{t} {d}": _digest(build_event_day(there.landing, t, d).frame) for t in tables for d in DAYS}


def _files(store: Store) -> dict[str, str]:
    landed = [info.key for info in store.list("_landing") if info.key.endswith(".parquet")]
    return {key: hashlib.sha256(store.read(key)).hexdigest()[:16] for key in landed}


def _events(there: Project) -> list[str]:
    return [table for table in there.landing.tables() if table not in ("users", "user_migrations")]


def _digest(frame: pl.LazyFrame) -> str:
    lines = sorted(frame.collect().write_ndjson().splitlines())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _write(lake: Lake, asset: str, day: date, made: BuiltTable) -> None:
    inputs = made.inputs or Inputs({})
    lake.write(asset, str(day), made.writer or made.frame, inputs, notes=made.notes)


def _judged(lake: Lake, asset: str, day: date) -> None:
    result_store.record(
        lake.store,
        CheckResult(passed=True),
        asset=asset,
        check="readable",
        partition=str(day),
        version=result_store.partition_version(lake, asset, str(day)),
        severity=Severity.ERROR,
        blocking=True,
    )
