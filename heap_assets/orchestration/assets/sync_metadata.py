"""What the UI says of a sync: numbers that plot, reasons and samples without a personal value, lineage."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

from heap_assets.activation import Progress, SyncReport, connector_of, runs
from heap_assets.config import SyncSettings
from heap_assets.orchestration.checks import asset_key, evaluation
from heap_assets.orchestration.column_types import type_in_words
from heap_assets.orchestration.resources import names_on
from heap_assets.pipelines import delivery
from heap_assets.pipelines.delivery import Delivery
from heap_assets.pipelines.sync_why import Fact
from heap_assets.project import Project
from heap_assets.quality import Check, StoredResult
from heap_assets.tables import sync_asset


def report_delivery(
    instance: dg.DagsterInstance,
    project: Project,
    name: str,
    delivery: Delivery,
    results: Sequence[tuple[Check, StoredResult]],
) -> None:
    """Report a delivery without a run: a materialization if the day arrived, else an observation, and its checks."""
    names, day = names_on(instance, project.lake), str(delivery.day)
    key = asset_key(sync_asset(name), names)
    metadata = {"by": f"heap-assets sync run {name}", **metadata_of(project, name, delivery)}
    kind = dg.AssetMaterialization if delivery.arrived else dg.AssetObservation
    instance.report_runless_asset_event(kind(key, partition=day, metadata=metadata))
    for check, stored in results:
        instance.report_runless_asset_event(evaluation(check, stored, day, names=names))


_SAMPLE = 10
_RUNS_SHOWN = 10
_NOT_SHOWN = ("sync", "run_id", "day", "destination")


def metadata_of(project: Project, name: str, sent: delivery.Delivery) -> dict[str, Any]:
    """Return the metadata of a day's materialization, failure or dry run."""
    metadata = report_metadata(sent.report)
    if sent.confirmed:
        metadata["confirmed_by_export"] = sent.confirmed
    if sent.tables or sent.left_out:
        metadata["tables"] = _tables(sent)
    if sent.unchanged_tables:
        metadata["unchanged_tables"] = sent.unchanged_tables
    history = runs(project.lake.store, connector_of(project, name).ledger_folder(), last=_RUNS_SHOWN)
    if len(history):
        metadata["recent_runs"] = _history(history)
    return metadata


def report_metadata(report: SyncReport) -> dict[str, Any]:
    """Return a report as metadata."""
    facts = {name: value for name, value in report.as_dict().items() if name not in _NOT_SHOWN}
    plain: dict[str, Any] = {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in facts.items()
        if isinstance(value, bool | int | float | str)
    }
    plain["rejected_share"] = round(report.rejected_share, 5)
    for name in ("rejections", "invalid_reasons", "held_reasons"):
        if counted := getattr(report, name):
            plain[name] = _table({"reason": reason, "rows": rows} for reason, rows in counted.items())
    if addressing := report.addressing_in_words:
        plain["addressing"] = _table({"what": outcome, "rows": rows} for outcome, rows in addressing.items())
    if report.sample:
        plain["rejected_sample"] = _table({"key_hash": key, "reason": reason} for key, reason in report.sample)
        plain["rejected_in_clear"] = f"heap-assets rows sync/{report.sync} --key KEY_HASH"
    if report.first_requests:
        plain["first_requests"] = _table({"request": request} for request in report.first_requests)
    if report.new_properties:
        plain["new_properties"] = ", ".join(report.new_properties)
    if report.concerns:
        plain["concerns"] = "; ".join(report.concerns)
    if report.forced:
        plain["forced_keys"] = len(report.forced)
    return plain


def planned_rows(rows: pl.DataFrame) -> dict[str, Any]:
    """Return a sample of what a dry run would send: hashed keys and field names."""
    if not len(rows):
        return {}
    shown = [
        {n: ", ".join(v) if isinstance(v, list) else v or "" for n, v in r.items()}
        for r in rows.head(_SAMPLE).to_dicts()
    ]
    return {"sample": _table(shown)}


def why_metadata(key_hash: str, facts: Iterable[Fact]) -> dict[str, Any]:
    """Return what became of one key, as metadata."""
    rows = [{"what": fact.subject, "is": fact.statement} for fact in facts]
    return {"key_hash": key_hash, "why": _table(rows)}


def progress_line(progress: Progress) -> str:
    """Format the progress of a delivery as one line of the run's log."""
    rate = progress.acknowledged / progress.seconds if progress.seconds > 0 else 0.0
    return (
        f"{progress.acknowledged:,} of {progress.planned:,} rows acknowledged, {progress.rejected:,} rejected, "
        f"{progress.requests:,} requests, {rate:,.0f} rows/s"
    )


def property_lineage(project: Project, name: str) -> dg.TableColumnLineage:
    """Return, for every property that is sent, the columns it comes from."""
    columns: dict[str, list[dg.TableColumnDep]] = {}
    for prop, asset, column in connector_of(project, name).lineage():
        columns.setdefault(prop, []).append(dg.TableColumnDep(asset_key(asset, project.names), column))
    return dg.TableColumnLineage(columns)


def property_types(project: Project, name: str, day: str) -> dict[str, Any]:
    """Return the type of every property that was sent of a day: that of the column it comes from.

    A table of its own: where an asset has a schema by its definition too, Dagster's UI shows all names in lower case.
    """
    types: dict[str, str] = {}
    for prop, asset, column in connector_of(project, name).lineage():
        if project.lake.find(asset, day) is not None:
            schema = project.lake.scan(asset, day).collect_schema()
            if column in schema:
                types[prop] = type_in_words(schema[column])
    return (
        {"property_types": _table({"property": prop, "type": type_} for prop, type_ in types.items())} if types else {}
    )


def description(name: str, sync: SyncSettings, inputs: Iterable[str]) -> str:
    """Return the Markdown description of a sync's asset."""
    properties = ", ".join(f"`{prop}`" for prop in sync.properties)
    first = sync.description or f"Sends {properties or 'rows'} by `{sync.kind}`."
    return (
        f"{first}\n\nReads {', '.join(f'`{path}`' for path in list(inputs)[:5])}. Only what is new or changed is sent, "
        "compared with what the destination has acknowledged. Nothing is sent while a blocking check of what it reads "
        f"failed, is missing or judged another version.\n\nDry run: `heap-assets sync plan {name}`, or the job "
        f"`dry_run_of_all_syncs`. Why something did not arrive: `heap-assets sync why {name} KEY`, or `why` in the "
        "launchpad, with the hash of the key."
    )


def _tables(sent: delivery.Delivery) -> dg.TableMetadataValue:
    rows = [
        {"table": table, "sent": r.sent, "unchanged": r.unchanged, "rejected": r.rejected, "reason": r.reason or ""}
        for table, r in sent.tables.items()
    ]
    rows += [
        {"table": table, "sent": 0, "unchanged": 0, "rejected": 0, "reason": f"left out: {reason}"}
        for table, reason in sent.left_out.items()
    ]
    return _table(rows)


def _history(history: pl.DataFrame) -> dg.TableMetadataValue:
    shown = history.sort("started_at", descending=True).select(
        pl.col("started_at").dt.strftime("%Y-%m-%d %H:%M"),
        pl.col("day").cast(pl.String),
        *("status", "planned", "sent", "rejected", "held", "requests"),
        pl.col("seconds").round(1),
    )
    return _table(shown.fill_null("").to_dicts())


def _table(rows: Iterable[Mapping[str, Any]]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows])
