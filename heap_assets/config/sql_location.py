"""Where other programs find the tables of a publish target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class SqlLocation:
    """Where a target's tables are, as BI tools are told: no user, no secret.

    Attributes
    ----------
    dialect
        Of its SQL, as sqlglot calls it.
    sqlalchemy_uri
        URI without user and password.
    tableau
        Attributes of Tableau's connection to it.
    qualifies
        Whether a table's name needs the database before the schema.
    is_upper
        Whether names are in capitals there.
    """

    dialect: str
    database: str
    schema: str
    sqlalchemy_uri: str
    tableau: Mapping[str, str]
    qualifies: bool = False
    is_upper: bool = False

    def spelled(self, name: str) -> str:
        """Return a published name as the target spells it."""
        return name.upper() if self.is_upper else name
