"""`heap-assets function`: what a function makes of rows of a day, and a new one that works as it is written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.cli.functions import function
from heap_assets.config import PATH_VARIABLE
from heap_assets.functions import Limits, Pool, batches_of, bundle
from heap_assets_tests.functions.test_transform import DAY, SOURCE, Deployment, deployment
from heap_assets_tests.orchestration.test_landing import _SETTINGS

__all__ = ["deployment"]


@pytest.fixture
def folder(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Path:
    text = _SETTINGS.format(quota="{}", tables="{}") + deployment.functions
    (deployment.folder / "heap_assets.yaml").write_text(text)
    (deployment.folder / "heap_catalogue.yaml").write_text(deployment.catalogue.to_yaml())
    monkeypatch.setenv(PATH_VARIABLE, str(deployment.folder / "heap_assets.yaml"))
    return deployment.folder


def test_a_function_is_tried_on_rows_of_a_day(deployment: Deployment, folder: Path) -> None:
    deployment.write("export const short = (path) => path.slice(1, 2);", "lib.js")
    deployment.write(SOURCE)
    tried = CliRunner().invoke(function, ["test", "clean.js", "--table", "clicks", "--day", DAY, "--rows", "6"])
    assert tried.exit_code == 1
    states = re.findall(r"^(before|after|dropped|rejected|log) ", tried.output, re.MULTILINE)
    assert " ".join(states) == (
        "before dropped before dropped before after after before rejected before rejected before after log log"
    )
    assert "dropped   start page" in tried.output
    assert "rejected  clean.js:8:49: Error: cannot read" in tried.output
    asked = ["test", "clean.js", "--table", "clicks", "--day", DAY, "--rows", "3", "--json"]
    shown = json.loads(CliRunner().invoke(function, asked).output)
    assert [one["state"] for one in shown] == ["dropped", "dropped", ""]
    assert [row["part"] for row in shown[2]["after"]] == [1, 2]
    assert deployment.project().lake.partitions("heap/events/clicks") == []


@pytest.mark.parametrize("options", [[], ["--send"]])
def test_a_new_function_works_as_it_is_written(deployment: Deployment, folder: Path, options: list[str]) -> None:
    deployment.write("export default (row) => row;")
    made = CliRunner().invoke(function, ["new", "mine", *options], catch_exceptions=False)
    assert made.exit_code == 0
    assert "declare const hash" in (folder / "functions" / "heap_assets.d.ts").read_text()
    code = bundle(folder / "functions", "mine.js")
    with Pool(code, workers=1, mode="batch" if options else "row") as pool:
        [results] = pool.run(batches_of(['{"a":1}'], Limits()))
    assert results.rows[0][0] == 0
    assert CliRunner().invoke(function, ["new", "mine"]).exit_code != 0


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    folder = tmp_path_factory.mktemp("params")
    (folder / "f.js").write_text("export default (row) => ({ value: url.param(row.url, 'gclid') })")
    return Pool(bundle(folder, "f.js"), workers=1)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text(alphabet="abgclid=&+% #ä€?/0Ff", max_size=12), max_size=4),
    st.booleans(),
)
def test_url_param_reads_what_pythons_reader_of_queries_reads(params: Pool, parts: list[str], has_name: bool) -> None:
    query = "&".join([*parts, *(["gclid=a%20b+c%C3%A4"] if has_name else [])]).replace("#", "")
    address = f"https://acme.example/path?{query}#gclid=no"
    [results] = params.run(batches_of([json.dumps({"url": address})], Limits()))
    pairs = parse_qsl(urlsplit(address).query, keep_blank_values=True)
    if re.search(r"%(?![0-9A-Fa-f]{2})", query) or re.search(r"%[89A-Fa-f]", query.replace("%C3%A4", "")):
        return  # a stray % or half a character: decoded otherwise, as far as it can be
    assert results.rows[0][1]["value"] == next((value for name, value in pairs if name == "gclid"), None)
