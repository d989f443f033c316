"""A hand-made lake of four people, really resolved, with the settings that send from it to real local servers."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from heap_assets.demo.server_process import ServerProcess
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.pipelines.suites import required_checks
from heap_assets.project import parse_settings
from heap_assets.project.project import Project
from heap_assets.quality import result_store
from heap_assets.quality.results import CheckResult, Severity
from heap_assets.sources.heap_connect import Catalogue
from heap_assets.storage import Inputs, Lake

NOW = "2026-11-21T03:00:00+00:00"
LONG_AGO, BEFORE, DAY = date(2026, 11, 5), date(2026, 11, 19), date(2026, 11, 20)
APP = "11"
WRITE_KEY = "wk-secret-4711"
_RANGE = "dagster/asset_partition_range_"
IDENTITY = [f"identity/{name}" for name in ("links", "graph", "conflicts", "shared", "changes")]

SETTINGS = """
start_date: 2026-11-01
lake: ./lake
catalogue: ./heap_catalogue.yaml
heap:
  app_id: "11"
  base_url: {heap}
  source: {{kind: folder, path: ./bucket}}
  identifiers:
    users: {{user_id: heap_user_id, identity: [heap_identity, email]}}
    events: {{user_id: heap_user_id}}
warehouse:
  kind: duckdb
  path: ./warehouse.duckdb
  tables:
    contacts:
      relation: crm.contacts
      key: contact_id
      created_at: created_at
      identifiers: {{contact_id: crm_id, email: email, visitor: heap_user_id}}
    accounts: {{relation: crm.accounts, key: account_id, required: false}}
    orders:
      relation: shop.orders
      key: order_id
      created_at: placed_at
      required: false
      identifiers: {{email: email}}
    moves: {{relation: crm.moves, key: move_id, required: false, identifiers: {{email: email}}}}
identity:
  identifiers:
    - {{type: heap_identity, max_per_profile: 2}}
    - {{type: crm_id, max_per_profile: 1}}
    - {{type: email, max_per_profile: 3, normalise: email}}
    - {{type: heap_user_id, shared_above: 1}}
profiles:
  traits:
    plan: {{from: [contacts.plan]}}
    account: {{from: [contacts.account_id]}}
run: {{automation: stopped}}
sync:
"""
CATALOGUE = """
signup:
  display_name: Signed Up
  columns:
    plan: {description: Plan, pii: false}
    contact_mail: {description: Their address, pii: true}
    sent_by: {description: Who sent it, pii: false}
pageviews:
  display_name: Viewed a Page
  columns:
    path: {description: Path, pii: false}
"""


def at(day: date, hour: int = 12) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC)


def users(*more: tuple[int, str | None]) -> pl.DataFrame:
    rows = [(1, "ann@x.example"), (2, "bob@x.example"), (3, "cat@x.example"), (900, None), *more]
    return pl.DataFrame(
        [
            {"user_id": user, "identity": identity, "joindate": at(LONG_AGO), "last_modified": at(LONG_AGO)}
            for user, identity in rows
        ],
        schema={
            "user_id": pl.Int64,
            "identity": pl.String,
            "joindate": pl.Datetime("us", "UTC"),
            "last_modified": pl.Datetime("us", "UTC"),
        },
    ).with_columns(handle=pl.lit(None, pl.String), email=pl.col("identity"), migrated_to=pl.lit(None, pl.Int64))


def migrations(*pairs: tuple[int, int]) -> pl.DataFrame:
    schema = {"from_user_id": pl.Int64, "to_user_id": pl.Int64}
    frame = pl.DataFrame([{"from_user_id": a, "to_user_id": b} for a, b in pairs], schema=schema)
    return frame.with_columns(
        resolved_to="to_user_id", time=pl.lit(at(DAY), pl.Datetime("us", "UTC")), cycle=pl.lit(value=False)
    )


def contacts(plan: str = "pro", **of: str) -> pl.DataFrame:
    people = ["ann", "bob", "cat", "dan"]
    return pl.DataFrame(
        {
            "contact_id": [f"c-{name}" for name in people],
            "email": [f"{name}@x.example" for name in people],
            "visitor": ["900", None, None, None],
            "plan": [of.get(name, plan) for name in people],
            "account_id": ["acme", "acme", "globex", "globex"],
            "created_at": [at(LONG_AGO)] * 4,
        },
        schema_overrides={"created_at": pl.Datetime("us", "UTC"), "visitor": pl.String},
    )


def accounts(size: int = 10) -> pl.DataFrame:
    return pl.DataFrame({"account_id": ["acme", "globex", "nobody"], "size": [size, size + 1, size + 2]})


def orders(*placed: tuple[str, str, datetime]) -> pl.DataFrame:
    rows = placed or (("o-1", "ann@x.example", at(BEFORE)), ("o-2", "bob@x.example", at(DAY)))
    return pl.DataFrame(
        [{"order_id": key, "email": mail, "placed_at": moment, "total": 9.5} for key, mail, moment in rows],
        schema={"order_id": pl.String, "email": pl.String, "placed_at": pl.Datetime("us", "UTC"), "total": pl.Float64},
    )


def moves(*people: str) -> pl.DataFrame:
    return pl.DataFrame(
        [{"move_id": f"m-{name}", "email": f"{name}@x.example", "city": "Oslo"} for name in people],
        schema={"move_id": pl.String, "email": pl.String, "city": pl.String},
    )


def events(day: date, table: str, *rows: tuple[int, int], **columns: Any) -> pl.DataFrame:
    frame = pl.DataFrame(
        [{"event_id": event, "user_id": user, "session_id": 1, "time": at(day)} for event, user in rows],
        schema={
            "event_id": pl.Int64,
            "user_id": pl.Int64,
            "session_id": pl.Int64,
            "time": pl.Datetime("us", "UTC"),
        },
    )
    own = {"signup": {"plan": "pro", "contact_mail": "ann@x.example", "sent_by": None}, "pageviews": {"path": "/"}}
    return frame.with_columns(
        (value if isinstance(value, pl.Series) else pl.lit(value, pl.String)).alias(name)
        for name, value in {**own[table], **columns}.items()
    )


@dataclass
class World:
    """A folder with settings, catalogue and lake, and the definitions that they make."""

    folder: Path
    syncs: str
    heap: str = "http://127.0.0.1:9"
    instance: dg.DagsterInstance = field(default_factory=dg.DagsterInstance.ephemeral)
    more: str = ""
    identity: str = ""
    profiles: str = ""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "heap_catalogue.yaml").write_text(CATALOGUE)
        self.choose(self.syncs)

    def choose(self, syncs: str) -> World:
        """Set the syncs anew, as a person edits the file and reloads."""
        text = SETTINGS.format(heap=self.heap) + "\n".join(f"  {line}" for line in syncs.splitlines())
        text = text.replace("\nidentity:\n", f"\nidentity:\n{self.identity}")
        text = text.replace("\nprofiles:\n", f"\nprofiles:\n{self.profiles}") + f"\n{self.more}\n"
        path = self.folder / "heap_assets.yaml"
        path.write_text(text)
        settings = parse_settings(text, path)
        self.project = Project(settings, Catalogue.load(settings.catalogue), Lake.open(settings.lake.url))
        self._job: dg.JobDefinition | None = None
        return self

    @property
    def lake(self) -> Lake:
        return self.project.lake

    def write(self, asset: str, day: date, frame: pl.DataFrame, *, passed: bool = True) -> None:
        """Store a partition and the results of its blocking checks."""
        content = hashlib.sha256(frame.write_json().encode()).hexdigest()
        self.lake.write(asset, str(day), frame, Inputs({"content": content}))
        self.judge(asset, day, passed=passed)

    def judge(self, asset: str, day: date, *, passed: bool = True, only: str = "") -> None:
        """Record results of the blocking checks on what stands now."""
        for check in required_checks(self.project, asset):
            if not only or check == only:
                result_store.record(
                    self.lake.store,
                    CheckResult(passed),
                    asset=asset,
                    check=check,
                    partition=str(day),
                    version=result_store.partition_version(self.lake, asset, str(day)),
                    severity=Severity.ERROR,
                    blocking=True,
                )

    def write_day(self, day: date, people: pl.DataFrame | None = None, **tables: pl.DataFrame) -> None:
        """Store a day of every table."""
        self.write("heap/users", day, users() if people is None else people)
        self.write("heap/user_migrations", day, tables.get("migrations", migrations()))
        self.write("warehouse/contacts", day, tables.get("contacts", contacts()))
        self.write("warehouse/accounts", day, tables.get("accounts", accounts()))
        self.write("warehouse/orders", day, tables.get("orders", orders()))
        self.write("warehouse/moves", day, moves("ann"))
        for table in ("signup", "pageviews"):
            base = day.toordinal() * 10
            rows = events(day, table, (base + 1, 1), (base + 2, 900), (base + 3, 2))
            asset = f"heap/events/{table}" if table == "signup" else f"heap/{table}"
            self.write(asset, day, tables.get(table, rows))

    def run(self, assets: list[str], *days: date, config: Mapping[str, Any] | None = None) -> dg.ExecuteInProcessResult:
        """Materialize assets for one day, or for the range between two."""
        self._job = self._job or build_definitions(self.project).resolve_implicit_global_asset_job_def()
        chosen = self._job.get_subset(asset_selection={asset_key(asset) for asset in assets})
        where: dict[str, Any] = {"partition_key": str(days[0])}
        if len(days) == 2:
            where = {"tags": {f"{_RANGE}start": str(days[0]), f"{_RANGE}end": str(days[1])}}
        run_config: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        if config:
            ops = [f"sync__{asset.removeprefix('sync/')}" for asset in assets if asset.startswith("sync/")]
            run_config["ops"] = {op: {"config": dict(config)} for op in ops}
        return chosen.execute_in_process(instance=self.instance, raise_on_error=False, run_config=run_config, **where)

    def resolve(self, day: date) -> None:
        """Resolve identities and make profiles, with their checks, by the real assets."""
        result = self.run([*IDENTITY, "profiles"], day)
        assert result.success, why(result)

    def copy(self, folder: Path, syncs: str, heap: str) -> World:
        """Return the same lake with other syncs; links, because a copied file is another version to the lake."""
        shutil.copytree(self.folder / "lake", folder / "lake", copy_function=os.link)
        return World(folder, syncs, heap)


def why(result: dg.ExecuteInProcessResult) -> str:
    errors = [e.step_failure_data.error for e in result.all_events if e.is_step_failure]
    return "\n".join(str(error.cause or error)[:1500] for error in errors if error) or "it succeeded"


def make_base(folder: Path) -> World:
    """Return a world with three resolved days and no sync."""
    world = World(folder, "{}")
    world.write_day(LONG_AGO)
    world.resolve(LONG_AGO)
    for day in (BEFORE, DAY):
        world.write_day(day)
        world.resolve(day)
    return world


def properties(heap: ServerProcess) -> dict[str, Mapping[str, Any]]:
    return {identity: user["properties"] for identity, user in heap.state()["users"].items()}


def calls(server: ServerProcess) -> int:
    return int(server.requests()["count"])


def next_day(days: int = 1) -> date:
    return DAY + timedelta(days=days)
