"""The policies of deploy/ give what is needed and nothing else; the script for Google has exactly its roles."""

from __future__ import annotations

import json
import re
import subprocess

from heap_assets.sources.heap_connect import read_policy
from heap_assets_tests.deployment.dockerfile import DEPLOY

POLICIES = DEPLOY / "policies"


def test_the_policy_for_dumps_is_the_one_that_preflight_proposes() -> None:
    assert json.loads((POLICIES / "aws_dumps.json").read_text()) == read_policy("heap-rs3-acme")


def test_the_policy_for_the_lake_names_one_bucket_and_no_wildcard_of_actions() -> None:
    policy = json.loads((POLICIES / "aws_lake.json").read_text())
    actions = {action for statement in policy["Statement"] for action in statement["Action"]}
    assert actions == {
        "s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"
    }  # fmt: skip
    resources = {one for statement in policy["Statement"] for one in statement["Resource"]}
    assert resources == {"arn:aws:s3:::acme-heap-lake", "arn:aws:s3:::acme-heap-lake/*"}


def test_the_script_for_google_gives_these_roles_and_no_key() -> None:
    script = (POLICIES / "google.sh").read_text()
    assert set(re.findall(r"roles/[\w.]+", script)) == {
        "roles/bigquery.jobUser", "roles/bigquery.dataEditor", "roles/bigquery.dataViewer", "roles/storage.objectUser"
    }  # fmt: skip
    assert "keys create" not in script
    assert subprocess.run(["sh", "-n", str(POLICIES / "google.sh")], check=False).returncode == 0
