"""What may be repeated of an error: the reason and the column, never the values that it quotes."""

from __future__ import annotations

import re

_QUOTED = re.compile(r"""(?s)"[^"]*"|'[^']*'|`[^`]*`|\[[^\]]*\]""")
_NAMED = re.compile(r"""column '([^']*)'|column "([^"]*)"|for column `([^`]*)`|in column '([^']*)'""")
_LONGEST = 300


def redacted(error: Exception) -> str:
    """Return the first line of an error with everything quoted or bracketed blanked out, but for a column's name.

    Polars quotes cells: conversion from str to i64 failed in column 'n' for 1 out of 1 values: ["ann@example.com"].
    """
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    names = [next(filter(None, found.groups())) for found in _NAMED.finditer(line)]
    shown = _QUOTED.sub("…", line)[:_LONGEST]
    return f"{shown} (column {', '.join(dict.fromkeys(names))})" if names else shown
