"""From the keyed hashes that a check shows back to rows, for those who may read the lake (docs/checks.md)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import polars as pl

from heap_assets.errors import MissingInputError, SettingsError
from heap_assets.identity import HEAP_USER_ID, normalised
from heap_assets.pipelines.suites import checks_of, dump_checks, plain_columns
from heap_assets.pipelines.sync_checks import sent_and_known, sync_checks
from heap_assets.project import Project
from heap_assets.quality import WHOLE, Check, CheckContext, CheckResult, hashed, name_of_key_check, result_store
from heap_assets.quality import sync as sync_judges
from heap_assets.tables import CONFLICTS, DUMPS, GRAPH, MIGRATIONS, PROFILES, is_sync, sync_name, warehouse_asset
from heap_assets.values import key_text

Behind = Mapping[str, pl.LazyFrame]


@dataclass(frozen=True)
class Offender:
    """What a check shows of one offender, in clear.

    Attributes
    ----------
    values
        Column to value; lists are identifiers of one kind.
    hashes
        Column to what the check shows instead, without those that it shows in clear.
    rows
        Asset to the rows behind the offender.
    """

    values: Mapping[str, object]
    hashes: Mapping[str, str]
    rows: Mapping[str, pl.DataFrame]


@dataclass(frozen=True)
class Offenders:
    """The offenders of a check as the partition stands now; `rebuilt`: it is not the version that was judged."""

    asset: str
    check: str
    partition: str
    rebuilt: bool
    offenders: list[Offender]


def offenders_of(
    project: Project, asset: str, check: str, partition: str | None = None, keys: Collection[str] = (), most: int = 20
) -> Offenders:
    """Hold a check against a partition again, and return its offenders with their rows.

    Parameters
    ----------
    partition
        The newest that was judged unless given.
    keys
        Only offenders of which one of these hashes is shown.
    most
        Rows of each table and offender.

    Raises
    ------
    SettingsError
        If there is no such check.
    MissingInputError
        If it has not judged the partition, or the partition is gone.
    """
    judged = _check(project, asset, check)
    partition = partition or _newest(project, asset, check)
    stored = result_store.read(project.lake.store, asset, check, partition)
    if stored is None:
        raise MissingInputError(f"{check} has not judged {asset} {partition} yet")
    subject = CheckContext(project.lake, asset, partition, check)
    result = _evaluate(project, judged, subject)
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
    checks = {one.name: one for one in _checks_on(project, asset)}
    if check not in checks:
        close = get_close_matches(check, checks, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
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
        ledger, users = sent_and_known(project, sync_name(check.asset))
        return sync_judges.no_ghost_users(ledger, users, allowed=0.0)
    return CheckResult(passed=True)  # the step that builds it judged it by counts


def _rows_behind(
    project: Project, subject: CheckContext, offender: pl.DataFrame, plain: Collection[str], most: int
) -> dict[str, pl.DataFrame]:
    look = _LOOK.get(subject.check, _key_of_warehouse_table if subject.check.endswith("_key") else None)
    shown = offender.drop(plain, strict=False)
    found = look(project, subject, offender) if look else _alike(subject, shown)
    rows = {asset: frame.head(most).collect() for asset, frame in found.items()}
    return {asset: frame for asset, frame in rows.items() if frame.height}


def _alike(subject: CheckContext, shown: pl.DataFrame) -> Behind:
    """Return the rows of the check's own table that agree with the offender in every column both have."""
    rows = subject.rows()
    schema = rows.collect_schema()
    common = [name for name, dtype in shown.schema.items() if schema.get(name) == dtype and not dtype.is_nested()]
    return {subject.asset: rows.join(shown.select(common).lazy(), on=common, how="semi")} if common else {}


def _of_identity(project: Project, subject: CheckContext, offender: pl.DataFrame) -> Behind:
    """Return the profiles on which a Heap identity stands, and the rows that name it."""
    [identity] = offender["heap_identity"]
    holds = pl.col("heap_identities").list.contains(identity)
    return {PROFILES: subject.rows().filter(holds), **_naming(project, subject, "heap_identity", [identity])}


def _of_identifier(project: Project, subject: CheckContext, offender: pl.DataFrame) -> Behind:
    """Return where an identifier stands, which links of it were refused, and the rows that name it."""
    kind, value = offender["identifier_type"][0], offender["identifier"][0]
    refused = pl.any_horizontal((pl.col(f"type_{end}") == kind) & (pl.col(f"value_{end}") == value) for end in "ab")
    stands = (pl.col("identifier_type") == kind) & (pl.col("identifier") == value)
    return {
        **_there(subject, GRAPH, stands),
        **_there(subject, CONFLICTS, refused),
        **_naming(project, subject, kind, [value]),
    }


def _of_migration(project: Project, subject: CheckContext, offender: pl.DataFrame) -> Behind:
    """Return the two users of a migration in the graph, and the migration."""
    ends = [offender["from"][0], offender["to"][0]]
    stands = (pl.col("identifier_type") == HEAP_USER_ID) & pl.col("identifier").is_in(ends)
    moved = (pl.col("from_user_id").cast(pl.String) == ends[0]) & (pl.col("to_user_id").cast(pl.String) == ends[1])
    return {**_there(subject, GRAPH, stands), **_there(subject, MIGRATIONS, moved)}


def _key_of_warehouse_table(project: Project, subject: CheckContext, offender: pl.DataFrame) -> Behind:
    """Return the row of a warehouse table that speaks of several profiles, and these."""
    tables = project.settings.source_tables
    [table] = [name for name in tables if name_of_key_check(warehouse_asset(name)) == subject.check]
    key = pl.col(tables[table].key).cast(pl.String) == offender["key"][0]
    on = pl.col("profile_id").is_in(offender["ids"][0].to_list())
    return {**_there(subject, warehouse_asset(table), key), **_there(subject, PROFILES, on)}


def _ghost(project: Project, subject: CheckContext, offender: pl.DataFrame) -> Behind:
    """Return the profile of an identity that was sent to and that Heap does not export, and the rows that name it."""
    [identity] = offender["key"]
    holds = pl.col("heap_identities").list.contains(identity)
    return {**_there(subject, PROFILES, holds), **_naming(project, subject, "heap_identity", [identity])}


_LOOK: Mapping[str, Callable[[Project, CheckContext, pl.DataFrame], Behind]] = {
    "one_profile_per_identity": _of_identity,
    "unique_identifiers_not_shared": _of_identifier,
    "claimed_by_one": _of_identifier,
    "migrations_followed": _of_migration,
    "no_ghost_users": _ghost,
}
"""Checks whose offenders are rows of other tables than their own."""


def _there(subject: CheckContext, asset: str, which: pl.Expr) -> dict[str, pl.LazyFrame]:
    rows = subject.rows() if subject.asset == asset else subject.other(asset)
    return {} if rows is None else {asset: rows.filter(which)}


def _naming(project: Project, subject: CheckContext, kind: str, values: Iterable[str]) -> dict[str, pl.LazyFrame]:
    """Return the rows of the day's snapshots that name an identifier."""
    if subject.partition == WHOLE:
        return {}
    rules = {rule.type: rule.normaliser for rule in project.rules.identifiers}
    found = {}
    for asset in project.snapshot_sources:
        columns = [name for name, of in plain_columns(project, asset, {kind}).items() if of == kind]
        rows = subject.other(asset)
        schema = pl.Schema() if rows is None else rows.collect_schema()
        there = [name for name in columns if name in schema]
        if rows is not None and there:
            texts = (normalised(key_text(pl.col(name), schema[name]), rules.get(kind, "strip")) for name in there)
            found[asset] = rows.filter(pl.any_horizontal(text.is_in(list(values)) for text in texts))
    return found
