"""Tables that are computed from others: `models:`, by SQL over the lake or by a function, and `unified_events:`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from heap_assets.config.base import Owner, Section
from heap_assets.config.heap import IdentifierTypes
from heap_assets.tables import HEAP, INBOX

_HEADER = re.compile(r"--\s*(key|created_at|description)\s*:\s*(.+?)\s*$")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")


class ModelSettings(Section):
    """A table that is computed from others: by `sql`, by the SQL of a `file`, or by a function (`python`)."""

    sql: str | None = Field(default=None, description="One SELECT of DuckDB over the tables of `heap-assets sql`")
    file: str | None = Field(default=None, description="A file that holds it")
    python: str | None = Field(
        default=None, description="module:function, from a mapping of Polars frames by asset to a frame"
    )
    inputs: list[str] = Field(default=[], description="Assets that the function reads")
    key: str | None = Field(default=None, description="Column that is unique; syncs need it")
    created_at: str | None = Field(default=None, description="Column with the time of the row, of tables of events")
    identifiers: dict[str, IdentifierTypes] = Field(default={}, description="Column to identifier type, for syncs")
    description: str | None = Field(default=None, description="Description of the asset")
    owner: Owner | None = Field(default=None, description="Owner of the asset; `run.owners` decides unless given")

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> ModelSettings:
        kinds = [kind for kind in ("sql", "file", "python") if getattr(self, kind)]
        if len(kinds) != 1:
            raise ValueError(f"one of sql, file and python, not {' and '.join(kinds) or 'none of them'}")
        if bool(self.inputs) != bool(self.python):
            raise ValueError("inputs: the assets that a function reads; of SQL they are known")
        return self


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
        header = {match[1]: match[2] for line in lines if (match := _HEADER.match(line))}
        models[file.stem] = {"file": str(file), **header}
    return models
