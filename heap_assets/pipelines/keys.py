"""Age and end of the credentials that the settings name: which have to be replaced, and when."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from datetime import UTC, date, datetime

from heap_assets import clock
from heap_assets.project import Project


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

    A token that tells its own end (a JWT's `exp`) is believed, whatever the settings say.
    """
    states = []
    for name, key in sorted(project.settings.privacy.keys.items()):
        own_end = _end_of_token(os.environ.get(name, ""))
        by_age = date.fromordinal(key.issued.toordinal() + key.max_days) if key.issued else None
        ends = min((one for one in (own_end, key.expires, by_age) if one is not None), default=None)
        left = None if ends is None else (ends - clock.today()).days
        why = (
            "neither issued nor expires is set" if ends is None
            else "its own end" if ends == own_end
            else "expires" if ends == key.expires
            else f"{key.max_days} days after it was issued"
        )  # fmt: skip
        states.append(KeyState(name, key.issued, ends, left, why))
    return states


def _end_of_token(value: str) -> date | None:
    parts = value.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return datetime.fromtimestamp(float(claims["exp"]), UTC).date()
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return None
