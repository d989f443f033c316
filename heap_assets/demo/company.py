"""Write the sample company into a folder, and let it live on, day by day."""

import json
import shutil
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from heap_assets.demo.chance import guid
from heap_assets.demo.dumps import UseCache, write_dump
from heap_assets.demo.faults import Fault, planted
from heap_assets.demo.files import put
from heap_assets.demo.plan import DemoError, Plan
from heap_assets.demo.truth import write_truth
from heap_assets.demo.warehouse_tables import write_warehouse
from heap_assets.demo.world import make_world

STATE = "truth/company.json"
FEWEST_PEOPLE, FEWEST_DAYS = 20, 3


@dataclass(frozen=True)
class Company:
    """What was written.

    Attributes
    ----------
    folder
        Holds `bucket/`, `warehouse.duckdb` and `truth/`.
    people
        How many there are, visitors and people who will only join later included.
    first_day, until
        The days there is behaviour for.
    dump_ids
        Day → id of the dump that belongs to it, oldest first; the first one carries everything up to its day.
    faults
        What is wrong with the data on purpose.
    """

    folder: Path
    people: int
    first_day: date
    until: date
    dump_ids: dict[date, int]
    faults: list[Fault]

    @property
    def bucket(self) -> Path:
        """The folder that is laid out like Heap Connect's bucket."""
        return self.folder / "bucket"

    @property
    def warehouse(self) -> Path:
        """The DuckDB file."""
        return self.folder / "warehouse.duckdb"

    @property
    def truth(self) -> Path:
        """The folder that says who is who."""
        return self.folder / "truth"

    @property
    def days(self) -> list[date]:
        """Every day there is behaviour for, oldest first."""
        return [self.first_day + timedelta(days=number) for number in range((self.until - self.first_day).days + 1)]


def write_company(
    folder: Path,
    *,
    people: int = 2000,
    days: int = 45,
    seed: int = 1,
    until: date,
    faults: bool = True,
    now: datetime | None = None,
) -> Company:
    """Write a company with a series of Heap dumps, a warehouse, and the truth about who is who.

    Equal arguments give equal files, bytes and times. A company that is in the folder already is replaced.

    Parameters
    ----------
    folder
        Where to; made if missing. `bucket/`, `warehouse.duckdb` and `truth/` in it are replaced.
    people
        How many people, at least 20.
    days
        How many days of behaviour, at least 3; the first dump carries the first third, later ones a day each.
    seed
        Another seed is another company.
    until
        The last day (UTC); it must be over, because its dump is written the night after.
    faults
        Plant the faults of `faults.py`; without, the data is clean but as untidy as real data is.
    now
        The moment that no file may be newer than; the clock's if not given.

    Raises
    ------
    DemoError
        If there are too few people or days, or `until` is not over.
    """
    if people < FEWEST_PEOPLE or days < FEWEST_DAYS:
        raise DemoError(
            f"people={people}, days={days} is too small a company: "
            f"use at least {FEWEST_PEOPLE} people and {FEWEST_DAYS} days."
        )
    plan = Plan(people, days, seed, until - timedelta(days=days - 1), faults)
    plan.written_at(plan.last_day, now=now)
    for name in ("bucket", "truth"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "bucket").mkdir(parents=True)
    company = _write(folder, plan, list(plan.dump_days), now)
    _write_leftovers(company.bucket, plan, now=now)
    return company


def grow(folder: Path, days: int = 1, *, now: datetime | None = None) -> Company:
    """Let a company live on: write the dumps of the next days, and the warehouse and the truth as of the last of them.

    Parameters
    ----------
    folder
        What `write_company` wrote.
    days
        How many days to add, each with a dump of its own.
    now
        As in `write_company`.

    Raises
    ------
    DemoError
        If the folder holds no company, or a day is not over yet.
    """
    before = _plan_in(folder)
    plan = replace(before, grown=before.grown + days)
    plan.written_at(plan.last_day, now=now)
    return _write(folder, plan, list(range(before.last_day + 1, plan.last_day + 1)), now)


def read_company(folder: Path) -> Company:
    """Return the summary of a company that was written before.

    Raises
    ------
    DemoError
        If the folder holds none.
    """
    return _company(folder, _plan_in(folder))


def show_warehouse(folder: Path, day: date) -> None:
    """Rewrite the warehouse as it stood at the end of an earlier day, for instance to load several days in turn."""
    plan = _plan_in(folder)
    number = (day - plan.first_day).days
    if not 0 <= number <= plan.last_day:
        raise DemoError(
            f"{day} is not a day of this company: choose one from {plan.first_day} to {plan.date_of(plan.last_day)}."
        )
    write_warehouse(folder / "warehouse.duckdb", make_world(plan), number)


def _write(folder: Path, plan: Plan, days: list[int], now: datetime | None) -> Company:
    """Write the dumps of some days; the state comes last, so that what is cut short is written again."""
    world = make_world(plan)
    write_truth(folder / "truth", world, plan.last_day)
    write_warehouse(folder / "warehouse.duckdb", world, plan.last_day)
    cache = UseCache(world)
    for day in days:
        write_dump(folder / "bucket", world, cache, day, now=now)
    company = _company(folder, plan)
    faults = [fault.as_dict() for fault in company.faults]
    put(folder / "truth" / "faults.json", json.dumps(faults, indent=1).encode())
    _save(folder / STATE, plan)
    return company


def _company(folder: Path, plan: Plan) -> Company:
    ids = {plan.date_of(day): plan.dump_id(day) for day in plan.dump_days}
    return Company(folder, plan.people, plan.first_day, plan.date_of(plan.last_day), ids, planted(plan))


def _save(path: Path, plan: Plan) -> None:
    state: dict[str, Any] = asdict(plan) | {"first_day": plan.first_day.isoformat()}
    put(path, json.dumps(state, indent=1).encode())


def _plan_in(folder: Path) -> Plan:
    path = folder / STATE
    if not path.exists():
        raise DemoError(f"{folder} holds no sample company ({STATE} is missing): write one with write_company first.")
    state = json.loads(path.read_text())
    return Plan(**(state | {"first_day": date.fromisoformat(state["first_day"])}))


def _write_leftovers(bucket: Path, plan: Plan, *, now: datetime | None = None) -> None:
    """Write what real buckets hold besides dumps (heap.md 2.2): a copied manifest, and a dump that is not finished."""
    first, begun = plan.dump_id(plan.history_end), plan.dump_id(plan.last_day + 1)
    manifest = bucket / f"manifests/sync_{first}.json"
    written = plan.written_at(plan.last_day, now=now)
    put(bucket / f"imported_manifests/sync_{first}.json", manifest.read_bytes(), written)
    name = f"part-00000-{guid(plan.seed, begun, 'unfinished')}-c000.avro"
    put(bucket / f"sync_{begun}/pageviews/{name}", b"Obj\x01", written - timedelta(minutes=1))
