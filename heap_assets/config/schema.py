"""The JSON Schema of heap_assets.yaml, for editors: which keys there are, what they mean, and what may stand there."""

from __future__ import annotations

from typing import Any

from heap_assets.config.kinds import Kinds, settings_model

_VARIABLE = {"type": "string", "pattern": r"\$\{"}
_NUMBERS = ("integer", "number", "boolean")
_OF_PYDANTIC = ("title", "writeOnly", "discriminator")
"""What pydantic writes besides, of no use to who edits the file."""

Schema = dict[str, Any]


def settings_schema(kinds: Kinds) -> Schema:
    """Return the JSON Schema (draft 2020-12) of a settings file whose sections may be of these kinds.

    It holds for the file as it is written: `${VARIABLE}` may stand in place of any value, and an unquoted number in
    place of text. What only shows when sections are read together is left to `heap-assets check`.
    """
    schema = settings_model(kinds).model_json_schema(by_alias=True)
    models: Schema = {name: _as_written(model) for name, model in schema.pop("$defs").items()}
    document = _as_written(schema)
    document["properties"]["sync"] |= _syncs(models, [kind.kind_name() for kind in kinds.syncs])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "heap_assets.yaml",
        **document,
        "$defs": models,
    }


def _syncs(models: Schema, kinds: list[str]) -> Schema:
    """Return the schema of `sync:`: an entry that says no kind is of the kind that it is called."""
    names = {model["properties"]["kind"]["const"]: name for name, model in models.items() if _is_kind(model)}
    by_kind = {kind: {"$ref": f"#/$defs/{names[kind]}"} for kind in kinds}
    any_kind = {"required": ["kind"], "oneOf": list(by_kind.values())}
    named = {
        kind: {"if": {"required": ["kind"]}, "then": any_kind, "else": model, "description": _first(models, model)}
        for kind, model in by_kind.items()
    }
    return {"type": "object", "properties": named, "additionalProperties": any_kind}


def _is_kind(model: Schema) -> bool:
    kind = model.get("properties", {}).get("kind", {})
    return "const" in kind and kind.get("default") == kind["const"]


def _first(models: Schema, reference: Schema) -> str:
    return str(models[reference["$ref"].rpartition("/")[2]].get("description", ""))


def _as_written(schema: Schema) -> Schema:
    """Return a schema of values as they are read for the values as they are written."""
    written = {key: value for key, value in schema.items() if key not in _OF_PYDANTIC}
    if "description" in written:
        written["description"] = " ".join(str(written["description"]).partition("\n\n")[0].split())
    if isinstance(written.get("default"), dict) and written["default"]:
        del written["default"]  # of a section: its keys have theirs
    for name, inner in list(written.items()):
        if name in ("properties", "patternProperties"):
            written[name] = {key: _as_written(one) for key, one in inner.items()}
        elif name in ("items", "additionalProperties") and isinstance(inner, dict):
            written[name] = _as_written(inner)
        elif name in ("anyOf", "oneOf"):
            written[name] = [_as_written(one) for one in inner]
    if "patternProperties" in written:
        written.setdefault("additionalProperties", False)
    if "const" in written:
        return written  # it tells kinds apart
    return _or_variable(written)


def _or_variable(schema: Schema) -> Schema:
    kind = schema.get("type")
    is_free_text = kind == "string" and not {"enum", "pattern", "format"} & schema.keys()
    if kind == "string" and schema.get("format") in ("path", "password"):
        is_free_text = True
        schema.pop("format")
    if is_free_text:
        return {**schema, "type": ["string", *_NUMBERS[1:]]}
    if kind in _NUMBERS or kind == "string":
        about: Schema = {key: schema.pop(key) for key in ("description", "default") if key in schema}
        return {"anyOf": [schema, _VARIABLE], **about}
    return schema
