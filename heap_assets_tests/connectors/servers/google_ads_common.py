"""What the older Ads endpoints of Google share: headers, versions, the shape of failures, partial failure by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from heap_assets_tests.connectors.servers.core import Answer, Call, Fixed, Limit, Refused
from heap_assets_tests.connectors.servers.google_accounts import GoogleServer
from heap_assets_tests.connectors.servers.shapes import fits, values

DAILY_OPERATIONS = 15_000
CONSENTS = ("GRANTED", "DENIED", "UNSPECIFIED", "UNKNOWN")
DUPLICATES = ("conversionUploadError.ORDER_ID_ALREADY_IN_USE", "conversionUploadError.CLICK_CONVERSION_ALREADY_EXISTS")
Check = Callable[[Any], tuple[str, str] | None]
"""Returns the field of a row that is wrong ("" for the row itself) and `errorEnum.CODE`."""


def _operations(call: Call) -> float:
    body = call.body if isinstance(call.body, dict) else {}
    return float(len(body.get("operations", ())) + len(body.get("conversions", ()))) or 1.0


class GoogleAdsServer(GoogleServer):
    """Calls of one developer token.

    Parameters
    ----------
    allowlisted
        False: a developer token without recent use, as every new one is.
    versions
        Those that still answer.
    row_errors
        Value in a row, and the `errorEnum.CODE` by which that row is refused.
    """

    scope = "https://www.googleapis.com/auth/adwords"

    def __init__(
        self,
        *,
        developer_token: str = "developer",
        allowlisted: bool = True,
        versions: Sequence[str] = ("v21", "v22", "v23", "v24", "v25"),
        row_errors: Mapping[str, str] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.developer_token, self.allowlisted, self.versions = developer_token, allowlisted, versions
        self.row_errors = dict(row_errors or {})

    def documented_limits(self) -> list[Limit]:
        return [Fixed("operations a day", DAILY_OPERATIONS, cost=_operations)]

    def authorise(self, call: Call) -> None:
        super().authorise(call)
        version = call.path.split("/")[1]
        if version not in self.versions:
            raise self.failed("requestError.UNSUPPORTED_VERSION", "the version still answers")
        if call.headers.get("developer-token") != self.developer_token:
            raise self.failed("authenticationError.DEVELOPER_TOKEN_INVALID", "developer-token is sent", status=401)
        login = call.headers.get("login-customer-id")
        if login is not None and not login.isdigit():
            raise self.failed("headerError.INVALID_LOGIN_CUSTOMER_ID", "login-customer-id is digits")

    def throttled(self, call: Call, wait: float, limit: Limit | None, **options: Any) -> Answer:
        told = error("quotaError.RESOURCE_EXHAUSTED")
        told["details"] = {"quotaErrorDetails": {"rateScope": "DEVELOPER", "retryDelay": f"{int(wait) + 1}s"}}
        return self.failures([told], status=429)

    def refused_batch(self, call: Call, *, code: str = "requestError.UNKNOWN", **options: Any) -> Answer:
        return self.failures([error(code)])

    def admitted(self) -> None:
        """Refuse what tokens without recent use may no longer call."""
        if not self.allowlisted:
            raise self.failed("notAllowlistedError.CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE", None, status=403)

    def failed(self, code: str, rule: str | None, *, status: int = 400) -> Refused:
        return self.refuse(self.failures([error(code)], status=status), rule)

    def failures(self, errors: list[dict[str, Any]], *, status: int = 400) -> Answer:
        answer = self.error(status, "", "Request contains an invalid argument.")
        kind = f"type.googleapis.com/google.ads.googleads.{self.versions[-1]}.errors.GoogleAdsFailure"
        answer.body["error"]["details"] = [{"@type": kind, "errors": errors, "requestId": "request"}]
        return answer

    def fields(self, call: Call, template: dict[str, Any]) -> dict[str, Any]:
        """Return the body, of these types."""
        if not fits(call.body, template):
            raise self.failed("fieldError.INVALID_VALUE", "fields have their types")
        return dict(call.body)

    def rows(self, call: Call, name: str, most: int | None = None) -> list[Any]:
        rows = self.fields(call, {}).get(name)
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) and row for row in rows):
            raise self.failed("fieldError.REQUIRED", f"{name} are objects, one at least")
        if most is not None and len(rows) > most:
            raise self.failed(f"requestError.TOO_MANY_{name.upper()}", f"at most {most} {name}")
        return rows

    def consents(self, consent: Any) -> None:
        if not isinstance(consent, dict) or any(value not in CONSENTS for value in consent.values()):
            raise self.failed("enumError.ENUM_VALUE_NOT_PERMITTED", f"consent is one of {CONSENTS}")

    def apply(
        self, call: Call, name: str, rows: list[Any], check: Check, take: Callable[[Any], None]
    ) -> Answer | dict[str, Any]:
        """Take each row that is right; without partial failure one that is wrong refuses all."""
        errors: dict[int, dict[str, Any]] = {}
        for index, row in enumerate(rows):
            known = next((self.row_errors[value] for value in values(row) if value in self.row_errors), None)
            bad = "requestError.UNKNOWN" if self.is_bad(values(row), call) else known
            field, code = ("", bad) if bad else check(row) or ("", None)
            if code:
                errors[index] = error(code, (name, index), field)
                # what was made bad breaks no rule, nor does a conversion that comes a second time
                if not bad and code not in DUPLICATES:
                    self.broke(code, call, row=True, key=index)
        if errors and not (call.body.get("enablePartialFailure") or call.body.get("partialFailure")):
            return self.failures(list(errors.values()))
        for index, row in enumerate(rows):
            if index not in errors:
                take(row)
        told: dict[str, Any] = {}
        if errors:
            failure = self.failures(list(errors.values())).body["error"]
            told["partialFailureError"] = {"code": 3, "message": failure["message"], "details": failure["details"]}
        if name == "conversions":
            told["results"] = [{} if index in errors else result(row) for index, row in enumerate(rows)]
        return told


def error(code: str, row: tuple[str, int] | None = None, field: str = "") -> dict[str, Any]:
    """Shape an error of a call, or of a row of a list."""
    kind, _, name = code.partition(".")
    told: dict[str, Any] = {"errorCode": {kind: name}, "message": name.capitalize().replace("_", " ")}
    if row is not None:
        elements: list[dict[str, Any]] = [{"fieldName": row[0], "index": row[1]}]
        told["location"] = {"fieldPathElements": elements + ([{"fieldName": field}] if field else [])}
    return told


def result(row: dict[str, Any]) -> dict[str, Any]:
    names = ("gclid", "gbraid", "wbraid", "conversionAction", "conversionDateTime")
    return {name: row[name] for name in names if name in row}
