"""Recipes: YAML + `extends` + a variant + overrides -> one frozen `Recipe`.

A variant is a patch and so is a command-line override; one merge applies them all, and every mistake in the result is
reported at once, before data or weights are touched. Importing this module does not import torch.
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from hf_accel.config.augmentation import plain_settings
from hf_accel.config.compression_settings import CompressionSettings
from hf_accel.config.problems import NAMES_OF_ONE_RUN, patch_form_problem, recipe_problems, shown, variants_of
from hf_accel.config.sections import SECTIONS, DataSettings, ModelSettings, PushSettings
from hf_accel.config.training import training_settings
from hf_accel.config.yaml_text import dump_yaml, parse_yaml
from hf_accel.errors import UserError, did_you_mean
from hf_accel.files import write_whole

# Settings that have a meaning only for the model or data set that they were written for.
OF_ONE_NAME = {
    "model": ("args", "revision", "pretrained"),
    "data": (
        "config",
        "revision",
        "image_column",
        "text_column",
        "label_column",
        "labels",
        "split_column",
        "group_column",
        "class_weights",
    ),
}
# The same of arguments of `training`.
OF_ONE_CHOICE = {"optim": ("optim_args", "optim_target_modules"), "lr_scheduler_type": ("lr_scheduler_kwargs",)}
VARIANT_ALIASES = {"ga": "ga_same_batch"}
_PACKAGE = Path(__file__).parents[1]
RECIPES_FOLDER = next(f for f in (_PACKAGE / "recipes", _PACKAGE.parent / "recipes") if f.is_dir())
LAUNCH_FILES = "accelerate"  # the folder in it with configurations of `accelerate launch`
_LARGEST_FILE = 1 << 20


@dataclass(frozen=True)
class Recipe:
    """One run, fully described: the same recipe on the same machine gives the same result."""

    name: str
    variant: str
    model: ModelSettings
    data: DataSettings
    training: dict[str, Any]  # TrainingArguments, name for name
    # the name joined by the model or data set that an override names: runs of two data sets need two folders
    output_name: str | None = field(default=None, compare=False)
    push: PushSettings = field(default_factory=PushSettings, compare=False)  # nothing that is trained depends on it
    compress: CompressionSettings | None = field(default=None, compare=False)  # nor on this; None: nothing is exported
    notes: tuple[str, ...] = field(default=(), compare=False)  # on what the overrides did that nobody asked for

    @property
    def output_dir(self) -> Path:
        """Where a run of this recipe goes: `training.output_dir`, else a folder below outputs/."""
        return Path(self.training.get("output_dir") or Path("outputs") / (self.output_name or self.name) / self.variant)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `load_recipe` of the same content as YAML gives an equal Recipe."""
        values = asdict(self)
        values["data"]["augment"] = plain_settings(self.data.augment)
        del values["notes"]
        if self.output_name is None:
            del values["output_name"]
        if self.push == PushSettings():
            del values["push"]
        if self.compress is None:
            del values["compress"]
        return values

    def write(self, path: Path) -> None:
        """Save as YAML without the token, which is read from the usual places again when the file is run."""
        write_whole(path, dump_yaml(self.without_secrets().to_dict()))

    def without_secrets(self) -> Recipe:
        return replace(self, training={name: value for name, value in self.training.items() if name != "hub_token"})


@dataclass(frozen=True)
class RecipeFile:
    """A recipe as it stands in its file and in those it extends, read once; no variant is applied."""

    given: str  # the name or path that the user gave
    path: Path
    raw: dict[str, Any]

    @classmethod
    def read(cls, name: str | Path) -> RecipeFile:
        """Raises UserError: there is no such recipe, or a file of it cannot be read."""
        path = find_recipe(name)
        return cls(str(name), path, _read(path, seen=()))

    @property
    def variants(self) -> list[str]:
        """Variants that the recipe defines or inherits; null removes an inherited one."""
        return list(variants_of(self.path, self.raw))

    def recipe(self, variant: str | None = None, overrides: dict[str, Any] | None = None) -> Recipe:
        """Apply a variant and then the overrides; see `load_recipe`."""
        raw = self.raw
        if variant is not None:
            variant = VARIANT_ALIASES.get(variant, variant)
            raw = apply_patch(raw, _variant_patch(self.path, variants_of(self.path, raw), variant)) | {
                "variant": variant
            }
        before = raw
        raw = apply_patch(raw, overrides or {})
        name = self.path.stem if raw.get("name") is None else raw["name"]
        raw = {**raw, "name": name, "variant": "default" if raw.get("variant") is None else raw["variant"]}
        raw = _with_cache_of_stream(raw)
        problems = recipe_problems(self.given, raw)
        if problems:
            raise UserError("\n".join(problems))
        return Recipe(
            name=str(raw["name"]),
            variant=str(raw["variant"]),
            model=TypeAdapter(ModelSettings).validate_python(raw["model"]),
            data=TypeAdapter(DataSettings).validate_python(raw["data"]),
            training=_training(raw.get("training") or {}),
            output_name=_output_name(str(raw["name"]), before, overrides or {}),
            push=TypeAdapter(PushSettings).validate_python(raw.get("push", {})),
            compress=TypeAdapter(CompressionSettings).validate_python(raw["compress"]) if "compress" in raw else None,
            notes=_without_arguments(before, raw),
        )


def _without_arguments(before: dict[str, Any], raw: dict[str, Any]) -> tuple[str, ...]:
    """A warning of a network that is built without the recipe's arguments, since it has another name.

    Args:
        before: the recipe with its variant; `raw` has the overrides, too, and was checked.
    """
    old, new = before.get("model") or {}, raw["model"]
    if not isinstance(old, dict) or not old.get("args") or "args" in new:
        return ()
    return (
        f"warning: model.args of the recipe ({shown(old['args'])}) are those of {old.get('name')}: {new['name']} is built "
        "without them. To keep them, give model.args, too.",
    )


def _with_cache_of_stream(raw: dict[str, Any]) -> dict[str, Any]:
    """A stream keeps no decoded image; a cache that was asked for stays, and is refused with the recipe."""
    data = raw.get("data")
    if not isinstance(data, dict) or data.get("streaming") is not True:
        return raw
    return {**raw, "data": {**data, "cache": data.get("cache", "none")}}


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
    return RecipeFile.read(name).recipe(variant, overrides)


def variant_names(name: str | Path) -> list[str]:
    """Variants that a recipe defines or inherits."""
    return RecipeFile.read(name).variants


def _output_name(name: str, before: dict[str, Any], overrides: dict[str, Any]) -> str | None:
    """The recipe's name, joined by the last part of each model or data set that the overrides name."""
    kept = before.get("output_name")
    named = [(overrides.get(section, {}).get("name"), (before.get(section) or {}).get("name")) for section in SECTIONS]
    joining = [str(new) for new, old in named if new and (new != old or not kept)]
    parts = [os.path.basename(os.path.abspath(os.path.expanduser(new))) for new in joining]
    parts = [re.sub(r"[^\w.-]+", "-", part).strip("-. ") or "unnamed" for part in parts]
    return "-".join([str(kept or name), *parts]) if parts else kept


def find_recipe(name: str | Path) -> Path:
    """The YAML file of a recipe name, or the path itself."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or os.path.isfile(
        path
    ):  # Path.is_file would raise for a name that cannot be a path
        if not os.path.isfile(path):
            raise UserError(
                f"--recipe {name}: there is no such file. `hf-accel recipe list` shows the shipped recipes."
            )
        return path
    shipped = shipped_recipes()
    if str(name) not in shipped:
        raise UserError(f"--recipe {name}: there is no recipe of that name. {did_you_mean(str(name), shipped)}")
    return shipped[str(name)]


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of every recipe that comes with the package, sub-folders included.

    `_shared` parts are left out, and so are the configurations of `accelerate launch`.
    """
    paths = sorted(RECIPES_FOLDER.rglob("*.yaml"), key=lambda path: path.stem)
    return {path.stem: path for path in paths if not path.stem.startswith("_") and path.parent.name != LAUNCH_FILES}


def header(path: Path) -> list[str]:
    """The comment lines that open a recipe file: what it is, the command, what was measured."""
    lines = []
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").rstrip())
    return lines


def merge(base: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Mappings merge, everything else is replaced; the arguments are left as they are."""
    merged = dict(base)
    for key, value in patch.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def apply_patch(raw: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Merge a recipe, a variant or overrides onto a recipe.

    A patch that names another model, data set, optimizer or schedule starts from that one's defaults: the arguments, columns
    and revisions of the one before mean nothing to it.
    """
    raw = dict(raw)
    for section, belongs_to_name in OF_ONE_NAME.items():
        old, new = raw.get(section), patch.get(section)
        if isinstance(old, dict) and isinstance(new, dict) and new.get("name", old.get("name")) != old.get("name"):
            kept = {"pretrained"} if str(new["name"]).startswith("hf_accel/") else set()  # these have no weights
            raw[section] = {key: value for key, value in old.items() if key not in belongs_to_name or key in kept}
    old, new = raw.get("training"), patch.get("training")
    if isinstance(old, dict) and isinstance(new, dict):
        changed = [
            names for choice, names in OF_ONE_CHOICE.items() if new.get(choice, old.get(choice)) != old.get(choice)
        ]
        dropped = {name for names in changed for name in names}
        raw["training"] = {key: value for key, value in old.items() if key not in dropped}
    return merge(raw, patch)


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        chain = " -> ".join(p.stem for p in (*seen, path))
        raise UserError(f"{path}: extends goes in a circle ({chain})")
    raw = _read_yaml(path)
    base = raw.pop("extends", None)
    if base is None:
        return raw
    inherited = _read(_find_base(path, base), (*seen, path.resolve()))
    return apply_patch({key: value for key, value in inherited.items() if key not in NAMES_OF_ONE_RUN}, raw)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise UserError(f"{path}: holds more than {_LARGEST_FILE >> 20} MiB, expected a recipe")
        raw = parse_yaml(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UserError as error:
        raise UserError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise UserError(f"{path}: holds {type(raw).__name__}, expected a mapping with model:, data: and training:")
    return raw


def _find_base(path: Path, base: Any) -> Path:
    """The file that `extends: base` of another file means: next to it, or a shipped recipe."""
    if not isinstance(base, str):
        raise UserError(f"{path}: extends is {shown(base)}, expected the name or the file of a recipe")
    here = path.parent / base
    for candidate in (here, Path(f"{here}.yaml"), RECIPES_FOLDER / f"{base}.yaml"):
        if os.path.isfile(candidate):
            return candidate
    shipped = shipped_recipes()
    if base not in shipped:
        near = did_you_mean(base, shipped)
        raise UserError(f"{path}: extends is {shown(base)}: there is no such file and no recipe of that name. {near}")
    return shipped[base]


def _variant_patch(
    path: Path, variants: dict[str, dict[str, Any]], variant: str, seen: tuple[str, ...] = ()
) -> dict[str, Any]:
    if variant in seen:
        raise UserError(f"{path}: variants.{variant}.extends goes in a circle ({' -> '.join((*seen, variant))})")
    if variant not in variants:
        raise UserError(f"{path.stem}: no variant {variant!r}. {did_you_mean(variant, list(map(str, variants)))}")
    problem = patch_form_problem(variants[variant])
    if problem is not None:
        raise UserError(f"{path}: variants.{variant}{problem}")
    patch = dict(variants[variant])
    base = patch.pop("extends", None)
    return patch if base is None else merge(_variant_patch(path, variants, base, (*seen, variant)), patch)


def _training(values: dict[str, Any]) -> dict[str, Any]:
    """The values as they were given, except that 64.0 becomes 64 where a whole number is expected."""
    checked = training_settings().model_validate(values)
    whole = {name: number for name in values if type(number := getattr(checked, name)) is int}
    return {name: whole.get(name, value) for name, value in values.items()}


def differences(before: Recipe, now: Recipe) -> list[str]:
    """Dotted names of the settings in which two recipes differ."""
    old, new = before.to_dict(), now.to_dict()
    names = []
    for section in ("model", "data", "training"):
        keys = sorted(set(old[section]) | set(new[section]))
        names += [f"{section}.{key}" for key in keys if old[section].get(key) != new[section].get(key)]
    return names or ["name or variant"]
