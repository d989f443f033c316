"""Users' functions on days of event tables: which one a table has, its version, and the day that it makes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from fnmatch import filter as fnmatch_filter
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import polars as pl

from heap_assets.activation import salt
from heap_assets.config import FunctionLimits, FunctionSettings
from heap_assets.errors import SettingsError
from heap_assets.functions import (
    DTYPES,
    ORDINAL,
    Batch,
    Bundle,
    Limits,
    Outcome,
    Pool,
    Shape,
    bundle,
    enriched,
    json_rows,
    require_limits,
    through,
    wide_integers,
)
from heap_assets.pipelines.table import BuiltTable, Table, Task
from heap_assets.project import Project
from heap_assets.quality import hashed
from heap_assets.sources.heap_connect import keys_of
from heap_assets.storage import Inputs
from heap_assets.tables import INBOX, INBOX_COLUMNS, PROFILES, SNAPSHOT_TABLES, heap_asset, is_inbox_table
from heap_assets.versions import version_of

_CHUNK: Final = 20_000
"""Rows that are in memory as JSON at once."""
FUNCTION: Final = "function"
"""Input of a day: the version of its table's function."""


def function_of(project: Project, table: str) -> FunctionSettings | None:
    """Return the function that an event table, or a table of the inbox by its asset, has; None if it has none.

    Raises
    ------
    SettingsError
        Two patterns of `functions.transform` match the table.
    """
    if table in SNAPSHOT_TABLES:
        return None
    patterns = project.settings.functions.patterns_of(table)
    if len(patterns) > 1:
        raise SettingsError(
            f"functions.transform: {' and '.join(patterns)} match the table {table}; expected: one function a table"
        )
    return project.settings.functions.transform[patterns[0]] if patterns else None


def code_of(project: Project, function: FunctionSettings) -> Bundle:
    """Return a function's file with all that it imports; SettingsError for a file that cannot be used."""
    folder = project.settings.functions.folder
    return _bundled(folder, function.file, _state(folder))


@lru_cache(maxsize=64)
def _bundled(folder: Path, file: str, _: object) -> Bundle:
    return bundle(folder, file)


def _state(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what tells whether a file of the folder was edited, without reading it."""
    files = sorted(path for pattern in ("*.js", "*.mjs") for path in folder.rglob(pattern))
    return tuple((str(path), (facts := path.stat()).st_mtime_ns, facts.st_size) for path in files)


def function_version(project: Project, table: str) -> str | None:
    """Return the version of a table's function: its files, declared columns and limits; None if it has none."""
    function = function_of(project, table)
    if function is None:
        return None
    return _version(project, function)


def _version(project: Project, function: FunctionSettings) -> str:
    return version_of({"code": code_of(project, function).version, "settings": function.model_dump(mode="json")})


def check_functions(project: Project) -> None:
    """Check that functions can be run here, and that their files can be read with all that they import.

    Raises
    ------
    SettingsError, FunctionFailedError
        Naming the key or the file.
    """
    functions = project.settings.functions
    if functions.transform or functions.enrich:
        require_limits()
    for pattern in functions.transform:
        if pattern in SNAPSHOT_TABLES:
            raise SettingsError(
                f"functions.transform.{pattern}: functions change rows of event tables; {pattern} is a snapshot"
            )
        if pattern.startswith(INBOX) and not fnmatch_filter(project.message_tables, pattern):
            raise SettingsError(
                f"functions.transform.{pattern} matches no table of messages. Tables: "
                f"{', '.join(project.message_tables) or 'none, as there is no `inbox:`'}"
            )
    named: list[tuple[str, FunctionSettings]] = [
        *((f"transform.{pattern}", function) for pattern, function in functions.transform.items()),
        *((f"enrich.{name}", function) for name, function in functions.enrich.items()),
    ]
    for key, function in named:
        if "default" not in code_of(project, function).exports:
            raise SettingsError(f"functions.{key}: {function.file} has no `export default function`")
    for table in (*project.event_tables, *project.message_tables):
        function_of(project, table)


def limits_of(settings: FunctionLimits) -> Limits:
    """Return the limits that the settings of a function name."""
    return Limits(
        memory_bytes=settings.memory_mb << 20,
        cpu_seconds=settings.seconds,
        wall_seconds=settings.wall_seconds,
        output_bytes=settings.output_mb << 20,
        row_bytes=settings.row_kb << 10,
        batch=settings.batch_rows,
    )


def transformed(task: Task, table: str, table_day: Table) -> Table:
    """Return a day of an event table as its function makes it; the day itself if the table has none.

    The function's version is an input of the partition: an edited one rewrites the day at its next build, an equal one
    is not run.
    """
    function = function_of(task.project, table)
    if function is None:
        return table_day
    inputs = with_function(task.project, table, table_day.inputs or Inputs({}))
    lake, asset, day = task.project.lake, _asset(table), str(task.day)
    stored = lake.find(asset, day)
    if stored is not None and stored.inputs.versions == dict(inputs.versions) and not task.force:
        notes = {name: note for name, note in stored.notes.items() if name.startswith("function_")}
        return BuiltTable(lake.scan(asset, day), inputs, {**table_day.notes, **notes})
    source = task.scratch / "before_function.parquet"
    table_day.frame.sink_parquet(source)
    outcome = Outcome()
    parts = [
        _stored_part(task.scratch / f"function_{number}.parquet", rows)
        for number, rows in enumerate(run_function(task, table, function, pl.scan_parquet(source), outcome))
    ]
    frame = _named(task.project, table, pl.scan_parquet(parts))
    return BuiltTable(frame, inputs, {**table_day.notes, **outcome.notes()})


def with_function(project: Project, table: str, inputs: Inputs) -> Inputs:
    """Return the inputs of a day with the version of its table's function, if it has one."""
    version = function_version(project, table)
    return Inputs({**inputs.versions, FUNCTION: version}, inputs.observed) if version else inputs


def _asset(table: str) -> str:
    return table if is_inbox_table(table) else heap_asset(table)


def _named(project: Project, table: str, rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return rows that a function made, those of an inbox's table as messages: further ones have ids of their own."""
    if not is_inbox_table(table):
        return rows
    further = pl.concat_str("message_id", pl.lit("-"), pl.col(ORDINAL).cast(pl.String))
    message_id = pl.when(pl.col(ORDINAL) > 0).then(further).otherwise("message_id")
    return rows.with_columns(message_id=message_id).select(list(project.message_tables[table].schema))


def transformed_messages(project: Project, asset: str, messages: pl.DataFrame, pools: OpenPools) -> pl.DataFrame:
    """Return the rows that a table's function makes of messages as they come; these themselves if it has none.

    Positions count from the first of these messages, not of their day: `random()` is another than in the batch.
    """
    function = function_of(project, asset)
    if function is None or messages.is_empty():
        return messages
    parts: list[pl.DataFrame] = []
    for (day,), rows in messages.group_by(pl.col("time").dt.date(), maintain_order=True):
        task = Task(project, day, Path())
        shape, as_text = shape_of(task, asset, function, rows.lazy())
        # around midnight messages of two days come in turns
        pool = pools.pool(project, function, day, f"{asset} {day.toordinal() % 2}", asset)
        parts += [shape.rows(rows.head(0), [], Outcome()), *through(pool, shape, as_text, [rows], Outcome())]
    return _named(project, asset, pl.concat(parts).lazy()).collect()


def run_function(
    task: Task, table: str, function: FunctionSettings, rows: pl.LazyFrame, outcome: Outcome
) -> Iterator[pl.DataFrame]:
    """Yield the rows that a table's function makes of a day's, part by part and in their order; at least one part."""
    shape, as_text = shape_of(task, table, function, rows)
    with pool_of(task, table, function) as pool:
        count = rows.select(pl.len()).collect().item()
        parts = (rows.slice(start, _CHUNK).collect() for start in range(0, count, _CHUNK))
        yield shape.rows(rows.head(0).collect(), [], outcome)
        yield from through(pool, shape, as_text, parts, outcome)


class OpenPools:
    """Processes of functions that stay between calls: one pool a function, another once its code or the day is."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[str, Pool]] = {}

    def pool(self, project: Project, function: FunctionSettings, day: date, name: str, table: str = "") -> Pool:
        """Return the pool of a function for a day; `table`: what its context says, the name unless given."""
        version = version_of([_version(project, function), str(day)])
        open_version, pool = self._open.get(name, ("", None))
        if pool is None or open_version != version:
            if pool is not None:
                pool.__exit__()
            pool = _pool(code_of(project, function), function, day, table or name)
            self._open[name] = version, pool
        return pool

    def close(self) -> None:
        """End the processes."""
        for _, pool in self._open.values():
            pool.__exit__()
        self._open = {}


def with_enriched(
    project: Project, profiles: pl.LazyFrame, day: date, pools: OpenPools | None = None
) -> tuple[pl.LazyFrame, dict[str, Any]]:
    """Add the columns that `functions.enrich` makes of each profile; also returns what became of the rows, as notes.

    `pools`: whose processes are used, and stay; without it they are this call's.
    """
    functions = project.settings.functions.enrich
    if not functions:
        return profiles, {}
    key, outcome = salt(project.lake.store), Outcome()
    frame = profiles.collect()
    for name, function in functions.items():
        declared = {column: DTYPES[kind] for column, kind in function.columns.items()}
        as_text = wide_integers(frame.lazy(), [])
        with (
            _pool(code_of(project, function), function, day, name)
            if pools is None
            else nullcontext(pools.pool(project, function, day, name))
        ) as pool:
            parts = [
                enriched(pool, part, declared, as_text, lambda value: hashed(value, key) or "", outcome)
                for part in frame.iter_slices(_CHUNK)
            ]
        frame = pl.concat(parts) if parts else frame.with_columns(pl.lit(None, t).alias(c) for c, t in declared.items())
    return frame.lazy(), outcome.notes()


def enrichment_version(project: Project) -> list[str]:
    """Return the versions of the functions that make columns of profiles."""
    return [_version(project, function) for function in project.settings.functions.enrich.values()]


def shape_of(
    task: Task, table: str, function: FunctionSettings, rows: pl.LazyFrame, *, keep: bool = True
) -> tuple[Shape, frozenset[str]]:
    """Return the columns before and after a table's function, and the integer columns that go as text.

    `keep`: store the salt of hashes, if the lake has none yet.
    """
    key = salt(task.project.lake.store, keep=keep)
    schema = rows.collect_schema()
    keys = [name for name in (INBOX_COLUMNS if is_inbox_table(table) else keys_of(table)) if name in schema]
    shape = Shape(
        schema,
        {name: DTYPES[kind] for name, kind in function.columns.items()},
        keys,
        lambda value: hashed(value, key) or "",
        time="time" if "time" in schema else None,
        day=task.day,
    )
    return shape, wide_integers(rows, [name for name in keys if schema[name].is_integer()])


def pool_of(task: Task, table: str, function: FunctionSettings, workers: int | None = None) -> Pool:
    """Return the processes of a table's function for a day."""
    return _pool(code_of(task.project, function), function, task.day, table, workers)


def _pool(code: Bundle, function: FunctionSettings, day: date, table: str, workers: int | None = None) -> Pool:
    """Return the processes of a function for a day: its clock is the end of that day."""
    end_of_day = datetime.combine(day + timedelta(days=1), time.min, UTC)
    return Pool(
        code,
        limits_of(function),
        workers=workers,
        now=int(end_of_day.timestamp()) * 1000,
        seed=int(version_of([code.version, table, str(day)], 8), 16) & 0x7FFFFFFF,
        context={"table": table, "day": str(day)},
    )


@dataclass(frozen=True)
class Trial:
    """What a function makes of one row; `state` is `dropped` or `rejected` (and why), or empty."""

    before: dict[str, Any]
    after: list[dict[str, Any]]
    state: str
    reason: str
    log: list[str]


def try_rows(task: Task, table: str, file: str, rows: pl.LazyFrame) -> list[Trial]:
    """Return what a file makes of rows, each by itself; the settings of the table's function are taken if it is its."""
    function = function_of(task.project, table)
    if function is None or function.file != file:
        function = FunctionSettings(file=file)
    shape, as_text = shape_of(task, table, function, rows, keep=False)
    before = rows.collect()
    trials = []
    with pool_of(task, table, function) as pool:
        for at, text in enumerate(json_rows(before, as_text)):
            [results] = pool.run([Batch(at, [text])])
            outcome, row = Outcome(), before[at : at + 1]
            rows_after = shape.rows(row, [results], outcome).to_dicts()
            rejected = next(iter(outcome.rejected_rows), None)
            reason = next(iter(outcome.dropped), "")
            if rejected:
                reason = f"{rejected['place']}: {rejected['reason']}".removeprefix(": ")
            state = "rejected" if rejected else "dropped" if outcome.dropped else ""
            undeclared = [f"column {name} is not declared and left out" for name in outcome.undeclared]
            trials.append(Trial(row.to_dicts()[0], rows_after, state, reason, [*outcome.log, *undeclared]))
    return trials


def try_profiles(project: Project, day: date, file: str, count: int) -> list[Trial]:
    """Return what a file makes of the first profiles of a day, each by itself, as one of `functions.enrich`.

    A profile is shown as the function gets it: without the columns that it and later ones make. Raises
    MissingInputError if the profiles of the day are not made.
    """
    key, names = salt(project.lake.store, keep=False), list(project.settings.functions.enrich)
    name = next((one for one in names if project.settings.functions.enrich[one].file == file), None)
    function = FunctionSettings(file=file) if name is None else project.settings.functions.enrich[name]
    later = [] if name is None else names[names.index(name) :]
    made_later = {column for one in later for column in project.settings.functions.enrich[one].columns}
    profiles = project.lake.scan(PROFILES, str(day)).head(count).drop(made_later, strict=False).collect()
    declared = {column: DTYPES[kind] for column, kind in function.columns.items()}
    as_text, trials = wide_integers(profiles.lazy(), []), []
    with _pool(code_of(project, function), function, day, name or file, workers=1) as pool:
        for profile in profiles.iter_slices(1):
            outcome = Outcome()
            after = enriched(pool, profile, declared, as_text, lambda value: hashed(value, key) or "", outcome)
            rejected = next(iter(outcome.rejected_rows), None)
            reason = f"{rejected['place']}: {rejected['reason']}".removeprefix(": ") if rejected else ""
            undeclared = [f"column {one} is not declared and left out" for one in outcome.undeclared]
            columns = [] if rejected else after.select(list(declared)).to_dicts()
            state = "rejected" if rejected else ""
            trials.append(Trial(profile.to_dicts()[0], columns, state, reason, [*outcome.log, *undeclared]))
    return trials


def _stored_part(path: Path, rows: pl.DataFrame) -> Path:
    rows.write_parquet(path)
    return path


def declared_columns(project: Project, table: str) -> Sequence[str]:
    """Return the columns that a table has by its function."""
    function = function_of(project, table)
    return [*function.columns] if function else []
