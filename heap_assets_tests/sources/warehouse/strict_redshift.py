"""A stand-in for Redshift: PostgreSQL behind a gateway that refuses what Redshift does not know.

The gateway speaks PostgreSQL's protocol. It says that it is Redshift, folds names to small letters, parses every
statement in Redshift's dialect, takes no function, type or clause beyond those that Redshift documents, and carries
COPY out: a Parquet file of S3 into a table, by the place of its columns, its types held to those that COPY takes
(AWS: "Using COPY with columnar data formats"). Views WITH NO SCHEMA BINDING are made anew after each ALTER TABLE.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import polars as pl
import pyarrow.parquet as pq
import sqlglot
from adbc_driver_postgresql import dbapi
from sqlglot import exp

VERSION = (
    "SELECT 'PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC gcc (GCC) 3.4.2 20041017 (Red Hat 3.4.2-6.fc3), "
    "Redshift 1.0.115250'"
)
CATALOG = r"""
CREATE SCHEMA redshift_catalog;
CREATE DOMAIN redshift_catalog.super AS jsonb;
CREATE DOMAIN redshift_catalog.varbyte AS bytea;
CREATE FUNCTION redshift_catalog.json_parse(t text) RETURNS redshift_catalog.super LANGUAGE sql AS 'SELECT t::jsonb';
CREATE FUNCTION redshift_catalog.json_serialize(v jsonb) RETURNS text LANGUAGE sql AS 'SELECT v::text';
CREATE FUNCTION redshift_catalog.to_varbyte(t text, f text) RETURNS redshift_catalog.varbyte LANGUAGE sql
    AS 'SELECT decode(t, f)';
CREATE FUNCTION redshift_catalog.from_varbyte(v bytea, f text) RETURNS text LANGUAGE sql AS 'SELECT encode(v, f)';
CREATE FUNCTION redshift_catalog.fnv_hash(v text, s bigint DEFAULT 0) RETURNS bigint LANGUAGE sql
    AS 'SELECT hashtextextended(v, s)';
CREATE VIEW redshift_catalog.svv_tables AS
    SELECT table_schema::text, table_name::text, table_type::text, NULL::text AS remarks
    FROM information_schema.tables WHERE table_schema <> 'redshift_catalog';
CREATE VIEW redshift_catalog.svv_columns AS
    SELECT table_schema::text, table_name::text, column_name::text, ordinal_position::int, is_nullable::text,
        CASE WHEN domain_name IN ('super', 'varbyte') THEN domain_name::text ELSE data_type::text END AS data_type,
        character_maximum_length::int, numeric_precision::int, numeric_scale::int
    FROM information_schema.columns WHERE table_schema <> 'redshift_catalog';
CREATE TABLE redshift_catalog.unbound (name text PRIMARY KEY, query text);
CREATE FUNCTION redshift_catalog.refused(t text) RETURNS int LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION USING ERRCODE = '42601', MESSAGE = t; END $$;
CREATE FUNCTION redshift_catalog.view_made(n text, q text) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'CREATE VIEW ' || n || ' AS ' || q;
    INSERT INTO redshift_catalog.unbound VALUES (n, q) ON CONFLICT (name) DO UPDATE SET query = q;
    RETURN 1;
END $$;
CREATE FUNCTION redshift_catalog.altered(t text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE v record;
BEGIN
    FOR v IN SELECT * FROM redshift_catalog.unbound LOOP EXECUTE 'DROP VIEW IF EXISTS ' || v.name; END LOOP;
    EXECUTE t;
    FOR v IN SELECT * FROM redshift_catalog.unbound LOOP
        BEGIN EXECUTE 'CREATE VIEW ' || v.name || ' AS ' || v.query; EXCEPTION WHEN undefined_table THEN NULL; END;
    END LOOP;
    RETURN 1;
END $$;
"""
_DRIVERS_OWN = re.compile(r"pg_catalog\.pg_(type|attribute|range)|FROM pg_class", re.IGNORECASE)
_STRINGS = re.compile(r"'(?:[^']|'')*'")
_NAMES = re.compile(r'"[^"]*"')
_COPY = re.compile(
    r"COPY (\S+) FROM '(s3://([^/']+)/([^']+))' IAM_ROLE (default|'arn:aws:iam::\d{12}:role/[^']+') FORMAT AS PARQUET"
)
_UNBOUND = re.compile(r"CREATE VIEW (\S+) AS (.*) WITH NO SCHEMA BINDING", re.DOTALL)
_SIMPLE = re.compile(
    r"BEGIN|BEGIN READ ONLY|COMMIT|ROLLBACK|SET timezone TO 'UTC'|LOCK \"\w+\"\.\"\w+\"|FETCH FORWARD \d+ FROM \w+"
    r"|COMMENT ON (TABLE|COLUMN) .*",
    re.DOTALL,
)
_DECLARED = re.compile(r"DECLARE \w+ CURSOR FOR (.*)", re.DOTALL)
_SORTED = re.compile(r" SORTKEY \([^)]*\)")
_FUNCTIONS = frozenset(
    {"fnv_hash", "parse_json", "json_serialize", "to_varbyte", "from_varbyte", "st_asewkt", "count", "sum", "coalesce",
     "cast", "max", "min", "case"}
)  # fmt: skip
_TYPES = frozenset(
    {"BIGINT", "INT", "SMALLINT", "DECIMAL", "DOUBLE", "FLOAT", "BOOLEAN", "VARCHAR", "DATE", "TIMESTAMP",
     "TIMESTAMPTZ", "TIME", "SUPER", "VARBINARY", "VARBYTE"}
)  # fmt: skip
_REFUSED = re.compile(
    r"\b(jsonb|bytea|text|regclass|xmin|on conflict|filter|index|distinct on|advisory|returning|lateral)\b|::|\[\]",
    re.IGNORECASE,
)
_LOADED: Mapping[str, str] = {
    "int16": "smallint", "int32": "integer", "int64": "bigint", "double": "double precision", "float": "real",
    "bool": "boolean", "date32[day]": "date", "timestamp[us]": "timestamp without time zone",
    "string": "character varying", "large_string": "character varying",
}  # fmt: skip


_PROTOCOL = 3


class RefusedError(Exception):
    """Redshift does not take this statement."""


def translated(text: str) -> str:
    """Return a statement of Redshift as PostgreSQL says it; RefusedError if Redshift would refuse it."""
    statement = _folded(text.strip())
    if statement.upper().startswith("SELECT VERSION()"):
        return VERSION
    if _DRIVERS_OWN.search(statement) or _SIMPLE.fullmatch(statement) or not statement:
        return statement
    if view := _UNBOUND.fullmatch(statement):
        _check(view[2])
        return f"SELECT redshift_catalog.view_made({_literal(view[1])}, {_literal(view[2])})"
    declared = _DECLARED.fullmatch(statement)
    _check(declared[1] if declared else statement)
    if statement.startswith("ALTER TABLE"):
        return f"SELECT redshift_catalog.altered({_literal(statement)})"
    return _SORTED.sub("", statement)


def _check(statement: str) -> None:
    bare = _STRINGS.sub("''", _NAMES.sub('"n"', statement))
    if refused := _REFUSED.search(bare):
        raise RefusedError(f"Redshift does not know {refused[0]}")
    if re.search(r"ALTER COLUMN .* TYPE(?! VARCHAR)", bare):
        raise RefusedError("ALTER COLUMN TYPE lengthens VARCHAR alone")
    if bare.startswith("CREATE OR REPLACE VIEW"):
        raise RefusedError("REPLACE takes the identical set of columns alone")
    tree = sqlglot.parse_one(statement, dialect="redshift")
    if isinstance(tree, exp.Command):
        raise RefusedError(f"Redshift does not know {statement[:40]}")
    for function in tree.find_all(exp.Func):
        name = function.name if isinstance(function, exp.Anonymous) else function.sql_name()
        if name.lower() not in _FUNCTIONS and not isinstance(function, exp.AtTimeZone | exp.Connector | exp.If):
            raise RefusedError(f"Redshift does not know the function {name}")
    for kind in tree.find_all(exp.DataType):
        if kind.this.name not in _TYPES and kind.sql(dialect="redshift") not in _TYPES:
            raise RefusedError(f"Redshift does not know the type {kind.sql()}")


def _folded(text: str) -> str:
    """Names in small letters, also those in quotation marks; texts stay."""
    parts = re.split(r"('(?:[^']|'')*')", text)
    return "".join(part if part.startswith("'") else _NAMES.sub(lambda m: m[0].lower(), part) for part in parts)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@dataclass(frozen=True)
class Redshift:
    """A database: by the gateway, as PostgreSQL has it, and where files are staged."""

    uri: str
    postgres: str
    bucket: str
    s3: dict[str, str]


class Gateway:
    """The gateway before a PostgreSQL server, in a process of its own: a driver may hold this one while it waits."""

    def __init__(self, address: str, s3: Mapping[str, str]) -> None:
        self._address, self._s3 = address, s3
        self._host, port = address.rpartition("@")[2].split(":")
        self._port = int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._folder = Path(tempfile.mkdtemp(prefix="rs-", dir="/tmp"))
        self._folder.chmod(0o755)

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connected, args=(client,), daemon=True).start()

    def _connected(self, client: socket.socket) -> None:
        server = socket.create_connection((self._host, self._port))
        with suppress(OSError), client, server, ExitStack() as ending:
            ending.callback(server.shutdown, socket.SHUT_RDWR)  # also of what waits for its answers
            threading.Thread(target=self._answers, args=(server, client), daemon=True).start()
            database, code = "", 0
            while code >> 16 != _PROTOCOL:  # requests for encryption, then the start of the session, have no type
                head = _exactly(client, 8)
                length, code = struct.unpack("!II", head)
                settings = _exactly(client, length - 8)
                server.sendall(head + settings)
                words = settings.decode().split("\0")
                database = dict(zip(words[::2], words[1::2], strict=False)).get("database", "")
            while True:
                kind = _exactly(client, 1)
                (length,) = struct.unpack("!I", _exactly(client, 4))
                body = _exactly(client, length - 4)
                if kind in b"PQ":
                    name, body = (body[: body.index(0) + 1], body[body.index(0) + 1 :]) if kind == b"P" else (b"", body)
                    text, after = body[: body.index(0)].decode(), body[body.index(0) :]
                    body = name + self._said(text, database).encode() + after
                server.sendall(kind + struct.pack("!I", len(body) + 4) + body)

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def _said(self, text: str, database: str) -> str:
        try:
            copied = _COPY.fullmatch(_folded(text.strip()))
            return self._copied(database, copied[1], copied[3], copied[4]) if copied else translated(text)
        except Exception as error:
            return f"SELECT redshift_catalog.refused({_literal(f'{type(error).__name__}: {error}'[:500])})"

    def _copied(self, database: str, table: str, bucket: str, key: str) -> str:
        """Write a file of S3 as one that PostgreSQL's own COPY reads."""
        client = boto3.client(
            "s3", endpoint_url=self._s3["aws_endpoint_url"], region_name="us-east-1",
            aws_access_key_id="test", aws_secret_access_key="test",
        )  # fmt: skip
        path = self._folder / f"{threading.get_ident()}.parquet"
        client.download_file(bucket, key, str(path))
        schema = pq.read_schema(path)
        columns = self._columns(database, table)
        if len(columns) != len(schema):
            raise RefusedError(f"the file has {len(schema)} columns, the table {len(columns)}")
        frame = pl.read_parquet(path)
        for field, (kind, length, precision, scale) in zip(schema, columns, strict=True):
            decimal = re.fullmatch(r"decimal128\((\d+), (\d+)\)", str(field.type))
            fits = (kind, precision, scale) == ("numeric", int(decimal[1]), int(decimal[2])) if decimal else False
            if not fits and _LOADED.get(str(field.type)) != kind:
                raise RefusedError(f"{field.name} is {field.type} in the file and {kind} in the table")
            if kind == "character varying" and (frame[field.name].str.len_bytes().max() or 0) > length:  # type: ignore[operator]
                raise RefusedError(f"Spectrum Scan Error: {field.name} is longer than {length} bytes")
        target = path.with_suffix(".csv")
        frame.write_csv(target, include_header=False, quote_style="non_numeric", null_value="\\N")
        target.chmod(0o644)
        return f"COPY {table} FROM '{target}' (FORMAT csv, NULL '\\N')"

    def _columns(self, database: str, table: str) -> list[tuple[Any, ...]]:
        schema, name = table.replace('"', "").split(".")
        with (
            dbapi.connect(f"postgresql://{self._address}/{database}", autocommit=True) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(
                "SELECT data_type, character_maximum_length, numeric_precision, numeric_scale "
                f"FROM redshift_catalog.svv_columns WHERE table_schema = '{schema}' AND table_name = '{name}' "
                "ORDER BY ordinal_position"
            )
            return list(cursor.fetchall())


def _exactly(stream: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = stream.recv(size - len(data))
        if not part:
            raise OSError("closed")
        data += part
    return data


@contextmanager
def strict_redshift(address: str, s3: Mapping[str, str]) -> Iterator[Callable[[str], Redshift]]:
    """Run the gateway before a PostgreSQL server; gives what makes one of its empty databases one of Redshift."""
    command = [sys.executable, "-m", __spec__.name, address, json.dumps(dict(s3))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())

        def prepared(postgres: str) -> Redshift:
            database = postgres.rpartition("/")[2]
            with dbapi.connect(postgres, autocommit=True) as connection, connection.cursor() as cursor:
                for statement in re.split(r";\n(?=CREATE)", CATALOG.strip().rstrip(";")):
                    cursor.execute(statement)
                cursor.execute(f"ALTER DATABASE {database} SET search_path = public, redshift_catalog")
            uri = f"postgresql://{address.rpartition('@')[0]}@127.0.0.1:{port}/{database}"
            return Redshift(uri, postgres, "s3://staging/loads", dict(s3))

        try:
            yield prepared
        finally:
            process.kill()


if __name__ == "__main__":
    gateway = Gateway(sys.argv[1], json.loads(sys.argv[2]))
    print(gateway.port, flush=True)
    gateway.serve()
