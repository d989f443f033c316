"""`heap-assets sync`: plan and send, show what was sent, and maintain a sync between runs."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

import click
import polars as pl

from heap_assets.activation import (
    LeaseHeldError,
    Status,
    SyncReport,
    connector_of,
    connectors,
    full_resend,
    has_salt,
    heap_deletion,
    rejected,
    retry_rejected,
    runs,
)
from heap_assets.cli.home import dagster_home
from heap_assets.cli.output import (
    COUNT,
    NOT_CONFIRMED,
    CommandGroup,
    json_option,
    print_json,
    print_rows,
    progress,
    records,
    report_option,
)
from heap_assets.cli.sync_names import day_of, project_of
from heap_assets.cli.sync_qa import qa_of_key
from heap_assets.cli.sync_why import check, why_key
from heap_assets.errors import HeapAssetsError, no_such
from heap_assets.pipelines import delivery
from heap_assets.pipelines.offenders import forget_person
from heap_assets.pipelines.sync_checks import record_results, results_of, undelivered_result
from heap_assets.pipelines.sync_gate import confirmation_hint, waits_for_confirmation
from heap_assets.project import Project
from heap_assets.quality import Check, StoredResult
from heap_assets.redaction import redact
from heap_assets.tables import sync_asset

_SHOWN = 20
_COUNTS = ("planned", "added", "changed", "unchanged", "empty", "withdrawn", "held", "invalid", "waiting")
_EMPTY = "empty: no mapped property has a value, and nothing of theirs was sent before"
_NOT_ALL = "Status 1: not everything arrived, or the run waits for `heap-assets sync confirm`."
_DATES = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


@click.group(cls=CommandGroup)
def sync() -> None:
    """Show what a sync would send and what it sent; send now, confirm, retry, send everything again, forget a key."""


sync.add_command(check)
sync.add_command(why_key)
sync.add_command(qa_of_key)


@sync.command("kinds")
@click.argument("kind", required=False)
@json_option
def kinds(kind: str | None, as_json: bool) -> None:
    """Show which kinds of sync there are, or the keys of one."""
    kinds_by_name = connectors()
    if kind is None and as_json:
        print_json({"kind": name, "sends": connector.summary()} for name, connector in kinds_by_name.items())
        return
    if kind is None:
        print_rows(
            ["kind", "what it sends"], [[name, connector.summary()] for name, connector in kinds_by_name.items()]
        )
        return
    if kind not in kinds_by_name:
        raise no_such("kind", kind, kinds_by_name)
    fields = kinds_by_name[kind].settings_model.model_fields.items()
    if as_json:
        print_json({"key": k, "required": f.is_required(), "description": f.description or ""} for k, f in fields)
        return
    click.echo(f"{kinds_by_name[kind].docs()}\n")
    print_rows(["key", "", ""], [[key, "required" * f.is_required(), f.description or ""] for key, f in fields])


@sync.command("plan")
@click.argument("name")
@click.option("--day", type=_DATES, help="Rows of this day [default: the newest]")
@click.option("--rows", type=COUNT, default=_SHOWN, show_default=True, help="How many rows to show, with hashed keys")
@report_option
def plan(name: str, day: datetime | None, rows: int, as_json: bool) -> None:
    """Show what would be sent, without sending or writing anything."""
    project = project_of(name)
    with progress(f"Planning {sync_asset(name)}"):
        planned, sample = delivery.plan(project, name, day_of(project, name, day))
    if as_json:
        tables = {table: report.as_dict() for table, report in planned.tables.items()}
        print_json({**planned.report.as_dict(), "tables": tables, "left_out": dict(planned.left_out)})
        return
    click.echo(f"{sync_asset(name)} {planned.day}: dry run, nothing was sent")
    _say_report(planned.report)
    for table, report in planned.tables.items():
        click.echo(f"  {table:<28}{report.planned:>10,} to send {report.unchanged:>10,} unchanged")
    for table, reason in planned.left_out.items():
        click.echo(f"  {table:<28}left out: {reason}")
    if len(sample) and rows:
        click.echo()
        _table(sample.head(rows).with_columns(pl.col(pl.List(pl.String)).list.join(", ")))
        if not has_salt(project.lake.store):
            click.echo("No sync has run in this lake: the hashes are of this call alone, `heap-assets rows` finds none")


@sync.command("run", epilog=_NOT_ALL)
@click.argument("name")
@click.option("--day", type=_DATES, help="Rows of this day [default: the newest]")
def run(name: str, day: datetime | None) -> None:
    """Send what is new or changed now, through the same gate as a run in the UI; asks where that would ask."""
    _run(name, day, confirmed=False)


@sync.command("confirm", epilog=_NOT_ALL)
@click.argument("name")
@click.option("--day", type=_DATES, help="Rows of this day [default: the newest]")
def confirm(name: str, day: datetime | None) -> None:
    """Send although a run asks for confirmation: the first one to a destination, or one that changes unusually much."""
    _run(name, day, confirmed=True)


def _run(name: str, day: datetime | None, *, confirmed: bool) -> None:
    project = project_of(name)
    selected_day = day_of(project, name, day)
    if not confirmed and waits_for_confirmation(project, name):
        with progress(f"Planning {sync_asset(name)}"):
            planned, _ = delivery.plan(project, name, selected_day)
        click.echo(f"{sync_asset(name)} {selected_day}: nothing was ever sent to this destination, and nothing was now")
        _say_report(planned.report)
        click.echo(f"  {confirmation_hint(name)}")
        raise SystemExit(1)
    run_id = _by_hand()
    try:
        with progress(f"Sending {sync_asset(name)}"):
            sent = delivery.send(project, name, selected_day, run_id, delivery.RunOptions(confirmed=confirmed))
    except LeaseHeldError:
        raise
    except HeapAssetsError as error:
        record_results(project, name, str(selected_day), undelivered_result(str(error)), run_id)
        raise
    report = sent.report
    results = record_results(project, name, str(selected_day), results_of(project, name, sent), run_id)
    click.echo(
        f"{sync_asset(name)} {selected_day}: {report.status}, {report.sent:,} sent, {report.unchanged:,} unchanged, "
        f"{report.empty:,} empty, {report.rejected:,} rejected, {report.invalid:,} invalid, {report.held:,} held"
    )
    if report.reason:
        click.echo(f"  {report.reason}")
    if report.status is Status.NEEDS_CONFIRMATION:
        click.echo(f"  {confirmation_hint(name)}")
    _report_to_dagster(project, name, sent, results)
    raise SystemExit(0 if sent.arrived else 1)


def _report_to_dagster(
    project: Project, name: str, sent: delivery.Delivery, results: Sequence[tuple[Check, StoredResult]]
) -> None:
    """Report what was sent to the Dagster of this deployment, if there is one here; what was sent stays sent."""
    home = dagster_home()
    if home is None:
        click.echo("  the UI is not told: $DAGSTER_HOME is not set, and there is no .dagster beside the settings")
        return
    from heap_assets.orchestration.assets.sync_metadata import report_delivery
    from heap_assets.orchestration.in_process import instance_of  # seconds to import

    try:
        with instance_of(home) as instance:
            report_delivery(instance, project, name, sent, results)
    except Exception as error:  # whatever Dagster's storage is made of
        click.echo(f"  sent, but the Dagster of {home} could not be told: {redact(str(error))}", err=True)


@sync.command("retry")
@click.argument("name")
@click.option("--since", type=_DATES, help="Only rows refused since then (UTC)")
def retry(name: str, since: datetime | None) -> None:
    """Let the next run try rejected and unanswered rows at once, however often they failed."""
    project = project_of(name)
    moment = since.replace(tzinfo=UTC) if since else None
    store = project.lake.store
    count = sum(retry_rejected(store, spec, _by_hand(), moment) for spec in connector_of(project, name).specs())
    click.echo(f"{sync_asset(name)}: {count:,} rows will be tried again by the next run")


@sync.command("resend", epilog=NOT_CONFIRMED)
@click.argument("name")
@click.confirmation_option(prompt="The next run will send every known key again. Go on?")
def resend(name: str) -> None:
    """Let the next run send every known key again. Not for events, which are sent once."""
    project = project_of(name)
    delivery.check_options(project, name, delivery.RunOptions(full_resend=True))
    store = project.lake.store
    count = sum(full_resend(store, spec, _by_hand()) for spec in connector_of(project, name).specs())
    click.echo(f"{sync_asset(name)}: {count:,} keys will be sent again by the next run")


@sync.command("forget", epilog=NOT_CONFIRMED)
@click.argument("name")
@click.argument("key")
@click.option("--delete-in-heap", is_flag=True, help="Ask Heap, too: deletes the user in all environments, for good")
@click.confirmation_option(prompt="The key will be removed from ledger, log and tables, and never sent again. Go on?")
def forget_key(name: str, key: str, delete_in_heap: bool) -> None:
    """Remove a person (a key of the destination) from all that is kept of a sync, and never send to it again.

    Of syncs that send events, all events of the person are dropped from the ledger. Do this before the person is put on
    the list of identity.suppressed: afterwards nobody knows which events were theirs.
    """
    project = project_of(name)
    deletion = heap_deletion(project, name) if delete_in_heap else None
    removed = forget_person(project, name, key, _by_hand())
    outcome = f", {removed:,} keys of the ledger" if removed else ", though it was never sent"
    click.echo(f"{sync_asset(name)}: forgotten{outcome}. It will not be sent to again")
    if deletion is None:
        click.echo("The person is still at the destination; for Heap: --delete-in-heap")
        return
    with contextlib.closing(deletion):
        [request] = deletion.delete([key])
        click.echo(f"Heap was asked to delete the user: request {request}, {deletion.status(request)}")


@sync.command("runs")
@click.argument("name")
@click.option("--last", type=COUNT, default=_SHOWN, show_default=True, help="How many runs")
@json_option
def show_runs(name: str, last: int, as_json: bool) -> None:
    """Show the last runs, newest first."""
    project = project_of(name)
    specs = connector_of(project, name).specs()
    listed = pl.concat([runs(project.lake.store, spec.folder, last=last) for spec in specs])
    shown = listed.sort("started_at", descending=True).head(last)
    if as_json:
        print_json(records(shown))
        return
    if not len(listed):
        click.echo(f"{sync_asset(name)} has not run yet")
        return
    columns = ("planned", "sent", "rejected", "held", "invalid", "unknown", "requests")
    several = ["sync"] if len(specs) > 1 else []
    _table(
        shown.select(
            pl.col("started_at").dt.strftime("%Y-%m-%d %H:%M:%S"),
            "day",
            *several,
            "status",
            *columns,
            pl.col("seconds").round(1),
            pl.col("reason").fill_null("").str.head(80),
        )
    )


@sync.command("rejected")
@click.argument("name")
@click.option("--since", type=_DATES, help="Only rows refused since then (UTC)")
@click.option("--rows", type=COUNT, default=_SHOWN, show_default=True, help="How many rows")
@json_option
def show_rejected(name: str, since: datetime | None, rows: int, as_json: bool) -> None:
    """Show rows that stand as rejected or unanswered: hashed key, how often, when and why."""
    project = project_of(name)
    moment = since.replace(tzinfo=UTC) if since else None
    specs = connector_of(project, name).specs()
    listed = pl.concat(
        [rejected(project.lake.store, spec, moment).with_columns(ledger=pl.lit(spec.name)) for spec in specs]
    )
    newest = listed.sort("failed_at", descending=True, nulls_last=True).head(rows)
    if as_json:
        print_json(records(newest))
        return
    click.echo(f"{sync_asset(name)}: {len(listed):,} rows stand as rejected or unanswered")
    if not len(listed):
        return
    by_reason = listed.group_by("status", "reason").len("rows").sort("rows", "reason", descending=[True, False])
    _table(by_reason.fill_null(""))
    click.echo()
    _table(newest.drop("ledger") if len(specs) == 1 else newest)
    click.echo(f"\nShow one in clear: heap-assets rows sync/{name} --key KEY_HASH")
    click.echo(f"Try them at once: heap-assets sync retry {name}, then run the sync")


def _say_report(report: SyncReport) -> None:
    numbers = ", ".join(f"{getattr(report, name):,} {name}" for name in _COUNTS if getattr(report, name))
    if report.empty:
        numbers += f" ({_EMPTY})"
    click.echo(f"  {numbers or 'nothing to send'}")
    if report.new_properties:
        click.echo(f"  new property names: {', '.join(report.new_properties)}")
    for request in report.first_requests:
        click.echo(f"  a first request, values hashed: {request}")
    if report.full_resend_reason:
        click.echo(f"  everything is sent again: {report.full_resend_reason}")
    for concern in report.concerns:
        click.echo(f"  a run would ask for confirmation: {concern}")
    for reason, rows in {**report.invalid_reasons, **report.held_reasons, **report.addressing_in_words}.items():
        click.echo(f"  {rows:>10,}  {reason}")
    if report.reason:
        click.echo(f"  {report.reason}")


def _table(frame: pl.DataFrame) -> None:
    print_rows(frame.columns, [[_cell(value) for value in row] for row in frame.rows()])


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)


def _by_hand() -> str:
    return f"by-hand-{uuid.uuid4().hex[:12]}"
