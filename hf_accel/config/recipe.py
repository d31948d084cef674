"""Recipes: YAML + `extends` + a variant + overrides -> one frozen `Recipe`. The only reader of YAML.

A variant is a patch and so is a command-line override; one merge applies them all, and every mistake in the result is
reported at once, before data or weights are touched. Importing this module does not import torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from hf_accel.config.sections import (
    AugmentSettings,
    DataSettings,
    ModelSettings,
    section_problems,
    settings_types,
    training_types,
    type_problem,
)
from hf_accel.errors import UserError, did_you_mean

SECTIONS = {"model": ModelSettings, "data": DataSettings}
NAMED = {
    "model": ("args", "revision", "pretrained"),
    "data": ("config", "revision", "image_column", "label_column", "class_weights"),
}
TOP_LEVEL = ("extends", "name", "variant", "model", "data", "training", "variants")
VARIANT_ALIASES = {"ga": "ga_same_batch"}
_PACKAGE = Path(__file__).parents[1]
RECIPES_FOLDER = next(f for f in (_PACKAGE / "recipes", _PACKAGE.parent / "recipes") if f.is_dir())


@dataclass(frozen=True)
class Recipe:
    """One run, fully described: the same recipe on the same machine gives the same result."""

    name: str
    variant: str
    model: ModelSettings
    data: DataSettings
    training: dict[str, Any]  # TrainingArguments, name for name

    @property
    def output_dir(self) -> Path:
        return Path(self.training.get("output_dir") or Path("outputs") / self.name / self.variant)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `load_recipe` of the same content as YAML gives an equal Recipe."""
        return asdict(self)

    def write(self, path: Path) -> None:
        """Save as YAML, but for the token: it is read from the usual places again when the file is run."""
        path.write_text(
            yaml.safe_dump(self.without_secrets().to_dict(), sort_keys=False, allow_unicode=True), encoding="utf-8"
        )

    def without_secrets(self) -> Recipe:
        return replace(self, training={name: value for name, value in self.training.items() if name != "hub_token"})


def load_recipe(name: str | Path, variant: str | None = None, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe by name or path, apply a variant and then the overrides.

    Args:
        name: a shipped recipe (`vit_cifar10`) or the path of a YAML file.
        variant: one of the recipe's `variants`; None is the recipe as it stands.
        overrides: nested like the YAML, `{"training": {"learning_rate": 1e-4}}`.
    Raises:
        UserError: unknown recipe, variant or key, or a value of the wrong type; the message lists every mistake.

    >>> load_recipe("digits", overrides={"training": {"seed": 1}}).training["seed"]
    1
    """
    path = find_recipe(name)
    raw = _read(path, seen=())
    if variant is not None:
        raw = apply_patch(raw, _variant_patch(path, raw, VARIANT_ALIASES.get(variant, variant)))
        raw["variant"] = VARIANT_ALIASES.get(variant, variant)
    raw = apply_patch(raw, overrides or {})
    problems = _problems(str(name), raw)
    if problems:
        raise UserError("\n".join(problems))
    data = dict(raw["data"])
    augment = AugmentSettings(**(data.pop("augment", None) or {}))
    return Recipe(
        name=str(raw.get("name") or path.stem),
        variant=str(raw.get("variant") or "default"),
        model=ModelSettings(**raw["model"]),
        data=DataSettings(**data, augment=augment),
        training=dict(raw.get("training") or {}),
    )


def find_recipe(name: str | Path) -> Path:
    """The YAML file of a recipe name, or the path itself."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise UserError(
                f"--recipe {name}: there is no such file. `hf-accel recipe list` shows the shipped recipes."
            )
        return path
    shipped = shipped_recipes()
    if str(name) not in shipped:
        raise UserError(f"--recipe {name}: no recipe of that name. {did_you_mean(str(name), shipped)}")
    return shipped[str(name)]


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of every recipe that comes with the package, sub-folders included; `_shared` parts are left out."""
    paths = sorted(RECIPES_FOLDER.rglob("*.yaml"), key=lambda path: path.stem)
    return {path.stem: path for path in paths if not path.stem.startswith("_")}


def variant_names(name: str | Path) -> list[str]:
    """Variants that a recipe defines or inherits; null takes an inherited one away."""
    variants = _read(find_recipe(name), seen=()).get("variants") or {}
    return [variant for variant, patch in variants.items() if patch is not None]


def overrides_from_flags(flags: dict[str, str]) -> dict[str, Any]:
    """Turn `{"learning_rate": "1e-4", "data.cache": "none"}` into nested overrides, values read as YAML scalars."""
    overrides: dict[str, Any] = {}
    for flag, text in flags.items():
        section, *rest = flag.split(".")
        if not rest:
            if flag not in training_types():
                names = dict.fromkeys(training_types())
                names |= {f"{s}.{n}": None for s, kind in SECTIONS.items() for n in settings_types(kind)}
                raise UserError(
                    f"--{flag}: not an argument of TrainingArguments or a setting. {did_you_mean(flag, names)}"
                )
            section, rest = "training", [flag]
        node = overrides.setdefault(section, {})
        for key in rest[:-1]:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise UserError(f"--{flag}: {key} is already given the value {node!r}, which has no {rest[-1]}")
        node[rest[-1]] = _parse_value(flag, text, _type_of(section, rest))
    return overrides


def _type_of(section: str, keys: list[str]) -> str:
    """Annotation of a setting; empty where it is unknown."""
    types = training_types() if section == "training" else settings_types(SECTIONS.get(section, Recipe))
    if len(keys) == 2 and types.get(keys[0]) == "AugmentSettings":
        types, keys = settings_types(AugmentSettings), keys[1:]
    return types.get(keys[0], "") if len(keys) == 1 else ""


def _parse_value(flag: str, text: str, annotation: str) -> Any:
    """A value as YAML reads it, or the text itself where text is wanted: a folder may be called 2024, no or a #1."""
    if annotation in ("str", "str | None"):
        return None if text == "null" and annotation.endswith("None") else text
    try:
        value = OmegaConf.to_container(OmegaConf.create(f"value: {text}"), resolve=False)["value"]
    except yaml.YAMLError:
        return text
    except Exception as error:  # OmegaConf's own errors share no base class with these
        raise UserError(f"--{flag} {text}: cannot be read as a value ({type(error).__name__})") from None
    text_fits = annotation and type_problem(value, annotation) and not type_problem(text, annotation)
    return text if text_fits else value


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        chain = " -> ".join(p.stem for p in (*seen, path))
        raise UserError(f"{path}: extends goes in a circle ({chain})")
    try:
        raw = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: holds {type(raw).__name__}, expected a mapping with model:, data: and training:")
    base = raw.pop("extends", None)
    if base is None:
        return raw
    if not isinstance(base, str):
        raise UserError(f"{path}: extends is {base!r}, expected the name or the file of a recipe")
    beside = path.parent / f"{base}"
    candidates = (beside, beside.with_name(f"{beside.name}.yaml"), RECIPES_FOLDER / f"{base}.yaml")
    base_path = next((candidate for candidate in candidates if candidate.is_file()), None) or find_recipe(base)
    inherited = {k: v for k, v in _read(base_path, (*seen, path.resolve())).items() if k not in ("name", "variant")}
    return apply_patch(inherited, raw)


def merge(base: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Mappings merge, everything else is replaced; the arguments are left as they are."""
    merged = dict(base)
    for key, value in patch.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def apply_patch(raw: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Merge a recipe, a variant or overrides onto a recipe.

    A patch that names another model or data set starts from that one's defaults: the arguments, columns and revisions
    of the one before mean nothing to it.
    """
    raw = dict(raw)
    for section, belongs_to_name in NAMED.items():
        old, new = raw.get(section), patch.get(section)
        if isinstance(old, dict) and isinstance(new, dict) and new.get("name", old.get("name")) != old.get("name"):
            kept = {"pretrained"} if str(new["name"]).startswith("hf_accel/") else set()  # these have no weights
            raw[section] = {key: value for key, value in old.items() if key not in belongs_to_name or key in kept}
    return merge(raw, patch)


def _variant_patch(path: Path, raw: dict[str, Any], variant: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    variants = {name: patch for name, patch in (raw.get("variants") or {}).items() if patch is not None}
    if variant in seen:
        raise UserError(f"{path}: variants.{variant}.extends goes in a circle ({' -> '.join((*seen, variant))})")
    if variant not in variants:
        raise UserError(f"{path.stem}: no variant {variant!r}. {did_you_mean(variant, variants)}")
    patch = dict(variants[variant])
    base = patch.pop("extends", None)
    return patch if base is None else merge(_variant_patch(path, raw, base, (*seen, variant)), patch)


def _problems(where: str, raw: dict[str, Any]) -> list[str]:
    problems = [
        f"{where}: {key} is not a section of a recipe. {did_you_mean(str(key), list(TOP_LEVEL))}"
        for key in raw
        if key not in TOP_LEVEL
    ]
    problems += _patch_problems(where, raw)
    for section in SECTIONS:
        if not isinstance(raw.get(section), dict) or not raw[section].get("name"):
            problems.append(f"{where}: {section}.name is missing, expected the name of a {section}")
    training = raw.get("training")
    if isinstance(training, dict) and training.get("fp16") is True and training.get("bf16") is True:
        problems.append(f"{where}: training.fp16 and training.bf16 are both true, expected at most one of them")
    variants = raw.get("variants") or {}
    if not isinstance(variants, dict):
        return [*problems, f"{where}: variants is {variants!r}, expected a mapping of names to patches"]
    for name, patch in variants.items():
        if not isinstance(patch, dict | None):
            problems.append(f"{where}: variants.{name} is {patch!r}, expected a mapping of sections")
            continue
        inner = {k: v for k, v in (patch or {}).items() if k != "extends"}
        problems += [
            f"{where}: variants.{name}.{key} is not a section. {did_you_mean(str(key), [*SECTIONS, 'training'])}"
            for key in inner
            if key not in (*SECTIONS, "training")
        ]
        problems += _patch_problems(f"{where}: variants.{name}", inner)
    return problems


def _patch_problems(where: str, raw: dict[str, Any]) -> list[str]:
    problems = []
    for section, kind in SECTIONS.items():
        if section in raw:
            problems += section_problems(where, section, raw[section], settings_types(kind))
    if raw.get("training") is not None:
        problems += section_problems(where, "training", raw["training"], training_types())
    return problems


def header(path: Path) -> list[str]:
    """The comment lines that open a recipe file: what it is, the command, what was measured."""
    lines = []
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").rstrip())
    return lines
