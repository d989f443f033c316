"""Reference pages of heap_assets.yaml, made from the JSON schema of its models: key, type, default and meaning."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from heap_assets.activation import connectors
from heap_assets.config import Settings
from heap_assets.orchestration.generated_docs import heading_anchor, markdown_table

_Schema = Mapping[str, Any]

_SETTINGS = """# Settings

Generated from the settings models by `make docs`; do not edit.

Every key of heap_assets.yaml. A key that is not listed here is refused, with the nearest name. `${VARIABLE}` in a value
comes from the environment, `${VARIABLE:-value}` has a default. Paths are relative to the file. Keys of a **secret**
type are never shown in logs, metadata or errors. `<name>` is a name that you choose.

The kinds of sync have a page of their own: [connectors](connectors.md). The thresholds below `checks:` are listed with
the [checks](../checks.md#thresholds).
"""
_CONNECTORS = """# Connectors

Generated from the connectors by `make docs`; do not edit.

A sync is an entry of `sync:` in heap_assets.yaml. Its name is the name of its asset below `sync/`, and its kind unless
`kind:` is given. What is sent, held back and remembered is the same for all kinds:
[delivery](../delivery.md). A kind of your own: [how-to](../how_to/own_destination.md).

| Kind | What it sends |
| --- | --- |
"""
_CONNECTOR = """# {vendor}

Generated from the connector by `make docs`; do not edit. The keys of every kind: [connectors](../connectors.md).
"""
_HEAD = ("Key", "Type", "Default", "Meaning")
_DOCUMENTED_BY_CONNECTORS = "sync"


def settings_page(model: type[Settings]) -> str:
    """Return docs/reference/settings.md for the model of the settings file."""
    schema = model.model_json_schema(by_alias=True)
    return _SETTINGS + "\n" + "\n\n".join(_Page(schema).sections("", schema)) + "\n"


def connectors_pages() -> Mapping[str, str]:
    """Return docs/reference/connectors.md, and a page below it for each vendor: the settings of its kinds of sync."""
    schemas = {
        kind: connector.settings_model.model_json_schema(by_alias=True)
        for kind, connector in connectors().items()
        if connector.__module__.startswith("heap_assets.")
    }
    first, *later_kinds = schemas.values()
    shared = {
        key: field
        for key, field in first["properties"].items()
        if key != "kind" and all(other["properties"].get(key) == field for other in later_kinds)
    }
    vendors = {kind: _vendor(kind) for kind in schemas}
    overview = "\n".join(
        f"| [{kind}](connectors/{vendor}.md#{heading_anchor(kind)}) | {connectors()[kind].summary()} |"
        for kind, vendor in vendors.items()
    )
    pages = sorted({f"connectors/{vendor}" for vendor in vendors.values()})
    common = [
        _CONNECTORS + overview,
        "## Keys of every kind",
        *_Page(first).sections("sync.<name>", {"properties": shared}),
        "\n".join(["```{toctree}", ":hidden:", "", *pages, "```"]),
    ]
    of_vendors = {vendor: [_CONNECTOR.format(vendor=vendor).rstrip()] for vendor in sorted(set(vendors.values()))}
    for kind, schema in schemas.items():
        own = {key: field for key, field in schema["properties"].items() if key not in shared}
        parts = of_vendors[vendors[kind]]
        parts += [f"## {kind}", connectors()[kind].docs()]
        if text := connectors()[kind].untried:
            parts.append(f"**Not tried by `heap-assets sync check`:** {text}.")
        parts += _Page(schema, skip={"guard"}).sections("", {**schema, "properties": own})
    texts = {"": common} | {f"/{vendor}": parts for vendor, parts in of_vendors.items()}
    return {f"reference/connectors{name}.md": "\n\n".join(parts) + "\n" for name, parts in texts.items()}


def _vendor(kind: str) -> str:
    """Return the vendor of a kind, as its page is called."""
    first, _, second = kind.partition("_")
    return f"{first}_cloud" if second.startswith("cloud_") else first


class _Page:
    """The tables of one schema; a model that stands in several places is described once."""

    def __init__(self, root: _Schema, skip: set[str] | None = None) -> None:
        self._models: Mapping[str, _Schema] = root.get("$defs", {})
        self._described: dict[str, str] = {}
        self._skip = skip or set()

    def sections(self, path: str, model: _Schema) -> Iterator[str]:
        """Yield the table of a model's keys, then heading, description and table of each model below it."""
        required = set(model.get("required", ()))
        keys = {
            key: field
            for key, field in model.get("properties", {}).items()
            if not (key in ("kind", "mode") and "const" in field)
        }
        if keys:
            yield markdown_table(_HEAD, [self._row(key, field, key in required) for key, field in keys.items()])
        for key, field in keys.items():
            if key == _DOCUMENTED_BY_CONNECTORS and not path:
                continue
            for below, name in self._models_in(f"{path}.{key}" if path else key, field):
                yield from self._section(below, name)

    def _section(self, path: str, name: str) -> Iterator[str]:
        model = self._models[name]
        tags = {tag: model.get("properties", {}).get(tag, {}).get("const") for tag in ("kind", "cluster")}
        kind = next((f"{tag}: {name}" for tag, name in tags.items() if name), None)
        title = f"{path}, {kind}" if kind else path
        level = "##" if "." not in path and not kind else "###"
        yield f"{level} `{title}`"
        if name in self._described:
            yield f"The keys of [{self._described[name]}](#{heading_anchor(self._described[name])})."
            return
        self._described[name] = title
        if model.get("description"):
            yield " ".join(str(model["description"]).partition("\n\nAttributes")[0].split())
        yield from self.sections(path, model)

    def _row(self, key: str, field: _Schema, is_required: bool) -> tuple[str, str, str, str]:
        default = "required" if is_required else _default(field)
        return f"`{key}`", self._type(_without_null(field)), default, _escaped(str(field.get("description", "")))

    def _models_in(self, path: str, field: _Schema) -> Iterator[tuple[str, str]]:
        """Yield the models that a value is made of, each with the path at which its keys stand."""
        if "$ref" in field:
            name = str(field["$ref"]).rpartition("/")[2]
            if "properties" in self._models[name]:
                yield path, name
        for option in (*field.get("anyOf", ()), *field.get("oneOf", ()), *field.get("allOf", ())):
            yield from self._models_in(path, option)
        if isinstance(field.get("items"), dict):
            yield from self._models_in(f"{path}[]", field["items"])
        if values := _values(field):
            yield from self._models_in(f"{path}.<name>", values)

    def _type(self, field: _Schema) -> str:
        if "$ref" in field:
            model = self._models[str(field["$ref"]).rpartition("/")[2]]
            return self._type(model) if "properties" not in model else "section"
        options = [*field.get("anyOf", ()), *field.get("oneOf", ()), *field.get("allOf", ())]
        if options:
            return " or ".join(dict.fromkeys(map(self._type, options)))
        if "enum" in field:
            return ", ".join(f"`{value}`" for value in field["enum"])
        if "const" in field:
            return f"`{field['const']}`"
        kind = field.get("type")
        if kind == "array":
            return f"list of {self._type(field.get('items', {}))}"
        if kind == "object":
            values = _values(field)
            return f"name to {self._type(values)}" if values else "section"
        if field.get("writeOnly"):
            return "secret"
        return _TYPES.get(str(field.get("format")), _TYPES.get(str(kind), "any value")) + _bounds(field)


_TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "null": "null",
    "path": "path",
    "date": "day",
    "password": "secret",
}


def _without_null(field: _Schema) -> _Schema:
    """Leave null out of a key's type where it is the default: that a key may be left out goes without saying."""
    if field.get("default") is not None or "anyOf" not in field:
        return field
    return {"anyOf": [option for option in field["anyOf"] if option.get("type") != "null"]}


def _values(field: _Schema) -> _Schema | None:
    """Return the schema of the values of a mapping, None if it is not one of names that users choose."""
    values = field.get("additionalProperties")
    return values if isinstance(values, dict) else next(iter(field.get("patternProperties", {}).values()), None)


def _escaped(text: str) -> str:
    """Keep `<name>` outside code from being read as HTML."""
    parts = text.split("`")
    return "`".join(part if index % 2 else part.replace("<", "\\<") for index, part in enumerate(parts))


def _bounds(field: _Schema) -> str:
    least, most = field.get("minimum"), field.get("maximum")
    if least is not None and most is not None:
        return f", {least:g} to {most:g}"
    if "exclusiveMinimum" in field:
        return f", above {field['exclusiveMinimum']:g}" + (f", at most {most:g}" if most is not None else "")
    return "" if least is None else f", at least {least:g}"


def _default(field: _Schema) -> str:
    value = field.get("default")
    if "default" not in field or value is None:
        return "none"
    if isinstance(value, dict) and value:
        return "as below"
    return (
        f"`{json.dumps(value, ensure_ascii=False)}`"
        if not isinstance(value, str)
        else f"`{value}`"
        if value
        else "empty"
    )
