"""A small clean company, its lake and its definitions, as the settings of the demo describe them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from heap_assets.demo import Company
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.orchestration.resources import DUMPS
from heap_assets.project import parse_settings
from heap_assets.project.project import Project
from heap_assets.sources.heap_connect import Catalogue
from heap_assets.storage import Lake
from heap_assets.tables import heap_asset

ROOT = Path(__file__).parent.parent.parent
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
IDENTITY = [f"identity/{name}" for name in ("links", "graph", "conflicts", "shared", "changes")]
_RANGE = "dagster/asset_partition_range_"


@dataclass
class World:
    """Definitions over a company, with an instance to run them on."""

    company: Company
    project: Project
    definitions: dg.Definitions
    instance: dg.DagsterInstance = field(default_factory=dg.DagsterInstance.ephemeral)

    @property
    def event_assets(self) -> list[str]:
        return [heap_asset(table) for table in self.project.event_tables]

    def run(self, assets: Sequence[str], *days: str) -> dg.ExecuteInProcessResult:
        """Materialize assets for one partition, or for the range between two."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        chosen = job.get_subset(asset_selection={asset_key(asset) for asset in assets})
        where: dict[str, Any] = {"partition_key": days[0]}
        if len(days) == 2:
            where = {"tags": {f"{_RANGE}start": days[0], f"{_RANGE}end": days[1]}}
        return chosen.execute_in_process(instance=self.instance, raise_on_error=False, run_config=QUIET, **where)

    def land(self, dump_id: int) -> dg.ExecuteInProcessResult:
        self.instance.add_dynamic_partitions(str(DUMPS.name), [str(dump_id)])
        return self.run(["heap_connect/dumps"], str(dump_id))

    def materialized(self, asset: str) -> set[str]:
        return self.instance.get_materialized_partitions(asset_key(asset))

    def checked(self, result: dg.ExecuteInProcessResult, asset: str, check: str) -> dict[str | None, bool]:
        """Return partition to result of a check's evaluations in a run."""
        return {
            e.partition: e.passed
            for e in result.get_asset_check_evaluations()
            if e.asset_key == asset_key(asset) and e.check_name == check
        }


def why(result: dg.ExecuteInProcessResult) -> str:
    """Return what failed in a run, for the assertion that it did not."""
    errors = [e.step_failure_data.error for e in result.all_events if e.is_step_failure]
    return "\n".join(str(error.cause or error)[:1500] for error in errors if error) or "it succeeded"


def make_world(company: Company, lake: Path) -> World:
    text = (ROOT / "heap_assets.yaml").read_text().replace("${HEAP_ASSETS_DEMO:-./data/demo}", str(company.folder))
    settings = parse_settings(text, lake / "heap_assets.yaml")
    settings = settings.model_copy(update={"lake": settings.lake.model_copy(update={"url": str(lake / "lake")})})
    project = Project(settings, Catalogue.load(ROOT / "heap_catalogue.yaml"), Lake.open(settings.lake.url))
    return World(company, project, build_definitions(project))


def yesterday() -> Any:
    return datetime.now(UTC).date() - timedelta(days=1)
