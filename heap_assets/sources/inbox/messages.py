"""What other systems post, as messages: Segment's calls (destinations_b.md 4.2) and webhooks of any kind.

A message that lacks what its type needs is refused with the name of the field; values never stand in a reason.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from heap_assets.tables import INBOX_MESSAGES

Message = dict[str, Any]
"""A message: `table`, `message_id`, `time` (µs since 1970), the columns that it has, and `body`, as it came.

One that is refused has `fault`, the reason, instead of a table.
"""

_LONGEST_ID: Final = 1024
_LONGEST_NAME: Final = 1024
_TEXTS: Final = (
    ("userId", "user_id", _LONGEST_ID),
    ("anonymousId", "anonymous_id", _LONGEST_ID),
    ("groupId", "group_id", _LONGEST_ID),
    ("event", "event", _LONGEST_NAME),
    ("name", "name", _LONGEST_NAME),
    ("category", "category", _LONGEST_NAME),
)
_OBJECTS: Final = ("traits", "properties", "context", "integrations")
_EARLIEST: Final = datetime(1970, 1, 2, tzinfo=UTC)
_LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)
_MILLISECONDS: Final = 100_000_000_000
"""A number of at least so much is milliseconds since 1970, a smaller one is seconds."""
_FRACTION: Final = re.compile(r"(\.\d{6})\d+")
_SENT_BY: Final = "sent_by"


class MessageError(Exception):
    """A call that cannot be taken: `field` is what is wrong, `status` the HTTP status of the answer.

    It is an answer to who posted, and is not redacted: there is no value in it.
    """

    def __init__(self, reason: str, field: str = "", status: int = 400) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.reason, self.field = reason, field
        self.status = status


@dataclass(frozen=True)
class Sizes:
    """How much a call may hold: bytes of one message, messages of one batch."""

    message_bytes: int = 32 << 10
    batch_messages: int = 2500


def parsed(body: bytes) -> Any:
    """Parse the JSON of a call; MessageError if it is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MessageError(f"the body is not JSON in UTF-8 (at byte {error.pos})") from None


def call_messages(call: Any, kind: str, received: datetime, sizes: Sizes, size: int) -> list[Message]:
    """Return the messages of a call to /v1/<kind>, or of one that Segment posts to a webhook (`kind` is empty then).

    Parameters
    ----------
    call
        The parsed body.
    size
        Bytes of the body.

    Raises
    ------
    MessageError
        If it is a single message that cannot be taken, or a batch of which no message can. Of others, messages that
        cannot be taken have a `fault`.
    """
    if not isinstance(call, dict):
        raise MessageError("the body is no JSON object")
    if kind != "batch":
        if size > sizes.message_bytes:
            raise MessageError(f"a message of more than {sizes.message_bytes >> 10} KB", status=413)
        return [_message(call, kind, {}, received)]
    batch = call.get("batch")
    if not isinstance(batch, list):
        raise MessageError("a list of messages is missing", "batch")
    if len(batch) > sizes.batch_messages:
        raise MessageError(f"more than {sizes.batch_messages} messages", "batch", 413)
    common = {name: call[name] for name in ("context", "integrations", "sentAt") if name in call}
    return all_messages(batch, common, received, sizes, size, "batch")


def all_messages(
    batch: Sequence[Any], common: Mapping[str, Any], received: datetime, sizes: Sizes, size: int, field: str = ""
) -> list[Message]:
    """Return the messages of a batch, those that cannot be taken with a `fault`.

    `common`: what holds for messages that do not say it themselves. MessageError if none can be taken.
    """
    messages: list[Message] = []
    first = None
    for index, entry in enumerate(batch):
        try:
            if not isinstance(entry, dict):
                raise MessageError("no JSON object")
            if size > sizes.message_bytes and len(orjson.dumps(entry)) > sizes.message_bytes:
                raise MessageError(f"a message of more than {sizes.message_bytes >> 10} KB", status=413)
            messages.append(_message(entry, "", common, received))
        except MessageError as error:
            place = f"{field}[{index}]"
            refusal = MessageError(error.reason, f"{place}.{error.field}" if error.field else place, error.status)
            first = first or refusal
            messages.append({"fault": str(refusal), "message_id": digest(entry), "body": entry})
    if first is not None and all("fault" in message for message in messages):
        raise first
    return messages


def webhook_messages(
    call: Any, table: str, received: datetime, paths: Mapping[str, str | None], sizes: Sizes
) -> list[Message]:
    """Return the messages of a signed webhook: one for an object, one each for a list of objects.

    `paths`: of `id`, `time` and `event` in a message. MessageError names the element that is no object.
    """
    batch = call if isinstance(call, list) else [call]
    if len(batch) > sizes.batch_messages:
        raise MessageError(f"more than {sizes.batch_messages} messages", status=413)
    messages: list[Message] = []
    for index, entry in enumerate(batch):
        if not isinstance(entry, dict):
            raise MessageError("no JSON object", f"[{index}]" if isinstance(call, list) else "")
        own_id, moment, event = (_at(entry, paths.get(name)) for name in ("id", "time", "event"))
        message: Message = {
            "table": table,
            "message_id": _text(own_id, paths["id"] or "", _LONGEST_ID) if own_id is not None else digest(entry),
            "time": _micros(_time(moment, paths["time"] or "") if moment is not None else received),
            "body": entry,
        }
        if event is not None:
            message["event"] = _text(event, paths["event"] or "", _LONGEST_NAME)
        messages.append(message)
    return messages


def digest(body: Any) -> str:
    """Return what stands in for the id of a message that has none: a hash of what it says."""
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def _message(call: dict[str, Any], kind: str, common: Mapping[str, Any], received: datetime) -> Message:
    named = call.get("type", kind)
    if kind and named != kind:
        raise MessageError(f"it is not of the type that this path is for, {kind}", "type")
    if named not in INBOX_MESSAGES:
        expected = ", ".join(INBOX_MESSAGES)
        raise MessageError(f"expected one of {expected}", "type", 501 if isinstance(named, str) and named else 400)
    for name in _OBJECTS:
        if not isinstance(call.get(name, {}), dict | None):
            raise MessageError("no JSON object", name)
    message: Message = {"table": named}
    for name, column, longest in _TEXTS:
        value = call.get(name)
        if value is not None and value != "":
            message[column] = _text(value, name, longest)
    previous = call.get("previousId", call.get("Previous ID"))
    if named == "alias":
        if previous is None or previous == "":
            raise MessageError("missing", "previousId")
        message["previous_id"] = _text(previous, "previousId", _LONGEST_ID)
        if "user_id" not in message and call.get("User ID"):
            message["user_id"] = _text(call["User ID"], "userId", _LONGEST_ID)
    _require(message, named)
    own_id = call.get("messageId")
    body = {**common, **call} if common else call
    message["message_id"] = (
        _text(own_id, "messageId", _LONGEST_ID) if own_id not in (None, "") else digest(_unsent(call))
    )
    message["time"] = _micros(_moment(body, received))
    properties = call.get("properties") or call.get("traits") or {}
    if isinstance(mark := properties.get(_SENT_BY), str):
        message[_SENT_BY] = mark
    message["body"] = {name: value for name, value in body.items() if name != "writeKey"}
    return message


def _require(message: Message, kind: str) -> None:
    if kind == "track" and "event" not in message:
        raise MessageError("missing", "event")
    if kind == "group" and "group_id" not in message:
        raise MessageError("missing", "groupId")
    if kind in ("alias", "delete") and "user_id" not in message:
        raise MessageError("missing", "userId")
    if "user_id" not in message and "anonymous_id" not in message:
        raise MessageError("missing, and so is anonymousId: one of the two is needed", "userId")


def _unsent(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message without what a client sets anew when it tries again."""
    return {name: value for name, value in call.items() if name not in ("sentAt", "writeKey")}


def _text(value: Any, field: str, longest: int) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise MessageError("expected text", field)
    if not value or len(value) > longest:
        raise MessageError(f"expected 1 to {longest} characters", field)
    return value


def _moment(call: Mapping[str, Any], received: datetime) -> datetime:
    """Return when a message happened: as it says, else when it came, set right by how long the client held it."""
    if (stamp := call.get("timestamp")) is not None:
        return _time(stamp, "timestamp")
    if (original := call.get("originalTimestamp")) is not None:
        happened = _time(original, "originalTimestamp")
        sent = call.get("sentAt")
        if sent is None:
            return happened
        moment = received - (_time(sent, "sentAt") - happened)
        return moment if _EARLIEST <= moment <= _LATEST else happened
    return received


def _time(value: Any, field: str) -> datetime:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            moment = datetime.fromtimestamp(value / 1000 if value >= _MILLISECONDS else value, UTC)
        elif isinstance(value, str):
            moment = datetime.fromisoformat(_FRACTION.sub(r"\1", value))
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        else:
            raise MessageError("expected a time as ISO 8601", field)
    except (ValueError, OverflowError, OSError):
        raise MessageError("expected a time as ISO 8601", field) from None
    if not _EARLIEST <= moment <= _LATEST:
        raise MessageError("expected a time after 1970", field)
    return moment


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _at(body: Any, path: str | None) -> Any:
    for part in path.split(".") if path else ():
        if not isinstance(body, dict):
            return None
        body = body.get(part)
    return body if path else None
