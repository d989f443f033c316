"""What PostgreSQL says of an error, without the query and without values, which may be somebody's."""

from __future__ import annotations

import re

import adbc_driver_manager

_QUOTED = re.compile(r'"[^"]*"')
_STATE_OF_RAISE = re.compile(r"\bP000\d\b")
_RAISED = "a function of the database raised an exception, whose text may hold values: it is in the server's log"
_LACKS_VALUE = "23502"
"""SQLSTATE of a null in a column that is NOT NULL."""
_ABOUT_DATA = ("22", "23")
"""Classes of SQLSTATE whose messages quote values."""


def reason(error: adbc_driver_manager.Error) -> str:
    """Return the server's own line; what errors about data quote is blanked out."""
    state = error.sqlstate or ""
    if state.startswith("P0"):
        return _RAISED
    line = server_line(str(error), quotes_values=state[:2] in _ABOUT_DATA and state != _LACKS_VALUE)
    if state == _LACKS_VALUE:  # it quotes names alone
        return f"{line}: ALTER TABLE … ALTER COLUMN … DROP NOT NULL lets them in"
    return line


def server_line(text: str, *, quotes_values: bool) -> str:
    """Return the server's line of a driver's message; blanked out if it may quote values."""
    if _STATE_OF_RAISE.search(text):
        return _RAISED
    line = (text.partition("ERROR:")[2] or text.partition("FATAL:")[2] or text).strip().splitlines()[0]
    return _QUOTED.sub('"…"', line) if quotes_values else line
