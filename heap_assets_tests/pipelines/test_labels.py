"""Labels as a reviewed file: differences, plan, apply and drift against a server that holds two environments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.cli.labels import labels as command
from heap_assets.errors import HeapAssetsError, SettingsError, SourceError
from heap_assets.heap_api import FileLabels, Label, apply_changes, changes_between, read_labels, write_labels
from heap_assets.orchestration.definitions import build_definitions
from heap_assets.pipelines.labels import drift_of_labels, plan_of_labels
from heap_assets.project import open_project
from heap_assets_tests.activation.scripted_server import Call, Say, Scripted, scripted

SETTINGS = """
start_date: 2026-11-01
lake: ./lake
heap: {{app_id: "1", source: {{kind: folder, path: ./bucket}}}}
identity: {{identifiers: [{{type: email}}]}}
labels:
  environments:
    staging: {{url: "{url}/api", token: "${{LABELS_TOKEN}}", values: {{app: "11"}}}}
    production: {{url: "{url}/api", token: "${{LABELS_TOKEN}}", values: {{app: "22"}}}}
  api:
    list_path: /apps/{{app}}/labels
    create_path: /apps/{{app}}/labels
    update_path: /apps/{{app}}/labels/{{id}}
    delete_path: /apps/{{app}}/labels/{{id}}
    next_page: next
"""
FILE = """
labels:
  Signed Up: {description: A new account, type: click, rules: [{selector: "#go", page: /join}]}
  Paid: {description: Money, type: custom, active: true}
"""
SIGNED_UP = {"description": "A new account", "type": "click", "rules": [{"selector": "#go", "page": "/join"}]}


class Environments:
    """Two apps with labels by id, three a page; what its contract does not have is refused."""

    def __init__(self) -> None:
        self.apps: dict[str, dict[str, dict[str, Any]]] = {"11": {}, "22": {}}
        self.refuse: set[str] = set()
        self.number = 100

    def put(self, app: str, name: str, **definition: Any) -> str:
        self.number += 1
        self.apps[app][str(self.number)] = {"name": name, **definition}
        return str(self.number)

    def names(self, app: str) -> list[str]:
        return sorted(label["name"] for label in self.apps[app].values())

    def answer(self, call: Call) -> Say:
        if call.headers.get("authorization") != "Bearer lt-labels-9901":
            return Say(401)
        match = re.fullmatch(r"/api/apps/(11|22)/labels(?:/(\d+))?", call.path)
        if match is None:
            return Say(404)
        labels, label_id = self.apps[match[1]], match[2]
        if call.method == "GET" and label_id is None:
            first = int(call.query.get("from", 0))
            rows = [{"id": int(key), "created_at": "2026", **label} for key, label in sorted(labels.items())]
            more = f"/apps/{match[1]}/labels?from={first + 3}" if len(rows) > first + 3 else None
            return Say(document={"labels": rows[first : first + 3], "next": more})
        if call.method == "POST" and label_id is None:
            if call.json["name"] in self.refuse or "id" in call.json or call.json["name"] in self.names(match[1]):
                return Say(422, {"error": "no"})
            self.put(match[1], **call.json)
            return Say(201)
        if label_id not in labels:
            return Say(404)
        if call.method == "PUT":
            labels[label_id] = call.json
            return Say()
        if call.method == "DELETE":
            del labels[label_id]
            return Say(204)
        return Say(405)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Environments, Scripted]]:
    environments = Environments()
    monkeypatch.setenv("LABELS_TOKEN", "lt-labels-9901")
    monkeypatch.setenv("HEAP_ASSETS_SETTINGS", str(tmp_path / "heap_assets.yaml"))
    monkeypatch.chdir(tmp_path)
    with scripted(environments.answer) as server:
        (tmp_path / "heap_assets.yaml").write_text(SETTINGS.format(url=server.url))
        (tmp_path / "heap_labels.yaml").write_text(FILE)
        yield environments, server


def run(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(command, list(arguments))
    assert result.exit_code == status, (result.output, result.exception)
    return result


def test_apply_makes_an_environment_as_the_file_and_then_changes_nothing(
    there: tuple[Environments, Scripted],
) -> None:
    environments, server = there
    kept = environments.put("11", "Old")
    paid = environments.put("11", "Paid", description="Money", type="custom", active=False)
    planned = run("plan", "staging").output
    assert "create Signed Up" in planned
    assert "update Paid: active" in planned
    assert "1 labels of staging are not in the file" in planned
    assert not any(call.method != "GET" for call in server.calls)
    run("apply", "staging", "--yes")
    assert environments.names("11") == ["Old", "Paid", "Signed Up"]
    assert environments.apps["11"][paid] == {"name": "Paid", "description": "Money", "type": "custom", "active": True}
    assert SIGNED_UP in [
        {name: value for name, value in label.items() if name != "name"} for label in environments.apps["11"].values()
    ]
    calls = len(server.calls)
    assert "nothing was changed" in run("apply", "staging", "--yes").output
    assert all(call.method == "GET" for call in server.calls[calls:])
    run("apply", "staging", "--yes", "--prune")
    assert kept not in environments.apps["11"]
    assert environments.apps["22"] == {}


def test_what_is_refused_ends_it_and_again_goes_on(there: tuple[Environments, Scripted]) -> None:
    environments, _ = there
    environments.refuse = {"Signed Up"}
    result = CliRunner().invoke(command, ["apply", "production", "--yes"])
    assert isinstance(result.exception, SourceError)
    assert "labels.environments.production answered HTTP 422 to POST" in str(result.exception)
    assert "1 of 2 changes were made in production" in result.output
    environments.refuse = set()
    assert "1 of 1 changes were made" in run("apply", "production", "--yes").output
    assert environments.names("22") == ["Paid", "Signed Up"]


def test_environments_are_compared_over_all_their_pages(there: tuple[Environments, Scripted]) -> None:
    environments, _ = there
    for number in range(8):
        for app in ("11", "22"):
            environments.put(app, f"L{number}", type="click")
    assert "have the same labels" in run("diff", "staging", "production").output
    environments.put("22", "Z", type="click")
    label = environments.put("11", "A", type="click")
    environments.apps["11"][label]["rules"] = [1]
    found = json.loads(run("diff", "staging", "production", "--json", status=1).output)
    assert found == [
        {"action": "create", "label": "A", "members": []},
        {"action": "delete", "label": "Z", "members": []},
    ]


def test_a_file_that_was_pulled_is_in_sync(there: tuple[Environments, Scripted], tmp_path: Path) -> None:
    environments, _ = there
    environments.put("22", "01", type="click", rules=[{"page": "yes", "n": 1.5}], text="05")
    result = CliRunner().invoke(command, ["pull", "production"])
    assert "is there already" in str(result.exception)
    run("pull", "production", "--replace")
    assert read_labels(tmp_path / "heap_labels.yaml")["01"].definition["text"] == "05"
    assert drift_of_labels(open_project(), "production").in_sync
    assert [str(change) for change in plan_of_labels(open_project(), "staging")] == ["create 01"]


def test_drift_is_a_check_in_dagster(there: tuple[Environments, Scripted]) -> None:
    environments, server = there
    run("apply", "staging", "--yes")
    definitions = build_definitions(open_project())
    job = definitions.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection={dg.AssetKey(["labels", "staging"])}
    )

    def judged() -> dg.AssetCheckEvaluation:
        [found] = job.execute_in_process(instance=dg.DagsterInstance.ephemeral()).get_asset_check_evaluations()
        return found

    assert judged().passed
    environments.put("11", "By hand", type="click")
    found = judged()
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.WARN
    assert found.metadata["not_in_the_file"].value == "By hand"
    assert all(call.method == "GET" for call in server.calls[-2:])
    assert definitions.resolve_schedule_def("look_at_labels").cron_schedule == "20 6 * * *"


def test_two_labels_of_one_name_and_another_host_are_told(there: tuple[Environments, Scripted]) -> None:
    environments, server = there
    environments.put("11", "Twice")
    environments.put("11", "Twice")
    with pytest.raises(SourceError, match="two labels 'Twice'"):
        plan_of_labels(open_project(), "staging")
    server.answer = lambda call: Say(document={"labels": [], "next": "http://elsewhere.example/labels"})
    with pytest.raises(SourceError, match="another host; the key was not sent there"):
        plan_of_labels(open_project(), "staging")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("labels: [a]", "has no mapping `labels:`"),
        ("labels: {A: text}", "labels.A is no mapping"),
        ("labels: {A: {}, A: {}}", "stands twice"),
    ],
)
def test_a_file_that_is_none_is_told(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "l.yaml").write_text(text)
    with pytest.raises(SettingsError) as told:
        read_labels(tmp_path / "l.yaml")
    assert message in str(told.value)


def test_without_the_section_labels_are_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = SETTINGS.format(url="http://127.0.0.1:9").partition("labels:")[0]
    (tmp_path / "heap_assets.yaml").write_text(text)
    monkeypatch.setenv("HEAP_ASSETS_SETTINGS", str(tmp_path / "heap_assets.yaml"))
    with pytest.raises(HeapAssetsError, match="labels are off"):
        plan_of_labels(open_project(), "staging")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
definitions = st.dictionaries(st.text(min_size=1, max_size=5), values, max_size=3)
files = st.dictionaries(st.text(min_size=1, max_size=5), definitions, max_size=5)


@given(files, files)
@settings(max_examples=50, deadline=None)
def test_what_was_applied_leaves_no_difference(
    tmp_path_factory: pytest.TempPathFactory, wanted: dict[str, Any], current: dict[str, Any]
) -> None:
    file = tmp_path_factory.mktemp("labels") / "l.yaml"
    write_labels(file, {name: Label(name, definition) for name, definition in current.items()})
    store = FileLabels(file)
    labels = {name: Label(name, definition) for name, definition in wanted.items()}
    apply_changes(store, changes_between(labels, store.labels(), prune=True))
    assert changes_between(labels, store.labels(), prune=True) == []
