"""pydantic's errors as this package words them: where, what was got, what is expected, and near names."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from hf_accel.config.schema import Schema, expected, known_settings, section_schema
from hf_accel.config.sections import SECTIONS
from hf_accel.config.training import training_settings
from hf_accel.errors import did_you_mean

_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument", "invalid_key")
_FEW = 4  # names that a message lists whole
_LONGEST = 200


def section_problems(where: str, section: str, values: Any, is_patch: bool = False) -> list[str]:
    """Unknown names, wrong types and values out of range in one section, as messages.

    Args:
        is_patch: a setting that must be there may be missing: the recipe that is patched has it.
    """
    if not isinstance(values, dict):
        return [f"{where}: {section} is {shown(values)}, expected a mapping of settings"]
    try:
        TypeAdapter(training_settings() if section == "training" else SECTIONS[section]).validate_python(values)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
    else:
        return []
    schema = section_schema(section)
    problems = []
    for found in errors:
        path = found["loc"]
        if found["type"] in _UNKNOWN:
            problems.append(_unknown(where, section, path, schema))
        elif found["type"] != "missing":
            problems.append(_wrong(where, section, path, schema, values))
        elif not is_patch and path != ("name",):
            problems.append(_missing(where, section, path, schema))
    return list(dict.fromkeys(problems))  # a value that may be of several types has an error for each


def shown(value: Any) -> str:
    """A value in a message."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _unknown(where: str, section: str, path: tuple[int | str, ...], schema: Schema) -> str:
    for key in path[:-1]:
        schema = known_settings(schema)[str(key)]
    names, name = list(known_settings(schema)), ".".join(map(str, path))
    if len(names) <= _FEW:
        return f"{where}: {section}.{name} is not a setting, expected one of {', '.join(names)}"
    what = "an argument of TrainingArguments" if section == "training" else "a setting"
    return f"{where}: {section}.{name} is not {what}. {did_you_mean(str(path[-1]), names)}"


def _missing(where: str, section: str, path: tuple[int | str, ...], schema: Schema) -> str:
    for key in path:
        schema = known_settings(schema)[str(key)]
    return f"{where}: {'.'.join([section, *map(str, path[:-1])])}: has no {path[-1]}, expected {expected(schema)}"


def _wrong(where: str, section: str, path: tuple[int | str, ...], schema: Schema, values: Any) -> str:
    """The path ends in the places of list items and the names of types, which are not settings."""
    name = section
    for key in path:
        if not isinstance(key, str) or key not in known_settings(schema):
            break
        schema, values, name = known_settings(schema)[key], values[key], f"{name}.{key}"
    near = f". {did_you_mean(str(values), schema['enum'])}" if "enum" in schema else ""
    return f"{where}: {name} is {shown(values)}, expected {expected(schema)}{near}"
