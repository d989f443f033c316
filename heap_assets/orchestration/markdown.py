"""Markdown of the generated pages of docs/."""

import re
from collections.abc import Iterable, Sequence


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a `|` inside a cell is escaped."""
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def heading_anchor(heading: str) -> str:
    """Return the fragment that a heading is linked by, as GitHub and MyST make it.

    >>> heading_anchor("`heap.source`, kind: s3")
    'heapsource-kind-s3'
    """
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
