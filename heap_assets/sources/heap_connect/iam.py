"""What AWS must allow so that dumps can be read: two actions on one bucket, by one role, with one external id."""

from __future__ import annotations

from typing import Any

from heap_assets.errors import SettingsError
from heap_assets.sources.heap_connect.s3_client import check_bucket


def read_policy(bucket: str, prefix: str = "") -> dict[str, Any]:
    """Return the IAM policy to read a bucket: s3:ListBucket on it, s3:GetObject in it, and nothing else."""
    arn = f"arn:aws:s3:::{check_bucket(bucket)}"
    folder = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
    listing: dict[str, Any] = {"Sid": "ListDumps", "Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [arn]}
    if folder:
        listing["Condition"] = {"StringLike": {"s3:prefix": [f"{folder}*"]}}
    reading = {"Sid": "ReadDumps", "Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [f"{arn}/{folder}*"]}
    return {"Version": "2012-10-17", "Statement": [listing, reading]}


def trust_policy(principal_arn: str, external_id: str) -> dict[str, Any]:
    """Return the trust policy of the role: whoever runs this platform may assume it, with the external id only.

    Raises
    ------
    SettingsError
        If the external id is empty: without one, anybody who may act for the principal could be tricked into it.
    """
    if not external_id.strip():
        raise SettingsError("the external id is empty: choose one that nobody else uses, such as a UUID")
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "AssumeForDumps",
                "Effect": "Allow",
                "Principal": {"AWS": principal_arn},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"sts:ExternalId": external_id}},
            }
        ],
    }
