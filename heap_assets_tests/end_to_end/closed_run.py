"""A whole run of the platform in a process of its own: from dumps to audiences, then every door to somebody else.

    python -m heap_assets_tests.end_to_end.closed_run          # settings as HEAP_ASSETS_SETTINGS names them

Prints one JSON object: what was built, and what each door said.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from datetime import date

import dagster as dg
from click.testing import CliRunner

from heap_assets import clock
from heap_assets.alerts import configured_channels
from heap_assets.alerts.message import Alarm, Kind, Message
from heap_assets.alerts.outbox import Outbox
from heap_assets.cli.main import _group
from heap_assets.demo.nights import runs_for
from heap_assets.errors import HeapAssetsError
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.orchestration.resources import DUMPS
from heap_assets.pipelines.readiness import unbuilt_days
from heap_assets.project.project import Project, open_project
from heap_assets.tables import sync_asset, warehouse_asset
from heap_assets_tests.orchestration.company_platform import QUIET, why

_PEOPLE = ["identity/links", "identity/graph", "identity/conflicts", "identity/shared", "identity/changes"]


class Run:
    """One deployment, and a Dagster of its own."""

    def __init__(self, project: Project) -> None:
        self._platform = project
        self._job = build_definitions(project).resolve_implicit_global_asset_job_def()
        self._instance = dg.DagsterInstance.ephemeral()

    def everything(self, day: date) -> list[str]:
        """Land every dump and build up to audiences of a day; return the assets of the lake."""
        project = self._platform
        for manifest in project.landing.pending(project.source()):
            self._instance.add_dynamic_partitions(str(DUMPS.name), [str(manifest.dump_id)])
            self._made(["heap_connect/dumps"], str(manifest.dump_id))
        for assets, first, last in runs_for(unbuilt_days(open_project())):
            self._made(assets, str(first), str(last))
        tables = project.settings.warehouse.tables if project.settings.warehouse else {}
        self._made(["heap/users", "heap/user_migrations", *map(warehouse_asset, tables)], str(day))
        self._made([*_PEOPLE, "profiles", "audiences"], str(day))
        return sorted(asset for asset in [*_PEOPLE, "profiles", "audiences"] if project.lake.find(asset, str(day)))

    def doors(self, day: date) -> Iterator[tuple[str, str]]:
        """Yield what each way out says: syncs as Dagster runs them and by hand, publishing, alerts."""
        for name in self._platform.settings.sync:
            yield f"first run of {name}", why(self._execute([sync_asset(name)], str(day)))
            yield f"sync confirm {name}", _command("sync", "confirm", name)
            yield f"run of {name}", why(self._execute([sync_asset(name)], str(day)))
        yield "publish", _command("publish")
        channels = configured_channels(self._platform.settings.alerts)
        outbox = Outbox(self._platform.lake.store, channels, os.environ, allowed=self._platform.allowed_hosts)
        outbox.send_if_new(Message("A run failed", (Alarm(Kind.RUN_FAILED, "profiles", "failed"),)))
        yield from ((f"alert by {name.partition('-')[0]}", said) for name, said in outbox.down.items())

    def _made(self, assets: list[str], *days: str) -> None:
        result = self._execute(assets, *days)
        assert result.success, why(result)

    def _execute(self, assets: list[str], *days: str) -> dg.ExecuteInProcessResult:
        chosen = self._job.get_subset(asset_selection={asset_key(asset) for asset in assets})
        where: dict[str, object] = {"partition_key": days[0]}
        if len(days) > 1:
            span = "dagster/asset_partition_range_"
            where = {"tags": {f"{span}start": days[0], f"{span}end": days[1]}}
        return chosen.execute_in_process(instance=self._instance, raise_on_error=False, run_config=QUIET, **where)  # type: ignore[arg-type]


def _command(*arguments: str) -> str:
    answer = CliRunner().invoke(_group, arguments)
    assert answer.exit_code, f"{arguments}: {answer.output}"
    return f"{answer.output} {answer.exception if isinstance(answer.exception, HeapAssetsError) else ''}"


def _main() -> None:
    newest, run = clock.newest_complete_day(), Run(open_project())
    json.dump({"built": run.everything(newest), "said": dict(run.doors(newest))}, sys.stdout)


if __name__ == "__main__":
    _main()
