"""The recipe that is tuned, and what each set of techniques makes of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_accel.comparison.runs import KEY_ENVIRONMENT
from hf_accel.config.flags import overrides_from_flags
from hf_accel.config.recipe import Recipe, RecipeFile, load_recipe, merge
from hf_accel.config.yaml_text import dump_yaml
from hf_accel.files import write_whole
from hf_accel.tuning.space import Technique

# Settings of `training` on which neither speed nor memory depends.
NOT_IN_THE_KEY = ("output_dir", "seed", "data_seed", "resume_from_checkpoint", "push_to_hub", "hub_model_id",
                  "hub_token", "report_to", "run_name", "logging_steps")  # fmt: skip
# In plain fp32, by the kernels of PyTorch: whose losses others are compared with.
REFERENCE_PATCH: dict[str, Any] = {
    "model": {"kernels": "library"},
    "training": {"bf16": False, "fp16": False, "torch_compile": False},
}


@dataclass(frozen=True)
class Candidates:
    """A recipe with the settings of the command line."""

    file: RecipeFile
    variant: str | None
    overrides: dict[str, Any]

    @classmethod
    def read(cls, name: str, variant: str | None, flags: dict[str, str]) -> Candidates:
        """Raises UserError: no such recipe, variant or setting."""
        return cls(RecipeFile.read(name), variant, overrides_from_flags(flags))

    @property
    def plain(self) -> Recipe:
        return self.with_patch({})

    def recipe(self, techniques: Sequence[Technique]) -> Recipe:
        """Raises UserError: the recipe cannot have these settings."""
        return self.with_patch(patch_of(techniques))

    def with_patch(self, patch: dict[str, Any]) -> Recipe:
        return self.file.recipe(self.variant, merge(self.overrides, patch))

    def reference(self, mixed_precision: bool) -> Recipe | None:
        """The same in fp32 and eager; None where the recipe is that already.

        Args:
            mixed_precision: whether `bf16: auto` is a 16-bit format here.
        """
        training = self.plain.training
        bf16 = training.get("bf16")
        is_16_bit = training.get("fp16") or (mixed_precision if bf16 == "auto" else bf16)
        return self.with_patch(REFERENCE_PATCH) if is_16_bit or training.get("torch_compile") else None

    def write(self, path: Path, patch: dict[str, Any], remarks: Sequence[str]) -> None:
        """Write a recipe that `train` takes: one that extends the recipe, or a whole one where that is not the same."""
        wanted = self.with_patch(patch)
        header = "".join(f"# {line}\n" for line in remarks)
        base = self.file.given if self.file.path.stem == self.file.given else str(self.file.path.resolve())
        write_whole(path, header + dump_yaml({"extends": base, **merge(self.overrides, patch)}))
        if not same_run(load_recipe(path), wanted):
            values = {
                name: value for name, value in wanted.without_secrets().to_dict().items() if name != "output_name"
            }
            write_whole(path, header + dump_yaml({**values, "name": path.stem}))


def patch_of(techniques: Sequence[Technique]) -> dict[str, Any]:
    """One patch of several techniques; of contradicting settings, the last counts."""
    patch: dict[str, Any] = {}
    for technique in techniques:
        patch = merge(patch, technique.patch)
    return patch


def same_run(one: Recipe, other: Recipe) -> bool:
    """Whether two recipes differ in their names alone."""
    return (one.model, one.data, one.training) == (other.model, other.data, other.training)


def recipe_key(recipe: Recipe, environment: dict[str, Any]) -> str:
    """What a result holds for: everything of the recipe that speed can depend on, the machine and the versions."""
    described = {name: value for name, value in recipe.to_dict().items() if name in ("model", "data", "training")}
    described["training"] = {name: value for name, value in described["training"].items() if name not in NOT_IN_THE_KEY}
    machine = {name: environment.get(name) for name in KEY_ENVIRONMENT if name != "commit"}
    text = json.dumps([described, machine], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
