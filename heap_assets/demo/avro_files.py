"""How each table is written as Avro: the types, time encodings and codecs that real exports mix (heap.md 2.7)."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import fastavro
import polars as pl

TimeStyle = Literal[
    "text micros", "text iso z", "text iso offset", "text seconds", "text digits millis", "long millis", "long seconds",
    "long micros", "logical micros", "logical millis",
]  # fmt: skip
Codec = Literal["snappy", "deflate", "null"]


@dataclass(frozen=True)
class Layout:
    """How a table's columns are typed in a file.

    Attributes
    ----------
    codec
        The Avro codec.
    times
        Column → how its moment is written.
    ids_as_text
        Ids are digit strings instead of longs.
    bare
        Columns that never are null are bare primitives instead of unions with null.
    """

    codec: Codec
    times: Mapping[str, TimeStyle]
    ids_as_text: bool = False
    bare: bool = False


LAYOUTS: Mapping[str, Layout] = {
    "sessions": Layout("deflate", {"time": "text iso z"}),
    "pageviews": Layout("snappy", {"time": "text micros"}),
    "sign_up": Layout("snappy", {"time": "text iso offset"}, bare=True),
    "feature_used": Layout("snappy", {"time": "long millis"}),
    "invite_teammate": Layout("deflate", {"time": "text micros"}, bare=True),
    "_key_events__export_data_": Layout("null", {"time": "text seconds"}, bare=True),
    "checkout_complete": Layout("snappy", {"time": "text digits millis"}, ids_as_text=True),
    "click_on_anything": Layout("deflate", {"time": "long seconds"}),
    "plan_upgraded": Layout("snappy", {"time": "logical micros"}, bare=True),
    "ticket_opened": Layout("deflate", {"time": "logical millis"}),
    "users": Layout("snappy", {"joindate": "long micros", "last_modified": "text micros"}, bare=True),
    "user_migrations": Layout("snappy", {"time": "text micros"}, bare=True),
}

IDS = ("event_id", "user_id", "session_id", "from_user_id", "to_user_id")
_POLARS_MARKER = bytes([1, 2, 3, 4] * 4)
LOGICAL = {"logical micros": "timestamp-micros", "logical millis": "timestamp-millis"}


def encode(rows: pl.DataFrame, layout: Layout, name: str, junk: pl.DataFrame | None = None) -> bytes:
    """Write rows as one Avro container file; the same rows give the same bytes.

    Parameters
    ----------
    rows
        Ids Int64, moments Int64 microseconds (the columns that `layout.times` names), everything else String.
    layout
        How to type them.
    name
        The record's name in the schema.
    junk
        Rows to add that are typed already, such as ids that are no numbers; columns may be missing.
    """
    moments = [_encoded(column, style) for column, style in layout.times.items()]
    ids = [pl.col(column).cast(pl.String) for column in IDS if column in rows.columns] if layout.ids_as_text else []
    rows = rows.with_columns(*moments, *ids)
    if junk is not None:
        rows = pl.concat([rows, junk], how="diagonal")
    logical = any(style in LOGICAL for style in layout.times.values())
    return _mixed(rows, layout, name) if layout.bare or logical else _plain(rows, layout, name)


def _encoded(column: str, style: TimeStyle) -> pl.Expr:
    moment = pl.col(column)
    when = moment.cast(pl.Datetime("us"))
    expressions: dict[str, pl.Expr] = {
        "text micros": when.dt.strftime("%Y-%m-%d %H:%M:%S%.6f"),
        "text iso z": when.dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"),
        "text iso offset": when.dt.offset_by("2h").dt.strftime("%Y-%m-%dT%H:%M:%S%.3f+02:00"),
        "text seconds": when.dt.strftime("%Y-%m-%d %H:%M:%S"),
        "text digits millis": (moment // 1000).cast(pl.String),
        "long millis": moment // 1000,
        "long seconds": moment // 1_000_000,
        "logical millis": moment // 1000,
    }
    return expressions.get(style, moment).alias(column)


def _plain(rows: pl.DataFrame, layout: Layout, name: str) -> bytes:
    """Every field a union with null; Polars writes it, fast."""
    buffer = io.BytesIO()
    rows.write_avro(buffer, compression="uncompressed" if layout.codec == "null" else layout.codec, name=name)
    return _with_codec_first(buffer.getvalue(), layout.codec)


def _with_codec_first(container: bytes, codec: Codec) -> bytes:
    """Put the two entries of the file's header in one order; Polars writes them in the order of a hash map."""
    entry = b"\x14avro.codec" + bytes([2 * len(codec)]) + codec.encode()
    head, separator, body = container.partition(_POLARS_MARKER)
    return head[:5] + entry + head[5:].replace(entry, b"", 1) + separator + body


def _mixed(rows: pl.DataFrame, layout: Layout, name: str) -> bytes:
    """Bare primitives, unions in both orders, logical types: fastavro writes them, slower, so only small tables."""
    fields: list[dict[str, Any]] = []
    for number, (column, dtype) in enumerate(rows.schema.items()):
        kind: Any = "long" if dtype == pl.Int64 else "string"
        if layout.times.get(column) in LOGICAL:
            kind = {"type": "long", "logicalType": LOGICAL[layout.times[column]]}
        bare = layout.bare and not rows[column].null_count() and (column in IDS or column in layout.times)
        union = ["null", kind] if number % 2 else [kind, "null"]
        fields.append({"name": column, "type": kind if bare else union})
    schema = fastavro.parse_schema({"type": "record", "name": name, "fields": fields})
    buffer = io.BytesIO()
    marker = hashlib.sha256(name.encode()).digest()[:16]
    fastavro.writer(buffer, schema, rows.to_dicts(), codec=layout.codec, sync_marker=marker)
    return buffer.getvalue()
