"""docs/recipe.md: every setting of a recipe, from the fields that check it. `hf-accel recipe schema --format markdown`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo

from hf_accel.config.augmentation import AugmentSettings
from hf_accel.config.muon_settings import MuonSettings
from hf_accel.config.recipe import OF_ONE_CHOICE, OF_ONE_NAME
from hf_accel.config.schedules import SCHEDULES
from hf_accel.config.schema import Schema, expected, known_settings, options, schema_of, section_schema
from hf_accel.config.sections import SECTIONS
from hf_accel.config.selection import selection_defaults
from hf_accel.config.training import DEFAULTS, FIXED, MAPPINGS
from hf_accel.config.yaml_text import flow_yaml

INTRODUCTION = """\
# Recipe reference

Made by `hf-accel recipe schema --format markdown` from the fields that check a recipe; do not edit it by hand.

```yaml
# yaml-language-server: $schema=recipe.schema.json
extends: finetune                                    # start from a shipped recipe, or from a file
model: {name: timm/resnet50.a1_in1k}
data: {name: ./photos, augment: {mixup: 0.2}}
training: {learning_rate: 1e-4, num_train_epochs: 5} # TrainingArguments, name for name
variants:
  long: {training: {num_train_epochs: 20}}           # hf-accel train --recipe mine.yaml --variant long
```

`hf-accel recipe schema > recipe.schema.json` writes the schema for the first line, by which an editor completes and checks.
Everything in a recipe is checked before data or weights are touched, and all mistakes are reported at once.

## How a recipe is put together

- `extends`: a shipped recipe's name, or a file next to this one. Its `name` is not inherited: a file has its own, which
  names the folder of the run, `outputs/<recipe>/<variant>`. A name has no slashes and no control characters.
- `variants`: named patches. `extends` inside a variant names another variant that it starts from, and `null` removes an
  inherited variant. `ga` is short for `ga_same_batch`.
- The order is: the recipe that is extended, the recipe, the variant, the command line. Mappings merge; everything else,
  lists included, is replaced.
- A patch that names another model or data set drops the settings that belong to the previous one: {of_one_name}. One that
  names another `optim` or `lr_scheduler_type` drops {of_one_choice}.
- YAML is read as YAML 1.2 reads numbers (`2e-5` is one); dates are text. A key that appears twice is refused.

## On the command line

Arguments of `training` have their own names, the other settings have dots: `--learning_rate 1e-4`, `--data.cache disk`,
`--data.augment.flip true`. A value is read as YAML, unless the setting takes text: `--data.name 2024` is the folder 2024.
"""

TRAINING = """\
## `training`

TrainingArguments of the installed transformers, name for name; its documentation says what each does. Added to it are:

- `bf16: auto`: bf16 where the device multiplies it natively, else fp16 on CUDA, else fp32.
- `optim: muon`: orthogonalised steps; `optim_args` may hold {muon}.
- `optim: timm/NAME`: one of timm's optimizers, for example `timm/lamb`, or `timm/lookahead_lamb`; `optim_args` may hold the
  arguments of timm's class, `beta1`, `beta2` and `beta3` in place of its `betas`.
- `lr_scheduler_type: one_cycle` and `trapezoid`, with `lr_scheduler_kwargs` as in the tables below.
- `early_stopping_patience` and `early_stopping_threshold`, the arguments of EarlyStoppingCallback.
- `cpu_threads`: threads of PyTorch's operations on the CPU; unset: PyTorch's own choice.
- `keep_freed_memory` (default true): on a CPU, freed memory stays with the process for the next step.
- `on_nan` (default `stop`): a loss or gradient norm that is not finite ends the run, and nothing is saved after it; `skip`
  leaves out the step, and ends the run after 10 such steps in a row, or more than 10 among 100.
- `focal_gamma` (default 0, the plain cross-entropy): focal loss; rows that are predicted well count less.
- `generalized_cross_entropy` (default 0, the plain cross-entropy; 1: mean absolute error): a loss for noisy labels, which
  rows that are predicted badly dominate less; 0.7 is the published value.
- `ema_decay` (default 0: off): evaluated and saved is a moving average of the weights, for example with 0.999.
- `sparsity` (default null: off): weights of small magnitude become zero while the model trains, see below; on the command line,
  `--training.sparsity.final 0.6`.
- `quantization` (default null: off): weights and activations are rounded to int8 while the model trains, see below; `{}` takes
  the defaults.
- `layer_decay` (default 1: off): factor of each layer's learning rate over that of the layer after it, for example 0.75.
- `distillation_weight` (default 0.5 with `model.teacher`; 0: off): share of the loss that is the distance from the teacher's
  answers; the rest is the loss of the labels.
- `distillation_temperature` (default 2): divides the logits in that share of the loss; higher values show more of what the
  teacher knows about the other classes.
- `head_learning_rate`: learning rate of the classifier, where it is not `learning_rate`.
- `gradual_unfreezing`: the classifier learns first, and the layers before it join one by one until this share of the steps,
  for example 0.5.

`hub_token` is read, but never written to a file.

"""

DERIVED = """\
### Set according to other arguments

| argument | value | why |
|---|---|---|
| `save_strategy` | the value of `eval_strategy`; `epoch` where nothing is evaluated | as often as validation rows are scored |
| `save_steps` | the value of `eval_steps`, where both strategies are `steps` | the best checkpoint must be a saved one |
| `dataloader_persistent_workers` | `true` with `dataloader_num_workers` | workers start once, not every epoch |
| `use_cpu`, `dataloader_pin_memory` | `true`, `false` without an accelerator | memory is pinned for an accelerator |
| `accelerator_config` | `{non_blocking: true}` with pinned memory | a pinned batch is copied while the device computes |
"""


def recipe_reference() -> str:
    """The text of docs/recipe.md."""
    names = [f"`{section}.{name}`" for section, settings in OF_ONE_NAME.items() for name in settings]
    arguments = [f"`{name}`" for names in OF_ONE_CHOICE.values() for name in names]
    muon = ", ".join(f"`{field.name}` ({flow_yaml(field.default)})" for field in dataclasses.fields(MuonSettings))
    parts = [
        INTRODUCTION.replace("{of_one_name}", ", ".join(names)).replace("{of_one_choice}", ", ".join(arguments)),
        *(_section(f"## `{name}`", schema, kind) for name, schema, kind in _sections()),
        TRAINING.replace("{muon}", muon),
        *(
            f"### `lr_scheduler_kwargs` of `{name}`\n\n{_settings_table(schema_of(kind), kind)}"
            for name, kind in SCHEDULES.items()
        ),
        *(
            _section(f"### `training.{name}`", section_schema("training")["properties"][name], kind)
            for name, kind in MAPPINGS.items()
        ),
        "### Set, whatever the recipe says\n\n" + _arguments_table(FIXED),
        "### Set unless the recipe says otherwise\n\n" + _arguments_table(DEFAULTS),
        "With validation rows (`data.validation` above 0):\n\n"
        + _arguments_table(selection_defaults("", {}, has_validation=True)),
        "Without:\n\n" + _arguments_table(selection_defaults("", {}, has_validation=False)),
        DERIVED,
    ]
    return "\n".join(parts)


def _sections() -> Iterator[tuple[str, Schema, type]]:
    for section, kind in SECTIONS.items():
        yield section, section_schema(section), kind
        if section == "data":
            yield "data.augment", known_settings(section_schema("data"))["augment"], AugmentSettings


def _section(heading: str, schema: Schema, kind: Any) -> str:
    """A heading, what the settings are for, and a table of them; `kind` is the dataclass of the schema."""
    return f"{heading}\n\n{options(schema)[0]['description']}\n\n{_settings_table(schema, kind)}"


def _settings_table(schema: Schema, kind: Any) -> str:
    fields: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(kind)}
    rows = ["| setting | takes | default | meaning | example |", "|---|---|---|---|---|"]
    for name, setting in known_settings(schema).items():
        if name == "augment":
            rows.append(
                "| `augment` | the settings of `data.augment`, below | | Random changes to training images. | |"
            )
            continue
        example = f"`{name}: {flow_yaml(setting['examples'][0])}`" if "examples" in setting else ""
        rows.append(
            f"| `{name}` | {expected(setting)} | {_default(fields[name])} | {setting['description']} | {example} |"
        )
        for inner, part in known_settings(setting).items():
            default = f"`{flow_yaml(part['default'])}`" if "default" in part else "must be given"
            rows.append(f"| `{name}.{inner}` | {expected(part)} | {default} | {part['description']} | |")
    return "\n".join(rows) + "\n"


def _arguments_table(arguments: dict[str, tuple[Any, str]]) -> str:
    rows = [f"| `{name}` | `{flow_yaml(value)}` | {why} |" for name, (value, why) in arguments.items()]
    return "\n".join(["| argument | value | why |", "|---|---|---|", *rows]) + "\n"


def _default(field: FieldInfo) -> str:
    return "must be given" if field.is_required() else f"`{flow_yaml(field.get_default(call_default_factory=True))}`"
