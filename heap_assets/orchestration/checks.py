"""Dagster side of checks: every partition of a run is evaluated by itself and keeps its own result.

Dagster 1.13 stores the `AssetCheckResult` of a range run (every backfill of an asset with a `BackfillPolicy`) without
its partition, and leaves the planned rows of the partitions as "Skipped". Results are therefore reported as
`AssetCheckEvaluation` events that name their partition, in single runs too, and the check's output is yielded by hand.
"""

import logging
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg

# exported nowhere else, and the public `AssetCheckEvaluation` takes nothing else
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

from heap_assets.errors import HeapAssetsError
from heap_assets.orchestration.event_log import batch_check_events
from heap_assets.orchestration.failures import raising_failures
from heap_assets.project import PLAIN_NAMES, Names
from heap_assets.quality import (
    ALL_PARTITIONS,
    Check,
    CheckContext,
    CheckResult,
    Evaluate,
    Number,
    Severity,
    StoredResult,
    add_stored,
    could_not_evaluate,
    record_check,
    result_store,
)
from heap_assets.storage import Lake, side_by_side

LAKE = "lake"
"""The resource of the lake, before :class:`Names` had its say."""
NOTHING_TO_JUDGE_BY, COULD_NOT_JUDGE = "nothing_to_judge_by", "could_not_judge"
"""Metadata with the reason why a check was not evaluated. Dagster has no third state; such a result warns."""
READABLE = "readable"
CONSTANT = ("allowed_", "least_", "rows_a_month")
"""How the names of numbers begin that a result is held against."""
_DIGITS = 4
Context = dg.AssetExecutionContext | dg.AssetCheckExecutionContext
Event = dg.AssetCheckEvaluation | dg.Output[None]
_DAGSTER_SEVERITY = {Severity.WARN: dg.AssetCheckSeverity.WARN, Severity.ERROR: dg.AssetCheckSeverity.ERROR}


def lake_of(context: Context | dg.OpExecutionContext, names: Names = PLAIN_NAMES) -> Lake:
    """Return the lake of a run."""
    lake: Lake = getattr(context.resources, names.name(LAKE)).open()
    return lake


def asset_key(asset: str, names: Names = PLAIN_NAMES) -> dg.AssetKey:
    """Return the Dagster key of a lake asset (`heap/events/signup`)."""
    return dg.AssetKey(names.key(asset))


def check_spec(
    check: Check, partitions_def: dg.PartitionsDefinition[str] | None, names: Names = PLAIN_NAMES
) -> dg.AssetCheckSpec:
    """Return the spec of a check, for `check_specs=` of the step that builds the asset or for `check_step`."""
    with warnings.catch_warnings():
        # partitioned checks are "preview" in 1.13; this is the one place that knows
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return _spec(check, partitions_def, names)


def _spec(check: Check, partitions_def: dg.PartitionsDefinition[str] | None, names: Names) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        name=check.name,
        asset=asset_key(check.asset, names),
        description=f"{check.rule} To mend: {check.remedy}" if check.remedy else check.rule,
        blocking=check.blocking,
        partitions_def=partitions_def if check.partitioned else None,
        metadata={"severity": check.severity.value, "rule": check.rule, "mend": check.remedy},
    )


def check_specs(
    checks: Iterable[Check], partitions_def: dg.PartitionsDefinition[str] | None, names: Names = PLAIN_NAMES
) -> list[dg.AssetCheckSpec]:
    """Return the specs of several checks."""
    return [check_spec(check, partitions_def, names) for check in checks]


class StepChecks:
    """The checks of one step: evaluates them by partition, stores results, and makes the events to yield.

    In the step that builds tables, call `evaluate` after the partition's `MaterializeResult` was yielded, and `finish`
    at the end of the step:

    >>> checks = StepChecks(context, lake, all_checks)                                      # doctest: +SKIP
    >>> for day in context.partition_keys:                                                  # doctest: +SKIP
    ...     yield from checks.evaluate("heap/sessions", day)
    >>> yield from checks.finish()                                                          # doctest: +SKIP
    """

    def __init__(self, context: Context, lake: Lake, checks: Sequence[Check], names: Names = PLAIN_NAMES) -> None:
        selected = context.selected_asset_check_keys
        context.log.addFilter(_is_no_list_of_outputs)
        self._names = names
        self._context = context
        self._lake = lake
        self._by_asset: dict[str, list[Check]] = {}
        for check in checks:
            if dg.AssetCheckKey(asset_key(check.asset, names), check.name) in selected:
                self._by_asset.setdefault(check.asset, []).append(check)
        self._unreported: dict[tuple[str, str], list[tuple[Check, StoredResult]]] = {}
        self._evaluated: dict[tuple[str, str], Check] = {}
        self._shared: dict[str, Any] = {}
        self._recorded: dict[str, dict[tuple[str, str], StoredResult]] = {}

    @property
    def assets(self) -> list[str]:
        """Return the assets that this step has checks for."""
        return list(self._by_asset)

    def evaluate(
        self, asset: str, partition: str | None = None, reported: Mapping[str, CheckResult] | None = None
    ) -> Iterator[dg.AssetCheckEvaluation]:
        """Evaluate every selected check of a partition; the events are written in one batch.

        `reported` has results that the step itself reports, by check name. If `readable` is among them and failed,
        nothing else is evaluated: the partition in the lake is not the one that was to be built.
        """
        self.evaluate_and_store(asset, partition, reported)
        yield from self.report(asset, [partition])

    def evaluate_and_store(
        self, asset: str, partition: str | None = None, reported: Mapping[str, CheckResult] | None = None
    ) -> dict[str, Number]:
        """Evaluate as `evaluate` does and store the results; `report` yields them, once the asset is materialized.

        Returns the figures that the materialization is to carry, so that they plot over partitions.
        """
        results = list(self._results(asset, partition or ALL_PARTITIONS, reported or {}))
        key, run_id = partition or ALL_PARTITIONS, self._context.run.run_id
        version = result_store.partition_version(self._lake, asset, key)
        stored = side_by_side(
            self._lake.store,
            lambda one: record_check(self._lake.store, *one, partition=key, version=version, run_id=run_id),
            results,
        )
        unreported = self._unreported[asset, key] = list(zip((check for check, _ in results), stored, strict=True))
        add_stored(self._shared, (result for _, result in unreported))
        if asset not in self._recorded:
            self._recorded = {asset: {}}  # of the asset before nothing is asked any more
        self._recorded[asset] |= {(check.name, key): stored for check, stored in unreported}
        return {
            name: result.numbers[name] for check, result in results for name in check.plotted if name in result.numbers
        }

    def report(self, asset: str, partitions: Iterable[str | None]) -> Iterator[dg.AssetCheckEvaluation]:
        """Yield the results of `evaluate_and_store`; the events of all partitions are written in one batch."""
        unreported = {key: self._unreported.pop((asset, key or ALL_PARTITIONS)) for key in partitions}
        judged = [partition for partition, results in unreported.items() if results and _is_readable(results)]
        targets = self._targets(asset, judged)
        with batch_check_events(self._context.instance):
            for partition, results in unreported.items():
                self._evaluated |= {(check.asset, check.name): check for check, _ in results}
                for check, stored in results:
                    shown = partition if check.partitioned and self._partitioned else None
                    yield evaluation(check, stored, shown, targets.get(partition), names=self._names)

    def _results(
        self, asset: str, key: str, reported: Mapping[str, CheckResult]
    ) -> Iterator[tuple[Check, CheckResult]]:
        recorded = self._recorded.get(asset, {})
        subject = CheckContext(self._lake, asset, key, step_shared=self._shared, recorded=recorded)
        readable = reported.get(READABLE, CheckResult(passed=True))
        unreadable = readable.failed or bool(readable.not_judged)
        for check in self._by_asset.get(asset, []):
            result = reported.get(check.name)
            if result is None and check.evaluate is not None and not unreadable:
                result = self._evaluate_safely(check.evaluate, check, replace(subject, check=check.name))
            if result is not None:
                yield check, result

    def re_evaluate(self, asset: str, partitions: Iterable[str]) -> Iterator[dg.AssetCheckEvaluation]:
        """Evaluate partitions without building them; results that only building can give are repeated as stored."""
        for partition in partitions:
            reported = {
                check.name: CheckResult(
                    stored.passed, stored.numbers, stored.notes, memory=stored.memory, not_judged=stored.not_judged
                )
                for check in self._by_asset.get(asset, [])
                if check.evaluate is None
                for stored in result_store.read_many(self._lake.store, asset, check.name, [partition])
            }
            yield from self.evaluate(asset, partition, reported)

    def finish(self) -> Iterator[dg.Output[None]]:
        """Yield the outputs of blocking checks, as Dagster expects at the end of the step.

        Nothing depends on the outputs of other checks, and each would be one more event, which on SQLite costs more
        than evaluating the check.
        """
        for check in (check for check in self._evaluated.values() if check.blocking):
            yield dg.Output(None, output_name=_spec(check, None, self._names).get_python_identifier())

    def _evaluate_safely(self, evaluate: Evaluate, check: Check, subject: CheckContext) -> CheckResult:
        """Evaluate a check; an exception becomes its result, and fails neither its table nor other checks."""
        try:
            return evaluate(subject)
        except Exception as error:
            # an arbitrary exception's message may hold a row's values: where it happened is enough
            where = "".join(traceback.format_tb(error.__traceback__))
            self._context.log.error(  # noqa: TRY400
                "%s on %s %s could not be judged: %s\n%s",
                *(check.name, check.asset, subject.partition, type(error).__name__, where),
            )
            return could_not_evaluate(str(error) if isinstance(error, HeapAssetsError) else type(error).__name__)

    @property
    def _partitioned(self) -> bool:
        return bool(self._context.has_partition_key or self._context.has_partition_key_range)

    def _targets(
        self, asset: str, partitions: Sequence[str | None]
    ) -> dict[str | None, AssetCheckEvaluationTargetMaterializationData]:
        """Tie results to the materializations they judged, as Dagster itself does for `AssetCheckResult`."""
        # those that this run has built are the newest ones: one query finds them all
        newest = {record.partition_key: record for record in reversed(self._materializations(asset, partitions))}
        records = {
            partition: newest.get(partition) or next(iter(self._materializations(asset, [partition])), None)
            for partition in partitions
        }
        return {
            partition: AssetCheckEvaluationTargetMaterializationData(
                run_id=record.run_id, storage_id=record.storage_id, timestamp=record.timestamp
            )
            for partition, record in records.items()
            if record is not None
        }

    def _materializations(self, asset: str, partitions: Sequence[str | None]) -> Sequence[dg.EventLogRecord]:
        """Return as many of the newest materializations of `partitions` (None: of the asset) as there are of those."""
        if not partitions:
            return []
        chosen = [partition for partition in partitions if partition is not None]
        records_filter = dg.AssetRecordsFilter(asset_key(asset, self._names), asset_partitions=chosen or None)
        page = self._context.instance.fetch_materializations(records_filter, limit=len(partitions))
        return list(page.records)


def _is_readable(results: Iterable[tuple[Check, StoredResult]]) -> bool:
    return all(result.passed and not result.not_judged for check, result in results if check.name == READABLE)


def _is_no_list_of_outputs(record: logging.LogRecord) -> bool:
    """Drop Dagster's line on the outputs of checks, whose results are events (see `finish`): it looks like a fault."""
    return "did not yield or return expected outputs" not in record.getMessage()


def evaluation(
    check: Check, stored: StoredResult, partition: str | None, target: Any = None, *, names: Names = PLAIN_NAMES
) -> dg.AssetCheckEvaluation:
    """Return a stored result as a Dagster event; `target` is the materialization that was checked."""
    return dg.AssetCheckEvaluation(
        asset_key=asset_key(check.asset, names),
        check_name=check.name,
        passed=stored.passed and not stored.not_judged,
        severity=dg.AssetCheckSeverity.WARN if stored.not_judged else _DAGSTER_SEVERITY[check.severity],
        blocking=check.blocking,
        description=f"Not judged: {stored.not_judged}" if stored.not_judged else check.rule,
        partition=partition,
        metadata=metadata(stored, plotted=partition is None),
        target_materialization_data=target,
    )


def metadata(stored: StoredResult, *, plotted: bool) -> dict[str, Any]:
    """Return a result as Dagster metadata: numbers, notes, and offenders as a small table.

    Dagster plots the numbers of a check over execution time, where the partitions of a backfill are one heap: those are
    texts unless they are `plotted`, and so is what never changes.
    """
    numbers = {
        name: number if plotted and not name.startswith(CONSTANT) else f"{round(number, _DIGITS)}"
        for name, number in stored.numbers.items()
    }
    result: dict[str, Any] = {**numbers, **stored.notes}
    if stored.not_judged:
        result[NOTHING_TO_JUDGE_BY if stored.passed else COULD_NOT_JUDGE] = stored.not_judged
    if stored.sample:
        columns = [dg.TableColumn(name) for name in stored.sample[0]]
        records = [
            dg.TableRecord({name: "" if value is None else value for name, value in row.items()})
            for row in stored.sample
        ]
        result["offenders"] = dg.MetadataValue.table(records, schema=dg.TableSchema(columns))
    if stored.hashes:
        day = "" if stored.partition == ALL_PARTITIONS else f" --day {stored.partition}"
        result["offenders_in_clear"] = f"heap-assets rows {stored.asset} {stored.check}{day}"
    return result


def check_step(
    name: str,
    checks: Sequence[Check],
    partitions_def: dg.PartitionsDefinition[str] | None,
    description: str | None = None,
    *,
    pool: str | None = None,
    names: Names = PLAIN_NAMES,
) -> dg.AssetChecksDefinition:
    """Build one step that evaluates several checks, on one or many assets, in one process."""
    own = [check for check in checks if check.evaluate is not None]

    @dg.multi_asset_check(
        name=names.name(name),
        specs=check_specs(own, partitions_def, names),
        can_subset=True,
        required_resource_keys={names.name(LAKE)},
        description=description,
        pool=pool,
    )
    @raising_failures
    def evaluate_partitions(context: dg.AssetCheckExecutionContext) -> Iterator[Event]:
        lake = lake_of(context, names)
        step = StepChecks(context, lake, own, names)
        for asset in step.assets:
            for partition in _partitions(context, lake, own, asset):
                yield from step.evaluate(asset, partition)
        yield from step.finish()

    return evaluate_partitions


def _partitions(context: Context, lake: Lake, checks: Sequence[Check], asset: str) -> Sequence[str | None]:
    if not any(check.partitioned for check in checks if check.asset == asset):
        return [None]
    requested = list(context.partition_keys)
    built = [key for key in requested if result_store.partition_version(lake, asset, key) is not None]
    # in a range, days that wait for an input are skipped; a single day that was requested is reported
    return built or requested
