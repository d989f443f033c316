"""The rows behind the keyed hashes that checks and syncs show, for those who may read the lake (docs/checks.md)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date

import polars as pl

from heap_assets.activation import (
    Addressed,
    Rows,
    connector_of,
    forget,
    hashed_keys,
    keys_behind,
    newest_profiles_day,
    salt,
    set_aside,
)
from heap_assets.errors import MissingInputError, SettingsError, did_you_mean
from heap_assets.identity import HEAP_USER_ID, normalised
from heap_assets.pipelines.suites import checks_of, dump_checks, plain_columns
from heap_assets.pipelines.sync_checks import sent_and_exported, sync_checks
from heap_assets.pipelines.sync_gate import newest_day
from heap_assets.project import Project
from heap_assets.quality import (
    ALL_PARTITIONS,
    Check,
    CheckContext,
    CheckResult,
    hashed,
    name_of_key_check,
    result_store,
)
from heap_assets.quality import sync as sync_rules
from heap_assets.tables import (
    CONFLICTS,
    DUMPS,
    GRAPH,
    MIGRATIONS,
    PROFILES,
    heap_asset,
    is_sync,
    sync_name,
    warehouse_asset,
)
from heap_assets.values import key_text

Behind = Mapping[str, pl.LazyFrame]


@dataclass(frozen=True)
class Offender:
    """One offender of a check, in clear."""

    values: Mapping[str, object]
    """Column to value; lists are identifiers of one kind."""
    hashes: Mapping[str, str]
    """Column to what the check shows instead, without those that it shows in clear."""
    rows: Mapping[str, pl.DataFrame]
    """Asset to the rows behind the offender."""


@dataclass(frozen=True)
class Offenders:
    """The offenders of a check on the current partition; `rebuilt` if the stored result is on another version of it."""

    asset: str
    check: str
    partition: str
    rebuilt: bool
    offenders: list[Offender]


def offenders_of(
    project: Project, asset: str, check: str, partition: str | None = None, keys: Collection[str] = (), most: int = 20
) -> Offenders:
    """Evaluate a check on a partition (the newest with a result) again; return its offenders with their rows.

    With `keys` only the offenders that have one of these hashes; at most `most` rows of each table and offender.
    Raises SettingsError if there is no such check, MissingInputError if it has no result on the partition or the
    partition is gone.
    """
    definition = _check(project, asset, check)
    partition = partition or _newest(project, asset, check)
    stored = result_store.read(project.lake.store, asset, check, partition)
    if stored is None:
        raise MissingInputError(f"{check} has not judged {asset} {partition} yet")
    subject = CheckContext(project.lake, asset, partition, check)
    result = _evaluate(project, definition, subject)
    version = result_store.partition_version(project.lake, asset, partition)
    secret = result_store.hash_key(project.lake.store, keep=False)
    offenders = []
    for offender in result.shown().iter_slices(1):
        values = offender.row(0, named=True)
        hashes = {name: hashed(value, secret) or "" for name, value in values.items() if name not in result.plain}
        if not keys or any(key in shown.split() for key in keys for shown in hashes.values()):
            rows = _rows_behind(project, subject, offender, result.plain, most)
            offenders.append(Offender(values, hashes, rows))
    return Offenders(asset, check, partition, stored.version != version, offenders)


def shown_by(project: Project, keys: Collection[str]) -> list[tuple[str, str, str]]:
    """Return asset, check and newest partition of the results that show one of these hashes."""
    newest: dict[tuple[str, str], str] = {}
    for result in result_store.newest(project.lake.store):
        if result.hashes & set(keys):
            newest[result.asset, result.check] = result.partition  # partitions come in order
    return [(asset, check, partition) for (asset, check), partition in newest.items()]


def _check(project: Project, asset: str, check: str) -> Check:
    checks = {each.name: each for each in _checks_on(project, asset)}
    if check not in checks:
        hint = did_you_mean(check, checks)
        names = ", ".join(checks) or "none: is it an asset, such as profiles or heap/users?"
        raise SettingsError(f"{asset} has no check {check!r}. Checks: {names}.{hint}")
    return checks[check]


def _checks_on(project: Project, asset: str) -> list[Check]:
    if is_sync(asset):
        name = sync_name(asset)
        return sync_checks(project, name) if name in project.settings.sync else []
    if asset == DUMPS:
        return dump_checks(project)
    try:
        return checks_of(project, asset)
    except KeyError:  # no such table
        return []


def _newest(project: Project, asset: str, check: str) -> str:
    stored = [result_store.parts(info.key) for info in project.lake.store.list(f"{result_store.ROOT}/{asset}/{check}")]
    partitions = [partition for of, name, partition in stored if (of, name) == (asset, check)]
    if not partitions:
        raise MissingInputError(f"{check} has not judged any partition of {asset} yet")
    return max(partitions)


def _evaluate(project: Project, check: Check, subject: CheckContext) -> CheckResult:
    if check.evaluate is not None:
        return check.evaluate(subject)
    if check.name == "no_ghost_users":
        ledger, users = sent_and_exported(project, sync_name(check.asset))
        return sync_rules.no_ghost_users(ledger, users, allowed=0.0)
    return CheckResult(passed=True)  # the step that builds it judged it by counts


def _rows_behind(
    project: Project, subject: CheckContext, offender: pl.DataFrame, plain: Collection[str], most: int
) -> dict[str, pl.DataFrame]:
    find = _FINDERS.get(subject.check, _key_of_warehouse_table if subject.check.endswith("_key") else None)
    shown = offender.drop(plain, strict=False)
    tables = find(project, subject, offender) if find else _alike(subject, shown)
    rows = {asset: frame.head(most).collect() for asset, frame in tables.items()}
    return {asset: frame for asset, frame in rows.items() if frame.height}


def _alike(subject: CheckContext, shown: pl.DataFrame) -> Behind:
    """Return the rows of the check's own table that agree with the offender in every column both have."""
    rows = subject.rows()
    schema = rows.collect_schema()
    common = [name for name, dtype in shown.schema.items() if schema.get(name) == dtype and not dtype.is_nested()]
    return {subject.asset: rows.join(shown.select(common).lazy(), on=common, how="semi")} if common else {}


def _of_identity(project: Project, subject: CheckContext, offender: pl.DataFrame) -> Behind:
    """Return the profiles that have a Heap identity, and the rows that name it."""
    [identity] = offender["heap_identity"]
    holds = pl.col("heap_identities").list.contains(identity)
    return {PROFILES: subject.rows().filter(holds), **_rows_naming(project, subject, "heap_identity", [identity])}


def _of_identifier(project: Project, subject: CheckContext, offender: pl.DataFrame) -> Behind:
    """Return an identifier in the graph, its refused links, and the rows that name it."""
    kind, value = offender["identifier_type"][0], offender["identifier"][0]
    refused = pl.any_horizontal((pl.col(f"type_{end}") == kind) & (pl.col(f"value_{end}") == value) for end in "ab")
    in_graph = (pl.col("identifier_type") == kind) & (pl.col("identifier") == value)
    return {
        **_matching_rows(subject, GRAPH, in_graph),
        **_matching_rows(subject, CONFLICTS, refused),
        **_rows_naming(project, subject, kind, [value]),
    }


def _of_migration(project: Project, subject: CheckContext, offender: pl.DataFrame) -> Behind:
    """Return the two users of a migration in the graph, and the migration."""
    ends = [offender["from"][0], offender["to"][0]]
    in_graph = (pl.col("identifier_type") == HEAP_USER_ID) & pl.col("identifier").is_in(ends)
    is_migration = (pl.col("from_user_id").cast(pl.String) == ends[0]) & (
        pl.col("to_user_id").cast(pl.String) == ends[1]
    )
    return {**_matching_rows(subject, GRAPH, in_graph), **_matching_rows(subject, MIGRATIONS, is_migration)}


def _key_of_warehouse_table(project: Project, subject: CheckContext, offender: pl.DataFrame) -> Behind:
    """Return the row of a warehouse table that has identifiers of several profiles, and these profiles."""
    tables = project.settings.source_tables
    [table] = [name for name in tables if name_of_key_check(warehouse_asset(name)) == subject.check]
    key = pl.col(tables[table].key).cast(pl.String) == offender["key"][0]
    on = pl.col("profile_id").is_in(offender["ids"][0].to_list())
    return {**_matching_rows(subject, warehouse_asset(table), key), **_matching_rows(subject, PROFILES, on)}


def _ghost(project: Project, subject: CheckContext, offender: pl.DataFrame) -> Behind:
    """Return the profile of an identity that was sent to and that Heap does not export, and the rows that name it."""
    [identity] = offender["key"]
    holds = pl.col("heap_identities").list.contains(identity)
    return {**_matching_rows(subject, PROFILES, holds), **_rows_naming(project, subject, "heap_identity", [identity])}


_FINDERS: Mapping[str, Callable[[Project, CheckContext, pl.DataFrame], Behind]] = {
    "one_profile_per_identity": _of_identity,
    "unique_identifiers_not_shared": _of_identifier,
    "claimed_by_one": _of_identifier,
    "migrations_followed": _of_migration,
    "no_ghost_users": _ghost,
}
"""Checks whose offenders are rows of other tables than their own."""


def _matching_rows(subject: CheckContext, asset: str, which: pl.Expr) -> dict[str, pl.LazyFrame]:
    rows = subject.rows() if subject.asset == asset else subject.other(asset)
    return {} if rows is None else {asset: rows.filter(which)}


def _rows_naming(project: Project, subject: CheckContext, kind: str, values: Iterable[str]) -> dict[str, pl.LazyFrame]:
    """Return the rows of the day's snapshots that name an identifier."""
    if subject.partition == ALL_PARTITIONS:
        return {}
    rules = {rule.type: rule.normaliser for rule in project.rules.identifiers}
    tables = {}
    for asset in project.snapshot_sources:
        columns = [name for name, of in plain_columns(project, asset, {kind}).items() if of == kind]
        rows = subject.other(asset)
        schema = pl.Schema() if rows is None else rows.collect_schema()
        present = [name for name in columns if name in schema]
        if rows is not None and present:
            texts = (normalised(key_text(pl.col(name), schema[name]), rules.get(kind, "strip")) for name in present)
            tables[asset] = rows.filter(pl.any_horizontal(text.is_in(list(values)) for text in texts))
    return tables


_KEYS = ("key", "event_key", "anonymous_id")


def forget_person(project: Project, name: str, key: str, run_id: str) -> int:
    """Remove a person from all ledgers of a sync, and never send to them again; returns how many keys were removed.

    `key` is that of the destination: an identity, a userId, or (Segment) an anonymousId.
    """
    connector, store = connector_of(project, name), project.lake.store
    return sum(
        forget(store, connector.spec(table), key, run_id, connector.event_keys([key], table))
        for table in connector.ledger_tables
    )


def rows_of_key(project: Project, name: str, key_hash: str, day: date | None, most: int) -> dict[str, pl.DataFrame]:
    """Return the rows of a key by place, in clear: ledger, rows of a day, rows set aside, profiles.

    The day is the newest that the sync can send unless given; at most `most` rows of each place. Empty if the sync has
    no such key.
    """
    store, specs = project.lake.store, connector_of(project, name).specs()
    frames: dict[str, pl.DataFrame] = {}
    profiles: set[str] = set()
    for spec in specs:
        frames[f"ledger of {spec.name}"] = keys_behind(store, spec, [key_hash])
        quarantined = set_aside(store, spec.folder).filter(pl.col("key_hash") == key_hash)
        frames[f"set aside by {spec.name}"] = quarantined.unique(["day", "kind", "reason", "profile_id"]).sort("day")
        profiles |= set(quarantined["profile_id"].drop_nulls())
    day = day or newest_day(project, name)
    for title, rows in _rows_of_day(project, name, day) if day else ():
        matching = _matching(rows, key_hash, salt(store, specs[0].salt, keep=False))
        frames[f"{title} of {day}"] = matching
        if "profile_id" in matching.columns:
            profiles |= set(matching["profile_id"].drop_nulls())
    profiles_day = newest_profiles_day(project)
    if profiles_day and profiles:
        rows = project.lake.scan(PROFILES, str(profiles_day)).filter(pl.col("profile_id").is_in(sorted(profiles)))
        frames[f"{PROFILES} {profiles_day}"] = rows.collect()
    return {title: frame.head(most) for title, frame in frames.items() if frame.height}


def _rows_of_day(project: Project, name: str, day: date) -> Iterator[tuple[str, pl.LazyFrame]]:
    connector = connector_of(project, name)
    for table in connector.ledger_tables:
        if not table:
            yield from _parts("rows", connector.rows(day))
        elif str(day) in project.lake.partitions(heap_asset(table)):
            yield from _parts(f"rows of {table}", connector.rows(day, table))


def _parts(title: str, rows: Rows) -> Iterator[tuple[str, pl.LazyFrame]]:
    if isinstance(rows, Addressed):
        yield title, rows.rows
        yield f"held {title}", rows.held
        yield f"invalid {title}", rows.invalid
    else:
        yield title, rows


def _matching(rows: pl.LazyFrame, key_hash: str, secret: bytes) -> pl.DataFrame:
    frame = rows.collect()
    hits = pl.Series([False] * frame.height, dtype=pl.Boolean)
    for name in (column for column in _KEYS if column in frame.columns):
        hits |= (hashed_keys(frame[name], secret) == key_hash).fill_null(value=False) & frame[name].is_not_null()
    return frame.filter(hits)
