"""Rows of a sync made ready for comparison: values, their hashes, and what is wrong with a row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from heap_assets.activation.engine.canonical import property_columns, utf16_longer_than
from heap_assets.activation.engine.destination import Destination
from heap_assets.activation.engine.hashing import hashed_values
from heap_assets.activation.engine.limits import Limits
from heap_assets.activation.engine.log import FIELD
from heap_assets.activation.engine.spec import Mode, SyncSpec
from heap_assets.activation.engine.value_rules import ValueRules, name_error
from heap_assets.errors import SettingsError

VALUE = "v:"
"""Prefix of the columns that hold the values to send."""
LEFT = "x:"
"""Prefix of Boolean columns: true where a field is left as it is at the destination."""
MEMBER = "(member)"
"""Field of the ledger that says that a key is in a set."""
MEMBER_HASH = 2
"""What the ledger holds there."""
_CONSENTS, _BELONGS = "_consents", "_belongs"
_TWICE = "_hashed:"


@dataclass(frozen=True)
class Prepared:
    """Rows ready to be compared."""

    rows: pl.DataFrame
    """`key`, addressing columns, and per property `v:<name>` (value) and `p:<name>` (keyed hash, null for null)."""
    invalid: pl.DataFrame
    """`profile_id`, `key`, `reason`: never sent."""
    keys: pl.Series
    """Every key of the rows, invalid ones included."""
    names: tuple[str, ...]
    send_null: frozenset[str]
    leaving: pl.DataFrame
    """Of a set: rows that are known not to be members, with addressing columns and `v:` values."""
    no_consent: pl.Series
    """Keys of the rows that are left out because their people have not consented."""


@dataclass(frozen=True)
class Unprepared:
    """Rows with their values, to be hashed and judged, all at once or those of some keys."""

    rows: pl.LazyFrame
    """`key`, `profile_id` if there is one, addressing columns, `v:<name>`, and columns for :func:`prepared`."""
    names: tuple[str, ...]
    send_null: frozenset[str]


def unprepared(spec: SyncSpec, destination: Destination, rows: pl.LazyFrame) -> Unprepared:
    """Turn mapped columns into values.

    Raises SettingsError if a column is missing that the sync names.
    """
    columns = property_columns(spec, rows, destination.values, destination.recipes)
    names = tuple(columns)
    check_names(spec.name, names, destination.limits, destination.values)
    schema = rows.collect_schema()
    for column in ("key", *destination.required):
        if column not in schema:
            raise SettingsError(
                f"sync {spec.name}: {destination.kind} needs the column {column!r}, which the rows lack"
            )
    inputs = [c for c in ("key", "profile_id", *destination.required, *destination.optional) if c in schema]
    rows = rows.with_columns(pl.col("key").cast(pl.String))
    values = [value.alias(VALUE + name) for name, (value, _) in columns.items()]
    values += _hashed_before(spec, destination, names)
    standing = [_consents(spec, schema).alias(_CONSENTS), _belongs(destination, schema).alias(_BELONGS)]
    send_null = frozenset(name for name, (_, mapped) in columns.items() if mapped.on_null == "send")
    return Unprepared(rows.select(*inputs, *values, *standing), names, send_null)


def prepare(spec: SyncSpec, destination: Destination, rows: pl.LazyFrame, salt: bytes) -> Prepared:
    """Read the rows, turn mapped columns into values, hash them, and separate invalid rows and those without consent.

    Raises SettingsError if a column is missing that the sync names.
    """
    sought = unprepared(spec, destination, rows)
    return prepared(destination, sought, sought.rows.collect(), salt)


def prepared(destination: Destination, unprepared: Unprepared, rows: pl.DataFrame, salt: bytes) -> Prepared:
    """Hash and judge rows: all that `unprepared` has, or all of some keys."""
    names = unprepared.names
    frame, leaving, no_consent = _separated(rows)
    marks = [column for column in frame.columns if column.startswith(_TWICE)]
    unique_on = known_by(destination)
    reason = reasons(frame, destination, names)
    twice = "two rows have this key" if unique_on == "event_key" else "two profiles have this key"
    reason = reason.set(duplicated(frame, unique_on) & reason.is_null(), twice) if len(frame) else reason
    bad = reason.is_not_null()
    labelled = frame.select("key", *(["profile_id"] if "profile_id" in frame.columns else [])).with_columns(
        reason=reason
    )
    usable = (frame if not bad.any() else frame.filter(~bad)).drop(marks)
    hashed = usable.with_columns(hashed_values(usable[VALUE + n], salt).alias(FIELD + n) for n in names)
    if destination.mode is Mode.SET:
        hashed = hashed.with_columns(pl.lit(MEMBER_HASH, pl.UInt64).alias(FIELD + MEMBER))
        names = (*names, MEMBER)
    keys, leaving = frame[unique_on], leaving.drop(marks)
    return Prepared(hashed, labelled.filter(bad), keys, names, unprepared.send_null, leaving, no_consent)


def known_by(destination: Destination) -> str:
    """Return the column that holds what the ledger knows rows by."""
    return "event_key" if destination.mode is Mode.INSERT else "key"


def _separated(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, pl.Series]:
    """Return the rows that may be sent, the others, and the keys of those of them that have not consented."""
    consents, belongs = rows[_CONSENTS], rows[_BELONGS]
    rows = rows.drop(_CONSENTS, _BELONGS)
    may_be_sent = consents & belongs
    if may_be_sent.all():
        return rows, rows.clear(), rows["key"].clear()
    return rows.filter(may_be_sent), rows.filter(~may_be_sent), rows["key"].filter(~consents)


def _consents(spec: SyncSpec, schema: pl.Schema) -> pl.Expr:
    if spec.consent is None:
        return pl.lit(value=True)
    if schema.get(spec.consent) != pl.Boolean:
        dtype = schema.get(spec.consent, "missing")
        raise SettingsError(f"sync {spec.name}: consent is {spec.consent!r}, which is {dtype}: name a boolean column")
    return pl.col(spec.consent).fill_null(value=False)


def _hashed_before(spec: SyncSpec, destination: Destination, names: Iterable[str]) -> list[pl.Expr]:
    """Tell of each identifier that is to be hashed whether it is already, though the settings do not say so."""
    sources = {name: spec.mapped[name].column for name in names if name in destination.recipes}
    return [
        destination.recipes[name].looks_hashed(pl.col(column)).alias(_TWICE + name)
        for name, column in sources.items()
        if name not in spec.hashed
    ]


def _belongs(destination: Destination, schema: pl.Schema) -> pl.Expr:
    """Whether a row is a member of its set: rows with `member` false only say what is known of those who leave."""
    has_column = destination.mode is Mode.SET and "member" in schema
    return pl.col("member").fill_null(value=False) if has_column else pl.lit(value=True)


def check_names(sync: str, names: Iterable[str], limits: Limits, rules: ValueRules) -> None:
    """Refuse property names that the destination would misread.

    Raises SettingsError for a name that is empty, too long (heap.md 1.9) or taken by the destination ("id", heap.md
    1.5).
    """
    for name in names:
        if not name.strip():
            raise SettingsError(f"sync {sync}: a property has an empty name")
        if (error := name_error(rules, name)) is not None:
            raise SettingsError(f"sync {sync}: {error}")
        if name.lower() in limits.forbidden_names:
            raise SettingsError(f"sync {sync}: property {name!r} clashes with a name of the destination: rename it")
        if limits.name_units is not None and len(name.encode("utf-16-le")) // 2 > limits.name_units:
            raise SettingsError(f"sync {sync}: property {name[:40]!r}... is longer than {limits.name_units} characters")


def reasons(frame: pl.DataFrame, destination: Destination, names: Iterable[str]) -> pl.Series:
    """Return for every row why it cannot be sent; null if it can.

    `frame`: `key`, the destination's other columns, and one `v:` column per property.
    """
    reasons_by_row = pl.Series("reason", [None], dtype=pl.String).new_from_index(0, len(frame))
    tests = [*_key_tests(frame, destination), *_value_tests(frame, destination, names)]
    for reason, expression in destination.invalid_rows(frame.lazy()).items():
        tests.append((reason, frame.select(bad=expression.fill_null(value=True))["bad"]))
    for reason, bad in reversed(tests):
        if bad.any():
            reasons_by_row = reasons_by_row.set(bad, reason)
    return reasons_by_row


def _key_tests(frame: pl.DataFrame, destination: Destination) -> list[tuple[str, pl.Series]]:
    key, limits = frame["key"], destination.limits
    nulls = [] if destination.key_may_be_null else [("key is null", key.is_null())]
    tests = [*nulls, ("key is blank", (key.str.strip_chars() == "").fill_null(value=False))]
    if limits.key_units is not None:
        tests.append((f"key is longer than {limits.key_units} characters", utf16_longer_than(key, limits.key_units)))
    if (recipe := destination.key_recipe) is not None:
        written = frame.select(key=recipe.applied(pl.col("key")), hashed=recipe.looks_hashed(pl.col("key")))
        tests += [
            ("key is hashed already", written["hashed"]),
            (f"key is no {recipe.normalise.partition('_')[0]}", written["key"].is_null()),
            (
                "another key is the same once both are normalised",
                duplicated(written, "key") & ~duplicated(frame, "key"),
            ),
        ]
    if limits.junk_keys:
        junk = key.str.to_lowercase().is_in(list(limits.junk_keys)).fill_null(value=False)
        tests.append(("key is a placeholder, not one person", junk))
    return tests


def _value_tests(frame: pl.DataFrame, destination: Destination, names: Iterable[str]) -> list[tuple[str, pl.Series]]:
    limits, rules = destination.limits, destination.values
    twice = [name for name in names if _TWICE + name in frame.columns]
    tests = [(f"{name} is hashed already: list it under `hashed`", frame[_TWICE + name]) for name in twice]
    for name in names:
        values = frame[VALUE + name]
        if values.dtype == pl.String and limits.value_units is not None:
            reason = f"{name} is longer than {limits.value_units} characters"
            tests.append((reason, utf16_longer_than(values, limits.value_units)))
        elif values.dtype == pl.String and rules.longest is not None:
            tests.append((f"{name} is longer than {rules.longest} {rules.unit}", rules.is_too_long(values)))
        elif values.dtype.is_float():
            tests.append((f"{name} is not a finite number", (~values.is_finite()).fill_null(value=False)))
    return tests


def duplicated(frame: pl.DataFrame, column: str) -> pl.Series:
    """Tell which rows share their key with another row; null keys share nothing."""
    return frame[column].is_duplicated() & frame[column].is_not_null()
