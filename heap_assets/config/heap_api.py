"""The `heap_query:` and `labels:` sections: two APIs of Heap that no public page describes. Off unless written.

What was found of them is an address of the first in one page, and nothing of the second: every address, method and
member of a body is a setting, and nobody has verified the defaults.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator

from heap_assets.config.base import Cron, Section
from heap_assets.yaml_core import core

SQL_MARK = "{sql}"
"""What stands for the statement in `heap_query.body`."""

Url = Annotated[str, Field(pattern=r"^https?://[^\s]+$")]
Path = Annotated[str, Field(pattern=r"^/[^\s]*$")]


class HeapQuerySettings(Section):
    """Heap's own query API, for reports that say `from: heap`. Unverified: see docs/reports.md."""

    url: Url = Field(description="Address that statements are posted to, whole")
    token: SecretStr = Field(description="The key, such as ${HEAP_QUERY_TOKEN}")
    authorization: str = Field(default="Bearer {token}", description="The header Authorization")
    method: Literal["POST", "GET"] = Field(default="POST", description="Of the call; GET has the body as its query")
    body: dict[str, Any] = Field(default={"query": SQL_MARK}, description="The body as JSON; {sql} is the statement")
    rows: str = Field(default="results", description="Path of the rows in the answer, with dots; empty for the answer")
    columns: str | None = Field(default=None, description="Path of the names of columns, where rows are lists")
    timeout_seconds: float = Field(default=120, gt=0, description="Longest wait for an answer")

    @field_validator("body")
    @classmethod
    def _has_the_statement(cls, value: dict[str, Any]) -> dict[str, Any]:
        if SQL_MARK not in str(value):
            raise ValueError(f"a body with {SQL_MARK} where the statement goes")
        plain: dict[str, Any] = core(value)
        return plain


class LabelEnvironment(Section):
    """One environment of Heap whose labels are compared and changed."""

    url: Url = Field(description="Address that the paths of `labels.api` follow")
    token: SecretStr = Field(description="The key of this environment")
    values: dict[str, str] = Field(default={}, description="For the paths of labels.api: {app_id} and others by name")


class LabelApi(Section):
    """Calls that read and change labels. Unverified: each of them is a setting."""

    authorization: str = Field(default="Bearer {token}", description="The header Authorization")
    list_path: Path = Field(default="/labels", description="GET: all labels")
    create_path: Path = Field(default="/labels", description="POST: a new label; the body is the label")
    update_path: Path = Field(default="/labels/{id}", description="PUT: a label that is there; {id} is its id there")
    delete_path: Path = Field(default="/labels/{id}", description="DELETE: a label that the file does not have")
    update_method: Literal["PUT", "PATCH"] = Field(default="PUT", description="Of an update")
    rows: str = Field(default="labels", description="Path of the labels in the answer, with dots; empty for the answer")
    next_page: str | None = Field(default=None, description="Path of the address of the next page, where there is one")
    id: str = Field(default="id", description="Member of a label that is its id there, and no part of its definition")
    name: str = Field(default="name", description="Member of a label that is its name: unique in an environment")
    ignore: list[str] = Field(
        default=["created_at", "updated_at", "created_by"], description="Members that only the environment knows"
    )


class LabelsSettings(Section):
    """Labels (definitions of events) as a reviewed file, held against environments. Off unless written."""

    file: str = Field(default="heap_labels.yaml", description="The file: name of a label to its definition")
    environments: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], LabelEnvironment] = Field(
        min_length=1, description="Environments by name"
    )
    api: LabelApi = Field(default=LabelApi(), description="How they are called")
    schedule: Cron = Field(default="20 6 * * *", description="When each is looked at for drift, cron in UTC")
