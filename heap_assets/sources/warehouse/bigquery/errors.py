"""Translates Google's errors into ours, which name the table and the remedy, without data values or keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import google.auth.exceptions
import pyarrow as pa
import requests
from google.api_core import exceptions as google_errors

from heap_assets.sources.warehouse.base import AccessError, RelationMissingError, WarehouseBusyError, WarehouseError

_OF_THE_PROJECT = (
    (
        r"billingNotEnabled|billing has not been enabled|billing account \S+ (is )?(disabled|closed)",
        "attach a billing account to the project, or mend the one that it has",
    ),
    (
        r"has not been used in project|accessNotConfigured|SERVICE_DISABLED",
        "enable the APIs: gcloud services enable bigquery.googleapis.com bigquerystorage.googleapis.com",
    ),
    (
        r"VPC Service Controls|vpcServiceControls",
        "have this service account, or this machine, let into the project's VPC Service Controls perimeter",
    ),
)
"""What no role mends: pattern of reason and message, and what does."""
_NOT_NOW = (google_errors.TooManyRequests, google_errors.ServiceUnavailable, google_errors.DeadlineExceeded)
_QUOTA = frozenset({"quotaExceeded", "rateLimitExceeded", "resourcesExceeded"})
_REQUEST = re.compile(r"^(?:GET|POST|PUT|PATCH|DELETE) \S+: ")
_VALUE = re.compile(r"((?:Bad|Invalid|Could not parse|Could not cast)[^:'\"]*)[:'\"].*", re.DOTALL)
_CLIENT = ("google.", "requests", "grpc")
"""Modules of Google's client: what they raise besides Google's errors is about answers that they do not understand."""


READING = (
    "grant roles/bigquery.dataViewer on the dataset, roles/bigquery.jobUser and roles/bigquery.readSessionUser "
    "on the project"
)
WRITING = "grant roles/bigquery.dataEditor on the dataset and roles/bigquery.jobUser on the project"


@contextmanager
def explained(subject: str, remedy: str = READING, section: str = "warehouse") -> Iterator[None]:
    """Turn Google's errors into ours; `subject` is the table or project they are about, `remedy` what to grant,
    `section` that of the settings.

    Raises
    ------
    AccessError, RelationMissingError
        What is refused, and what is not there.
    WarehouseBusyError
        A quota that is used up, a service that does not answer: trying later helps.
    WarehouseError
        Everything else, an answer that nobody understands among it.
    """
    try:
        yield
    except google.auth.exceptions.DefaultCredentialsError as error:
        raise AccessError(
            f"no BigQuery credentials: set {section}.credentials, or run `gcloud auth application-default login`"
        ) from error
    except google.auth.exceptions.TransportError as error:
        raise WarehouseBusyError(f"{subject}: Google cannot be reached: {_message(error)}") from None
    except google.auth.exceptions.GoogleAuthError as error:
        raise AccessError(
            f"BigQuery refuses the credentials for {subject} ({type(error).__name__}): "
            "is the key revoked, or of another project?"
        ) from None
    except google_errors.NotFound as error:
        raise RelationMissingError(f"{subject}: {_message(error)}") from error
    except google_errors.Forbidden as error:
        if _reasons(error) & _QUOTA:
            raise WarehouseBusyError(f"{subject}: BigQuery's quota is used up: {_message(error)}") from error
        project_remedy = _remedy_of_project(error)
        advice = (project_remedy or remedy) if remedy else ""
        raise AccessError(
            f"{subject}: {_message(error)}{f': {advice}' if advice else ''}", remedy=project_remedy
        ) from error
    except google_errors.Unauthorized as error:
        raise AccessError(f"{subject}: BigQuery refuses the credentials: is the key revoked?") from error
    except google_errors.RetryError as error:
        last = error.cause or error
        raise WarehouseBusyError(
            f"{subject}: BigQuery is not available, given up after retries: {_message(last)}"
        ) from error
    except _NOT_NOW as error:
        raise WarehouseBusyError(f"{subject}: BigQuery is not available now: {_message(error)}") from error
    except google_errors.GoogleAPIError as error:
        raise WarehouseError(f"{subject}: {_message(error)}") from error
    except requests.exceptions.JSONDecodeError:
        raise WarehouseError(f"{subject}: {_STRANGE}") from None
    except requests.exceptions.RequestException as error:
        raise WarehouseBusyError(f"{subject}: BigQuery cannot be reached ({type(error).__name__})") from None
    except TimeoutError:
        raise WarehouseBusyError(f"{subject}: BigQuery did not answer in time") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        if not _raised_in_client(error):
            raise
        raise WarehouseError(f"{subject}: {_STRANGE}") from None


@contextmanager
def understood(subject: str) -> Iterator[None]:
    """Turn what Arrow says of rows or a schema that are none into our error."""
    try:
        yield
    except (pa.ArrowException, EOFError, KeyError):
        raise WarehouseError(f"{subject}: {_STRANGE}") from None


_STRANGE = "BigQuery's answer cannot be understood: is there a proxy on the way, or is the endpoint another service's?"


def _raised_in_client(error: Exception) -> bool:
    traceback = error.__traceback__
    while traceback is not None:
        if str(traceback.tb_frame.f_globals.get("__name__", "")).startswith(_CLIENT):
            return True
        traceback = traceback.tb_next
    return False


def _remedy_of_project(error: google_errors.Forbidden) -> str:
    """Return what mends a refusal that is about no permission; empty if a role does."""
    text = " ".join([*sorted(_reasons(error)), str(error.message)])
    return next((remedy for pattern, remedy in _OF_THE_PROJECT if re.search(pattern, text, re.IGNORECASE)), "")


def _reasons(error: google_errors.GoogleAPICallError) -> set[str]:
    return {str(entry.get("reason")) for entry in error.errors if isinstance(entry, dict)}


def _message(error: Exception) -> str:
    """The first line of the reason, without the values that errors about data quote."""
    text = str(getattr(error, "message", "") or error).splitlines()[0]
    return _VALUE.sub(r"\1 …", _REQUEST.sub("", text.partition("; reason:")[0]))
