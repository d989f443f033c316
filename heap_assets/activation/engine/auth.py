"""How calls say who they are: fixed keys, and tokens that are fetched, kept for the process and renewed."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import quote, urlencode, urlsplit

from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.verdict import Response
from heap_assets.errors import DeliveryError
from heap_assets.redaction import register_secrets

Fetch = Callable[[Request], Response]
"""Makes one call with its retries, through the transport that refuses hosts. Raises DeliveryError without an answer."""

_FORM = "application/x-www-form-urlencoded"
_EARLY = 60.0
"""Seconds before its end at which a token counts as used up."""
_NO_GRANT = "invalid_grant"
_WHILE_ANOTHER_ASKS = (0.3, 1.5)
"""Seconds between attempts to refresh."""
_OAUTH_ERROR = re.compile(r"[A-Za-z_]{1,60}")


class AuthError(DeliveryError):
    """No token can be had."""


class RefusedError(AuthError):
    """The grant is not accepted, or not now."""


class Auth(ABC):
    """How a destination's calls are authorised."""

    @abstractmethod
    def applied(self, request: Request, fetch: Fetch) -> Request:
        """Return the request as it is sent. Raises AuthError if no token can be had."""

    def expire(self, sent: Request) -> bool:
        """Forget the token that a request was sent with, after it was refused; False if there is no other to be had."""
        del sent
        return False


@dataclass(frozen=True)
class Bearer(Auth):
    """A fixed token in the `Authorization` header."""

    token: str = field(repr=False)
    scheme: str = "Bearer"

    def applied(self, request: Request, fetch: Fetch) -> Request:
        return _with_headers(request, Authorization=f"{self.scheme} {self.token}")


@dataclass(frozen=True)
class Basic(Auth):
    """User and password, either of which may be empty."""

    user: str
    password: str = field(default="", repr=False)

    def applied(self, request: Request, fetch: Fetch) -> Request:
        return _with_headers(request, Authorization=_basic(self.user, self.password))


@dataclass(frozen=True)
class ApiKey(Auth):
    """A key in a header, in the query of the URL, or as a field of the body (a JSON object or a form)."""

    key: str = field(repr=False)
    name: str
    place: Literal["header", "query", "body"] = "header"

    def applied(self, request: Request, fetch: Fetch) -> Request:
        if self.place == "header":
            return _with_headers(request, **{self.name: self.key})
        if self.place == "query":
            join = "&" if "?" in request.url else "?"
            return replace(request, url=f"{request.url}{join}{quote(self.name)}={quote(self.key, safe='')}")
        if request.headers.get("Content-Type") == _FORM:
            pair = urlencode({self.name: self.key}).encode()
            return replace(request, body=request.body + (b"&" if request.body else b"") + pair)
        pair = json.dumps({self.name: self.key}).encode()[:-1]
        following = request.body.lstrip()[1:]
        return replace(request, body=pair + (b"" if following.lstrip().startswith(b"}") else b",") + following)


@dataclass
class _Token:
    """A token of this process, and what else its answer said."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    token: str | None = field(default=None, repr=False)
    ends: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)


_tokens: dict[str, _Token] = {}
_tokens_lock = threading.Lock()


class TokenAuth(Auth):
    """Base of logins that fetch a token: it is fetched once for all syncs and threads of the process that log in alike.

    Requests whose URL begins with `/` go to the address that the token's answer names in `base_url_from`; it must be
    on the host of the token's own address, or below one of `hosts`.
    """

    base_url_from: str = ""
    hosts: tuple[str, ...] = ()

    @abstractmethod
    def fetched(self, fetch: Fetch) -> tuple[str, float, Mapping[str, Any]]:
        """Return a new token, the seconds that it is valid, and everything that its answer said."""

    def applied(self, request: Request, fetch: Fetch) -> Request:
        cached = self._token()
        with cached.lock:  # one fetches, the others wait and share what it got
            if cached.token is None or time.monotonic() > cached.ends:
                cached.token, seconds, cached.facts = self.fetched(fetch)
                register_secrets([cached.token])
                cached.ends = time.monotonic() + max(seconds - _EARLY, seconds / 2)
            token, facts = cached.token, cached.facts
        url = self._base_url(facts) + request.url if request.url.startswith("/") else request.url
        return replace(_with_headers(request, Authorization=f"Bearer {token}"), url=url)

    def expire(self, sent: Request) -> bool:
        cached = self._token()
        with cached.lock:
            if sent.headers.get("Authorization") == f"Bearer {cached.token}":  # else somebody renewed it meanwhile
                cached.token = None
        return True

    def _token(self) -> _Token:
        name = hashlib.sha256(repr((type(self).__name__, sorted(vars(self).items()))).encode()).hexdigest()
        with _tokens_lock:
            return _tokens.setdefault(name, _Token())

    def _base_url(self, facts: Mapping[str, Any]) -> str:
        url = str(facts.get(self.base_url_from, ""))
        host, own = urlsplit(url).hostname or "", urlsplit(self._token_url).hostname
        is_ours = host == own or any(host == h or host.endswith(f".{h}") for h in self.hosts)
        if not is_ours or (host != own and not url.startswith("https://")):
            raise AuthError(f"the login names {host or 'no host'} as the address to call, which is none of its vendor")
        return url.rstrip("/")

    @property
    @abstractmethod
    def _token_url(self) -> str: ...


@dataclass(frozen=True)
class OAuth(TokenAuth):
    """A grant of OAuth 2: one call to the token endpoint, whose answer has `access_token` and `expires_in`.

    `style`: where id and secret of the client go: fields of a form or of JSON, or Basic with a form.
    """

    token_url: str
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    extra: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Further fields of the call: `scope`, `account_id`, ..."""
    style: Literal["form", "json", "basic"] = "form"
    base_url_from: str = ""
    hosts: tuple[str, ...] = ()
    lifetime: float = 1800.0
    """Seconds that a token is valid whose answer does not say it."""

    @property
    def _token_url(self) -> str:
        return self.token_url

    def grant(self) -> Mapping[str, str]:
        """Return the fields of the grant."""
        return {"grant_type": "client_credentials"}

    def fetched(self, fetch: Fetch) -> tuple[str, float, Mapping[str, Any]]:
        client = {"client_id": self.client_id, "client_secret": self.client_secret}
        form = {**self.grant(), **self.extra}
        headers = {"Accept": "application/json", "Content-Type": _FORM}
        if self.style == "basic":
            headers["Authorization"] = _basic(self.client_id, self.client_secret)
        else:
            form |= {name: value for name, value in client.items() if value}
        body = urlencode(form).encode()
        if self.style == "json":
            headers["Content-Type"], body = "application/json", json.dumps(form).encode()
        answer = fetch(Request(self.token_url, body, headers=headers))
        document = answer.fields
        token = document.get("access_token")
        if not answer.accepted or not isinstance(token, str) or not token:
            code = str(document.get("error", ""))
            said_code = f" ({code})" if _OAUTH_ERROR.fullmatch(code) else ""
            reason = f"the login is refused: HTTP {answer.status}{said_code}; check id, secret and scopes"
            raise RefusedError(reason) if code == _NO_GRANT else AuthError(reason)
        seconds = document.get("expires_in")
        return token, float(seconds) if isinstance(seconds, int | float) else self.lifetime, document


@dataclass(frozen=True)
class ClientCredentials(OAuth):
    """The grant of a server for itself."""


@dataclass(frozen=True)
class RefreshToken(OAuth):
    """The grant of a person, given once. One that changes with each use is not supported: it would have to be kept."""

    refresh_token: str = field(default="", repr=False)

    def grant(self) -> Mapping[str, str]:
        return {"grant_type": "refresh_token", "refresh_token": self.refresh_token}

    def fetched(self, fetch: Fetch) -> tuple[str, float, Mapping[str, Any]]:
        """Ask up to three times: of two processes that ask at once one is refused (destinations_a.md 1)."""
        for pause in _WHILE_ANOTHER_ASKS:
            try:
                return super().fetched(fetch)
            except RefusedError:
                time.sleep(pause)
        return super().fetched(fetch)


@dataclass(frozen=True)
class JwtBearer(OAuth):
    """The grant of an assertion that is signed with a private key (RFC 7523)."""

    private_key: str = field(default="", repr=False)
    """PEM."""
    claims: Mapping[str, str] = field(default_factory=dict)
    """`iss`, `sub`, `aud`; `iat` and `exp` are added."""
    headers: Mapping[str, str] = field(default_factory=dict)
    algorithm: str = "RS256"
    valid: float = 180.0

    def grant(self) -> Mapping[str, str]:
        import jwt  # it takes a tenth of a second, and few syncs need it

        now = int(time.time())
        claims = {**self.claims, "iat": now, "exp": now + int(self.valid)}
        try:
            signed = jwt.encode(claims, self.private_key, self.algorithm, dict(self.headers) or None)
        except (ValueError, TypeError, jwt.PyJWTError) as error:
            raise AuthError(f"the private key cannot sign ({type(error).__name__}): a PEM key is expected") from error
        return {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": signed}


def _with_headers(request: Request, **headers: str) -> Request:
    return replace(request, headers={**request.headers, **headers})


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
