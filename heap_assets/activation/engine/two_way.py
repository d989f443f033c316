"""Fields that both sides write: what is sent, left alone or sent once more, by what was read back of the records.

Each field is a merge of three: our value, the value held, and the pair of both that was settled last. That pair is
what was acknowledged, on both sides; or, where values were left different, what :func:`load_settled` knows. So a value
that we wrote and read back is no change of theirs, and a value of ours that lost is no change of ours. Values are
compared as keyed hashes, in the form that the destination takes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

import polars as pl

from heap_assets.activation.engine.canonical import property_columns
from heap_assets.activation.engine.destination import Destination
from heap_assets.activation.engine.hashing import EMPTY, UNKNOWN, hashed_values
from heap_assets.activation.engine.log import FIELD
from heap_assets.activation.engine.prepare import LEFT, VALUE, Prepared
from heap_assets.activation.engine.spec import Property, SyncSpec
from heap_assets.errors import SettingsError
from heap_assets.storage import Store, from_parquet, state_keys, to_parquet
from heap_assets.values import key_text, read_times

Policy = Literal["ours", "theirs", "newest"]
_LOG = logging.getLogger("heap_assets.delivery")
_INDEXED_LATER = timedelta(minutes=2)
"""So long a change may take to be in what is read: Zendesk leaves out the last minute, HubSpot's search lags."""
_MOMENT = pl.Datetime("us", "UTC")
_SETTLED = pl.Schema(
    {"key": pl.String(), "field": pl.String(), "own": pl.UInt64(), "remote": pl.UInt64(), "at": _MOMENT}
)
_FOLDED = "_folded"


@dataclass(frozen=True)
class ReadBack:
    """The records of the destination, as they were read last."""

    rows: pl.LazyFrame
    key: str
    """Column that holds the sync's key."""
    columns: Mapping[str, str]
    """Property to the column of its values."""
    policies: Mapping[str, Policy]
    """Property to whose value counts."""
    remote_time: str | None
    """Column of `rows` that says when a record changed."""
    own_time: str | None
    """Column of our rows that says when they changed."""
    observed_at: datetime | None
    """When the reading began (UTC), None if that is not known."""


@dataclass(frozen=True)
class Merged:
    """What a plan is made of instead, and what is remembered once it is sent.

    `fields`: how many fields are left as they are there although ours differ.
    """

    prepared: Prepared
    ledger: pl.DataFrame
    settled: pl.DataFrame
    fields: int

    def left_of(self, key: str) -> list[str]:
        """Return the fields of a key that are not sent, because they are as they should be there."""
        row = self.prepared.rows.filter(pl.col("key") == key)
        marks = [column for column in row.columns if column.startswith(LEFT)]
        return [column.removeprefix(LEFT) for column in marks if row[column].any()]


def merged(
    read_back: ReadBack,
    prepared: Prepared,
    ledger: pl.DataFrame,
    rows: pl.LazyFrame,
    settled: pl.DataFrame,
    *,
    spec: SyncSpec,
    destination: Destination,
    salt: bytes,
    now: datetime | None = None,
) -> Merged:
    """Mark the fields that are to be left alone, and make the ledger say what is there where it is to be replaced.

    `rows`: ours, as they are addressed. `settled`: as :func:`load_settled` returns it.

    Raises SettingsError if a column is missing.
    """
    now = now or datetime.now(UTC)
    policies = {name: read_back.policies[name] for name in prepared.names if name in read_back.policies}
    keys = pl.concat([prepared.keys.drop_nulls(), ledger["key"]]).unique()
    records = _records(read_back, policies, rows.collect_schema(), keys, spec, destination, salt)
    base = ledger.select(
        "key", "acknowledged_at", *(FIELD + name for name in policies if FIELD + name in ledger.columns)
    )
    base = base.with_columns(
        pl.lit(None, pl.UInt64).alias(FIELD + n) for n in policies if FIELD + n not in base.columns
    )
    base = base.rename({FIELD + name: f"l:{name}" for name in policies})
    present = prepared.rows.select("key", *(FIELD + n for n in policies), *(_text_of(prepared, n) for n in policies))
    everything = present.with_columns(_present=True).join(base, on="key", how="full", coalesce=True)
    everything = everything.join(records, on="key", how="left").join(_own_times(read_back, rows), on="key", how="left")
    fresh = pl.col("acknowledged_at").is_null() | (pl.col("_remote_at") > pl.col("acknowledged_at")).fill_null(
        value=False
    )
    if read_back.observed_at is not None:
        fresh = fresh | (pl.col("acknowledged_at") < read_back.observed_at - _INDEXED_LATER)
    everything = everything.with_columns(_exists=pl.col("_exists").fill_null(value=False), _fresh=fresh)
    changed_rows, changed_ledger, notes, count = prepared.rows, ledger, [], 0
    for name, policy in policies.items():
        memory = settled.filter(pl.col("field") == name).select("key", _own="own", _remote="remote", _at="at")
        judged = _judged(everything.join(memory, on="key", how="left"), name, policy)
        changed_rows = changed_rows.join(
            judged.filter("_leave").select("key", pl.lit(value=True).alias(LEFT + name)), on="key", how="left"
        )
        changed_ledger = _overlaid(changed_ledger, judged, name)
        notes.append(_pairs_of(judged, name, now))
        count += int(judged.filter(pl.col("_leave") & (pl.col("o") != pl.col("held")) & (pl.col("o") > EMPTY)).height)
    if len(changed_rows) != len(prepared.rows):
        raise AssertionError("a key is in the rows twice")
    other_fields = settled.filter(~pl.col("field").is_in([*policies]))
    return Merged(
        replace(prepared, rows=changed_rows),
        changed_ledger,
        pl.concat([other_fields, *notes]).sort("field", "key"),
        count,
    )


def _judged(rows: pl.DataFrame, name: str, policy: Policy) -> pl.DataFrame:
    """Add for one field what becomes of it.

    `o`, `held`: our value and theirs, 0 for none. `_leave`: it is not sent. `_old`: what the ledger is to say instead,
    where `_override`; `_note`: the pair is remembered; `_forget`: what was remembered counts no more.
    """
    is_blank = (pl.col(VALUE + name) == "").fill_null(value=False)
    own = pl.when(is_blank).then(EMPTY).otherwise(pl.col(FIELD + name).fill_null(EMPTY))
    rows = rows.with_columns(
        o=own.cast(pl.UInt64),
        l=pl.col(f"l:{name}").fill_null(EMPTY),
        r=pl.col(f"r:{name}").fill_null(EMPTY),
        _known=pl.col("_own").is_not_null(),
        _ours=pl.col("_present").fill_null(value=False),
    )
    base_own, base_remote = (
        pl.when("_known").then(remembered).otherwise(pl.col("l")) for remembered in ("_own", "_remote")
    )
    if policy == "ours":
        base_remote = pl.col("l")
    # what was read may be from before our last write; of a field that we never wrote it is what is there
    is_current = pl.col("_fresh") | pl.col(f"l:{name}").is_null()
    rows = rows.with_columns(
        held=pl.when(is_current).then("r").otherwise(base_remote), base_own=base_own, base_remote=base_remote
    )
    o, held, last = pl.col("o"), pl.col("held"), pl.col("l")
    has, same = o > EMPTY, o == held
    own_changed, remote_changed = o != pl.col("base_own"), held != pl.col("base_remote")
    never = pl.lit(value=False)
    match policy:
        case "ours":
            # what the destination makes of our value is no drift: it was sent for the same one before
            tried = pl.col("_known") & (pl.col("_own") == o) & (pl.col("_remote") == held)
            tried = tried & (pl.col("_at") <= pl.col("acknowledged_at")).fill_null(value=False)
            drifts = has & ~same & (o == last) & pl.col("_fresh") & ~tried
            leave, replaces, note, keep = never, drifts, drifts, tried & ~same
        case "theirs":
            emptied = (held == EMPTY) & (last > UNKNOWN) & (o == last)
            leave, replaces, note, keep = has & ((held > EMPTY) | emptied), never, never, never
        case "newest":
            newer = pl.col("_own_at").is_not_null() & (
                pl.col("_remote_at").is_null() | (pl.col("_own_at") > pl.col("_remote_at"))
            )
            wins = own_changed & ~same & (~remote_changed | newer)
            leave = has & ~wins
            settles = leave & ~(same & (o == last)) & ~(pl.col("_known") & ~own_changed & ~remote_changed)
            replaces, note, keep = has & wins, settles, leave & ~own_changed & ~remote_changed
    # a value of theirs is never emptied for one of ours that is no more
    theirs_now = never if policy == "ours" else ~has & (held != last) & (last > EMPTY)
    acts = pl.col("_exists") & pl.col("_ours")
    return rows.with_columns(
        _leave=(acts & leave).fill_null(value=False),
        _override=(pl.col("_exists") & (theirs_now | (acts & replaces & (o == last)))).fill_null(value=False),
        _old=pl.when(theirs_now).then(None).when(held > UNKNOWN).then(held).otherwise(UNKNOWN).cast(pl.UInt64),
        _note=(acts & note).fill_null(value=False),
        _keep=(pl.col("_exists") & keep).fill_null(value=False) & pl.col("_known"),
    )


def _pairs_of(judged: pl.DataFrame, name: str, now: datetime) -> pl.DataFrame:
    """Return what is remembered of a field from now on."""
    remembered = judged.filter("_note").select(
        "key", field=pl.lit(name), own="o", remote="held", at=pl.lit(now, _MOMENT)
    )
    unchanged = judged.filter(pl.col("_keep") & ~pl.col("_note"))
    unchanged = unchanged.select("key", field=pl.lit(name), own="_own", remote="_remote", at="_at")
    return pl.concat([remembered.cast(_SETTLED), unchanged.cast(_SETTLED)])


def _overlaid(ledger: pl.DataFrame, judged: pl.DataFrame, name: str) -> pl.DataFrame:
    instead = judged.filter("_override").select("key", "_old", _override=pl.lit(value=True))
    if not len(instead) or FIELD + name not in ledger.columns:
        return ledger
    joined = ledger.join(instead, on="key", how="left", maintain_order="left")
    value = pl.when(pl.col("_override").fill_null(value=False)).then("_old").otherwise(FIELD + name)
    return joined.with_columns(value.alias(FIELD + name)).drop("_old", "_override")


def _text_of(prepared: Prepared, name: str) -> pl.Expr:
    is_text = prepared.rows.schema[VALUE + name] == pl.String
    return (pl.col(VALUE + name) if is_text else pl.lit(None, pl.String)).alias(VALUE + name)


def _own_times(read_back: ReadBack, rows: pl.LazyFrame) -> pl.DataFrame:
    if read_back.own_time is None:
        return pl.DataFrame(schema={"key": pl.String, "_own_at": _MOMENT})
    schema = rows.collect_schema()
    if read_back.own_time not in schema:
        raise SettingsError(f"read_back.changed_at is {read_back.own_time!r}, which the rows do not have")
    at = _moment(pl.col(read_back.own_time), schema[read_back.own_time])
    return rows.select(pl.col("key").cast(pl.String), _own_at=at).drop_nulls("key").group_by("key").agg(
        pl.col("_own_at").max()
    ).collect()  # fmt: skip


def _moment(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Datetime):
        utc = value.dt.convert_time_zone("UTC") if dtype.time_zone else value.dt.replace_time_zone("UTC")
        return utc.cast(_MOMENT)
    if dtype == pl.Date:
        return value.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return read_times(value.cast(pl.String)).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _records(
    read_back: ReadBack,
    policies: Mapping[str, Policy],
    own_schema: pl.Schema,
    keys: pl.Series,
    spec: SyncSpec,
    destination: Destination,
    salt: bytes,
) -> pl.DataFrame:
    """Return `key`, `_exists`, `_remote_at`, and per property `r:<name>`: its hash, 0 for none, 1 for another one."""
    schema = read_back.rows.collect_schema()
    needed = {name: read_back.columns[name] for name in policies}
    times = [read_back.remote_time] if read_back.remote_time else []
    for column in (read_back.key, *needed.values(), *times):
        if column not in schema:
            raise SettingsError(
                f"sync {spec.name}: read_back: its table has no column {column!r}; name it under read_back.columns"
            )
    at = _moment(pl.col(times[0]), schema[times[0]]) if times else pl.lit(None, _MOMENT)
    values = {}
    for name, column in needed.items():
        mapped = spec.mapped[name].column
        values[name] = _as_ours(pl.col(column), schema[column], own_schema.get(mapped, schema[column]))
    selected = read_back.rows.select(
        key_text(pl.col(read_back.key), schema[read_back.key]).alias("key"),
        at.alias("_remote_at"),
        *(value.alias(name) for name, value in values.items()),
        *(_is_there(pl.col(column), schema[column]).alias(f"there:{name}") for name, column in needed.items()),
    ).drop_nulls("key")
    rows = _of_keys(selected.collect(), keys)
    own = replace(spec, properties={name: Property(name) for name in needed}, hashed=spec.hashed & needed.keys())
    formed = property_columns(own, rows.select(*needed).lazy(), destination.values, destination.recipes)
    forms = rows.select(value.alias(name) for name, (value, _) in formed.items() if name in needed)
    hashes = {name: hashed_values(forms[name], salt) for name in forms.columns}
    return rows.select(
        "key",
        "_remote_at",
        pl.lit(value=True).alias("_exists"),
        *(
            pl.when(f"there:{name}")
            .then((pl.lit(hashes[name]) if name in hashes else pl.lit(None, pl.UInt64)).fill_null(UNKNOWN))
            .otherwise(EMPTY)
            .cast(pl.UInt64)
            .alias(f"r:{name}")
            for name in needed
        ),
    )


def _of_keys(records: pl.DataFrame, keys: pl.Series) -> pl.DataFrame:
    """Return the newest record of each key; of a key in other letters where no record has the key itself."""
    names = keys.to_frame("key").with_columns(pl.col("key").str.to_lowercase().alias(_FOLDED))
    exact = records.join(names, on="key", how="semi")
    names = names.filter(~pl.col(_FOLDED).is_duplicated()).join(exact, on="key", how="anti")
    loose = records.with_columns(pl.col("key").str.to_lowercase().alias(_FOLDED)).drop("key").join(names, on=_FOLDED)
    both = pl.concat([exact, loose.select(exact.columns)])
    return both.sort("_remote_at", nulls_last=False, maintain_order=True).unique(
        "key", keep="last", maintain_order=True
    )


def _as_ours(value: pl.Expr, dtype: pl.DataType, own: pl.DataType) -> pl.Expr:
    if dtype == own or dtype.is_nested() or own.is_nested():
        return value
    if own == pl.Boolean and dtype == pl.String:
        text = value.str.to_lowercase()
        return pl.when(text.is_in(["true", "false"])).then(text == "true")
    return value.cast(own, strict=False)


def _is_there(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    return (value.is_not_null() & (value != "")) if dtype == pl.String else value.is_not_null()


def load_settled(store: Store, folder: str) -> pl.DataFrame:
    """Return the pairs of values that were left different: key, field, their hashes, since when."""
    try:
        return from_parquet(store.read(_settled_key(folder))).select(_SETTLED.names()).cast(_SETTLED)
    except FileNotFoundError:
        return pl.DataFrame(schema=_SETTLED)
    except (ValueError, pl.exceptions.PolarsError):
        _LOG.warning("%s is damaged: where values differ, their times decide anew", store.uri(_settled_key(folder)))
        return pl.DataFrame(schema=_SETTLED)


def save_settled(store: Store, folder: str, settled: pl.DataFrame) -> None:
    """Store the pairs, if they are others than before."""
    if not settled.equals(load_settled(store, folder)):
        store.write(_settled_key(folder), to_parquet(settled))


def forget_settled(store: Store, folder: str, keys: pl.Series) -> None:
    """Remove what is remembered of some keys."""
    remembered = load_settled(store, folder)
    save_settled(store, folder, remembered.filter(~pl.col("key").is_in(keys.implode())))


def _settled_key(folder: str) -> str:
    return f"{state_keys.SYNC}/{folder}/settled.parquet"
