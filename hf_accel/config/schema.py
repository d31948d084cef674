"""The settings as JSON Schema: one description of them for messages, editors, the reference and the command line."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import TypeAdapter

from hf_accel.config.sections import SECTIONS
from hf_accel.config.training import training_settings

Schema = dict[str, Any]
_NAME: Schema = {"type": "string", "pattern": r"^[^/\\\x00-\x1f]*[^/\\\x00-\x1f.\s][^/\\\x00-\x1f]*$"}


@cache
def section_schema(section: str) -> Schema:
    """The JSON Schema of `model`, `data` or `training`, with nested settings in their places."""
    schema = schema_of(training_settings() if section == "training" else SECTIONS[section])
    if section == "training":
        for setting in schema["properties"].values():
            del setting["default"]  # upstream's defaults are not known without importing it
    return schema


def schema_of(kind: type) -> Schema:
    """The JSON Schema of a class of settings, with nested settings in their places."""
    schema = TypeAdapter(kind).json_schema()
    return _in_place(schema, schema.get("$defs", {}))


def setting_schema(section: str, keys: list[str]) -> Schema | None:
    """The schema of one setting, `("data", ["augment", "flip"])`; None where it is unknown."""
    if section != "training" and section not in SECTIONS:
        return None
    schema: Schema | None = section_schema(section)
    for key in keys:
        schema = known_settings(schema or {}).get(key)
    return schema


def known_settings(schema: Schema) -> dict[str, Schema]:
    """Settings within a setting that holds others, `null` or not; else empty."""
    return next((option["properties"] for option in options(schema) if "properties" in option), {})


def list_item(schema: Schema) -> Schema:
    """The schema of the items of a list; empty where it is not a list."""
    return next((option["items"] for option in options(schema) if "items" in option), {})


def options(schema: Schema) -> list[Schema]:
    return schema.get("anyOf", [schema])


def expected(schema: Schema) -> str:
    """What a value has to be, in words.

    >>> expected({"anyOf": [{"type": "integer", "minimum": 4}, {"type": "null"}]})
    'a whole number from 4 or null'
    """
    if "expected" in schema:
        return schema["expected"]
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    words = [word for option in options(schema) for word in _words(option)]
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def recipe_schema() -> Schema:
    """JSON Schema of a recipe file, for `# yaml-language-server: $schema=FILE`.

    Nothing is required: a recipe that extends another, and a variant, say only what is different.
    """
    definitions = {section: _for_files(section_schema(section)) for section in (*SECTIONS, "training")}
    definitions["training"] = _or_null(definitions["training"])
    sections: dict[str, Schema] = {section: {"$ref": f"#/$defs/{section}"} for section in definitions}
    patch = _mapping({"extends": {"type": "string", "description": "Another variant of this recipe."}, **sections})
    variants = {"type": "object", "propertyNames": _NAME, "additionalProperties": _or_null(patch)}
    name: Schema = {**_NAME, "type": ["string", "integer", "null"]}
    recipe: dict[str, Schema] = {
        "extends": {
            "type": ["string", "null"],
            "description": "The name or the file of a recipe that this one changes.",
        },
        "name": {**name, "description": "Default: the name of the file."},
        "variant": {**name, "description": "In the recipe.yaml of a run: the variant that was run."},
        "output_name": {
            **name,
            "description": "In the recipe.yaml of a run: the name of its folder.",
        },
        **sections,
        "variants": {
            **_or_null(variants),
            "description": "Named patches of this recipe; null removes an inherited one.",
        },
    }
    draft = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": draft, "title": "Recipe of hf_accel", **_mapping(recipe), "$defs": definitions}


def _mapping(properties: dict[str, Schema]) -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _words(schema: Schema) -> list[str]:
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return [str(v).lower() if isinstance(v, bool) else f'"{v}"' for v in values]
    kind = schema.get("type")
    if kind == "boolean":
        return ["true", "false"]
    if kind == "array":
        return [f"a list of {_number_words(schema.get('items', {}), 'numbers', 'values')}"]
    if kind == "object":
        return [f"a mapping of {', '.join(schema['properties'])}" if "properties" in schema else "a mapping"]
    plain = {"string": "text", "null": "null", "integer": "a whole number" + _range(schema)}
    return [plain.get(str(kind), "a number" + _range(schema))]


def _number_words(schema: Schema, numbers: str, others: str) -> str:
    return numbers + _range(schema) if schema.get("type") in ("number", "integer") else others


def _range(schema: Schema) -> str:
    high = f"{_plain(schema['maximum'])}" if "maximum" in schema else None
    below = f"below {_plain(schema['exclusiveMaximum'])}" if "exclusiveMaximum" in schema else None
    if "exclusiveMinimum" in schema:
        most = below or (f"at most {high}" if high else None)
        return f" above {_plain(schema['exclusiveMinimum'])}" + (f", {most}" if most else "")
    if below and "minimum" in schema:
        return f" from {_plain(schema['minimum'])} to {below}"
    if "minimum" in schema:
        return f" from {_plain(schema['minimum'])}" + (f" to {high}" if high else "")
    return ""


def _plain(number: float) -> str:
    return f"{number:g}" if float(f"{number:g}") == number else str(number)


def _in_place(node: Any, definitions: dict[str, Schema]) -> Any:
    """Without `$ref`, and without the titles that pydantic makes of names."""
    if isinstance(node, list):
        return [_in_place(part, definitions) for part in node]
    if not isinstance(node, dict):
        return node
    own = {key: value for key, value in node.items() if key not in ("$ref", "$defs")}
    if isinstance(own.get("title"), str):
        del own["title"]
    if "$ref" in node:
        own = {**definitions[node["$ref"].rpartition("/")[2]], **own}
        return _in_place(own, definitions)
    return {key: _in_place(value, definitions) for key, value in own.items()}


def _for_files(node: Any) -> Any:
    """Without the keys that only this package reads, and with nothing required."""
    if isinstance(node, list):
        return [_for_files(part) for part in node]
    if not isinstance(node, dict):
        return node
    return {key: _for_files(value) for key, value in node.items() if key not in ("expected", "required")}
