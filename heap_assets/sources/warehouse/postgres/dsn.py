"""PostgreSQL's connection strings, in every form that libpq takes: URIs, keywords, several hosts, socket folders.

libpq itself reads them when it connects. They are read here for what messages may show of them, and to refuse what it
would misread: an error of libpq quotes the piece that it could not read, which may be a piece of the password.
Source: PostgreSQL's documentation, 34.1.1 Connection Strings.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from heap_assets.sources.warehouse.base import AccessError

_HOW = (
    "write a URI that begins with postgresql://, with signs such as @ : / ? # % in the password percent-encoded, or "
    "keywords (host, port, user, password, dbname), each with = and its value, quoted if it has blanks"
)
_SCHEME = re.compile(r"postgres(ql)?://")
_AUTHORITY = re.compile(r"\A[^@/]*@")
_HOST = re.compile(r"[\w.~-]*\Z|\[[0-9A-Fa-f:.%]+\]\Z|/.*\Z")
_KEYWORD = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'(?=\s|\Z)|((?:[^\s\\']|\\.)*))")
_OPTIONS = frozenset(
    {
        "host", "hostaddr", "port", "dbname", "user", "password", "passfile", "require_auth", "channel_binding",
        "connect_timeout", "client_encoding", "options", "application_name", "fallback_application_name",
        "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
        "replication", "gssencmode", "sslmode", "requiressl", "sslnegotiation", "sslcompression", "sslcert",
        "sslkey", "sslpassword", "sslcertmode", "sslrootcert", "sslcrl", "sslcrldir", "sslsni", "ssl",
        "requirepeer", "ssl_min_protocol_version", "ssl_max_protocol_version", "min_protocol_version",
        "max_protocol_version", "krbsrvname", "gsslib", "gssdelegation", "scram_client_key", "scram_server_key",
        "service", "servicefile", "target_session_attrs", "load_balance_hosts", "oauth_issuer", "oauth_client_id",
        "oauth_client_secret", "oauth_scope", "sslkeylogfile",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Dsn:
    """A connection string that libpq understands; `server` is what messages call it."""

    text: str = field(repr=False)
    options: Mapping[str, str] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Dsn:
        """Read a connection string.

        Raises
        ------
        AccessError
            If libpq would not understand it, or would take a piece of the password for something else; quotes nothing.
        """
        scheme = _SCHEME.match(text)
        if scheme is None and re.match(r"\s*(jdbc:)?postgres(ql)?(\+\w+)?:", text):
            raise AccessError(
                f"the dsn begins with another scheme than postgresql://, as of SQLAlchemy or JDBC: {_HOW}"
            )
        options = _of_uri(text[scheme.end() :]) if scheme else _of_keywords(text)
        hosts, ports = options.get("host", ""), options.get("port", "")
        if not set(options) <= _OPTIONS or not all(map(_HOST.match, hosts.split(","))):
            raise _misread()
        if not all(port.isdecimal() or not port for port in ports.split(",")):
            raise _misread()
        return cls(text, options)

    @property
    def server(self) -> str:
        """Hosts with ports, and the database; nothing else."""
        if "service" in self.options and not {"host", "hostaddr"} & set(self.options):
            return f"service {self.options['service']}"
        hosts = self._setting("host", "PGHOST") or self._setting("hostaddr", "PGHOSTADDR") or "localhost"
        ports = (self._setting("port", "PGPORT") or "5432").split(",")
        host_names = hosts.split(",")
        ports = ports * len(host_names) if len(ports) == 1 else ports
        pairs = (f"{host or 'localhost'}:{port or '5432'}" for host, port in zip(host_names, ports, strict=False))
        database = self._setting("dbname", "PGDATABASE") or self._setting("user", "PGUSER")
        return f"{','.join(pairs)}/{database}"

    @property
    def hosts(self) -> list[str]:
        """The `host:port` of every server that libpq may connect to; folders of sockets are left out."""
        if "service" in self.options and not {"host", "hostaddr"} & set(self.options):
            return [f"service {self.options['service']}"]
        # an address is what is connected to, the name beside it is for certificates
        hosts = self._setting("hostaddr", "PGHOSTADDR") or self._setting("host", "PGHOST") or "localhost"
        ports = (self._setting("port", "PGPORT") or "5432").split(",")
        host_names = hosts.split(",")
        ports = ports * len(host_names) if len(ports) == 1 else ports
        pairs = zip((host.strip("[]") for host in host_names), ports, strict=False)
        return [f"{host or 'localhost'}:{port or '5432'}" for host, port in pairs if not host.startswith("/")]

    def connecting(self, timeout: int) -> str:
        """Return the string to connect with: with a timeout and the program's name unless it has its own."""
        defaults = {"connect_timeout": str(timeout), "fallback_application_name": "heap_assets"}
        added = [f"{name}={value}" for name, value in defaults.items() if name not in self.options]
        if not added:
            return self.text
        if not _SCHEME.match(self.text):
            return " ".join([self.text, *added])
        has_query = "?" in _AUTHORITY.sub("", _SCHEME.sub("", self.text, count=1), count=1)
        return f"{self.text}{'&' if has_query else '?'}{'&'.join(added)}"

    def hidden(self, text: str) -> str:
        """Blank out the password, should a message quote it."""
        secrets = {self.options[name] for name in self.options if "password" in name or "secret" in name}
        for secret in sorted(filter(None, secrets), key=len, reverse=True):
            text = text.replace(secret, "…")
        return text

    def _setting(self, option: str, variable: str) -> str:
        return self.options.get(option) or os.environ.get(variable, "")


def _of_uri(uri: str) -> dict[str, str]:
    """Read what stands behind the scheme as libpq does: the password ends at the first @."""
    if re.search(r"%(?![0-9A-Fa-f]{2})|\s", uri):
        raise _misread()
    options: dict[str, str] = {}
    authority = _AUTHORITY.match(uri)
    if authority:
        user, _, password = authority.group()[:-1].partition(":")
        options |= {"user": user, "password": password}
        uri = uri[authority.end() :]
    address, has_query, query = uri.partition("?")
    if "@" in address:
        raise _misread()
    server, _, database = address.partition("/")
    hosts, ports = [], []
    for host_and_port in server.split(","):
        parts = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(.*))?", host_and_port)
        if parts is None:
            raise _misread()
        hosts.append(parts[1])
        ports.append(parts[2] or "")
    options |= {"host": ",".join(hosts), "port": ",".join(ports) if any(ports) else "", "dbname": database}
    for pair in query.split("&") if has_query and query else ():
        name, equals, value = pair.partition("=")
        if not equals or "=" in value:
            raise _misread()
        options[unquote(name)] = value
    return {name: unquote(value) for name, value in options.items() if value}


def _of_keywords(text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    position, end = 0, len(text.rstrip())
    while position < end:
        pair = _KEYWORD.match(text, position)
        if pair is None or (pair.end() < end and not text[pair.end()].isspace()):
            raise _misread()
        value = pair[3] if pair[2] is None else pair[2]
        options[pair[1]] = re.sub(r"\\(.)", r"\1", value)
        position = pair.end()
    return options


def _misread() -> AccessError:
    return AccessError(f"the dsn cannot be understood: {_HOW}")
