"""Tables that are computed from others: `models:`, by SQL over the lake or by a function, and `unified_events:`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from heap_assets.config.base import Cron, Owner, Section
from heap_assets.config.heap import IdentifierTypes
from heap_assets.config.identity import AccountsSettings
from heap_assets.config.warehouse import WarehouseTable
from heap_assets.tables import ACCOUNT_PROFILES, HEAP, INBOX, model_asset, signal_asset
from heap_assets.yaml_core import core, read_yaml

_HEADER = re.compile(r"--\s*(key|created_at|updated_at|description|schedule|source|identifiers)\s*:\s*(.+?)\s*$")
_READ_AS_YAML = ("source", "identifiers")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")


class ModelSettings(Section):
    """A table that is computed from others: by `sql`, by the SQL of a `file`, or by a function (`python`)."""

    sql: str | None = Field(default=None, description="One SELECT of DuckDB over the tables of `heap-assets sql`")
    file: str | None = Field(default=None, description="A file that holds it")
    python: str | None = Field(
        default=None, description="module:function, from a mapping of Polars frames by asset to a frame"
    )
    inputs: list[str] = Field(default=[], description="Assets that the function reads")
    key: str | None = Field(default=None, description="Column that is unique; syncs and sources need it")
    created_at: str | None = Field(default=None, description="Column with the time of the row, of tables of events")
    updated_at: str | None = Field(default=None, description="Column that every change sets, for 'newest' traits")
    identifiers: dict[str, IdentifierTypes] = Field(
        default={}, description="Column to identifier type: whom rows are sent to, and of a source whom they name"
    )
    source: bool = Field(
        default=False,
        description="Identifiers are linked as those of a warehouse table are, and traits, accounts, audiences and "
        "signals may read it by its name models/<name>; so it may read nothing that people are needed for",
    )
    schedule: Cron | None = Field(
        default=None, description="When it is computed, cron in UTC, instead of as soon as something it reads is new"
    )
    description: str | None = Field(default=None, description="Description of the asset")
    owner: Owner | None = Field(default=None, description="Owner of the asset; `run.owners` decides unless given")

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> ModelSettings:
        kinds = [kind for kind in ("sql", "file", "python") if getattr(self, kind)]
        if len(kinds) != 1:
            raise ValueError(f"one of sql, file and python, not {' and '.join(kinds) or 'none of them'}")
        if bool(self.inputs) != bool(self.python):
            raise ValueError("inputs: the assets that a function reads; of SQL they are known")
        if self.source and not self.key:
            raise ValueError("key: a source needs the column that is unique")
        return self

    @property
    def is_events(self) -> bool:
        """Whether its rows are events of people, that audiences and signals may name."""
        return self.source and bool(self.created_at and self.identifiers)

    def table(self, name: str) -> WarehouseTable:
        """Return it as other sections see a table of a source; it has a key."""
        return WarehouseTable(
            relation=model_asset(name),
            key=self.key or "",
            created_at=self.created_at,
            updated_at=self.updated_at,
            identifiers=self.identifiers,
        )


class UnifiedEvents(Section):
    """Which tables of events are in the one table `unified_events`; patterns as in a shell."""

    assets: list[str] = Field(
        default=[f"{HEAP}*", f"{INBOX}*"], description="Tables of Heap and of messages: heap/*, inbox/track"
    )
    exclude: list[str] = Field(
        default=[f"{INBOX}{call}" for call in ("identify", "group", "alias", "delete")],
        description="Of these, tables that are not; by default the calls that are no events of a person",
    )


def models_of_folder(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the models of a folder of .sql files, by the name of the file; `-- key: …` lines say more of each."""
    models: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.glob("*.sql")):
        if not _NAME.fullmatch(file.stem):
            raise ValueError(f"{file.name}: a model is called by letters a to z, digits and _")
        lines = file.read_text(encoding="utf-8").splitlines()
        header: dict[str, Any] = {match[1]: match[2] for line in lines if (match := _HEADER.match(line))}
        header |= {name: core(read_yaml(header[name], file.name)) for name in _READ_AS_YAML if name in header}
        models[file.stem] = {"file": str(file), **header}
    return models


def source_models(models: dict[str, ModelSettings]) -> dict[str, WarehouseTable]:
    """Return the models that are sources, by the names that settings refer to them by: `models/orders`."""
    return {model_asset(name): model.table(name) for name, model in models.items() if model.source}


def sent_tables(
    signals: Iterable[str],
    models: dict[str, ModelSettings],
    accounts: AccountsSettings | None,
    types: Collection[str],
) -> dict[str, WarehouseTable]:
    """Return signals, models and profiles of accounts as tables whose rows syncs may send.

    `types`: the identifier types that the settings declare.
    """
    named = (("heap_identity", "heap_identity"), ("user_id", "heap_user_id"))
    identifiers: dict[str, IdentifierTypes] = {column: kind for column, kind in named if kind in types}
    firings = {
        signal_asset(name): WarehouseTable(
            relation=signal_asset(name), key="firing_id", created_at="time", identifiers=identifiers
        )
        for name in signals
    }
    if accounts is not None and accounts.columns:
        firings[ACCOUNT_PROFILES] = WarehouseTable(relation=ACCOUNT_PROFILES, key="account")
    return firings | {model_asset(name): model.table(name) for name, model in models.items() if model.key}
