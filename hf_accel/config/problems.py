"""Every mistake in a recipe, in this package's words: where, what was got, what is expected, and near names.

pydantic finds the mistakes in single values; they are worded here like all others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hf_accel.config.checks import contradictions, folder_name_problem, selection_problems
from hf_accel.config.schedules import SCHEDULES, schedule_arguments
from hf_accel.config.schema import Schema, expected, known_settings, list_item, schema_of, section_schema
from hf_accel.config.sections import SECTIONS
from hf_accel.config.training import enum_values, training_settings
from hf_accel.errors import UserError, did_you_mean

NAMES_OF_ONE_RUN = ("name", "variant", "output_name")  # no other recipe inherits them
TOP_LEVEL = ("extends", *NAMES_OF_ONE_RUN, *SECTIONS, "training", "variants")
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument", "invalid_key")
_FEW = 4  # up to so many names, a message lists them all
_LONGEST = 200


def recipe_problems(where: str, raw: dict[str, Any]) -> list[str]:
    """Every mistake in a recipe whose variant and overrides are applied, and in its other variants."""
    problems = [
        f"{where}: {key} is not a section of a recipe. {did_you_mean(str(key), list(TOP_LEVEL))}"
        for key in raw
        if key not in TOP_LEVEL
    ]
    for key in NAMES_OF_ONE_RUN:
        problem = folder_name_problem(raw[key]) if raw.get(key) is not None else None
        problems += [f"{where}: {key} is {shown(raw[key])}, {problem}"] if problem else []
    problems += _patch_problems(where, raw)
    for section in ("model", "data"):
        if not isinstance(raw.get(section), dict) or not raw[section].get("name"):
            problems.append(f"{where}: {section}.name is missing, expected the name of a {section}")
    problems += contradictions(where, raw)
    problems += _schedule_problems(where, raw.get("training"))
    try:
        variants = variants_of(where, raw)
    except UserError as error:
        return [*problems, str(error)]
    for name, patch in variants.items():
        problems += _variant_problems(where, name, patch)
    return problems or selection_problems(where, raw)


def _variant_problems(where: str, name: Any, patch: Any) -> list[str]:
    problem = folder_name_problem(name)
    problems = [] if problem is None else [f"{where}: a variant is called {shown(name)}, {problem}"]
    problem = patch_form_problem(patch)
    if problem is not None:
        problems.append(f"{where}: variants.{name}{problem}")
    if not isinstance(patch, dict):
        return problems
    sections = [*SECTIONS, "training"]
    problems += [
        f"{where}: variants.{name}.{key} is not a section. {did_you_mean(str(key), sections)}"
        for key in patch
        if key not in (*sections, "extends")
    ]
    return problems + _patch_problems(f"{where}: variants.{name}", patch, is_patch=True)


def _patch_problems(where: str, raw: dict[str, Any], is_patch: bool = False) -> list[str]:
    problems = []
    for section in SECTIONS:
        if section in raw:
            problems += section_problems(where, section, raw[section], is_patch)
    if raw.get("training") is not None:
        problems += section_problems(where, "training", raw["training"], is_patch)
    return problems


def section_problems(where: str, section: str, values: Any, is_patch: bool = False) -> list[str]:
    """Unknown names, wrong types and values out of range in one section, as messages.

    Args:
        is_patch: the values are those of a patch: a required setting may be missing, the patched recipe has it.
    """
    if not isinstance(values, dict):
        return [f"{where}: {section} is {shown(values)}, expected a mapping of settings"]
    kind = training_settings() if section == "training" else SECTIONS[section]
    return _value_problems(where, section, kind, section_schema(section), values, is_patch)


def _schedule_problems(where: str, training: Any) -> list[str]:
    """What is wrong with the name of the schedule, and with the arguments of one of this package."""
    name = training.get("lr_scheduler_type") if isinstance(training, dict) else None
    if not isinstance(name, str):
        return []
    known = [*enum_values("trainer_utils.py", "SchedulerType"), *SCHEDULES]
    if name not in known:
        return [f"{where}: training.lr_scheduler_type is {name!r}. {did_you_mean(name, known)}"]
    if name not in SCHEDULES:
        return []
    setting = "training.lr_scheduler_kwargs"
    try:
        values = schedule_arguments(training)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        return [f"{where}: {setting} is {shown(training['lr_scheduler_kwargs'])}, expected a mapping of settings"]
    return _value_problems(where, setting, SCHEDULES[name], schema_of(SCHEDULES[name]), values)


def _value_problems(
    where: str, section: str, kind: type, schema: Schema, values: dict[str, Any], is_patch: bool = False
) -> list[str]:
    try:
        TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
    else:
        return []
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


def variants_of(where: Path | str, raw: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The patches of a recipe by name, without those that null removes."""
    variants = raw.get("variants") or {}
    if not isinstance(variants, dict):
        raise UserError(f"{where}: variants is {shown(variants)}, expected a mapping of names to patches")
    return {name: patch for name, patch in variants.items() if patch is not None}


def patch_form_problem(patch: Any) -> str | None:
    """Why a variant cannot be applied, as words that follow its name; None if it can."""
    if not isinstance(patch, dict):
        return f" is {shown(patch)}, expected a mapping of sections"
    if not isinstance(patch.get("extends"), str | None):
        return f".extends is {shown(patch['extends'])}, expected the name of a variant"
    return None


def _unknown(where: str, section: str, path: tuple[int | str, ...], schema: Schema) -> str:
    for key in path[:-1]:
        schema = known_settings(schema)[key] if isinstance(key, str) else list_item(schema)
    names, name = list(known_settings(schema)), ".".join(map(str, path))
    if len(names) <= _FEW:
        return f"{where}: {section}.{name} is not a setting, expected one of {', '.join(names)}"
    what = "an argument of TrainingArguments" if section == "training" and len(path) == 1 else "a setting"
    return f"{where}: {section}.{name} is not {what}. {did_you_mean(str(path[-1]), names)}"


def _missing(where: str, section: str, path: tuple[int | str, ...], schema: Schema) -> str:
    for key in path:
        schema = known_settings(schema)[key] if isinstance(key, str) else list_item(schema)
    return f"{where}: {'.'.join([section, *map(str, path[:-1])])}: has no {path[-1]}, expected {expected(schema)}"


def _wrong(where: str, section: str, path: tuple[int | str, ...], schema: Schema, values: Any) -> str:
    """The path ends in the places of numbers in a list and the names of types, which are not settings."""
    name = section
    for key in path:
        inner = known_settings(schema).get(key) if isinstance(key, str) else list_item(schema)
        if inner is None or (isinstance(key, int) and not known_settings(inner)):
            break
        schema, values, name = inner, values[key], f"{name}.{key}"
    near = f". {did_you_mean(str(values), schema['enum'])}" if "enum" in schema else ""
    return f"{where}: {name} is {shown(values)}, expected {expected(schema)}{near}"
