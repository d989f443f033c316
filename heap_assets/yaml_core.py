"""YAML files as people write them: YAML 1.2's core types, decided by whoever reads the value.

PyYAML alone reads YAML 1.1, in which `NO` is false, `01234` is 668 and `12:30` is 750. Here an unquoted scalar stays
the text that was written, and :class:`Unquoted` says that a number or a truth value may be meant: a model that wants a
number converts it, a model that wants text takes it as it is. A key that a mapping has twice is refused.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from heap_assets.errors import SettingsError

_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_TRUTH: Mapping[str, bool] = {spelling: spelling.lower() == "true" for spelling in
                              ("true", "True", "TRUE", "false", "False", "FALSE")}  # fmt: skip
_INTEGER = re.compile(r"[-+]?[0-9]+\Z")
_OTHER_BASE = re.compile(r"0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z|[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z"
)
_LONGEST_NUMBER = 400
"""Characters; more digits are a key or a mistake, and beyond 4,300 Python refuses to convert them."""
_MAP, _SEQUENCE, _STRING = (f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str"))

Path = Sequence[str | int]
"""Keys and list positions that lead to a value."""


class Unquoted(str):
    """The text of an unquoted scalar that YAML 1.2's core schema reads as a number or a truth value."""

    __slots__ = ()

    @property
    def value(self) -> int | float | bool:
        """What the core schema makes of it (YAML 1.2.2, 10.3.2): `01234` is 1234, `0o17` is 15, `1.10` is 1.1."""
        text = str(self)
        if text in _TRUTH:
            return _TRUTH[text]
        if _OTHER_BASE.match(text):
            return int(text, 0)
        return int(text) if _INTEGER.match(text) else float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))

    @property
    def is_canonical(self) -> bool:
        """Whether the text is how its value is usually written: `5` and `true` are, `05` and `1.10` are not."""
        return str(self.value).lower() == self.lower()


class _Loader(yaml.SafeLoader):
    """Resolves nulls and merge keys only; the rest is text until somebody asks for a number."""


# merge keys are YAML 1.1's, and the one thing of it that files rely on
_Loader.yaml_implicit_resolvers = {
    **{first: [("tag:yaml.org,2002:null", _NULL)] for first in ("~", "n", "N", "")},
    "<": [("tag:yaml.org,2002:merge", re.compile(r"<<\Z"))],
}


def unquoted(text: str) -> str:
    """Return :class:`Unquoted` for a text that the core schema reads as a number or a truth value, else the text.

    Numbers of more than 400 characters stay text.
    """
    is_number = len(text) <= _LONGEST_NUMBER and any(pattern.match(text) for pattern in (_INTEGER, _OTHER_BASE, _FLOAT))
    return Unquoted(text) if text in _TRUTH or is_number else text


def _scalar(loader: _Loader, node: yaml.ScalarNode) -> str:
    text = str(loader.construct_scalar(node))
    return text if node.style else unquoted(text)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> Iterator[dict[Hashable, Any]]:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(None, None, "a key is a list or a mapping, expected text", key.start_mark)
        if key.value in lines:
            twice = f"the key {key.value!r} stands twice, first on line {lines[key.value]}"
            raise yaml.MarkedYAMLError(None, None, twice, key.start_mark)
        lines[key.value] = key.start_mark.line + 1
    mapping: dict[Hashable, Any] = {}
    yield mapping
    loader.flatten_mapping(node)
    for key, value in node.value:
        mapping[str(key.value)] = loader.construct_object(value)


# of explicit tags only these: `!!int 0x` and `!!timestamp` would be read by YAML 1.1's rules
_Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag in (_SEQUENCE, "tag:yaml.org,2002:null", None)
}
_Loader.add_constructor(_STRING, _scalar)
_Loader.add_constructor(_MAP, _mapping)


def _libyaml_loader() -> Any:
    """Return the loader with libyaml's scanner, seven times as fast; the other one where PyYAML has no libyaml.

    Its composer is Python's: that of libyaml crashes the process for lists that are nested too deeply.
    """
    if not yaml.__with_libyaml__:
        return _Loader
    parser: Any = vars(yaml.cyaml)["CParser"]
    parents = (yaml.composer.Composer, parser, yaml.constructor.SafeConstructor, yaml.resolver.Resolver)

    def begin(loader: Any, stream: str) -> None:
        parser.__init__(loader, stream)
        for parent in parents:
            if parent is not parser:
                parent.__init__(loader)

    tables = {name: getattr(_Loader, name) for name in ("yaml_implicit_resolvers", "yaml_constructors")}
    return type("_LibyamlLoader", parents, {"__init__": begin, **tables})


_FAST_LOADER = _libyaml_loader()


def read_large_yaml(text: str, file: str) -> Any:
    """Read a document as :func:`read_yaml` does, sooner if it is one of thousands of lines."""
    try:
        return yaml.load(text, _FAST_LOADER)  # noqa: S506  a SafeLoader
    except (yaml.YAMLError, RecursionError):
        return read_yaml(text, file)  # says what is wrong and where


def read_yaml(text: str, file: str) -> Any:
    """Read a document: mappings with text keys, lists, text, :class:`Unquoted` scalars, None.

    Raises SettingsError, naming file, line and what is wrong there: no YAML, a key twice, a tag that is not understood.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506  a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}, line {mark.line + 1}" if mark else file
        raise SettingsError(f"{where}: {error.problem or error.context or 'this is not YAML'}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = f"U+{ord(text[error.position]):04X}"
        raise SettingsError(f"{file}, line {line}: the character {character} is not allowed in YAML") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise SettingsError(f"{file} is not YAML: lists or mappings are nested too deeply") from None


def write_yaml(document: Any) -> str:
    """Write a document so that :func:`read_yaml` reads it as it was, keys in their order."""
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
    # PyYAML writes U+0085 as it is, and reads it as a line break
    return yaml.safe_dump(document, sort_keys=False, width=120) if "\x85" in text else text


def core(value: Any) -> Any:
    """Return a value of :func:`read_yaml` with every unquoted scalar as the core schema types it."""
    if isinstance(value, Unquoted):
        return value.value
    if isinstance(value, Mapping):
        return {key: core(entry) for key, entry in value.items()}
    return [core(entry) for entry in value] if isinstance(value, list) else value


def kind_of(value: object) -> str:
    """Return what sort of value stands in the file."""
    if value is None:
        return "empty"
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list) else repr(str(value))


def line_of(text: str, path: Path) -> int | None:
    """Return the line (from 1) of the last part of `path` that stands in the document; None if none of it does."""
    try:
        node = yaml.compose(text, _Loader)
    except yaml.YAMLError:
        return None
    line = None
    for part in path:
        if isinstance(node, yaml.MappingNode):
            entries = [(key, value) for key, value in node.value if key.value == str(part)]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            entries = [(node.value[part], node.value[part])]
        else:
            entries = []
        if not entries:
            break
        line, node = entries[-1][0].start_mark.line + 1, entries[-1][1]
    return line
