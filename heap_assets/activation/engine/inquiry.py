"""What a run would do with single rows, and why: for those who ask about one key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from typing import Any
from urllib.parse import quote

import orjson
import polars as pl

from heap_assets.activation.engine.accounts import at_account
from heap_assets.activation.engine.addressing import Addressed, no_addresses
from heap_assets.activation.engine.batch import rows_of
from heap_assets.activation.engine.canonical import json_values, property_columns
from heap_assets.activation.engine.destination import Destination
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.hashing import hashed_key, salt
from heap_assets.activation.engine.http_client import personal
from heap_assets.activation.engine.lease import next_fence
from heap_assets.activation.engine.log import FIELD, Log, field_names, fold
from heap_assets.activation.engine.maintenance import forgotten
from heap_assets.activation.engine.planning import build_plan
from heap_assets.activation.engine.prepare import VALUE
from heap_assets.activation.engine.spec import SyncSpec
from heap_assets.activation.engine.two_way import ReadBack
from heap_assets.redaction import redact
from heap_assets.storage import Store
from heap_assets.values import PRIVATE

_LONGEST = 2000
"""Characters of a request that are shown."""


def planned_for(
    spec: SyncSpec,
    destination: Destination,
    rows: pl.LazyFrame,
    store: Store,
    day: date,
    key: str,
    read_back: ReadBack | None = None,
) -> dict[str, str]:
    """Return what a run would do with one key: subject to what is the case. Writes nothing.

    `rows`: those of the key only. Values are shown as keyed hashes.
    """
    secret = salt(store, spec.salt, keep=False)
    spec = at_account(store, spec, destination, claim=False)
    log = Log(store, spec.folder)
    state, fence = fold(log, log.ledger()), next_fence(store, spec.folder)
    refused = forgotten(store, spec.name)
    addressed = Addressed(rows, no_addresses(), no_addresses(), read_back=read_back)
    plan = build_plan(
        spec, destination, addressed, state, store, secret, day=day, fence=fence, force=False, forgotten=refused
    )
    facts = {"mapping": ", ".join(f"{name} from {prop.column}" for name, prop in spec.mapped.items()) or "no property"}
    if plan.merge is not None and (left := plan.merge.left_of(key)):
        facts["left as it is there"] = ", ".join(left)
    reasons = plan.set_aside.frame()["reason"].to_list()
    if reasons:
        facts["not sent"] = "; ".join(dict.fromkeys(reasons))
    if plan.no_consent:
        column = str(spec.consent)
        then = " of its person, or was not yet when it happened" if column.startswith(PRIVATE) else ""
        facts["consent"] = f"{column.removeprefix(PRIVATE)} is not true{then}: nothing is sent"
    waits = [reason for name, reason in _WAITS.items() if plan.changes.counts.get(name)]
    if waits:
        facts["waits"] = waits[0]
    planned = plan.changes.send.filter(pl.col("key").is_in([key, *rows_keys(rows)]))
    if len(planned):
        fields = [name.removeprefix(FIELD) for name in field_names(planned) if planned[name][0] is not None]
        facts["next run"] = f"{planned['op'][0]} of {', '.join(fields) or 'no property'}"
        [facts["next request"]] = first_requests(destination, planned.head(1), fence, secret)
    elif not (reasons or plan.no_consent or waits):
        facts["next run"] = "nothing: what is acknowledged is what the row says"
    return facts


def values_of(spec: SyncSpec, destination: Destination, rows: pl.LazyFrame) -> dict[str, Any]:
    """Return the first row's mapped properties as they are sent; empty without rows."""
    columns = property_columns(spec, rows, destination.values, destination.recipes)
    frame = rows.head(1).select(value.alias(name) for name, (value, _) in columns.items()).collect()
    return {name: json_values(frame[name])[0] for name in frame.columns} if len(frame) else {}


_WAITS = {
    "waiting": "it was refused unchanged again and again, and is tried less often: `sync retry` tries it at once",
    "no_match": "there is no record of it there: tried again when the row changes, or after some days",
    "invalid": "the destination cannot place it: tried again when the row changes, or after some days",
    "deferred": "the destination asked to be sent it later",
    "lost": "its answer was lost, and it could count twice: look there, then `sync retry` sends it once more",
    "superseded": "a newer day of it was acknowledged",
}


def rows_keys(rows: pl.LazyFrame) -> list[str]:
    """Return the keys by which the ledger knows rows."""
    column = "event_key" if "event_key" in rows.collect_schema() else "key"
    return rows.select(pl.col(column).cast(pl.String)).collect()[column].drop_nulls().to_list()


def first_requests(destination: Destination, rows: pl.DataFrame, fence: int, secret: bytes) -> list[str]:
    """Return the first call of each planned row, as if it were sent alone: address and body, every value hashed.

    Nothing is called. A value that is sent as the row has it has the hash by which ledger and changelog show it.
    """
    single = (rows[index : index + 1] for index in range(len(rows)))
    return [_first_request(destination, row, fence, secret) for row in single]


def _first_request(destination: Destination, planned: pl.DataFrame, fence: int, secret: bytes) -> str:
    [row] = rows_of(planned, destination, fence)
    hashes = _hashes(planned)
    try:
        content = destination.element(row)
        exchange = destination.exchange([orjson.dumps(content)], [row])
        step = next(exchange)
        exchange.close()
    except Exception as error:  # the destination's own code, of which a run says the same
        return f"cannot be written as a request: {type(error).__name__}"
    call = ""
    if isinstance(step, Request):
        values = personal([row])
        address = redact(step.url, values | {quote(value, safe="") for value in values})
        call = f"{step.method} {address.partition('?')[0]} "
        with suppress(ValueError):  # a form, a CSV, or no body at all: the row's own part of it says as much
            content = orjson.loads(step.body)
    shown = json.dumps(_hashed(content, hashes, secret), ensure_ascii=False, default=str)
    return f"{call}{shown}"[:_LONGEST]


def _hashes(planned: pl.DataFrame) -> dict[str, str]:
    """Return the text of each value of a planned row to the hash by which the ledger has it."""
    values = {name: VALUE + name.removeprefix(FIELD) for name in field_names(planned)}
    pairs = [(planned[column][0], planned[name][0]) for name, column in values.items() if column in planned.columns]
    return {str(value): f"{held:016x}" for value, held in pairs if value is not None and held is not None}


def _hashed(value: Any, hashes: Mapping[str, str], secret: bytes) -> Any:
    """Return a JSON value with each text and number of it as its keyed hash; names stay."""
    if isinstance(value, dict):
        return {name: _hashed(inner, hashes, secret) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_hashed(inner, hashes, secret) for inner in value]
    if value is None or isinstance(value, bool):
        return value
    return hashes.get(str(value)) or hashed_key(str(value), secret)
