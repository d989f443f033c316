"""The `inbox:` and `live:` sections: who may post events, what the tables of events hold, how the service runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from heap_assets.config.base import Section
from heap_assets.config.functions import ColumnType
from heap_assets.config.heap import IdentifierTypes
from heap_assets.config.warehouse import WarehouseTable
from heap_assets.tables import INBOX_ACCOUNTS, INBOX_COLUMNS, INBOX_MESSAGES, INBOX_USERS, inbox_asset

Secrets = Annotated[
    list[SecretStr], Field(min_length=1), BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
]
"""One secret or several: while one is replaced, the old and the new one hold."""


class TrackingSource(Section):
    """Segment's and RudderStack's libraries, which post to /v1/track and its kin with a write key."""

    kind: Literal["tracking"]
    write_keys: Secrets = Field(description="Keys that a call may carry; several while one is replaced")


class SegmentSource(Section):
    """Segment's webhook destination, which posts to /webhooks/<name> and signs what it posts."""

    kind: Literal["segment"]
    secrets: Secrets = Field(description="Shared secrets of the destination; several while one is replaced")
    batches: Literal["refuse", "trust"] = Field(
        default="refuse",
        description="Batches, of which Segment signs the first message only: refused, or taken whole",
    )


class WebhookSource(Section):
    """Any system that posts JSON to /webhooks/<name>, signed by HMAC over the body; rows of a table of its own."""

    kind: Literal["webhook"]
    secrets: Secrets = Field(description="Secrets that bodies are signed with; several while one is replaced")
    algorithm: Literal["sha256", "sha1", "sha512"] = Field(default="sha256", description="Hash of the HMAC")
    signature_header: str = Field(
        default="X-Signature", description="Header with the HMAC in hexadecimal, `sha256=` before it or not"
    )
    id: str | None = Field(
        default=None, description="Path of what tells messages apart, such as event.id; a hash of the body unless given"
    )
    time: str | None = Field(
        default=None,
        description="Path of when it happened (ISO 8601, or seconds since 1970); when it came unless given",
    )
    event: str | None = Field(default=None, description="Path of the name of the event")


InboxSource = Annotated[TrackingSource | SegmentSource | WebhookSource, Field(discriminator="kind")]


class InboxColumn(Section):
    """A column of an inbox table, out of a message."""

    path: str = Field(
        min_length=1,
        description="In traits or properties, such as company.name; in the whole message as $.context.ip",
    )
    type: ColumnType = Field(default="text", description="A row whose value is not of it is a rejected row")


Column = Annotated[InboxColumn | ColumnType, Field(union_mode="left_to_right")]


class InboxTable(Section):
    """What a table of messages holds besides what every message has, and what of it identifies people."""

    columns: dict[str, Column] = Field(
        default={}, description="Column to its type, or to its path and type; whatever else came stays in `body`"
    )
    identifiers: dict[str, IdentifierTypes] = Field(
        default={}, description="Column to identifier type; `inbox.identifiers` besides"
    )
    authoritative: bool = Field(
        default=False,
        description="Of alias and identify: the pair of ids is proof, as Heap's own user migrations are, which no "
        "merge limit refuses. Only where every write key is kept on servers",
    )

    @field_validator("columns")
    @classmethod
    def _names_are_free(cls, value: dict[str, Column]) -> dict[str, Column]:
        for name in value:
            if name in INBOX_COLUMNS or not name.isidentifier():
                raise ValueError(
                    f"a name of letters, digits and _ that no message has by itself; {name!r} is none. "
                    f"Taken: {', '.join(INBOX_COLUMNS)}"
                )
        return value

    def typed_columns(self) -> Mapping[str, InboxColumn]:
        """Return the columns with their paths and types."""
        return {
            name: InboxColumn(path=name, type=one) if isinstance(one, str) else one
            for name, one in self.columns.items()
        }


class InboxLimits(Section):
    """What the endpoint takes; more is refused with a reason."""

    message_kb: int = Field(default=32, ge=1, description="One message, as Segment allows")
    batch_kb: int = Field(default=4096, ge=32, description="One call, also once it is decompressed")
    batch_messages: int = Field(default=2500, ge=1, description="Messages of one call")
    messages_per_second: int = Field(default=2000, ge=1, description="Of a key or webhook, over ten seconds; else 429")
    connections: int = Field(default=20_000, ge=1, description="Open connections; else 503")
    body_seconds: float = Field(default=10.0, gt=0, description="Time in which a call must have come; else 408")
    pending_mb: int = Field(default=64, ge=1, description="Messages that wait to be written; else 503")


class InboxSettings(Section):
    """Events that other systems post: kept before they are answered, then tables of the lake."""

    sources: dict[str, InboxSource] = Field(min_length=1, description="Who may post, by name")
    tables: dict[str, InboxTable] = Field(
        default={}, description="track, identify, group, page, screen, alias, delete, or the name of a webhook source"
    )
    identifiers: dict[str, IdentifierTypes] = Field(
        default={}, description="Column that all tables have (user_id, anonymous_id, previous_id) to identifier type"
    )
    origins: list[str] = Field(
        default=["*"],
        description="Sites whose pages may post with a write key, such as https://www.acme.example; all unless given",
    )
    spool: Path | None = Field(
        default=None,
        description="Folder in which messages are kept until they are in the lake, on a disk that stays; below the "
        "lake's folder unless given, and needed where the lake is in an object store",
    )
    roll_seconds: float = Field(default=5.0, ge=0.2, description="After so long what came goes into the lake")
    roll_mb: int = Field(default=64, ge=1, description="Sooner once so much came")
    rebuild_seconds: int = Field(
        default=300, ge=10, description="How often the running day's tables are built anew while messages come"
    )
    ahead_hours: int = Field(default=48, ge=0, description="Messages of a later time are rejected rows")
    limits: InboxLimits = Field(default=InboxLimits(), description="What the endpoint takes")

    @field_validator("sources")
    @classmethod
    def _names_are_free(cls, value: dict[str, InboxSource]) -> dict[str, InboxSource]:
        for name, source in value.items():
            if not (name.isidentifier() and name.islower()):
                raise ValueError(f"a name of lower-case letters, digits and _; {name!r} is none")
            if source.kind == "webhook" and name in (*INBOX_MESSAGES, "users", "accounts"):
                raise ValueError(f"{name!r} is a table of the inbox already: give the webhook another name")
        return value

    @model_validator(mode="after")
    def _tables_exist(self) -> InboxSettings:
        for name, table in self.tables.items():
            if name not in self.message_tables:
                raise ValueError(f"tables.{name} is no table of the inbox. Tables: {', '.join(self.message_tables)}")
            if table.authoritative and name not in ("alias", "identify"):
                raise ValueError(f"tables.{name}.authoritative: only alias and identify have two ids of one person")
        return self

    @property
    def message_tables(self) -> list[str]:
        """Tables of messages, by name: those of Segment's calls, and one for each webhook source."""
        return [*INBOX_MESSAGES, *(name for name, source in self.sources.items() if source.kind == "webhook")]

    def table(self, name: str) -> InboxTable:
        """Return what a table holds."""
        return self.tables.get(name, InboxTable())

    def identifiers_of(self, name: str) -> dict[str, IdentifierTypes]:
        """Return the columns of a table that identify people, with their identifier types."""
        usual = {column: types for column, types in self.identifiers.items() if column in INBOX_COLUMNS}
        return {**usual, **self.table(name).identifiers}

    def event_tables(self) -> dict[str, WarehouseTable]:
        """Return the tables of messages, as other sections refer to them: `inbox/track`."""
        return {
            inbox_asset(name): WarehouseTable(
                relation=f"inbox.{name}",
                key="message_id",
                created_at="time",
                identifiers=self.identifiers_of(name),
                required=False,
            )
            for name in self.message_tables
        }

    def snapshot_tables(self) -> dict[str, WarehouseTable]:
        """Return the tables that are folded from messages, as other sections refer to them: users and accounts."""
        columns = {"user_id", "anonymous_id", *self.table("identify").columns}
        identify = {name: types for name, types in self.identifiers_of("identify").items() if name in columns}
        return {
            INBOX_USERS: WarehouseTable(
                relation="inbox.users",
                key="id",
                created_at="first_seen",
                updated_at="time",
                identifiers=identify,
                required=False,
                description="Who identified themselves, with the newest value of each trait.",
            ),
            INBOX_ACCOUNTS: WarehouseTable(
                relation="inbox.accounts",
                key="group_id",
                created_at="first_seen",
                updated_at="time",
                required=False,
                description="Accounts that people were grouped in, with the newest value of each trait.",
            ),
        }


class LiveSettings(Section):
    """The service `heap-assets live`."""

    host: str = Field(default="127.0.0.1", description="Address to listen on")
    port: int = Field(default=8484, ge=0, le=65535, description="Port to listen on; 0 for a free one")
    follow: Literal["service", "dagster"] = Field(
        default="service",
        description="What sends profiles as messages change them: the service within seconds, or a sensor with "
        "micro-batches within a minute",
    )
    interval_seconds: float = Field(
        default=0.5, ge=0.05, description="How often profiles follow what came, if anything came"
    )
    page: bool = Field(
        default=True,
        description="Whether / shows what comes in and goes out: counts, names of events, shortened profile ids",
    )
    stop_seconds: float = Field(default=20.0, gt=0, description="Time that calls have to end when it is stopped")
