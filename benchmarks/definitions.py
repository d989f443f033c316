"""How long the definitions of many event tables take to load, against bare Dagster's time for as many assets.

    make bench-definitions

Loads the demo's settings with TABLES event tables, and as many assets written with `@dg.asset` and nothing else: the
same keys, dependencies, columns, daily partitions, freshness policy and an automation condition, once without checks
and once with as many checks.
What is measured is what a code location does before it serves: definitions, repository, asset graph and the snapshot
for the webserver. Each runs in a process of its own, imports left out; the fastest of REPEAT. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import ui_data

MEASURE = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
from datetime import timedelta
import dagster as dg
from dagster._core.remote_representation.external_data import RepositorySnap
from heap_assets.activation import sync_kinds
from heap_assets.orchestration.definitions import load_definitions

def load(definitions):
    repository = definitions().get_repository_def()
    RepositorySnap.from_def(repository)
    return repository.asset_graph

def by_hand(graph, with_checks):
    checks = {}
    for key in graph.asset_check_keys if with_checks else []:
        spec = graph.get_check_spec(key)
        checks.setdefault(key.asset_key, []).append((spec.name, spec.description, spec.metadata))
    nodes = [(node.key, sorted(node.parent_keys), node.metadata, node.group_name, node.description)
             for node in (graph.get(key) for key in sorted(graph.materializable_asset_keys))]

    def definitions():
        days = dg.DailyPartitionsDefinition("2023-12-01", timezone="UTC", end_offset=1)
        policy = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=36))
        condition = dg.AutomationCondition.eager()
        assets = []
        for key, parents, metadata, group, description in nodes:
            specs = [dg.AssetCheckSpec(name, asset=key, description=about, metadata=notes, partitions_def=days)
                     for name, about, notes in checks.get(key, [])]
            @dg.asset(key=key, deps=parents, metadata=metadata, group_name=group, description=description,
                      partitions_def=days, freshness_policy=policy, automation_condition=condition, check_specs=specs,
                      owners=["team:data"], kinds={"polars"})
            def table(context): ...
            assets.append(table)
        return dg.Definitions(assets=assets)

    return definitions

sync_kinds()
mode = sys.argv[1]
definitions = load_definitions
if mode != "ours":
    definitions = by_hand(load_definitions().get_repository_def().asset_graph, mode == "checks")
started = time.process_time()
graph = load(definitions)
print(json.dumps([time.process_time() - started, len(graph.materializable_asset_keys), len(graph.asset_check_keys)]))
"""


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=500)
    parser.add_argument("--repeat", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ui_data.write_settings(folder, chosen.tables, ui_data.days_until_today(3)[0])
        seconds = {}
        for mode in ("ours", "assets", "checks"):
            runs = [_measured(folder, mode) for _ in range(chosen.repeat)]
            seconds[mode], assets, checks = min(runs)
            if mode == "ours":
                counts = {"assets": int(assets), "checks": int(checks)}
    print(
        json.dumps(
            {
                "tables": chosen.tables,
                **counts,
                "seconds": round(seconds["ours"], 2),
                "seconds_bare_assets": round(seconds["assets"], 2),
                "seconds_bare_assets_and_checks": round(seconds["checks"], 2),
                "ratio_to_bare_assets": round(seconds["ours"] / seconds["assets"], 2),
                "ratio_to_bare_assets_and_checks": round(seconds["ours"] / seconds["checks"], 2),
            }
        )
    )


def _measured(folder: Path, mode: str) -> tuple[float, float, float]:
    variables = {**os.environ, "HEAP_ASSETS_SETTINGS": str(folder / "heap_assets.yaml")}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, mode], env=variables, capture_output=True, text=True, check=True
    )
    seconds, assets, checks = json.loads(done.stdout.splitlines()[-1])
    return seconds, assets, checks


if __name__ == "__main__":
    main()
