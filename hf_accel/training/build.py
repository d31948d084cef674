"""`build_trainer(recipe)`: the one place where data, model, transforms and measurement are wired to the Trainer."""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import EarlyStoppingCallback, TrainingArguments, set_seed

from hf_accel.config.recipe import Recipe
from hf_accel.data.splits import ImageSplit, Splits, load_splits
from hf_accel.errors import UserError
from hf_accel.formatting import format_bytes
from hf_accel.inputs.batches import ImageBatches, TransformedBatches
from hf_accel.inputs.cache import open_evaluation_pixels, open_training_pixels
from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.inputs.sampling import draw_partners, mixes
from hf_accel.machine.allocator import keep_freed_memory
from hf_accel.measure.steps import MeasureCallback
from hf_accel.methods.cpu_kernels import CpuKernels
from hf_accel.methods.losses import balanced_class_weights
from hf_accel.methods.whitening import whiten_stem
from hf_accel.models.load import LoadedModel, load_model
from hf_accel.models.probe import unused_parameters
from hf_accel.models.trial import flops_per_image
from hf_accel.training.arguments import Arguments, training_arguments
from hf_accel.training.evaluation import EvaluationMetrics
from hf_accel.training.progress import BarCallback
from hf_accel.training.selection import refuse_missing_metric
from hf_accel.training.trainer import ImageTrainer, LastEpochCallback
from hf_accel.transforms.pipeline import EvalTransform, TrainTransform
from hf_accel.transforms.progressive_resizing import TrainingSides, training_sides
from hf_accel.transforms.views import views_note


def build_trainer(
    recipe: Recipe,
    splits: Splits | None = None,
    loaded: LoadedModel | None = None,
    arguments: Arguments | None = None,
) -> ImageTrainer:
    """Everything a recipe asks for, ready for `.train()`.

    Args:
        recipe: from `load_recipe`.
        splits: from `load_splits`; None loads them.
        loaded: from `load_model`; None loads it. Its head must fit the labels of `splits`.
        arguments: from `training_arguments`; None builds them.
    Returns:
        A Trainer with `splits`, `loaded` and `notes` (what was chosen for the user and why) as attributes, and
        `test_dataset` beside `train_dataset` and `eval_dataset`.
    Raises:
        UserError: anything in the recipe that cannot run here.
    """
    selection = recipe.data.validation > 0
    if recipe.data.transforms == "loader" and recipe.data.cache == "device":
        raise UserError(
            f"{recipe.name}: data.transforms is loader and data.cache is device, but the loader has no pixels that are on "
            "the device. Set data.transforms: device, or data.cache: memory."
        )
    arguments = arguments or training_arguments(recipe, has_validation=selection)
    args = arguments.training
    splits = splits or load_splits(recipe.data, seed=args.seed, selection=selection)
    refuse_missing_metric(recipe.name, args.metric_for_best_model, len(splits.label_names))
    notes = []
    if arguments.keep_freed_memory:
        refusal = keep_freed_memory()
        notes.append(f"freed memory {'stays for the next step' if refusal is None else f'is given back: {refusal}'}")
    set_seed(args.seed)  # the new head must not depend on what was drawn before
    loaded = loaded or load_model(recipe.model, splits.label_names, recipe.data.image_size)
    if args.gradient_checkpointing and not loaded.model.supports_gradient_checkpointing:
        raise UserError(
            f"{recipe.name}: training.gradient_checkpointing is true, and {type(loaded.model).__name__} of "
            f"{recipe.model.name} cannot compute its activations again. Set it to false, or take a timm model."
        )
    require_space(recipe.output_dir, args, loaded.parameters)
    num_labels = len(splits.label_names)
    preprocessing = Preprocessing.of(loaded.processor)
    sides, flops_by_side = None, {}
    if recipe.data.progressive_resizing is not None:  # first: it refuses a model that is not square as what it is
        sides = training_sides(recipe.data.progressive_resizing, preprocessing, args, len(splits.train))
    flops = flops_per_image(loaded.model, (preprocessing.height, preprocessing.width))
    stem_notes = [whiten_stem(loaded.model, splits.train, preprocessing)] if recipe.model.whiten_stem else []
    if sides is not None:
        setting = "data.progressive_resizing"
        flops_by_side = {side: flops_per_image(loaded.model, side, setting) for side in sides.first_epochs()}
    train_dataset = _train_batches(splits.train, recipe, preprocessing, args, sides)
    train_transform = TrainTransform(
        recipe.data.augment,
        preprocessing,
        num_labels=num_labels,
        seed=args.seed,
        channels_last=recipe.model.channels_last,
        resident=train_dataset.pixels.resident,
    )
    if recipe.data.transforms == "loader":
        train_dataset = TransformedBatches(train_dataset, train_transform)
    # opened before the Trainer, whose constructor makes the output folder
    eval_dataset = _eval_batches(splits.validation, recipe, preprocessing, args.device)
    test_dataset = _eval_batches(splits.test, recipe, preprocessing, args.device)
    class_weights = _class_weights(recipe, splits)
    if args.world_size > 1 and args.ddp_find_unused_parameters is None:
        notes += _leave_out_search(loaded, arguments)
    trainer = ImageTrainer(
        model=loaded.model,
        args=args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        processing_class=loaded.processor,
        compute_metrics=EvaluationMetrics(num_labels),
        train_transform=train_transform,
        eval_transform=EvalTransform(preprocessing, channels_last=recipe.model.channels_last),
        class_weights=class_weights,
        num_labels=num_labels,
        flops_per_image=flops,
        kernels=chosen_kernels(recipe, args),
        muon=arguments.muon,
        flops_by_side=flops_by_side,
        test_time_augmentation=recipe.data.test_time_augmentation,
    )
    trainer.measuring = MeasureCallback(trainer.measurement, args.device)
    trainer.add_callback(trainer.measuring)
    trainer.add_callback(BarCallback())
    trainer.add_callback(LastEpochCallback(trainer))
    if arguments.early_stopping:
        trainer.add_callback(EarlyStoppingCallback(**arguments.early_stopping))
    trainer.splits = splits
    trainer.loaded = loaded
    trainer.test_dataset = test_dataset
    trainer.arguments = arguments
    notes += views_note(recipe.data.test_time_augmentation)
    if sides is not None:
        notes.append(sides.note)
    if isinstance(trainer.kernels, CpuKernels):
        notes.append("kernels: those of PyTorch that are slow in bf16 on a CPU are replaced")
    trainer.notes = [*splits.notes, *loaded.notes, *stem_notes, *arguments.notes, *notes]
    return trainer


def _leave_out_search(loaded: LoadedModel, arguments: Arguments) -> list[str]:
    """Upstream has DDP look at every step for parameters that took no part in it; mostly there are none."""
    if unused_parameters(loaded.model, loaded.image_size):
        return []
    arguments.training.ddp_find_unused_parameters = arguments.changed["ddp_find_unused_parameters"] = False
    return ["ddp_find_unused_parameters: False (every parameter takes part in a step, so no step has to look)"]


def chosen_kernels(recipe: Recipe, args: TrainingArguments) -> AbstractContextManager:
    """The context in which steps compute; a compiler finds kernels of its own."""
    replaces = recipe.model.kernels == "auto" and args.device.type == "cpu" and args.bf16 and not args.torch_compile
    return CpuKernels() if replaces else nullcontext()


def require_space(folder: Path, args: TrainingArguments, parameters: int) -> None:
    """Refuse a run whose checkpoints will not fit on the disk, before anything is written.

    Raises:
        UserError: fewer bytes are free than the model and its checkpoints (weights and two moments each) take.
    """
    kept = args.save_total_limit + 1 if args.save_total_limit else 2  # the newest is written before the oldest goes
    checkpoints = 0 if args.save_strategy == "no" else kept
    needed = 4 * parameters * (1 + checkpoints * (1 if args.save_only_model else 3))
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise UserError(
            f"--output_dir {folder}: {place} is no folder that can be written. Choose another --output_dir."
        )
    # what an unfinished or overwritten run left here makes room as this one writes
    left = sum(path.stat().st_size for path in folder.glob("checkpoint-*/*") if path.is_file())
    free = shutil.disk_usage(place).free
    if free + left < needed:
        raise UserError(
            f"{folder}: no space left for this run: it needs about {format_bytes(needed)} for the model and {checkpoints} "
            f"checkpoints, and {format_bytes(free)} are free. Free some, choose another --output_dir, or keep fewer checkpoints "
            "(--save_strategy no, --save_only_model true)."
        )


def build_evaluator(
    recipe: Recipe, loaded: LoadedModel, split: ImageSplit, arguments: Arguments
) -> tuple[ImageTrainer, ImageBatches]:
    """A Trainer that only scores, and the batches of `split` for its `predict`."""
    preprocessing = Preprocessing.of(loaded.processor)
    transform = EvalTransform(preprocessing, channels_last=recipe.model.channels_last)
    num_labels = len(split.label_names)
    trainer = ImageTrainer(
        model=loaded.model,
        args=arguments.training,
        compute_metrics=EvaluationMetrics(num_labels),
        train_transform=transform,
        eval_transform=transform,
        class_weights=None,
        num_labels=num_labels,
        flops_per_image=0,
        kernels=chosen_kernels(recipe, arguments.training),
        test_time_augmentation=recipe.data.test_time_augmentation,
    )
    return trainer, _eval_batches(split, recipe, preprocessing, arguments.training.device)


def _train_batches(
    split: ImageSplit,
    recipe: Recipe,
    preprocessing: Preprocessing,
    args: TrainingArguments,
    sides: TrainingSides | None,
) -> ImageBatches:
    pixels = open_training_pixels(split, recipe.data, preprocessing, args.device)
    partners = partial(draw_partners, args.seed, len(split)) if mixes(recipe.data.augment) else None
    return ImageBatches(split, pixels, partners, sides)


def _eval_batches(
    split: ImageSplit | None, recipe: Recipe, preprocessing: Preprocessing, device: torch.device
) -> ImageBatches | None:
    if split is None:
        return None
    return ImageBatches(split, open_evaluation_pixels(split, recipe.data, preprocessing, device))


def _class_weights(recipe: Recipe, splits: Splits) -> Tensor | None:
    asked = recipe.data.class_weights
    if asked is None:
        return None
    if asked == "balanced":
        return balanced_class_weights(torch.as_tensor(splits.train.labels), len(splits.label_names))
    if len(asked) != len(splits.label_names):
        raise UserError(
            f"{recipe.name}: data.class_weights has {len(asked)} numbers, expected one for each of the "
            f"{len(splits.label_names)} classes"
        )
    return torch.tensor(asked, dtype=torch.float32)
