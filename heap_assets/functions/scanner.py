"""The tokens of JavaScript that matter for modules: where strings, comments, templates and regular expressions end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

_TOKEN: Final = re.compile(
    r"""(?P<blank>\s+|//[^\n]*|/\*.*?\*/)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<number>\.?\d[\w.]*)
      | (?P<word>[\w$\u0080-\U0010ffff]+)
      | (?P<mark>=>|\+\+|--|.)""",
    re.VERBOSE | re.DOTALL,
)
_REGEX: Final = re.compile(r"/(?:[^/\\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+/\w*")
_BEFORE_A_VALUE: Final = frozenset(
    ("return", "typeof", "instanceof", "in", "of", "new", "delete", "void", "throw", "case", "do", "else", "yield",
     "await", "export", "default", "import")
)  # fmt: skip
"""Words after which a slash begins a regular expression and is no division."""


class Token(NamedTuple):
    """A string, number, word or mark; `depth` counts the brackets around it."""

    kind: str
    text: str
    start: int
    end: int
    depth: int


def tokens(source: str) -> Iterator[Token]:
    """Yield the tokens of a source without blanks and comments; what is in `${}` of templates, too.

    It reads no grammar: what is wrong in a source is left to the engine, which names the place.
    """
    at, depth = 0, 0
    templates: list[int] = []
    last = ""
    while at < len(source):
        if source[at] == "`" or (templates and source[at] == "}" and templates[-1] == depth):
            if source[at] == "}":
                templates.pop()
                depth -= 1
            at, is_open = _template_end(source, at + 1)
            if is_open:
                depth += 1
                templates.append(depth)
            last = "(" if is_open else "`"
            continue
        match = (_may_begin_a_value(last) and _REGEX.match(source, at)) if source[at] == "/" else None
        if match and not source.startswith(("//", "/*"), at):
            kind, text = "regex", match[0]
        else:
            match = _TOKEN.match(source, at)
            assert match is not None  # `.` matches any character
            kind, text = str(match.lastgroup), match[0]
        if text in ("}", ")", "]"):
            depth -= 1
        if kind != "blank":
            yield Token(kind, text, at, match.end(), depth)
            last = text if kind in ("word", "mark") else "0"
        if kind == "mark" and text in ("{", "(", "["):
            depth += 1
        at = match.end()


def _may_begin_a_value(last: str) -> bool:
    if last in _BEFORE_A_VALUE:
        return True
    return not (last and (last[-1].isalnum() or last[-1] in "_$)]}`" or last in ("++", "--")))


def _template_end(source: str, at: int) -> tuple[int, bool]:
    """Return where the text of a template ends, and whether it ends with `${`."""
    while at < len(source):
        if source[at] == "\\":
            at += 1
        elif source[at] == "`":
            return at + 1, False
        elif source.startswith("${", at):
            return at + 2, True
        at += 1
    return at, False
