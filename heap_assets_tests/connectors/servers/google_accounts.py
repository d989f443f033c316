"""Google's token endpoint and error shape: service accounts (a signed JWT) and refresh tokens.

Each token has its scopes; a scope that is missing is told apart from a token that is no longer good.
"""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt

from heap_assets_tests.connectors.servers.core import Answer, Call, VendorServer, route
from heap_assets_tests.connectors.servers.limits import Limit

LIFETIME = 3600.0
EMAIL = "sync@project.iam.gserviceaccount.com"
CLIENT = {"client_id": "client", "client_secret": "client-4711-abc", "refresh_token": "refresh-4711-abc"}
_AUDIENCE = "https://oauth2.googleapis.com/token"
"""What google-auth always names, whatever the `token_uri`; others name that."""
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_PUBLIC = _KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    415: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class GoogleServer(VendorServer):
    """An API of Google's whose calls carry a bearer token of this `scope`."""

    scope = ""

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self._scopes: dict[str, frozenset[str]] = {}

    def service_account(self) -> dict[str, str]:
        """Return the content of a key file, as `google.oauth2.service_account` reads it."""
        key = _KEY.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account",
            "project_id": "project",
            "private_key_id": "1",
            "private_key": key.decode(),
            "client_email": EMAIL,
            "token_uri": f"{self.url}/token",
        }

    def grant(self, *scopes: str) -> str:
        """Issue a token outside the flow; without scopes it has the API's own."""
        token = self.tokens.issue(LIFETIME, self.clock())
        self._scopes[token] = frozenset(scopes or (self.scope,))
        return token

    @route("POST", "/token", "token", takes="application/x-www-form-urlencoded")
    def token(self, call: Call) -> Answer | dict[str, Any]:
        form = call.body or {}
        if form.get("grant_type") == "refresh_token":
            if any(form.get(name) != value for name, value in CLIENT.items()):
                raise self.refuse(_oauth_error("invalid_grant", "Bad Request"), "the refresh token is the client's")
            scopes = form.get("scope", self.scope).split()
        elif form.get("grant_type") == _JWT_GRANT:
            scopes = self._signed_scopes(form.get("assertion", ""))
        else:
            raise self.refuse(_oauth_error("unsupported_grant_type", "Invalid grant_type"), "the grant type is known")
        token = self.grant(*scopes)
        return {"access_token": token, "expires_in": int(LIFETIME), "scope": " ".join(scopes), "token_type": "Bearer"}

    def _signed_scopes(self, assertion: str) -> list[str]:
        try:
            # its times are of the caller's own clock, so they are judged by the real one
            claims = jwt.decode(assertion, certs=_PUBLIC, audience=[_AUDIENCE, f"{self.url}/token"])
        except ValueError as error:
            raise self.refuse(_oauth_error("invalid_grant", "Invalid JWT."), "the assertion is a signed JWT") from error
        if claims.get("iss") != EMAIL:
            raise self.refuse(_oauth_error("invalid_grant", "Not a valid email."), "iss is the service account")
        if claims["exp"] - claims["iat"] > LIFETIME:
            raise self.refuse(_oauth_error("invalid_grant", "Invalid JWT: too long"), "exp is within an hour of iat")
        scopes = str(claims.get("scope", "")).split()
        if not scopes:
            raise self.refuse(_oauth_error("invalid_scope", "Empty or missing scope"), "the assertion names scopes")
        return scopes

    def authorise(self, call: Call) -> None:
        token = self.bearer(call)
        if not self.tokens.lives(token, self.clock()):
            known = self.tokens.knows(token)
            raise self.refuse(self.unauthorised(call), None if known else "calls carry a token of the token endpoint")
        if self.scope not in self._scopes[token]:
            message = "Request had insufficient authentication scopes."
            answer = self.failure(403, message, reason="ACCESS_TOKEN_SCOPE_INSUFFICIENT")
            raise self.refuse(answer, f"the token has the scope {self.scope}")

    def unauthorised(self, call: Call) -> Answer:
        answer = self.error(401, "", "Request had invalid authentication credentials.")
        answer.headers["WWW-Authenticate"] = 'Bearer realm="https://accounts.google.com/", error="invalid_token"'
        return answer

    def throttled(self, call: Call, wait: float, limit: Limit | None, **options: Any) -> Answer:
        return self.failure(
            429, "Quota exceeded.", reason="RATE_LIMIT_EXCEEDED", quota_limit=limit.name if limit else "any"
        )

    def broken(self, call: Call, *, status: int = 500) -> Answer:
        return self.error(status, "", "Internal error encountered.")

    def refused_batch(self, call: Call, **options: Any) -> Answer:
        return self.error(400, "", "Request contains an invalid argument.")

    def error(self, status: int, code: str, message: str) -> Answer:
        return Answer(status, {"error": {"code": status, "message": message, "status": _STATUS[status]}})

    def failure(self, status: int, message: str, *, reason: str, **metadata: str) -> Answer:
        """Shape an error with its `ErrorInfo`."""
        answer = self.error(status, "", message)
        info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}
        answer.body["error"]["details"] = [info | {"metadata": metadata}]
        return answer


def _oauth_error(code: str, description: str) -> Answer:
    return Answer(400, {"error": code, "error_description": description})
