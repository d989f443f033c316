"""`make foreign`: companies by several seeds, before and after noon, from a folder and from S3; a line for each."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from heap_assets_tests.foreign.scenario import Scenario, Via, scenario
from heap_assets_tests.sources.warehouse import servers

SETTINGS: tuple[tuple[Via, int], ...] = (("folder", 9), ("s3", 9), ("folder", 18), ("s3", 18))


def main() -> None:
    """Run every combination for every seed; status 1 if one of them is not as the truth has it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="How many companies")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--people", type=int, default=600)
    parser.add_argument("--days", type=int, default=14)
    options = parser.parse_args()
    print("seed  source  UTC    rows     tables differing  precision  recall  failed checks  init to profiles (s)")
    failures = 0
    with servers.postgres_cluster() as postgres:
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            for via, hour in SETTINGS:
                folder = Path(tempfile.mkdtemp(prefix="foreign-"))
                try:
                    with scenario(
                        folder, postgres, seed=seed, via=via, hour=hour, people=options.people, days=options.days
                    ) as world:
                        failures += not _run(world, f"{seed:<5} {via:<7} {hour:02}:15")
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if failures else 0)


def _run(world: Scenario, name: str) -> bool:
    try:
        world.first_night()
        world.second_night()
    except AssertionError as error:
        print(f"{name}  {error}", flush=True)
        return False
    differences, people = world.differences(), world.people()
    rows = sum(len(table) for table in (world.company.heap.rows | world.company.warehouse.rows).values())
    checks = sum(map(len, world.failed_checks.values()))
    print(
        f"{name}  {rows:<9,}{len(differences):<18}{people.precision:<11.4f}{people.recall:<8.4f}{checks:<15}"
        f"{world.seconds:.0f}",
        flush=True,
    )
    for table, difference in differences.items():
        print(f"      {table}: {difference}")
    return not differences and people.precision == people.recall == 1.0


if __name__ == "__main__":
    main()
