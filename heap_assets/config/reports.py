"""The `reports:` section: results of SQL that are written as files or mailed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from heap_assets.config.base import Cron, Owner, Section


class FileOutput(Section):
    """A file a day in a folder or bucket: `<to>/<name>-<day>.csv` or `.parquet`."""

    kind: Literal["csv", "parquet"] = Field(description="Format of the file")
    to: str = Field(description="A folder, s3://bucket/prefix or gs://bucket/prefix")
    options: dict[str, str] = Field(default={}, description="Options of the object store, such as aws_region")


class EmailOutput(Section):
    """A mail with the result attached. Names of variables, as of alerts, hold the login."""

    kind: Literal["email"]
    host: str = Field(description="SMTP server")
    port: int = Field(default=587, description="Port of the SMTP server")
    sender: str = Field(default="heap_assets@localhost", description="Address that mails come from")
    recipients: list[str] = Field(min_length=1, description="Addresses that mails go to")
    starttls: bool = Field(default=True, description="Encrypt the connection to the SMTP server")
    user_env: str = Field(default="", description="The variable that holds the SMTP user")
    password_env: str = Field(default="", description="The variable that holds the SMTP password")
    attach: Literal["csv", "parquet"] = Field(default="csv", description="Form of the attachment")
    subject: str = Field(default="{report}, {day}", description="Subject; {report}, {day} and {rows} are filled in")

    @model_validator(mode="after")
    def _logs_in_over_tls(self) -> EmailOutput:
        if self.user_env and not self.starttls:
            raise ValueError("user_env without starttls: a password is sent over TLS only")
        return self


ReportOutput = Annotated[FileOutput | EmailOutput, Field(discriminator="kind")]


class ReportSettings(Section):
    """A result of SQL, as of the end of a day, and where it goes."""

    sql: str | None = Field(default=None, description="One SELECT over the tables of `heap-assets sql`")
    file: str | None = Field(default=None, description="A file that holds it; relative to the settings file")
    source: Literal["lake", "heap"] = Field(
        default="lake", description="Whose tables: ours, or Heap's by `heap_query` (unverified)"
    )
    outputs: list[ReportOutput] = Field(default=[], description="Files and mails; the lake has the result in any case")
    schedule: Cron = Field(default="0 7 * * *", description="When the newest complete day is reported, cron in UTC")
    max_rows: int = Field(default=1_000_000, ge=1, description="A result with more rows is refused")
    description: str | None = Field(default=None, description="Description of the asset")
    owner: Owner | None = Field(default=None, description="Owner of the asset; `run.owners` decides unless given")

    def anchored(self, folder: Path) -> ReportSettings:
        """Return the settings with relative paths made relative to the settings file."""
        outputs = [
            one.model_copy(update={"to": str(folder / one.to)}) if one.kind != "email" and "://" not in one.to else one
            for one in self.outputs
        ]
        file = str(folder / self.file) if self.file else None
        return self.model_copy(update={"outputs": outputs, "file": file})

    @model_validator(mode="after")
    def _has_one_statement(self) -> ReportSettings:
        if (self.sql is None) == (self.file is None):
            raise ValueError("one of sql and file")
        return self
