"""Flags of the command line that are settings: `--learning_rate 1e-4`, `--data.augment.flip true`."""

from __future__ import annotations

import os
from typing import Any

from hf_accel.config.migration.answers import answer_to
from hf_accel.config.recipe import shipped_recipes
from hf_accel.config.schema import Schema, options, setting_schema
from hf_accel.config.training import training_types
from hf_accel.config.yaml_text import parse_yaml
from hf_accel.errors import UserError

_DEEPEST = 10  # names between the dots of a flag


def overrides_from_flags(flags: dict[str, str]) -> dict[str, Any]:
    """Turn `{"learning_rate": "1e-4", "data.cache": "none"}` into nested overrides, values read as YAML scalars.

    Raises:
        UserError: names that are not settings, all of them with what to write instead.
    """
    overrides: dict[str, Any] = {}
    unknown = {flag: text for flag, text in flags.items() if "." not in flag and flag not in training_types()}
    if unknown:
        raise UserError(answer_to(unknown))
    for flag, text in flags.items():
        section, *keys = flag.split(".")
        if not keys:
            section, keys = "training", [flag]
        if len(keys) > _DEEPEST:
            raise UserError(f"--{flag}: is nested too deeply, expected at most {_DEEPEST} dots")
        node = overrides.setdefault(section, {})
        for key in keys[:-1]:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise UserError(f"--{flag}: {key} is already given the value {node!r}, which has no {keys[-1]}")
        node[keys[-1]] = _value(text, setting_schema(section, keys))
    return overrides


def named_data(verb: str, name: str, flags: dict[str, str]) -> str:
    """The data set that the command line of `hf-accel VERB` names without a flag.

    Raises:
        UserError: a flag names one, too, or it is a recipe.
    """
    command = f"hf-accel {verb}"
    if "data.name" in flags:
        raise UserError(f"{command} {name}: --data.name {flags['data.name']} names the data, too. Leave one out.")
    is_recipe = name in shipped_recipes() and not os.path.isdir(name)
    if is_recipe or name.endswith((".yaml", ".yml")):
        raise UserError(f"{command} {name}: is a recipe, expected images. Use {command} --recipe {name}")
    return name


def _value(text: str, schema: Schema | None) -> Any:
    """A value as YAML reads it, or the text itself where text is wanted: a folder may be called 2024, no or a #1."""
    kinds = {option.get("type") for option in options(schema or {})}
    if kinds in ({"string"}, {"string", "null"}):
        return None if text == "null" and "null" in kinds else text
    try:
        value = parse_yaml(f"value: {text}")["value"]
    except UserError:  # not YAML
        return text
    return text if "string" in kinds and not kinds & _kinds(value) else value


def _kinds(value: Any) -> set[str]:
    """The types of JSON Schema that a value has."""
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return {"integer", "number"}
    return {{type(None): "null", float: "number", str: "string", list: "array", dict: "object"}[type(value)]}
