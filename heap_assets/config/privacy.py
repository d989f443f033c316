"""The `privacy:` section: erasure, and what it leaves behind."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from heap_assets.config.base import Day, Section


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


class ConsentSource(Section):
    """A table of statements of consent: a row for each person and purpose, or a column for each purpose."""

    table: str = Field(description="Table of a source, users (Heap's), or inbox/users (Segment's identify calls)")
    purpose: str | None = Field(default=None, description="Column with the purpose, of a table with a row for each")
    state: str | None = Field(
        default=None, description="Column with the answer, of a table with a row for each purpose"
    )
    columns: dict[str, str] = Field(default={}, description="Purpose to column, of a table with a column for each")
    at: str | None = Field(default=None, description="Column with the time of the statement; the newest one holds")
    granted: list[str] = Field(
        default=["true", "yes", "y", "1", "granted", "opted_in", "opt_in"],
        description="Values that mean yes, compared without case; any other means no",
    )

    @model_validator(mode="after")
    def _is_long_or_wide(self) -> ConsentSource:
        if bool(self.columns) == (self.purpose is not None and self.state is not None) or (
            (self.purpose is None) != (self.state is None)
        ):
            raise ValueError("give purpose and state (a row for each purpose), or columns (a column for each)")
        return self


def _in_words(value: object) -> object:
    """Take true and false, which other readers of YAML make of yes and no."""
    return {"true": "yes", "false": "no"}.get(str(value).lower(), value)


Answer = Annotated[Literal["no", "yes"], BeforeValidator(_in_words)]


class ConsentSettings(Section):
    """Who has consented to what. Each purpose is a column `consent_<purpose>` of profiles, and a sync names its own."""

    purposes: list[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]] = Field(
        default=[], description="Purposes, such as marketing"
    )
    sources: list[ConsentSource] = Field(default=[], description="Where statements come from")
    absent: Answer = Field(default="no", description="What it means that nothing was stated")
    region: str | None = Field(default=None, description="Trait with the person's region, for absent_by_region")
    absent_by_region: dict[str, Answer] = Field(
        default={}, description="Value of that trait to what absence means there"
    )

    @model_validator(mode="after")
    def _region_is_named(self) -> ConsentSettings:
        if bool(self.absent_by_region) != (self.region is not None):
            raise ValueError("region and absent_by_region: give both, or neither")
        if beside := [purpose for purpose in self.purposes if purpose.endswith("__since")]:
            raise ValueError(f"purposes: {beside[0]!r} ends with __since, as the column of a purpose's time does")
        named = {purpose for source in self.sources for purpose in source.columns}
        if unknown := sorted(named - set(self.purposes)):
            raise ValueError(f"a source has the purpose {unknown[0]!r}, which purposes does not list")
        return self


class MaskingRule(Section):
    """What of the rows that land is dropped, masked or hashed; name columns, kinds of values, or an element."""

    action: Literal["drop", "mask", "hash", "fail"] = Field(
        description="drop: null; mask: [masked], or the kind; hash: a keyed pseudonym; fail: the table is refused"
    )
    tables: list[str] = Field(
        default=["*"],
        description="Patterns of tables: as Heap calls them, or as assets (warehouse/contacts, inbox/track)",
    )
    columns: list[str] = Field(
        default=[],
        description="Patterns of columns; those that identify people in tables of sources and in messages are meant by "
        "their own name alone",
    )
    kinds: list[Literal["email", "social_security_number", "card_number", "phone", "ip_address"]] = Field(
        default=[], description="Kinds of values, in the columns or in all text"
    )
    selector: str | None = Field(
        default=None,
        description="tag, #id, .class or these joined, matched with target_tag, target_id and target_class; then "
        "target_text, href and title are meant unless columns are named",
    )

    @model_validator(mode="after")
    def _says_what(self) -> MaskingRule:
        if not (self.columns or self.kinds or self.selector):
            raise ValueError("columns, kinds or selector: at least one of them")
        return self


class KeyAge(Section):
    """How old a credential may become, by the variable that holds it."""

    issued: Day | None = Field(default=None, description="Day on which it was made")
    expires: Day | None = Field(default=None, description="Day on which it ends by itself, as of a service account")
    max_days: int = Field(default=90, ge=1, description="Days after which it has to be replaced")


class PrivacySettings(Section):
    """Erasure of people, consent, and the key of everything that stands in place of their values."""

    key: SecretStr | None = Field(
        default=None,
        description="What tombstones and pseudonyms are keyed with, ${HEAP_ASSETS_PRIVACY_KEY}; a key that the lake "
        "holds unless given. With another one nobody is recognised any more",
    )
    consent: ConsentSettings = Field(default=ConsentSettings(), description="Who has consented to what")
    rules: list[MaskingRule] = Field(default=[], description="What of the rows that land is not kept as it is")
    pseudonyms: str | None = Field(
        default=None,
        description="Folder for the values behind pseudonyms, outside the lake; none are kept unless given",
    )
    keys: dict[str, KeyAge] = Field(
        default={}, description="Variable of a credential to its age, which `heap-assets keys` watches"
    )
    overdue_keys: Literal["warn", "error"] = Field(
        default="error", description="How the check of these credentials fails if one has to be replaced"
    )
    personal: dict[str, list[str]] = Field(
        default={},
        description="Pattern of tables to patterns of columns that hold personal data on purpose: counted in "
        "privacy/findings, and no reason for its check to fail",
    )
    erasure: ErasureSettings = Field(default=ErasureSettings(), description="Requests to erase people")

    @property
    def key_bytes(self) -> bytes | None:
        """The key, None if the lake's own is used."""
        return None if self.key is None else self.key.get_secret_value().encode()
