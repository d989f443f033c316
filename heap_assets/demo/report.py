"""What the demo prints: what was ingested, how well people were told apart, what was sent, which faults were found."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from heap_assets.activation import connector_of, runs
from heap_assets.demo.nights import DemoRun
from heap_assets.errors import MissingInputError
from heap_assets.identity import EMAIL, quality
from heap_assets.pipelines.readiness import links_as_of
from heap_assets.project import Project
from heap_assets.quality import StoredResult, result_store
from heap_assets.tables import CONFLICTS, GRAPH, SHARED


@dataclass(frozen=True)
class Summary:
    """All that the demo says, as plain values."""

    facts: dict[str, Any]

    def json(self) -> str:
        return json.dumps(self.facts, default=str)

    def text(self) -> str:
        return "\n".join(_lines(self.facts))


def summary(run: DemoRun) -> Summary:
    """Read everything back from the lake, the truth and the local Heap: nothing is remembered from the run itself."""
    assert run.company is not None
    project, day = run.project, str(run.company.until)
    judged = result_store.newest(project.lake.store)
    return Summary(
        {
            "day": day,
            "seconds": round(time.monotonic() - run.started, 1),
            "ingested": _ingested(project, run.dumps_landed),
            "identified": _identified(project, day, run),
            "sent": [_sent(project, name, run) for name in project.settings.sync],
            "heap": run.heap.state(only="summary", app_id=project.settings.heap.app_id)["summary"],
            "faults": [_fault(fault.as_dict(), judged) for fault in run.company.faults],
            "checks": {"judged": len(judged), "failed": sum(v.failed for v in judged)},
        }
    )


def _ingested(project: Project, dumps: int) -> dict[str, Any]:
    reports = project.landing.reports()
    landed = reports.filter(pl.col("state") == "landed")
    tables = landed.group_by("table").agg(pl.col("rows_landed").sum()).sort("table")
    return {
        "dumps_landed_now": dumps,
        "dumps": reports["dump_id"].n_unique(),
        "tables": dict(tables.iter_rows()),
        "rows": int(landed["rows_landed"].sum()),
        "rejected": int(reports["rows_rejected"].sum()),
        "late": int(landed["rows_late"].sum()),
        "full_resyncs": landed.filter(~pl.col("incremental"), pl.col("table") != "user_migrations").height,
        "failed_tables": reports.filter(pl.col("state") == "failed").height,
    }


def _identified(project: Project, day: str, run: DemoRun) -> dict[str, Any]:
    assert run.company is not None
    lake = project.lake
    if day not in lake.versions(GRAPH):
        raise MissingInputError(f"{GRAPH} {day} was not built: see the failed runs in the UI (`heap-assets dev`)")
    graph = lake.scan(GRAPH, day)
    truth = pl.scan_parquet(run.company.truth / "identifiers.parquet")
    keys = ["identifier_type", "identifier"]
    # the truth also knows identifiers that nobody has used yet
    scores = quality(graph, truth.join(graph, on=keys, how="semi"))
    shared = lake.scan(SHARED, day).select(keys).collect()
    devices = truth.filter(pl.col("identifier_type") == "device_id").collect()
    planted = devices.filter(pl.col("shared")).join(
        _shared_identifiers(project, run, truth), on="identifier", how="semi"
    )
    wrongly = devices.filter(~pl.col("shared")).join(shared, on=keys)
    return {
        "profiles": graph.select(pl.col("profile_id").drop_nulls().n_unique()).collect().item(),
        "identifiers": graph.select(pl.len()).collect().item(),
        "example": _example(graph),
        "pairwise_precision": scores.precision,
        "pairwise_recall": scores.recall,
        "b_cubed_precision": scores.bcubed_precision,
        "b_cubed_recall": scores.bcubed_recall,
        "conflicts": lake.scan(CONFLICTS, day).select(pl.len()).collect().item(),
        "shared_values": shared.height,
        "shared_devices_planted": planted.height,
        "shared_devices_found": planted.join(shared, on=keys).height,
        "own_devices_taken_for_shared": wrongly.height,
    }


def _example(graph: pl.LazyFrame) -> str:
    """Return an address of the profile with the most identifiers, as `heap-assets explain` asks for it."""
    sizes = graph.filter(~pl.col("shared")).with_columns(size=pl.len().over("profile_id"))
    addresses = sizes.filter(pl.col("identifier_type") == EMAIL).sort("size", "identifier", descending=[True, False])
    return f"{EMAIL}:{addresses.select('identifier').head(1).collect().item()}"


def _shared_identifiers(project: Project, run: DemoRun, truth: pl.LazyFrame) -> pl.DataFrame:
    """Return the devices that the data shows with several people; of others nobody can know that they are shared."""
    assert run.company is not None
    links = links_as_of(project, run.company.until).filter(
        (pl.col("type_a") == "device_id") != (pl.col("type_b") == "device_id")
    )
    is_a = pl.col("type_a") == "device_id"
    pairs = links.select(
        identifier=pl.when(is_a).then("value_a").otherwise("value_b"),
        other_type=pl.when(is_a).then("type_b").otherwise("type_a"),
        other=pl.when(is_a).then("value_b").otherwise("value_a"),
    )
    people = truth.select(other_type="identifier_type", other="identifier", person="person").drop_nulls("person")
    counted = pairs.join(people, on=["other_type", "other"]).group_by("identifier").agg(pl.col("person").n_unique())
    return counted.filter(pl.col("person") > 1).collect()


def _sent(project: Project, name: str, run: DemoRun) -> dict[str, Any]:
    """Return this demo's runs of a sync; the last one's numbers stand beside what was sent in all of them."""
    specs = connector_of(project, name).specs()
    history = pl.concat([runs(project.lake.store, spec.folder) for spec in specs]).sort("started_at")
    own_runs = history.filter(pl.col("run_id").is_in([r.run_id for r in run.sync_runs]))
    columns = ("sent", "rejected", "requests", "withdrawn", "changed", "added")
    last = history.tail(1).to_dicts()[0] if len(history) else {"status": "never ran: see the failed runs in the UI"}
    return {
        "sync": name,
        **{column: int(own_runs[column].sum()) for column in columns},
        **{column: int(last.get(column, 0)) for column in ("held", "invalid", "unchanged")},
        "status": last["status"],
    }


def _fault(fault: dict[str, Any], judged: list[StoredResult]) -> dict[str, Any]:
    counted = fault["counted_as"]
    results = [
        v
        for v in judged
        if v.asset == fault["asset"]
        and v.check == fault["found_by"]
        # a check may count what it tolerates: that is found, too
        and (v.failed or (counted and v.numbers.get(counted, 0) > 0))
    ]
    return {**fault, "found": bool(results), "partitions": sorted({v.partition for v in results})}


def _lines(facts: dict[str, Any]) -> list[str]:
    ingested, people = facts["ingested"], facts["identified"]
    faults = facts["faults"]
    command = _typed_as()
    lines = [
        "",
        f"Ingested     {len(ingested['tables'])} tables, {ingested['rows']:,} rows in {ingested['dumps']} dumps "
        f"({ingested['dumps_landed_now']} landed now), {ingested['late']:,} late rows, "
        f"{ingested['full_resyncs']} full tables, {ingested['rejected']} rows rejected",
    ]
    lines += [f"             {table:<28}{rows:>9,}" for table, rows in ingested["tables"].items()]
    lines += [
        f"Identified   {people['profiles']:,} people from {people['identifiers']:,} identifiers",
        f"             against the truth: pairwise precision {people['pairwise_precision']:.4f} recall "
        f"{people['pairwise_recall']:.4f}, B-cubed precision {people['b_cubed_precision']:.4f} recall "
        f"{people['b_cubed_recall']:.4f}",
        f"             {people['shared_devices_found']} of {people['shared_devices_planted']} shared devices found, "
        f"{people['own_devices_taken_for_shared']} people's own devices taken for shared; "
        f"{people['shared_values']} shared values, {people['conflicts']} conflicts",
    ]
    for sent in facts["sent"]:
        lines.append(
            f"Sent         {sent['sent']:,} rows by {sent['sync']} in {sent['requests']} requests: "
            f"{sent['added']:,} new, {sent['changed']:,} changed, {sent['withdrawn']:,} withdrawn"
        )
        lines.append(
            f"             {sent['unchanged']:,} unchanged, {sent['held']:,} held (not in Heap), "
            f"{sent['invalid']:,} invalid, {sent['rejected']:,} rejected; {sent['status']}"
        )
    lines.append(f"Checks       {sum(f['found'] for f in faults)} of {len(faults)} planted faults found")
    for fault in faults:
        mark = "found" if fault["found"] else "MISSED"
        lines.append(f"             {mark:<7}{fault['name']:<24}{fault['asset']}: {fault['found_by']}")
    lines += [
        f"Took         {facts['seconds']} s",
        "",
        f"Next         {command + ' dev':<40}   the Dagster UI on exactly this state",
        f"             {command + ' demo':<40}   again: nothing is new, 0 rows are sent",
        f"             {command + ' status':<40}   what is built, failed or waits",
        f"             {command} explain {people['example']}",
        "                                                     why its identifiers are one person",
    ]
    return lines


def _typed_as() -> str:
    """Return how this command can be typed where it runs: by its path, unless the shell would find the same one."""
    command = Path(sys.argv[0])
    on_path = shutil.which("heap-assets")
    if command.name != "heap-assets" or (on_path and Path(on_path).resolve() == command.resolve()):
        return "heap-assets"
    return os.path.relpath(command)
