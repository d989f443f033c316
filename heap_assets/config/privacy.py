"""The `privacy:` section: erasure, and what it leaves behind."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from heap_assets.config.base import Section


class RequestTable(Section):
    """A table whose rows ask for the erasure of people: of the warehouse, of another source, or of the inbox."""

    table: str = Field(description="Table that settings map, or an inbox asset; a row is one request")
    identifiers: dict[str, str] = Field(
        min_length=1, description="Column of the table to the identifier type that it holds"
    )
    id: str | None = Field(default=None, description="Column with the request's own id, which makes a repeat one")
    where: dict[str, str] = Field(
        default={}, description="Column to the value that a row must have, such as {type: delete} of Segment's events"
    )


class ErasureSettings(Section):
    """Requests to erase people, from the command line and from tables."""

    requests: list[RequestTable] = Field(default=[], description="Tables whose rows are requests")
    confirm: Literal["always", "ambiguous"] = Field(
        default="always",
        description="always: a person confirms what each request would erase; ambiguous: only where values are left "
        "to others",
    )


class PrivacySettings(Section):
    """Erasure of people, and the key of everything that stands in place of their values."""

    key: SecretStr | None = Field(
        default=None,
        description="What tombstones and pseudonyms are keyed with, ${HEAP_ASSETS_PRIVACY_KEY}; a key that the lake "
        "holds unless given. With another one nobody is recognised any more",
    )
    erasure: ErasureSettings = Field(default=ErasureSettings(), description="Requests to erase people")

    @property
    def key_bytes(self) -> bytes | None:
        """The key, None if the lake's own is used."""
        return None if self.key is None else self.key.get_secret_value().encode()
