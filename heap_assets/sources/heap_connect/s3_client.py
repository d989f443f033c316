"""S3: the client that reads a bucket, and the IAM policies that it needs: two actions, one role, one external id."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from heap_assets.errors import SettingsError, SourceError

if TYPE_CHECKING:
    import boto3


_BUCKET = re.compile(r"^(?!xn--)(?!.*\.\.)(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
_SESSION = "heap-assets"


@dataclass(frozen=True)
class S3Access:
    """How a bucket is reached. Without keys or profile, boto3's own chain of credentials is used.

    Attributes
    ----------
    role_arn, external_id
        A role to assume, and the external id that its trust policy requires; renewed before it expires.
    endpoint_url
        Of an S3 other than Amazon's, such as a local server.
    """

    region: str = "us-east-1"
    endpoint_url: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    profile: str | None = None
    role_arn: str | None = None
    external_id: str | None = None


def s3_client(access: S3Access) -> Any:
    """Return a boto3 S3 client.

    Raises SettingsError if an external id is given without a role, or the profile does not exist.
    """
    from botocore.config import Config  # takes half a second, which only readers of a bucket shall wait

    session = _session(access)
    retries = Config(retries={"max_attempts": 8, "mode": "standard"}, connect_timeout=10, read_timeout=60)
    return session.client("s3", endpoint_url=access.endpoint_url, config=retries)


def caller_of(access: S3Access) -> str:
    """Return the ARN that requests are made as, which `preflight` shows.

    Raises SourceError if there are no credentials, or the role may not be assumed.
    """
    with explained("asking AWS who we are"):
        client = _session(access).client("sts", endpoint_url=access.endpoint_url)
        return str(client.get_caller_identity()["Arn"])


class explained:
    """Turn botocore's errors into a SourceError that names the operation and what to do."""

    def __init__(self, doing: str) -> None:
        self.doing = doing

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if error is None:
            return
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        if isinstance(error, ClientError):
            raise SourceError(self._refused(error.operation_name, error.response)) from error
        if isinstance(error, NoCredentialsError):
            raise SourceError(
                f"{self.doing}: no AWS credentials were found: set AWS_PROFILE or keys in the environment, "
                "heap.source.profile, or run where a role is attached"
            ) from error
        if isinstance(error, BotoCoreError | OSError):
            raise SourceError(f"{self.doing}: {error}") from error

    def _refused(self, operation: str, response: Mapping[str, Any]) -> str:
        code = str(response.get("Error", {}).get("Code", "?"))
        if operation == "AssumeRole":
            return (
                f"{self.doing}: heap.source.role_arn may not be assumed ({code}): its trust policy must name who asks "
                "and heap.source.external_id (`heap-assets preflight --trust PRINCIPAL_ARN` prints it)"
            )
        if code == "NoSuchBucket":
            return f"{self.doing}: there is no such bucket: check heap.source.bucket"
        if code in {"404", "NoSuchKey", "NotFound"}:
            return f"{self.doing} does not exist"
        if code in {"412", "PreconditionFailed"}:
            return f"{self.doing} has changed since it was listed; it is read again next time"
        if code in {"403", "AccessDenied"}:
            return f"{self.doing}: access denied; the role needs s3:GetObject and s3:ListBucket"
        return f"{self.doing}: S3 answered {code}"


class _NoCredentials:
    """Credentials that raise NoCredentialsError on use, as boto3 does elsewhere; to assume a role without any."""

    def get_frozen_credentials(self) -> None:
        from botocore.exceptions import NoCredentialsError

        raise NoCredentialsError


def role_arn(account_id: str, role_name: str) -> str:
    """Spell a role's ARN; account ids are accepted as AWS shows them, with hyphens."""
    digits = account_id.replace("-", "").strip()
    if not re.fullmatch(r"\d{12}", digits):
        raise SettingsError(f"account id {account_id!r} is not 12 digits, such as 1234-5678-9012")
    return f"arn:aws:iam::{digits}:role/{role_name}"


def check_bucket(name: str) -> str:
    """Return a bucket's name; SettingsError, with the right form, for a URL, an ARN, a path or an invalid name."""
    if _BUCKET.match(name):
        return name
    bare = re.sub(r"^(https?://|s3[an]?://|arn:aws:s3:::)", "", name.strip())
    bare = re.sub(r"^s3[.-][a-z0-9.-]*amazonaws\.com/", "", bare).split("/")[0]
    bare = re.sub(r"\.s3[.-].*$", "", bare)
    hint = f" Did you mean {bare!r}?" if _BUCKET.match(bare) and bare != name else ""
    raise SettingsError(
        f"bucket {name!r} is not a bucket name: write the name only, without s3://, https:// or a path, "
        f"such as 'heap-rs3-acme'.{hint}"
    )


def _session(access: S3Access) -> boto3.Session:
    import boto3
    from botocore.exceptions import ProfileNotFound

    if access.external_id and not access.role_arn:
        raise SettingsError("an external id is given but no role to assume: set the role's ARN as well")
    try:
        base = boto3.Session(
            aws_access_key_id=access.access_key_id,
            aws_secret_access_key=access.secret_access_key,
            aws_session_token=access.session_token,
            profile_name=access.profile,
            region_name=access.region,
        )
    except ProfileNotFound as error:
        raise SettingsError(
            f"heap.source.profile is {access.profile!r}, which AWS's configuration on this machine does not have"
        ) from error
    return base if access.role_arn is None else _assumed(base, access)


def _assumed(base: Any, access: S3Access) -> boto3.Session:
    import boto3
    import botocore.session
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

    def client(service: str, **options: Any) -> Any:
        credentials = {name: value for name, value in options.items() if name.startswith("aws_")}
        return base.client(service, endpoint_url=access.endpoint_url, **credentials)

    extra = {"RoleSessionName": _SESSION, "DurationSeconds": 3600}
    if access.external_id:
        extra["ExternalId"] = access.external_id
    own = base.get_credentials() or _NoCredentials()
    fetcher = AssumeRoleCredentialFetcher(client, own, str(access.role_arn), extra_args=extra)
    session: Any = botocore.session.get_session()
    session._credentials = DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")
    session.set_config_variable("region", access.region)
    return boto3.Session(botocore_session=session)


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

    Raises SettingsError if the external id is empty: without one, anybody who may act for the principal could be
    tricked into it.
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
