"""docs/migrate.md: the flags of other tools and what to write here. `hf-accel recipe migrate`."""

from __future__ import annotations

from collections.abc import Callable

from hf_accel.config.migration.answers import TOOLS, answer_to
from hf_accel.config.migration.counterparts import ALONE, Counterpart, dashed

INTRODUCTION = """\
# Coming from another tool

Made by `hf-accel recipe migrate` from the table that answers unknown flags; do not edit it by hand.

A flag of another tool is not guessed: the command stops before anything is written, and says for all such flags at once what
to write instead.

```text
$ hf-accel train --data-dir ./photos --lr 1e-3 --epochs 5 --amp --jsd-loss
{answer}
```

Arguments of TrainingArguments have their own names, with underscores or dashes; all other settings are dotted, and
[recipe.md](recipe.md) lists them. [arguments.md](arguments.md) says what each argument of TrainingArguments does here; the
tables below have only names that differ. A value in them, such as `1e-3`, is an example and stands for yours.
"""

EXAMPLES = {
    "timm": """\
```bash
# before
python train.py ./photos --model efficientnet_b0 --pretrained --img-size 224 --batch-size 32 --epochs 10 \\
  --opt adamw --lr 5e-4 --weight-decay 0.02 --sched cosine --warmup-epochs 1 --smoothing 0.1 --mixup 0.2 --amp
# after
hf-accel train --data.name ./photos --model.name timm/efficientnet_b0 --data.image_size 224 \\
  --per_device_train_batch_size 32 --num_train_epochs 10 --optim adamw_torch --learning_rate 5e-4 --weight_decay 0.02 \\
  --lr_scheduler_type cosine --warmup_steps 0.1 --label_smoothing_factor 0.1 --data.augment.mixup 0.2 --bf16 auto
```

timm's defaults are those of training from scratch on ImageNet (SGD, 300 epochs, random weights); here a model is
pretrained and the optimizer is AdamW unless the recipe says otherwise. Classes are folders below `photos/train/` and
`photos/validation/`, as in timm, or directly below `photos/`.
""",
    "the Hugging Face example": """\
```bash
# before
python run_image_classification.py --model_name_or_path google/vit-base-patch16-224-in21k --train_dir ./photos \\
  --train_val_split 0.15 --output_dir outputs/vit --do_train --do_eval --learning_rate 2e-5 --num_train_epochs 5 \\
  --per_device_train_batch_size 8 --fp16 --remove_unused_columns False --ignore_mismatched_sizes
# after
hf-accel train --model.name google/vit-base-patch16-224-in21k --data.name ./photos \\
  --data.validation 0.15 --output_dir outputs/vit --learning_rate 2e-5 --num_train_epochs 5 \\
  --per_device_train_batch_size 8 --fp16
```

The arguments of TrainingArguments keep their names. `--do_train` and `--do_eval` may stay; they are what the command does.
`--ignore_mismatched_sizes` is not needed: a head for other classes is replaced, and nothing else may have another shape.
""",
    "Ultralytics": """\
```bash
# before
yolo classify train model=yolo11n-cls.pt data=./photos epochs=10 imgsz=224 batch=32 lr0=0.001 patience=3 erasing=0.4
# after
hf-accel train --data.name ./photos --num_train_epochs 10 --data.image_size 224 --per_device_train_batch_size 32 \\
  --learning_rate 1e-3 --early_stopping_patience 3 --data.augment.random_erasing 0.4
```

The folder is the same: `train/`, `val/` and `test/` with a folder per class. YOLO weights cannot be loaded; the default
model is an EfficientNet-B0. A setting is `--name value` here, not `name=value`.
""",
    "fastai": """\
```python
# before
crop = RandomResizedCrop(224, min_scale=0.35)
dls = ImageDataLoaders.from_folder("./photos", valid_pct=0.2, seed=42, bs=32, item_tfms=crop)
learn = vision_learner(dls, resnet34, metrics=accuracy, cbs=MixUp(0.4)).to_fp16()
learn.fine_tune(5, 1e-3)
```

```bash
# after
hf-accel train --data.name ./photos --data.validation 0.2 --seed 42 --per_device_train_batch_size 32 \\
  --data.image_size 224 --data.augment.crop random_resized --data.augment.scale '[0.35, 1.0]' \\
  --model.name timm/resnet34 --data.augment.mixup 0.4 --bf16 auto --num_train_epochs 5 --learning_rate 1e-3
```

`fine_tune` first trains the new head alone, and then all layers with lower rates for early ones; here all layers are trained
from the first step, with one rate unless `--layer_decay` or `--head_learning_rate` is given. The table has the names of
arguments and callbacks in fastai's code.
""",
    "other scripts": "Names that many training scripts have for the same things.\n",
}
EXAMPLE_FLAGS = {"data_dir": "./photos", "lr": "1e-3", "epochs": "5", "amp": "true", "jsd_loss": "true"}


def _with_dashes(name: str, value: str) -> str:
    return f"{dashed(name)} {value}".strip()


def _with_equals(name: str, value: str) -> str:
    return f"{name}={value or 'True'}"


def _as_python(name: str, value: str) -> str:
    return f"{name}({value})" if name[0].isupper() else f"{name}={value}" if value else name


SPELLING: dict[str, Callable[[str, str], str]] = {"Ultralytics": _with_equals, "fastai": _as_python}


def migration_guide() -> str:
    """The text of docs/migrate.md."""
    parts = [INTRODUCTION.replace("{answer}", f"error: {answer_to(EXAMPLE_FLAGS)}")]
    for tool, rows in TOOLS.items():
        heading = "Other scripts" if tool == "other scripts" else tool.removeprefix("the ")
        parts.append(f"## {heading}\n\n{EXAMPLES[tool]}")
        parts.append(_table(rows, SPELLING.get(tool, _with_dashes)))
    return "\n".join(parts)


def _table(rows: tuple[Counterpart, ...], spell: Callable[[str, str], str]) -> str:
    lines = ["| there | here | note |", "|---|---|---|"]
    lines += [
        f"| {_theirs(row, spell)} | {_code(row.answer(row.example))} | {_note(row)} |"
        for row in rows
        if _has_answer(row)
    ]
    lines += ["", "Without a counterpart:", "", "| there | instead |", "|---|---|"]
    lines += [f"| {_theirs(row, spell)} | {row.note} |" for row in rows if not _has_answer(row)]
    return "\n".join(lines) + "\n"


def _has_answer(row: Counterpart) -> bool:
    return bool(row.answer(row.example))


def _theirs(row: Counterpart, spell: Callable[[str, str], str]) -> str:
    bare = [_code(dashed(name) if spell is _with_dashes else name) for name in row.names]
    return ", ".join([_code(spell(row.names[0], row.example)), *bare[1:]] if _has_answer(row) else bare)


def _note(row: Counterpart) -> str:
    others: dict[str, list[str]] = {}
    for value, ours in row.values.items():
        if value not in (row.example.lower(), ALONE) and ours != row.answer(row.example):
            others.setdefault(ours, []).append(value)
    words = [
        f"{', '.join(_code(value) for value in values)}: {_code(ours) if ours else 'no counterpart'}"
        for ours, values in others.items()
    ]
    return "; ".join([*([row.note] if row.note else []), *words])


def _code(text: str) -> str:
    return f"`{text}`"
