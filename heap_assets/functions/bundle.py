"""Users' files as one script: static imports are resolved when the settings load, and nothing is loaded later."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from heap_assets.errors import SettingsError
from heap_assets.functions.scanner import Token, tokens
from heap_assets.versions import version_of

FIRST_LINE: Final = 10_001
"""Line of the first line of a bundle in the engine; lines before it are those of the helpers (`child.py`)."""
_RUNTIME: Final = 1
"""Raised when the helpers or the rules of results change in such a way that days have to be built again."""
_PLACE: Final = re.compile(r"\(?<input>:(\d+):(\d+)\)?")
_DEFAULT: Final = "$default"


@dataclass(frozen=True)
class Place:
    """Where in the users' files an error is: file below the folder of functions, line and column from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass
class _Module:
    """A file as the body of a function: as many lines as the file; `added`: line, column and length of insertions."""

    body: str
    imports: list[tuple[str, str]] = field(default_factory=list)
    """Statement that binds the names (with `$module`), and the file."""
    exports: dict[str, str] = field(default_factory=dict)
    added: list[tuple[int, int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Bundle:
    """A file and what it imports: the script, its version, and whose line each line is."""

    file: str
    code: str
    version: str
    exports: frozenset[str]
    lines: tuple[tuple[int, str, tuple[tuple[int, int, int], ...]], ...]
    """First line in the script, file, and what was inserted in it."""

    def place(self, stack: str) -> Place | None:
        """Return the innermost place of a stack that is in the users' files; None if there is none."""
        for line_text, column_text in _PLACE.findall(stack):
            line, column = int(line_text) - FIRST_LINE + 1, int(column_text)
            index = bisect_right(self.lines, line, key=lambda entry: entry[0]) - 1
            if line < 1 or index < 0:
                continue
            first, file, added = self.lines[index]
            shift = sum(length for at, start, length in added if at == line - first + 1 and column > start)
            return Place(file, line - first + 1, max(column - shift, 1))
        return None


def bundle(folder: Path, file: str) -> Bundle:
    """Return a file of the folder of functions with all that it imports, as one script.

    Raises
    ------
    SettingsError
        Naming the file and the line: it cannot be read, imports something outside the folder, a package, itself by way
        of others or a name that is not exported, or uses `import()`.
    """
    root = folder.resolve()
    modules: dict[str, _Module] = {}
    sources: dict[str, str] = {}
    _load(root, file, (), modules, sources)
    line, pieces, lines = 1, ["(function () { const $modules = {};"], []
    for name, module in modules.items():
        head = "".join(statement.replace("$module", f"$modules[{_quoted(of)}]") for statement, of in module.imports)
        pieces.append(f"\n$modules[{_quoted(name)}] = (function () {{ 'use strict'; {head}\n")
        line += 2
        lines.append((line, name, tuple(module.added)))
        getters = ", ".join(f"get {_quoted(outside)}() {{ return {own}; }}" for outside, own in module.exports.items())
        pieces.append(f"{module.body}\nreturn {{ {getters} }}; }})();")
        line += module.body.count("\n") + 1
    pieces.append(f"\nreturn $modules[{_quoted(file)}]; }})()")
    version = version_of({"runtime": _RUNTIME, "entry": file, "files": sources})
    return Bundle(file, "".join(pieces), version, frozenset(modules[file].exports), tuple(lines))


def _load(
    root: Path, file: str, importers: tuple[str, ...], modules: dict[str, _Module], sources: dict[str, str]
) -> None:
    """Add a file after those that it imports."""
    if file in importers:
        raise SettingsError(f"functions: {' → '.join([*importers, file])}: these files import each other in a circle")
    if file in modules:
        return
    path = (root / file).resolve()
    if not path.is_relative_to(root):
        raise SettingsError(f"functions: {file} is outside the folder of functions {root.name}/")
    try:
        # a line ends with \n alone in the engine's counting
        source = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError as error:
        raise SettingsError(f"functions: there is no file {file} in {root}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"functions: {file} cannot be read as UTF-8: {type(error).__name__}") from error
    module = _Rewriter(file, source).module()
    for index, (statement, specifier) in enumerate(module.imports):
        target = ((root / file).parent / specifier).resolve()
        if not target.is_relative_to(root):
            raise SettingsError(f"functions: {file} imports {specifier!r}, which is outside the folder of functions")
        inner = target.relative_to(root).as_posix()
        _load(root, inner, (*importers, file), modules, sources)
        module.imports[index] = (statement, inner)
        for name in re.findall(r'"([^"]+)":', statement):
            if name not in modules[inner].exports:
                raise SettingsError(f"functions: {file} imports {name!r} from {inner}, which does not export it")
    modules[file] = module
    sources[file] = source


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class _Rewriter:
    """Blanks the import and export words of one file, so that every other character stays at its place."""

    def __init__(self, file: str, source: str) -> None:
        self.file, self.source = file, source
        self.tokens = list(tokens(source))
        self.body = list(source)
        self.result = _Module("")

    def module(self) -> _Module:
        at = 0
        while at < len(self.tokens):
            token = self.tokens[at]
            before, after = self._text(at - 1), self._text(at + 1)
            if token.kind == "word" and before != "." and after != ":":
                if token.text == "import" and after in ("(", "."):
                    self._refuse(token, f"`import{after}` is not there: import files by `import … from './file.js'`")
                if token.depth == 0 and token.text == "import":
                    at = self._import(at)
                elif token.depth == 0 and token.text == "export":
                    self._export(at)
            at += 1
        self.result.body = "".join(self.body)
        return self.result

    def _text(self, at: int) -> str:
        return self.tokens[at].text if 0 <= at < len(self.tokens) else ""

    def _line(self, token: Token) -> int:
        return self.source.count("\n", 0, token.start) + 1

    def _refuse(self, token: Token, why: str) -> None:
        raise SettingsError(f"functions: {self.file}:{self._line(token)}: {why}")

    def _blank(self, start: int, end: int) -> None:
        for index in range(start, end):
            if self.body[index] != "\n":
                self.body[index] = " "

    def _import(self, at: int) -> int:
        """Blank an import statement, note what it binds, and return the index of its last token."""
        end = next((i for i in range(at + 1, len(self.tokens)) if self.tokens[i].kind == "string"), None)
        if end is None:
            self._refuse(self.tokens[at], "an import without a file")
        assert end is not None
        specifier = self.tokens[end].text[1:-1]
        if not specifier.startswith(("./", "../")):
            self._refuse(
                self.tokens[at],
                f"imports {specifier!r}; only files of the folder of functions can be imported, as './file.js'",
            )
        names = [token.text for token in self.tokens[at + 1 : end] if token.text != "from"]
        self.result.imports.append((self._bindings(self.tokens[at], names), specifier))
        self._blank(self.tokens[at].start, self.tokens[end].end)
        return end

    def _bindings(self, token: Token, names: list[str]) -> str:
        text = " ".join(names)
        match = re.fullmatch(r"(?:([\w$]+)(?: ,|$))? ?(?:\* as ([\w$]+)|\{(.*)\})?", text)
        if match is None:
            self._refuse(token, "an import of another form than `import name, { a, b as c } from './file.js'`")
        assert match is not None
        default, everything, listed = match.groups()
        statement = f'const {{"default": {default}}} = $module; ' if default else ""
        statement += f"const {everything} = $module; " if everything else ""
        parts = [part.split() for part in (listed or "").split(",") if part.strip()]
        inner = ", ".join(f'"{part[0]}": {part[-1]}' for part in parts)
        return statement + (f"const {{{inner}}} = $module; " if inner else "")

    def _export(self, at: int) -> None:
        token, words = self.tokens[at], [self._text(at + offset) for offset in range(1, 6)]
        if words[0] == "default":
            self._export_default(at, words[1:])
        elif words[0] == "{":
            self._export_list(at)
        elif words[0] in ("const", "let", "var", "function", "class", "async"):
            name = words[2] if words[0] == "async" else words[1]
            if not re.fullmatch(r"[\w$]+", name):
                self._refuse(token, "an export names one thing: `export function name` or `export const name = …`")
            self.result.exports[name] = name
            self._blank(token.start, token.end)
        else:
            self._refuse(
                token, "an export of another form than `export default …`, `export function …`, `export { … }`"
            )

    def _export_default(self, at: int, words: list[str]) -> None:
        start, following = self.tokens[at], self.tokens[at + 1]
        keyword = at + 2 + (words[0] == "async")
        if self._text(keyword) in ("function", "class"):
            self._blank(start.start, following.end)
            keyword += self._text(keyword + 1) == "*"
            name = self._text(keyword + 1)
            if re.fullmatch(r"[\w$]+", name) and name != "extends":
                self.result.exports["default"] = name
                return
            end = self.tokens[keyword].end
            self._insert(end, f" {_DEFAULT}")
        else:
            self._blank(start.start, following.end)
            self._insert(following.end, f"const {_DEFAULT} =")
        self.result.exports["default"] = _DEFAULT

    def _insert(self, end: int, text: str) -> None:
        self.body[end - 1] += text
        line = self.source.count("\n", 0, end) + 1
        self.result.added.append((line, end - (self.source.rfind("\n", 0, end) + 1), len(text)))

    def _export_list(self, at: int) -> None:
        end = next((i for i in range(at, len(self.tokens)) if self.tokens[i].text == "}"), at)
        if self._text(end + 1) == "from":
            self._refuse(self.tokens[at], "`export … from`: import the names first, then export them")
        listed = " ".join(token.text for token in self.tokens[at + 2 : end])
        for part in (part.split() for part in listed.split(",") if part.strip()):
            self.result.exports[part[-1]] = part[0]
        self._blank(self.tokens[at].start, self.tokens[end].end)
