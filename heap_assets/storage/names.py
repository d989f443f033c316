"""One rule for names that become folders of the lake."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from urllib.parse import quote

_LONGEST = 150


def folder_name(name: str, reserved: Collection[str] = ()) -> str:
    """Spell a name as one folder: letters, digits, `_`, `-`, `.` and `~` stay, other bytes of its UTF-8 become `%XX`.

    The first character is spelled `%XX`, too, where the name would otherwise be `.`, `..`, one of `reserved`, or hidden
    (`.tmp-`). What is longer than 150 characters then is cut there and ends in `%` and a hash of the whole name. A lone
    surrogate counts as the three bytes it would have in UTF-8. Different names have different folders.

    >>> folder_name("sign_up"), folder_name("Sign Up/2"), folder_name("..")
    ('sign_up', 'Sign%20Up%2F2', '%2E.')
    """
    data = name.encode("utf-8", "surrogatepass")
    spelled = quote(data, safe="")
    if spelled in {"", ".", "..", *reserved} or spelled.startswith(".tmp-"):
        spelled = f"%{data[0]:02X}{spelled[1:]}" if data else "%"
    if len(spelled) > _LONGEST:
        spelled = f"{spelled[:_LONGEST]}%{hashlib.sha256(data).hexdigest()[:16]}"
    return spelled
