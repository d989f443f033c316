"""Alarms of finished runs: failed and warned checks, failed steps, and recoveries.

A failed check that does not block leaves its run green, and Dagster does not report it: every finished run is read.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

from heap_assets.alerts import Alarm, Kind, Message
from heap_assets.errors import HeapAssetsError
from heap_assets.orchestration.checks import NOTHING_TO_JUDGE_BY
from heap_assets.project import PLAIN_NAMES, Names

RECENCY_CHECKS = ("newest_row_is_recent", "newest_complete_day_delivered")
_START, _END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
_PARTITION = "dagster/partition"
_BACKFILL = "dagster/backfill"
_WILL_RETRY = "dagster/will_retry"
_CHECK_FAILED_ERROR = "DagsterAssetCheckFailedError"
_NUMBERS_SHOWN = 6
_DETAIL = 300
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
GroupOf = Callable[[dg.AssetKey], str]


@dataclass(frozen=True)
class Own:
    """The definitions of one deployment, on an instance or in a code location that it may share with others."""

    names: Names = PLAIN_NAMES
    keys: frozenset[dg.AssetKey] | None = None
    """Its assets; None if all are."""

    def has(self, key: dg.AssetKey) -> bool:
        """Return whether an asset belongs to the deployment."""
        return self.keys is None or key in self.keys

    def has_name(self, name: str) -> bool:
        """Return whether a step, job, sensor or schedule belongs to the deployment, by its name."""
        return self.keys is None or name.startswith(self.names.name_prefix)


EVERYTHING = Own()


def finished_messages(
    instance: dg.DagsterInstance,
    runs: Sequence[dg.DagsterRun],
    base_url: str,
    group_of: GroupOf,
    still_open: Sequence[Alarm],
    runs_of_backfill: Own = EVERYTHING,
) -> list[Message]:
    """Return one message per finished run, or per backfill, with its alarms; they may have been sent before.

    `runs` are oldest first: of several runs of a partition the newest counts. `still_open` are alarms that were sent
    and not recovered: a successful run recovers those of its steps and partitions.
    """
    by_backfill: dict[str, list[dg.DagsterRun]] = {}
    for run in runs:
        by_backfill.setdefault(run.tags.get(_BACKFILL, run.run_id), []).append(run)
    messages = []
    for together in by_backfill.values():
        alarms = {
            alarm.key: alarm
            for run in together
            for alarm in _run_alarms(instance, run, group_of, still_open, runs_of_backfill)
        }
        if alarms:
            messages.append(_message(together, tuple(alarms.values()), base_url.rstrip("/")))
    return messages


def check_alarm(evaluation: dg.AssetCheckEvaluation, group: str) -> Alarm:
    """Return the alarm of a check result, or its recovery."""
    severe = evaluation.severity == dg.AssetCheckSeverity.ERROR
    kind = Kind.CHECK_FAILED if severe else Kind.CHECK_WARNED
    shown = {name: value.value for name, value in evaluation.metadata.items()}
    numbers = {name: number for name, value in shown.items() if (number := _number(value)) is not None}
    texts = [
        f"{name}: {value}" for name, value in shown.items() if name not in numbers and isinstance(value, str) and value
    ]
    return Alarm(
        Kind.STALE if evaluation.check_name in RECENCY_CHECKS else kind,
        evaluation.asset_key.to_user_string(),
        evaluation.check_name,
        rule=evaluation.description or "",
        partition=evaluation.partition,
        group=group,
        blocking=bool(evaluation.blocking) and severe,
        numbers=dict(list(numbers.items())[:_NUMBERS_SHOWN]),
        detail="; ".join(texts)[:_DETAIL],
        recovered=evaluation.passed,
    )


def _number(value: object) -> int | float | None:
    """Return a number of a check's result, which is a text where it is not to be plotted."""
    if not isinstance(value, str):
        return value if isinstance(value, int | float) else None
    return (float(value) if "." in value else int(value)) if _NUMBER.fullmatch(value) else None


def run_partitions(run: dg.DagsterRun) -> tuple[str, str] | None:
    """Return the first and last partition of a run, None if it has none."""
    if partition := run.tags.get(_PARTITION):
        return partition, partition
    if run.tags.get(_START) and run.tags.get(_END):
        return run.tags[_START], run.tags[_END]
    return None


def _run_alarms(
    instance: dg.DagsterInstance,
    run: dg.DagsterRun,
    group_of: GroupOf,
    still_open: Sequence[Alarm],
    runs_of_backfill: Own,
) -> list[Alarm]:
    alarms = list(_check_alarms(instance, run, group_of, runs_of_backfill))
    if run.status == dg.DagsterRunStatus.FAILURE:
        planned = _planned(instance, run)
        if not runs_of_backfill.has_name(run.job_name) and not any(runs_of_backfill.has(key) for key in planned):
            return alarms
        groups = {group_of(key) for key in planned}
        # of several groups: every channel gets it
        group = groups.pop() if len(groups) == 1 else ""
        return [
            *alarms,
            *(replace(alarm, group=group) for alarm in _step_alarms(instance, run, alarms, runs_of_backfill)),
        ]
    return [*alarms, *_recovered_steps(instance, run, still_open)]


def _planned(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[dg.AssetKey]:
    """Return the assets that a run was to build."""
    planned = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    records = instance.get_records_for_run(run.run_id, of_type=planned).records
    events = [record.event_log_entry.dagster_event for record in records]
    return {event.asset_key for event in events if event is not None and event.asset_key is not None}


def _message(runs: Sequence[dg.DagsterRun], alarms: tuple[Alarm, ...], base_url: str) -> Message:
    run = runs[-1]
    failed = sum(item.status == dg.DagsterRunStatus.FAILURE for item in runs)
    backfill = run.tags.get(_BACKFILL)
    if backfill and len(runs) > 1:
        title = f"Backfill {backfill}, {len(runs)} runs{f', {failed} of them failed' if failed else ''}"
        return Message(title, alarms, link=f"{base_url}/runs/b/{backfill}", run_id=run.run_id)
    title = f"Run {run.run_id[:8]} {'failed' if failed else 'finished'}"
    return Message(title, alarms, link=f"{base_url}/runs/{run.run_id}", run_id=run.run_id)


def _check_alarms(
    instance: dg.DagsterInstance, run: dg.DagsterRun, group_of: GroupOf, runs_of_backfill: Own
) -> Iterator[Alarm]:
    records = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
    for record in records:
        event = record.event_log_entry.dagster_event
        if event is not None:
            evaluation = event.asset_check_evaluation_data
            if not runs_of_backfill.has(evaluation.asset_key):
                continue
            if evaluation.check_name in RECENCY_CHECKS and run_partitions(run):
                # a backfill says nothing about how new the table is once all of it is loaded
                continue
            if NOTHING_TO_JUDGE_BY in evaluation.metadata:
                continue  # neither an alarm nor a recovery
            yield check_alarm(evaluation, group_of(evaluation.asset_key))


def _step_alarms(
    instance: dg.DagsterInstance, run: dg.DagsterRun, checks: list[Alarm], runs_of_backfill: Own
) -> Iterator[Alarm]:
    """Yield an alarm for each failed step of a run, except those that failed because of a check that is an alarm."""
    if run.tags.get(_WILL_RETRY) == "true":
        return
    records = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    has_failures = False
    for record in records:
        event = record.event_log_entry.dagster_event
        error = event.step_failure_data.error if event else None
        has_failures = True
        if event is None or (error and error.cls_name == _CHECK_FAILED_ERROR and checks):
            continue
        if not runs_of_backfill.has_name(event.step_key or run.job_name):
            continue
        yield _run_failed(run, event.step_key or run.job_name, _error_message(error))
    if not has_failures:
        yield _run_failed(run, run.job_name, "the run ended without a failed step: its process was lost or not started")


def _error_message(error: SerializableErrorInfo | None) -> str:
    """Return the message of an error of our own; that of any other may hold a row's values."""
    while error is not None and error.cause is not None:
        error = error.cause
    if error is None or error.cls_name not in {dg.Failure.__name__, *_own_errors()}:
        return f"{error.cls_name if error else 'error'}: see the run's log"
    return error.message.partition(": ")[2].strip()[:_DETAIL]


def _run_failed(run: dg.DagsterRun, subject: str, detail: str) -> Alarm:
    return Alarm(
        Kind.RUN_FAILED,
        subject,
        "run_failed",
        rule="Every run finishes.",
        partition=_span(run),
        detail=detail,
    )


def _recovered_steps(instance: dg.DagsterInstance, run: dg.DagsterRun, still_open: Iterable[Alarm]) -> Iterator[Alarm]:
    failures = [alarm for alarm in still_open if alarm.kind is Kind.RUN_FAILED]
    if not failures:
        return
    records = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_SUCCESS).records
    succeeded = {run.job_name} | {record.event_log_entry.step_key for record in records}
    span = run_partitions(run)
    for alarm in failures:
        if alarm.subject in succeeded and _covers(span, alarm.partition):
            yield Alarm(
                Kind.RUN_FAILED,
                alarm.subject,
                "run_failed",
                rule=alarm.rule,
                partition=alarm.partition,
                group=alarm.group,
                recovered=True,
            )


def _covers(span: tuple[str, str] | None, partition: str | None) -> bool:
    if partition is None or span is None:
        return partition is None and span is None
    first, _, last = partition.partition("...")
    return span[0] <= first and (last or first) <= span[1]


def _span(run: dg.DagsterRun) -> str | None:
    span = run_partitions(run)
    if span is None:
        return None
    return span[0] if span[0] == span[1] else f"{span[0]}...{span[1]}"


def _own_errors(base: type[HeapAssetsError] = HeapAssetsError) -> set[str]:
    return {base.__name__}.union(*(_own_errors(child) for child in base.__subclasses__()))
