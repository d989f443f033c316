"""The kind `javascript` passes the shared suite: a function of a few lines that speaks a vendor's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from heap_assets_tests.connectors import kit
from heap_assets_tests.connectors.servers.core import VendorServer
from heap_assets_tests.connectors.test_optimizely import KEY, _Optimizely

SEND = """
export default function send(rows, context) {
  return {
    url: "{url}/v3/profiles",
    body: rows.map((row) => ({ attributes: { email: row.key, ...row.properties } })),
  };
}
"""


class TestJavascript(_Optimizely):
    """Profiles of a data platform, in JavaScript of one's own."""

    settings = (
        'kind: javascript\nfile: send.js\nhosts: ["{host}"]\nheaders: {x-api-key: "${OPTIMIZELY_KEY}"}\n'
        "batch_rows: 100\nproperties: {plan: plan_name, score: pql_score, is_pql: pql}"
    )
    secrets = {"OPTIMIZELY_KEY": KEY}
    many = 250
    absent = {
        "no_match": "what a key without a record means is the function's to say",
        "duplicate_key": "a key is one profile",
    }

    @pytest.fixture
    def deployment(self, server: VendorServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> kit.Deployment:
        monkeypatch.setenv("OPTIMIZELY_KEY", KEY)
        (tmp_path / "functions").mkdir()
        (tmp_path / "functions" / "send.js").write_text(SEND.replace("{url}", server.url))
        return kit.Deployment.make(tmp_path, self.settings.replace("{host}", server.url.removeprefix("http://")))

    def cleared(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**row, "plan_name": None}

    def beyond_limits(self) -> list[Mapping[str, Any]]:
        return []

    def expected(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"plan": row["plan_name"], "score": row["pql_score"], "is_pql": row["pql"]}

    def held(self, server: VendorServer) -> list[tuple[str, Mapping[str, Any]]]:
        profiles = server.records.get("profiles", {})
        return [(key, {n: v for n, v in values.items() if n != "email"}) for key, values in profiles.items()]
