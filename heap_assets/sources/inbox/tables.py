"""Tables of the inbox: a day of messages of one type, and who identified and grouped themselves up to a day.

The rules are those of Heap's event tables: rows belong to the UTC day on which they happened, late ones rebuild it; a
message that came twice (equal `messageId`) is one row, the one that came first; a row whose value is not of its
column's type is a rejected row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Final, Literal

import numpy as np
import polars as pl

from heap_assets.siphash import siphash_texts
from heap_assets.sources.inbox.parts import PART_SCHEMA, Part, parts_version, put_together, read_parts, stored_parts
from heap_assets.storage import FileWriter, Inputs, Store
from heap_assets.values import PRIVATE, TIME, read_times

ColumnType = Literal["text", "integer", "number", "boolean", "time", "date"]
TYPES: Final[Mapping[str, pl.DataType]] = {
    "text": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
    "time": TIME,
    "date": pl.Date(),
}
_ROOT: Final[Mapping[str, str]] = {"identify": "traits", "group": "traits"}
_FROM_MESSAGE: Final = "$."
REJECTED, REJECTED_BY, UNDECLARED = "rejected", "rejected_by", "undeclared"
"""Notes of a day: how many rows were rejected, by column, and what messages held that no column takes, with counts."""
_NAMES_NOTED: Final = 50
_SAMPLED: Final = 20_000
"""Messages of a day whose names are counted; all of them on most days."""


@dataclass(frozen=True)
class MessageColumn:
    """A column out of a message: `path` as in the settings, below traits or properties unless it begins with `$.`."""

    name: str
    path: str
    type: str = "text"


@dataclass(frozen=True)
class MessageTable:
    """What a table of messages holds."""

    name: str
    columns: tuple[MessageColumn, ...] = ()
    is_webhook: bool = False
    added: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Columns that a function adds, with their types; they are no part of how messages are read."""

    @property
    def schema(self) -> pl.Schema:
        """Columns of the table: what every message has, and those of the settings and of a function before `body`."""
        return self._schema({**{column.name: column.type for column in self.columns}, **self.added})

    @property
    def read_schema(self) -> pl.Schema:
        """Columns of the table as its messages have them."""
        return self._schema({column.name: column.type for column in self.columns})

    @property
    def own_columns(self) -> list[str]:
        """Names of the columns that not every message has."""
        return list(dict.fromkeys([*(column.name for column in self.columns), *self.added]))

    def _schema(self, types: Mapping[str, str]) -> pl.Schema:
        own = {name: TYPES[kind] for name, kind in types.items() if name not in PART_SCHEMA}
        usual = dict(PART_SCHEMA)
        body = usual.pop("body")
        return pl.Schema({**usual, **own, "body": body})

    @property
    def root(self) -> str:
        """Name of what the paths of columns begin in; empty where that is the message."""
        return "" if self.is_webhook else _ROOT.get(self.name, "properties")

    @property
    def version(self) -> str:
        """Changes when a day is built differently."""
        return hashlib.sha256(repr((_RULES, self)).encode()).hexdigest()[:16]


_RULES: Final = 1
"""Version of the rules by which a day is built."""


@dataclass(frozen=True)
class InboxDay:
    """A day of a table, as it is stored."""

    frame: pl.LazyFrame
    inputs: Inputs
    notes: Mapping[str, Any] = field(default_factory=dict)
    writer: FileWriter | None = None


def day_inputs(store: Store, table: MessageTable, day: date) -> Inputs:
    """Return what a day would be built from now."""
    return _inputs(table, stored_parts(store, table.name, day), stored_parts(store, table.name, _before(day)))


def _inputs(table: MessageTable, parts: Sequence[Part], before: Sequence[Part]) -> Inputs:
    versions = {"parts": parts_version(parts), "parts of the day before": parts_version(before), "table": table.version}
    return Inputs(versions)


def _before(day: date) -> date:
    return day - timedelta(days=1)


def build_message_day(store: Store, table: MessageTable, day: date, ahead: timedelta) -> InboxDay:
    """Build a day of a table of messages from its parts.

    A message that is also among those of the day before is left out: a client that tries again after midnight, of a
    message without a time, sends it for another day.

    Parameters
    ----------
    ahead
        Rows that came so long before they happened are rejected.
    """
    parts = put_together(store, stored_parts(store, table.name, day))
    before = stored_parts(store, table.name, _before(day))
    rows = message_rows(table, read_parts(store, parts).collect(), ahead)
    repeated = read_parts(store, before).select("message_id").unique().collect()
    accepted = rows.accepted.join(repeated, on="message_id", how="anti", maintain_order="left")
    late = accepted.select((pl.col("received_at").dt.date() > pl.col("time").dt.date()).sum()).item()
    notes: dict[str, Any] = {
        "messages": rows.messages,
        "repeated": rows.repeated + rows.accepted.height - accepted.height,
        "late": int(late or 0),
        REJECTED: sum(rows.rejected.values()),
    }
    if rows.rejected:
        notes[REJECTED_BY] = dict(rows.rejected)
    if rows.undeclared:
        notes[UNDECLARED] = dict(rows.undeclared)
    return InboxDay(accepted.lazy(), _inputs(table, parts, before), notes)


@dataclass(frozen=True)
class MessageRows:
    """Messages as rows of their table."""

    accepted: pl.DataFrame
    messages: int
    repeated: int
    rejected: Mapping[str, int]
    """Column to how many rows its values rejected."""
    undeclared: Mapping[str, int]
    """Names in traits or properties that no column takes, with how many messages have them."""


def message_rows(table: MessageTable, messages: pl.DataFrame, ahead: timedelta, *, names: bool = True) -> MessageRows:
    """Give messages the columns of their table: each message once, by the time at which it happened.

    `names`: count the names that no column takes, too.
    """
    unique = messages.sort("received_at", "message_id", "source", "body", nulls_last=True).unique(
        "message_id", keep="first", maintain_order=True
    )
    raw = unique.with_columns(_text_at(table, column).alias(PRIVATE + column.name) for column in table.columns)
    typed = raw.with_columns(_typed(column) for column in table.columns)
    why = pl.coalesce(
        pl.when((pl.col("time") - pl.col("received_at")) > ahead).then(pl.lit("time")),
        *(
            pl.when(pl.col(PRIVATE + column.name).is_not_null() & pl.col(column.name).is_null()).then(
                pl.lit(column.name)
            )
            for column in table.columns
        ),
        pl.lit(None, pl.String),
    )
    judged = typed.with_columns(why.alias(_WHY))
    rejected = judged.filter(pl.col(_WHY).is_not_null()).group_by(_WHY).len().sort(_WHY)
    accepted = judged.filter(pl.col(_WHY).is_null()).select(list(table.read_schema))
    accepted = accepted.sort("time", "received_at", "message_id")
    return MessageRows(
        accepted,
        messages.height,
        messages.height - unique.height,
        dict(rejected.iter_rows()),
        _undeclared(table, unique) if names else {},
    )


_WHY: Final = f"{PRIVATE}why"


def message_numbers(ids: pl.Series) -> pl.Series:
    """Return a number for each message id, the same for ever: what `event_id` is to Heap's events."""
    hashes = siphash_texts(ids, np.zeros(2, dtype=np.uint64)) >> np.uint64(1)
    return pl.Series(ids.name, hashes.astype(np.int64), dtype=pl.Int64)


def _text_at(table: MessageTable, column: MessageColumn) -> pl.Expr:
    if column.path.startswith(_FROM_MESSAGE):
        parts = column.path.removeprefix(_FROM_MESSAGE).split(".")
    else:
        parts = [*([table.root] if table.root else []), *column.path.split(".")]
    path = "$" + "".join(f"[{json.dumps(part)}]" for part in parts)
    return pl.col("body").str.json_path_match(path)


def _typed(column: MessageColumn) -> pl.Expr:
    text = pl.col(PRIVATE + column.name)
    dtype = TYPES[column.type]
    if column.type == "text":
        value = text
    elif column.type == "time":
        value = read_times(text)
    elif column.type == "date":
        value = read_times(text).dt.date()
    elif column.type == "boolean":
        value = text.str.to_lowercase().replace_strict(_TRUTH, default=None, return_dtype=pl.Boolean)
    elif column.type == "integer":
        value = text.str.strip_suffix(".0").cast(dtype, strict=False)
    else:
        number = text.cast(dtype, strict=False)
        value = pl.when(number.is_finite()).then(number)
    return value.alias(column.name)


_TRUTH: Final = {"true": True, "false": False}


def _undeclared(table: MessageTable, messages: pl.DataFrame) -> dict[str, int]:
    """Count the names in traits or properties that no column takes."""
    declared = {column.path.partition(".")[0] for column in table.columns}
    counts: dict[str, int] = {}
    for text in messages["body"].head(_SAMPLED):
        body = json.loads(text)
        held = body.get(table.root) if table.root else body
        for name in held if isinstance(held, dict) else ():
            if name not in declared:
                counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:_NAMES_NOTED])


_NEWEST: Final = ["time", "received_at", "message_id"]
_ROW, _PERSON = f"{PRIVATE}row", f"{PRIVATE}person"


def fold_users(identify: pl.LazyFrame, group: pl.LazyFrame, columns: Sequence[str]) -> pl.LazyFrame:
    """Fold identify and group calls into one row a person: `id` is their user id, else their anonymous id.

    The newest value of each column stays; a null leaves the one before. `account_id` is the group they joined last.
    """
    person, newest = pl.coalesce("user_id", "anonymous_id"), _NEWEST
    traits = (
        identify.with_columns(id=person)
        .sort(newest)
        .group_by("id")
        .agg(
            *(pl.col(name).drop_nulls().last() for name in ("user_id", "anonymous_id", *columns)),
            first_seen=pl.col("time").min(),
            time=pl.col("time").max(),
        )
    )
    accounts = (
        group.with_columns(id=person)
        .sort(newest)
        .group_by("id")
        .agg(
            account_id=pl.col("group_id").last(),
            group_user=pl.col("user_id").drop_nulls().last(),
            group_anonymous=pl.col("anonymous_id").drop_nulls().last(),
            group_first=pl.col("time").min(),
            group_last=pl.col("time").max(),
        )
    )
    joined = traits.join(accounts, on="id", how="full", coalesce=True)
    return joined.select(
        "id",
        user_id=pl.coalesce("user_id", "group_user"),
        anonymous_id=pl.coalesce("anonymous_id", "group_anonymous"),
        first_seen=pl.min_horizontal("first_seen", "group_first"),
        time=pl.max_horizontal("time", "group_last"),
        account_id="account_id",
        **{name: pl.col(name) for name in columns},
    ).sort("id")


def deciding_rows(messages: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Return the identify or group calls of which :func:`fold_users` makes the same as of all.

    Those are of each person the first, the last, and the newest with a value of each column: they grow with people, not
    with calls.
    """
    ordered = messages.sort(_NEWEST).with_row_index(_ROW)
    row, named = pl.col(_ROW), ("user_id", "anonymous_id", *columns)
    of_people = ordered.group_by(pl.coalesce("user_id", "anonymous_id").alias(_PERSON)).agg(
        row.first().alias(f"{_ROW}first"),
        row.last().alias(f"{_ROW}last"),
        *(row.filter(pl.col(name).is_not_null()).last().alias(f"{_ROW}{name}") for name in named),
    )
    rows = of_people.drop(_PERSON).unpivot()["value"].drop_nulls().unique().sort()
    return ordered[rows].drop(_ROW)


def fold_accounts(group: pl.LazyFrame, columns: Sequence[str]) -> pl.LazyFrame:
    """Fold group calls into one row an account, with the newest value of each column and how many people joined it."""
    return (
        group.sort("time", "received_at", "message_id")
        .group_by("group_id")
        .agg(
            first_seen=pl.col("time").min(),
            time=pl.col("time").max(),
            people=pl.coalesce("user_id", "anonymous_id").n_unique().cast(pl.Int64),
            **{name: pl.col(name).drop_nulls().last() for name in columns},
        )
        .sort("group_id")
    )
