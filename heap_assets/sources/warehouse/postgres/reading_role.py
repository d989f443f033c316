"""The statements that give a role of PostgreSQL the least rights to read what is published, and no other."""

from __future__ import annotations

from collections.abc import Sequence

from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]

from heap_assets.sources.warehouse.publish import PublishError
from heap_assets.values import sql_identifier, sql_literal

_POWERS = ("rolsuper", "rolcreaterole", "rolcreatedb", "rolreplication", "rolbypassrls")


def reading_role(cursor: dbapi.Cursor, role: str, schemas: Sequence[str]) -> list[str]:
    """Write the statements for a role: it may connect, and read what is in the schemas now and later.

    What is published later is readable by default privileges, which hold for what the publishing user makes. Tables
    that others make in these schemas are not: a `heap_resolved` view reads its tables with its owner's rights.

    Raises
    ------
    PublishError
        If the role exists and may do more than read, or a schema is not there yet.
    """
    name = sql_identifier(role)
    cursor.execute("SELECT current_user::text, current_database()::text")
    [(owner, database)] = cursor.fetchall()
    cursor.execute(
        f"SELECT {' OR '.join(_POWERS)} OR EXISTS (SELECT FROM pg_auth_members WHERE member = r.oid) "
        f"FROM pg_roles r WHERE rolname = {sql_literal(role)}"
    )
    existing = [bool(powerful) for (powerful,) in cursor.fetchall()]
    if role == owner or any(existing):
        raise PublishError(
            f"the role {role} exists and may do more than read, or is a member of others: choose another name"
        )
    cursor.execute("SELECT nspname::text FROM pg_namespace")
    present = {schema for (schema,) in cursor.fetchall()}
    if missing := [schema for schema in schemas if schema not in present]:
        raise PublishError(f"the schema {missing[0]} is not there yet: publish first, then make the role")
    statements = [] if existing else [f"CREATE ROLE {name} LOGIN NOINHERIT"]
    statements += [
        f"ALTER ROLE {name} SET default_transaction_read_only = on",
        f"GRANT CONNECT ON DATABASE {sql_identifier(database)} TO {name}",
    ]
    for schema in map(sql_identifier, schemas):
        statements += [
            f"GRANT USAGE ON SCHEMA {schema} TO {name}",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {name}",
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {sql_identifier(owner)} IN SCHEMA {schema} "
            f"GRANT SELECT ON TABLES TO {name}",
        ]
    return statements
