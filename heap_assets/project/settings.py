"""Reading heap_assets.yaml: of which kinds its sections may be, and what only the other rooms can judge."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from heap_assets import config
from heap_assets.activation import read_kinds, sync_kinds
from heap_assets.config import AnySpark, IdentifierType, Kinds, Settings, WarehouseSource
from heap_assets.errors import SettingsError
from heap_assets.identity import EngineChoice, IdentifierRule, RulesError, SparkTuning, check_spark_installed
from heap_assets.profiles import Audience, Condition, in_order, parse_audience, parse_conditions
from heap_assets.project.masking import masking_rules
from heap_assets.project.plan import check_plan
from heap_assets.signals import Signal, parse_signal
from heap_assets.sources.heap_connect import check_bucket
from heap_assets.sources.warehouse import source_kinds, target_kinds
from heap_assets.tables import PROFILE_COLUMNS, SNAPSHOT_TABLES, is_signal, signal_asset

_TUNED = {tuned.name for tuned in fields(SparkTuning)}


def load_settings(path: Path | None = None) -> Settings:
    """Read and validate the settings file, the one in use unless given.

    Raises
    ------
    SettingsError
        One message naming the key, its value and what was expected.
    """
    settings = config.load_settings(_kinds(), _CHECKS, path)
    if isinstance(identity_engine(settings), SparkTuning):
        check_spark_installed()
    check_cluster(settings)
    return settings


def parse_settings(text: str, path: Path) -> Settings:
    """Validate the text of a settings file that lies (or would lie) at `path`."""
    return config.parse_settings(text, path, _kinds(), _CHECKS)


def settings_schema() -> dict[str, Any]:
    """Return the JSON Schema of the settings file, with the kinds that are installed here (for editors)."""
    return config.settings_schema(_kinds())


def identifier_rule(section: IdentifierType) -> IdentifierRule:
    """Return an entry of `identity.identifiers` as identity resolution takes it.

    Raises
    ------
    RulesError
        No such rule is possible.
    """
    return IdentifierRule(
        type=section.type,
        max_per_profile=section.max_per_profile,
        shared_above=section.shared_above,
        normalise=section.normalise,
        pattern=section.pattern,
        blocked=tuple(section.blocked),
        blocked_patterns=tuple(section.blocked_patterns),
    )


def identity_engine(settings: Settings) -> EngineChoice:
    """Return what `identity.engine` chooses for this process: jobs elsewhere are for runs of Dagster to start."""
    engine = settings.identity.engine
    if isinstance(engine, str):
        return engine
    return spark_tuning(engine.spark) if engine.spark.cluster == "local" else "native"


def spark_tuning(spark: AnySpark) -> SparkTuning:
    """Return how a Spark is to work, by its section."""
    return SparkTuning(**{name: entry for name, entry in spark.model_dump().items() if name in _TUNED})


def check_cluster(settings: Settings) -> None:
    """Hold the cluster of `identity.engine` against the lake.

    Raises
    ------
    SettingsError
        If the cluster could not read it, or would work inside of it.
    """
    engine = settings.identity.engine
    if isinstance(engine, str) or engine.spark.work is None:
        return
    if f"{engine.spark.work.rstrip('/')}/".startswith(f"{settings.lake.url.rstrip('/')}/"):
        raise SettingsError(
            f"identity.engine.spark.work is {engine.spark.work}, inside of the lake, where an erasure would not look "
            "for it: give a folder or prefix beside the lake"
        )
    if engine.spark.cluster == "local":
        return
    cluster, scheme = engine.spark.cluster, engine.spark.work.partition("://")[0]
    if not settings.lake.url.startswith(f"{scheme}://"):
        raise SettingsError(
            f"identity.engine.spark.cluster is {cluster!r}, which works in {scheme}://, and the lake is "
            f"{settings.lake.url}: a cluster reads the links where the lake is, so put both into one kind of store"
        )


def parsed_audiences(settings: Settings) -> list[Audience]:
    """Return the definitions under `profiles.audiences`.

    Raises
    ------
    SettingsError
        Naming the path of a mistake.
    """
    return [
        parse_audience(name, definition, f"profiles.audiences.{name}")
        for name, definition in settings.profiles.audiences.items()
    ]


def parsed_signals(settings: Settings) -> list[Signal]:
    """Return the rules under `signals`.

    Raises
    ------
    SettingsError
        Naming the path of a mistake, a trait, an audience or a signal that there is not.
    """
    signals = [parse_signal(name, definition) for name, definition in settings.signals.items()]
    traits = {*PROFILE_COLUMNS, *settings.profile_columns}
    audiences = settings.profiles.audiences
    for signal in signals:
        for trait in sorted(signal.traits - traits):
            raise SettingsError(
                f"signals.{signal.name} reads the trait {trait!r}: there is no trait of this name. "
                f"Traits: {', '.join(sorted(traits))}"
            )
        for definition in signal.audiences:
            for name in (other for part in definition.parts for other in part.audiences):
                if name not in audiences:
                    raise SettingsError(
                        f"signals.{signal.name} names the audience {name!r}, which there is not. "
                        f"Audiences: {', '.join(audiences) or 'none'}"
                    )
    criteria = [one for signal in signals for one, _ in signal.criteria]
    criteria += [one for audience in parsed_audiences(settings) for one in audience.criteria]
    names = {signal_asset(name) for name in settings.signals}
    for criterion in criteria:
        if is_signal(criterion.type) and criterion.type not in names:
            raise SettingsError(
                f"{criterion.where}.signal is {criterion.type.partition('/')[2]!r}, and there is no such signal. "
                f"Signals: {', '.join(settings.signals) or 'none'}"
            )
    return signals


def leave_out_rules(settings: Settings) -> dict[str, list[dict[str, tuple[Condition, ...]]]]:
    """Return `heap.tables.leave_out`: event table pattern to sets of conditions by column.

    Raises
    ------
    SettingsError
        Naming the path of a mistake.
    """
    rules = {}
    for table, definition in settings.heap.tables.leave_out.items():
        where = f"heap.tables.leave_out.{table}"
        sets = definition if isinstance(definition, list) else [definition]
        if table in SNAPSHOT_TABLES:
            raise SettingsError(f"{where}: only rows of event tables can be left out; {table} is a snapshot")
        if not sets or not all(sets):
            raise SettingsError(f"{where} has no condition: it would leave out every row")
        rules[table] = [
            {column: parse_conditions(operators, f"{where}.{column}") for column, operators in conditions.items()}
            for conditions in sets
        ]
    return rules


def _check_identifiers(settings: Settings) -> None:
    for index, section in enumerate(settings.identity.identifiers):
        try:
            identifier_rule(section)
        except RulesError as error:
            raise SettingsError(f"identity.identifiers[{index}]: {error}") from error


def _check_audiences(settings: Settings) -> None:
    traits = {*PROFILE_COLUMNS, *settings.profile_columns} - {*settings.profiles.audiences}
    audiences = parsed_audiences(settings)
    in_order(audiences)
    for audience in audiences:
        of_accounts = [condition for part in audience.parts for _, condition in part.account_properties]
        if of_accounts and settings.accounts is None:
            raise SettingsError(f"{of_accounts[0].where}: there are no accounts; name their table under `accounts:`")
        for column, condition in audience.traits:
            if column not in traits:
                raise SettingsError(
                    f"{condition.where}: there is no trait {column!r}. Traits: {', '.join(sorted(traits))}"
                )


def _check_bucket(settings: Settings) -> None:
    source = settings.heap.source
    if source.kind in ("s3", "files") and source.bucket is not None:
        try:
            check_bucket(source.bucket)
        except SettingsError as error:
            raise SettingsError(
                f"heap.source.bucket is {source.bucket!r}; expected: a bucket name only: {error}"
            ) from error


def _check_heap_warehouse(settings: Settings) -> None:
    source = settings.heap.source
    if not isinstance(source, WarehouseSource):
        return
    engines = {kind for model in source_kinds() for kind in get_args(model.model_fields["kind"].annotation)}
    names = [name for name, one in settings.all_sources.items() if one.kind in engines]
    if source.source not in names:
        raise SettingsError(
            f"heap.source.source is {source.source!r}, which is no warehouse of the settings. "
            f"Warehouses: {', '.join(names) or 'none; declare one under `warehouse:` or `sources:`'}"
        )


def _check_masking(settings: Settings) -> None:
    masking_rules(settings.privacy.rules)


_CHECKS = (
    _check_identifiers,
    _check_audiences,
    parsed_signals,
    leave_out_rules,
    _check_bucket,
    _check_heap_warehouse,
    check_plan,
    _check_masking,
)


def _kinds() -> Kinds:
    return Kinds(sync_kinds(), (*source_kinds(), *read_kinds()), target_kinds())
