"""Age and end of the credentials that the settings name: which have to be replaced, and when."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final
from urllib.parse import parse_qs

import polars as pl

from heap_assets import clock
from heap_assets.project import Project
from heap_assets.tables import KEYS

SCHEMA: Final = pl.Schema(
    {
        "key": pl.String(),
        "issued": pl.Date(),
        "ends": pl.Date(),
        "age_days": pl.Int64(),
        "days_left": pl.Int64(),
        "why": pl.String(),
    }
)


@dataclass(frozen=True)
class KeyState:
    """One credential, by the name of its variable; `left`: days until it has to be replaced, None if nobody knows."""

    name: str
    issued: date | None
    ends: date | None
    left: int | None
    why: str

    @property
    def is_overdue(self) -> bool:
        """Whether it has to be replaced, or nobody knows how old it is."""
        return self.left is None or self.left < 0


def key_states(project: Project) -> list[KeyState]:
    """Return the state of each credential of `privacy.keys`, by name; values are read and never shown.

    A credential that tells its own end is believed, whatever the settings say; one that tells when it was made, where
    they say nothing.
    """
    states = []
    for name, key in sorted(project.settings.privacy.keys.items()):
        own_issued, own_end = _told_by(os.environ.get(name, ""))
        issued = key.issued or own_issued
        by_age = date.fromordinal(issued.toordinal() + key.max_days) if issued else None
        ends = min((one for one in (own_end, key.expires, by_age) if one is not None), default=None)
        left = None if ends is None else (ends - clock.today()).days
        why = (
            "neither issued nor expires is set" if ends is None
            else "its own end" if ends == own_end
            else "expires" if ends == key.expires
            else f"{key.max_days} days after it was issued"
        )  # fmt: skip
        states.append(KeyState(name, issued, ends, left, why))
    return states


def keys_table(project: Project) -> pl.DataFrame:
    """Return the credentials of `privacy.keys` by the names of their variables: :data:`SCHEMA`, without values."""
    today = clock.today()
    rows = [
        (one.name, one.issued, one.ends, (today - one.issued).days if one.issued else None, one.left, one.why)
        for one in key_states(project)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def write_keys(project: Project) -> pl.DataFrame:
    """Write :func:`keys_table` as the table `privacy/keys` of the lake; returns it."""
    table = keys_table(project)
    project.lake.write(KEYS, None, table)
    return table


def _told_by(value: str) -> tuple[date | None, date | None]:
    """Return when a credential was made and when it ends, as far as it says so itself.

    A JWT does (`iat`, `exp`), and a shared access signature of Azure (`st`, `se`). A key of a Google service account
    does not: its file holds no day.
    """
    parts = value.split(".")
    try:
        if len(parts) == 3 and "sig=" not in value:
            claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
            return _day_of(claims.get("iat")), _day_of(claims.get("exp"))
        if "sig=" in value:
            signed = parse_qs(value.partition("?")[2] or value)
            begins, ends = (signed.get(name, [None])[0] for name in ("st", "se"))
            return tuple(datetime.fromisoformat(one).date() if one else None for one in (begins, ends))  # type: ignore[return-value]
    except (ValueError, AttributeError):
        pass
    return None, None


def _day_of(seconds: object) -> date | None:
    try:
        return datetime.fromtimestamp(float(str(seconds)), UTC).date()
    except (ValueError, OverflowError, OSError):
        return None
