"""Reports: the result of a statement as of the end of a day, in the lake, as files and as mail."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import polars as pl

from heap_assets import clock
from heap_assets.config import EmailOutput, FileOutput
from heap_assets.errors import DeliveryError, HeapAssetsError, MissingInputError, SettingsError
from heap_assets.heap_api import HeapQuery, QueryClient
from heap_assets.mail import MailServer, send_mail
from heap_assets.pipelines.models import sql_as_of, tables_of_sql
from heap_assets.project import Project
from heap_assets.storage import Inputs, Status, Store, state_keys
from heap_assets.tables import report_asset
from heap_assets.values import as_text
from heap_assets.versions import version_of

_MAIL_SECONDS = 120.0
_LARGEST_MAIL = 20 << 20
"""Bytes of an attachment; most servers refuse more than 25 MB with their base64."""


@dataclass(frozen=True)
class Reported:
    """What became of a day of a report: `sent` names the outputs that got it now, `unchanged` those that had it."""

    rows: int
    status: Status
    sent: tuple[str, ...]
    unchanged: tuple[str, ...]


def statement_of_report(project: Project, name: str) -> str:
    """Return the SQL of a report; SettingsError if its file is missing."""
    report = project.settings.reports[name]
    if report.file is None:
        return str(report.sql).rstrip().rstrip(";")
    path = Path(report.file)
    if not path.is_file():
        raise SettingsError(f"reports.{name}.file is {report.file!r}, which does not exist")
    return path.read_text(encoding="utf-8").rstrip().rstrip(";")


def inputs_of_report(project: Project, name: str) -> list[str]:
    """Return the assets that a report reads; none of one that Heap answers.

    Raises SettingsError: its SQL is no SELECT, or reads a table that there is not; the message names the line.
    """
    sql = statement_of_report(project, name)
    if project.settings.reports[name].source == "heap":
        return []
    return tables_of_sql(project, sql, f"reports.{name}")


def report_day(project: Project, name: str, day: date, client: QueryClient | None = None) -> Reported:
    """Compute a day of a report, store it, and give it to each output that has not got this version of it.

    An output that refuses does not keep it from the others. A process that is killed after a mail was handed in and
    before that was written down mails it once more.

    Parameters
    ----------
    client
        Who answers a report of source `heap`; the API of the settings unless given.

    Raises
    ------
    MissingInputError
        A table that it reads has no day yet, or Heap is asked for a day that is over: it answers as of now.
    DeliveryError
        An output refused; the others have got it.
    """
    frame, inputs = _result(project, name, day, client)
    report, asset = project.settings.reports[name], report_asset(name)
    if frame.height > report.max_rows:
        raise HeapAssetsError(
            f"reports.{name} has more than {report.max_rows:,} rows (reports.{name}.max_rows): nothing was written"
        )
    written = project.lake.write(asset, str(day), frame, inputs, notes={"report_rows": frame.height})
    # of equal inputs the stored rows: those of Heap's answer may differ by the second
    frame = project.lake.scan(asset, str(day)).collect()
    log = _log_of(project, name, day)
    sent, unchanged, failures = [], [], []
    for index, output in enumerate(report.outputs):
        key = version_of([output.model_dump(mode="json"), written.partition.version])
        title = f"reports.{name}.outputs[{index}]"
        if log.get(str(index)) == key:
            unchanged.append(title)
            continue
        try:
            if isinstance(output, FileOutput):
                _write(output, f"{name}-{day}", frame)
            else:
                _mail(project, output, name, day, frame, title)
        except HeapAssetsError as error:
            failures.append(str(error))
            continue
        log[str(index)] = key
        project.lake.store.write(_log_key(name, day), json.dumps(log).encode())
        sent.append(title)
    if failures:
        raise DeliveryError("\n".join(failures))
    return Reported(frame.height, written.status, tuple(sent), tuple(unchanged))


def _result(project: Project, name: str, day: date, client: QueryClient | None) -> tuple[pl.DataFrame, Inputs]:
    report, sql = project.settings.reports[name], statement_of_report(project, name)
    if report.source == "lake":
        frame, versions = sql_as_of(project, sql, day, f"reports.{name}", report.max_rows + 1)
        return frame, Inputs({**versions, "statement": version_of(sql)})
    if day < clock.newest_complete_day():
        raise MissingInputError(f"reports.{name} asks Heap, which answers as of now: {day} cannot be asked for")
    settings = project.settings.heap_query
    assert settings is not None
    frame = (client or HeapQuery(settings, project.allowed_hosts)).query(sql)
    return frame, Inputs({"statement": version_of(sql), "content": version_of(frame.write_json())})


def _log_key(name: str, day: date) -> str:
    return f"{state_keys.REPORTS}/{name}/{day}.json"


def _log_of(project: Project, name: str, day: date) -> dict[str, str]:
    key = _log_key(name, day)
    if not project.lake.store.exists(key):
        return {}
    log: dict[str, str] = json.loads(project.lake.store.read(key))
    return log


def _write(output: FileOutput, name: str, frame: pl.DataFrame) -> None:
    """Replace a file whole."""
    Store(output.to, output.options).write(f"{name}.{output.kind}", content_of(frame, output.kind))


def content_of(frame: pl.DataFrame, kind: str) -> bytes:
    """Return a result as the bytes of a Parquet file, or of CSV: times in ISO 8601, lists and records as JSON."""
    buffer = io.BytesIO()
    if kind == "parquet":
        frame.write_parquet(buffer)
    else:
        frame.select(_plain(frame)).write_csv(buffer)
    return buffer.getvalue()


def _plain(frame: pl.DataFrame) -> Iterator[pl.Expr]:
    for name, dtype in frame.schema.items():
        is_plain = dtype.is_integer() or dtype in (pl.String, pl.Boolean, pl.Date)
        yield pl.col(name) if is_plain else as_text(pl.col(name), dtype).alias(name)


def _mail(project: Project, output: EmailOutput, name: str, day: date, frame: pl.DataFrame, title: str) -> None:
    content = content_of(frame, output.attach)
    if len(content) > _LARGEST_MAIL:
        raise DeliveryError(f"{title}: {len(content):,} bytes are too many for a mail; write a file instead")
    mail = EmailMessage()
    facts = {"report": name, "day": str(day), "rows": f"{frame.height:,}"}
    mail["Subject"] = " ".join(_filled(output.subject, facts).split())[:200]
    mail["From"], mail["To"] = output.sender, ", ".join(output.recipients)
    about = project.settings.reports[name].description or f"The report {name}"
    mail.set_content(f"{about}\n\n{frame.height:,} rows as of the end of {day} (UTC).\n")
    kind = ("text", "csv") if output.attach == "csv" else ("application", "vnd.apache.parquet")
    mail.add_attachment(content, maintype=kind[0], subtype=kind[1], filename=f"{name}-{day}.{output.attach}")
    login = None
    if output.user_env:
        login = (_variable(os.environ, output.user_env, title), _variable(os.environ, output.password_env, title))
    server = MailServer(output.host, output.port, output.starttls, login)
    send_mail(server, mail, project.allowed_hosts, title, _MAIL_SECONDS)


def _filled(text: str, facts: Mapping[str, Any]) -> str:
    for name, value in facts.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text


def _variable(environ: Mapping[str, str], variable: str, where: str) -> str:
    try:
        return environ[variable]
    except KeyError:
        raise SettingsError(f"{where} needs the environment variable {variable!r}: set it") from None
