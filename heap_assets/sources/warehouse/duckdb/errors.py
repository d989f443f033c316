"""What DuckDB says of an error, without the values that it quotes, which may be somebody's."""

from __future__ import annotations

import re

import duckdb

from heap_assets.sources.warehouse.arrow import SourceFailedError

_QUOTED = re.compile(r"""["'](?:.*["']|.*)""")
"""From the first quote to the last: what is quoted may hold quotes itself, and end in another line."""
_VALUE = re.compile(r"\b([Vv]alue) \S+")
_HOLDER = re.compile(r"Conflicting lock is held in (?P<program>\S+)?.*?\(PID (?P<pid>\d+)\)", re.DOTALL)


def reason(error: Exception) -> str:
    """Return the first line of an error."""
    line = str(error).splitlines()[0]
    if isinstance(error, duckdb.InvalidInputException):  # what a function, such as error(), says of a row
        return f"{line.partition(':')[0]}: a function failed on a row; its text may hold values and is left out"
    if isinstance(error, duckdb.DataError | SourceFailedError):
        return _VALUE.sub(r"\1 …", _QUOTED.sub("'…'", line))
    return line


def holder(error: duckdb.Error) -> str | None:
    """Say who has the file open for writing, if that is what keeps us out."""
    if "Could not set lock" not in str(error):
        return None
    match = _HOLDER.search(str(error))
    return f"process {match['pid']} ({match['program']})" if match else "another process"
