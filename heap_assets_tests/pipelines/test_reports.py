"""Reports: a result as of a day, as files and as a mail to a real SMTP server, each version once."""

from __future__ import annotations

import csv
import io
import json
import socket
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from heap_assets.errors import DeliveryError, MissingInputError, SettingsError, SourceError
from heap_assets.heap_api.query import rows_of_answer
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.pipelines.reports import inputs_of_report, report_day
from heap_assets.project import Project, parse_settings
from heap_assets.sources.heap_connect import Catalogue
from heap_assets.storage import Inputs, Lake
from heap_assets_tests.activation.scripted_server import Call, Say, Scripted, scripted
from heap_assets_tests.pipelines.delivery_world import BEFORE, CATALOGUE, DAY, NOW, events, why

SETTINGS = """
start_date: 2026-11-01
lake: ./lake
catalogue: ./catalogue.yaml
heap: {{app_id: "1", source: {{kind: folder, path: ./bucket}}}}
identity: {{identifiers: [{{type: email}}]}}
{more}
reports:
  signups:
    sql: |
      select event_id, plan, time, [plan] as plans from heap.events_signup order by event_id
    outputs: [{outputs}]
    {report}
"""


class Mailbox:
    """What a handler of aiosmtpd keeps; `refuse` answers every mail so."""

    def __init__(self) -> None:
        self.mails: list[Message] = []
        self.refuse = ""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.refuse:
            return self.refuse
        self.mails.append(message_from_bytes(envelope.content or b""))  # type: ignore[arg-type]
        return "250 OK"


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, int]]:
    box = Mailbox()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    yield box, port
    controller.stop()


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEAP_ASSETS_NOW", NOW)
    monkeypatch.setenv("HEAP_QUERY_TOKEN", "qt-report-5521")


def project_of(folder: Path, outputs: str = "", report: str = "", more: str = "") -> Project:
    (folder / "catalogue.yaml").write_text(CATALOGUE)
    text = SETTINGS.format(outputs=outputs, report=report, more=more)
    settings = parse_settings(text, folder / "heap_assets.yaml")
    project = Project(settings, Catalogue.load(settings.catalogue), Lake.open(settings.lake.url))
    for day in (BEFORE, DAY):
        rows = events(day, "signup", (day.day * 10 + 1, 1), (day.day * 10 + 2, 2))
        project.lake.write("heap/events/signup", str(day), rows, Inputs({"dump": "1"}))
    return project


def test_files_hold_all_days_up_to_the_day(tmp_path: Path) -> None:
    project = project_of(tmp_path, "{kind: csv, to: ./out}, {kind: parquet, to: ./out}")
    assert inputs_of_report(project, "signups") == ["heap/events/signup"]
    assert report_day(project, "signups", BEFORE).rows == 2
    reported = report_day(project, "signups", DAY)
    assert (reported.rows, reported.sent) == (4, ("reports.signups.outputs[0]", "reports.signups.outputs[1]"))
    rows = list(csv.DictReader(io.StringIO((tmp_path / f"out/signups-{DAY}.csv").read_text())))
    assert [row["event_id"] for row in rows] == ["191", "192", "201", "202"]
    assert rows[0]["time"] == "2026-11-19T12:00:00Z"
    assert json.loads(rows[0]["plans"]) == ["pro"]
    stored = pl.read_parquet(tmp_path / f"out/signups-{DAY}.parquet")
    assert stored.equals(project.lake.scan("reports/signups", str(DAY)).collect())


def test_a_mail_has_the_result_attached_and_goes_once(tmp_path: Path, mailbox: tuple[Mailbox, int]) -> None:
    box, port = mailbox
    output = (
        f"{{kind: email, host: 127.0.0.1, port: {port}, starttls: false, sender: r@x.example, "
        "recipients: [a@x.example, b@x.example], subject: '{report} of {day}: {rows} rows'}"
    )
    project = project_of(tmp_path, output, report="description: Who signed up")
    report_day(project, "signups", DAY)
    [mail] = box.mails
    assert (mail["Subject"], mail["To"]) == (f"signups of {DAY}: 4 rows", "a@x.example, b@x.example")
    text, attached = mail.get_payload()  # type: ignore[misc]
    assert "Who signed up" in text.get_payload()  # type: ignore[union-attr]
    assert attached.get_filename() == f"signups-{DAY}.csv"  # type: ignore[union-attr]
    content = attached.get_payload(decode=True).decode()  # type: ignore[union-attr]
    assert content.splitlines()[0] == "event_id,plan,time,plans"
    assert len(content.splitlines()) == 5
    assert report_day(project, "signups", DAY).unchanged == ("reports.signups.outputs[0]",)
    assert len(box.mails) == 1
    project.lake.write("heap/events/signup", str(DAY), events(DAY, "signup", (7, 1)), Inputs({"dump": "2"}))
    assert report_day(project, "signups", DAY).rows == 3
    assert len(box.mails) == 2


def test_an_output_that_refuses_does_not_keep_it_from_the_others(tmp_path: Path, mailbox: tuple[Mailbox, int]) -> None:
    box, port = mailbox
    box.refuse = "554 no"
    mail = f"{{kind: email, host: 127.0.0.1, port: {port}, starttls: false, recipients: [a@x.example]}}"
    project = project_of(tmp_path, f"{mail}, {{kind: csv, to: ./out}}")
    with pytest.raises(DeliveryError, match=r"reports.signups.outputs\[0\] did not take the mail") as refused:
        report_day(project, "signups", DAY)
    assert "a@x.example" not in str(refused.value)
    assert (tmp_path / f"out/signups-{DAY}.csv").exists()
    box.refuse = ""
    again = report_day(project, "signups", DAY)
    assert (again.sent, again.unchanged) == (("reports.signups.outputs[0]",), ("reports.signups.outputs[1]",))
    assert len(box.mails) == 1


def test_the_asset_waits_for_its_tables_and_has_a_schedule(tmp_path: Path) -> None:
    project = project_of(tmp_path, "{kind: csv, to: ./out}", report='schedule: "0 8 * * 1"')
    definitions = build_definitions(project)
    schedule = definitions.resolve_schedule_def("report_signups")
    assert schedule.cron_schedule == "0 8 * * 1"
    job = definitions.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection={dg.AssetKey(["reports", "signups"])}
    )
    result = job.execute_in_process(instance=dg.DagsterInstance.ephemeral(), partition_key=str(DAY))
    assert result.success, why(result)
    assert (tmp_path / f"out/signups-{DAY}.csv").exists()
    with pytest.raises(MissingInputError, match="heap/events/signup has no day up to"):
        report_day(project, "signups", project.settings.start_date)


HEAP_QUERY = """
heap_query: {{url: "{url}/api/connect/query", token: "${{HEAP_QUERY_TOKEN}}", {how}}}"""


def of_heap(tmp_path: Path, server: Scripted, how: str = "rows: data.rows") -> Project:
    return project_of(tmp_path, report="source: heap", more=HEAP_QUERY.format(url=server.url, how=how))


def test_a_report_of_heap_asks_by_the_address_and_body_of_the_settings(tmp_path: Path) -> None:
    def answer(call: Call) -> Say:
        assert call.headers["authorization"] == "Key qt-report-5521"
        [row] = [{"plan": "pro", "n": 3, "more": {"a": 1}}]
        return Say(document={"data": {"rows": [row, {"plan": "free", "n": 2**70}]}})

    how = 'rows: data.rows, authorization: "Key {token}", body: {q: {text: "{sql}"}, limit: 5}'
    with scripted(answer) as server:
        project = of_heap(tmp_path, server, how)
        assert inputs_of_report(project, "signups") == []
        assert report_day(project, "signups", DAY).rows == 2
        [call] = server.calls
        assert call.path == "/api/connect/query"
        body = json.loads(call.body)
        assert body["limit"] == 5
        assert body["q"]["text"].startswith("select event_id")
        stored = project.lake.scan("reports/signups", str(DAY)).collect().to_dicts()
        assert stored == [
            {"plan": "pro", "n": "3", "more": '{"a": 1}'},
            {"plan": "free", "n": str(2**70), "more": None},
        ]
        with pytest.raises(MissingInputError, match="answers as of now"):
            report_day(project, "signups", BEFORE)


@pytest.mark.parametrize(
    ("say", "message"),
    [
        (Say(404, {"error": "nobody@x.example"}), "heap_query answered HTTP 404 to POST"),
        (Say(200, {"rows": []}), "heap_query.rows is 'data.rows', and the answer has no 'data' there"),
        (Say(200, {"data": {"rows": 7}}), "heap_query.rows leads to int, not to a list of rows"),
        (Say(200, {"data": {"rows": [[1]]}}), "name their columns by heap_query.columns"),
        (Say(hang_up=True), "heap_query could not be reached"),
    ],
)
def test_an_answer_that_is_not_as_the_settings_say_is_told(tmp_path: Path, say: Say, message: str) -> None:
    with scripted(lambda call: say) as server, pytest.raises(SourceError) as told:
        report_day(of_heap(tmp_path, server), "signups", DAY)
    assert message in str(told.value)
    assert "nobody@x.example" not in str(told.value)


def test_rows_are_lists_beside_the_names_of_columns() -> None:
    assert rows_of_answer([[1, None], [None, "x"]], ["a", "b"]).to_dicts() == [
        {"a": 1, "b": None},
        {"a": None, "b": "x"},
    ]
    assert rows_of_answer([]).height == 0


@pytest.mark.parametrize(
    ("report", "outputs", "message"),
    [
        ("source: heap", "", "reports.signups.source is 'heap', but there is no `heap_query:` section"),
        ("file: x.sql", "", "one of sql and file"),
        ("max_rows: 0", "", "reports.signups.max_rows"),
        ("", "{kind: xls, to: x}", "'csv', 'parquet', 'email'"),
        ("", "{kind: email, host: h, recipients: []}", "recipients"),
        ("", "{kind: email, host: h, recipients: [a], user_env: U, starttls: false}", "over TLS only"),
    ],
)
def test_a_report_that_cannot_be_is_refused(tmp_path: Path, report: str, outputs: str, message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        project_of(tmp_path, outputs, report)
    assert message in str(refused.value)


def test_a_result_that_is_too_large_and_a_table_that_there_is_not_are_told(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="more than 3 rows"):
        report_day(project_of(tmp_path, report="max_rows: 3"), "signups", DAY)
    project = project_of(tmp_path)
    text = (SETTINGS.format(outputs="", report="", more="")).replace("heap.events_signup", "heap.events_sign")
    bad = Project(parse_settings(text, tmp_path / "heap_assets.yaml"), project.catalogue, project.lake)
    with pytest.raises(SettingsError, match=r"reports\.signups"):
        build_definitions(bad)
