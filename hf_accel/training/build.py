"""`build_trainer(recipe)`: the one place where data, model, methods and measurement are wired to the Trainer."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace

import torch
from transformers import EarlyStoppingCallback, PreTrainedModel, TrainerCallback, TrainingArguments, set_seed

from hf_accel.config.recipe import Recipe
from hf_accel.config.selection import refuse_missing_metric
from hf_accel.data.splits import ImageSplit, Splits
from hf_accel.machine.allocator import apply_keep_freed_memory
from hf_accel.methods.batch_norm import BatchNormStatisticsOnce
from hf_accel.methods.cpu_kernels import CpuKernels, chosen_kernels
from hf_accel.methods.losses import class_weights
from hf_accel.methods.whitening import whiten_stem
from hf_accel.models.load import LoadedModel
from hf_accel.models.probe import unused_parameters
from hf_accel.runs.folder import model_place
from hf_accel.tasks import TASKS
from hf_accel.tasks.image_classification import ImageInputs
from hf_accel.training.arguments import Arguments, training_arguments
from hf_accel.training.checks import require_batches_that_train, require_steps, require_usable_model
from hf_accel.training.evaluation import EvaluationMetrics
from hf_accel.training.progress import BarCallback
from hf_accel.training.trainer import ImageTrainer


def build_trainer(
    recipe: Recipe,
    splits: Splits | None = None,
    loaded: LoadedModel | None = None,
    arguments: Arguments | None = None,
) -> ImageTrainer:
    """Everything a recipe asks for, ready for `.train()`.

    Args:
        recipe: the recipe, as `load_recipe` returns it.
        splits: the rows, as `load_splits` returns them; None loads them.
        loaded: the model, as `load_model` returns it; None loads it. Its head must fit the labels of `splits`.
        arguments: the arguments, as `training_arguments` returns them; None builds them.
    Returns:
        A Trainer with `splits`, `loaded`, `arguments` and `notes` (what was chosen for the user and why) as attributes, and
        `test_dataset` next to `train_dataset` and `eval_dataset`.
    Raises:
        UserError: anything in the recipe that cannot run here.
    """
    task = TASKS[recipe.model.task]
    arguments = arguments or training_arguments(recipe, has_validation=recipe.data.validation > 0)
    args = arguments.training
    splits = splits or task.open_splits(recipe.data, args.seed)
    refuse_missing_metric(recipe.name, args.metric_for_best_model, len(splits.label_names))
    require_steps(recipe, args, len(splits.train))
    memory_notes = apply_keep_freed_memory(arguments.keep_freed_memory)
    set_seed(args.seed)  # the new head must not depend on what was drawn before
    loaded = loaded or task.load_model(from_run_folder(recipe), splits.label_names)
    require_usable_model(recipe, args, loaded)
    inputs = task.training_inputs(recipe, splits, loaded, args)
    require_batches_that_train(recipe, args, len(splits.train), inputs, loaded.model)
    model_notes = apply_model_methods(recipe, loaded, splits, inputs)
    methods = step_methods(recipe, args, loaded.model)
    ddp_notes = skip_unused_parameter_search(loaded.model, inputs.example(loaded.model), arguments)
    notes = [*splits.notes, *loaded.notes, *model_notes, *arguments.notes, *memory_notes, *ddp_notes, *inputs.notes]
    return ImageTrainer(
        model=loaded.model,
        args=args,
        data_collator=task.collate,
        train_transform=inputs.train_transform(),  # augmentation, mixup, progressive resizing, alternating flip
        train_dataset=inputs.train_batches(splits.train),
        eval_transform=inputs.eval_transform(),
        eval_dataset=None if splits.validation is None else inputs.scored_batches(splits.validation),
        test_dataset=inputs.scored_batches(splits.test),
        scoring_model=inputs.scoring_model(),  # test-time augmentation
        methods=methods,
        class_weights=class_weights(
            recipe.name, recipe.data.class_weights, torch.as_tensor(splits.train.labels), len(splits.label_names)
        ),
        muon=arguments.muon,
        skips_bad_steps=arguments.skips_bad_steps,
        flops_of_row=inputs.flops_of_row,
        processing_class=loaded.processor,
        compute_metrics=EvaluationMetrics(len(splits.label_names)),
        callbacks=[BarCallback(), *early_stopping(arguments)],
        splits=splits,
        loaded=loaded,
        arguments=arguments,
        notes=[*notes, *(method.note for method in methods if isinstance(method, CpuKernels))],
    )


def from_run_folder(recipe: Recipe) -> Recipe:
    """The same recipe; where its model is the folder of a run, with the model in that folder."""
    return replace(recipe, model=replace(recipe.model, name=model_place(recipe.model.name)))


def build_evaluator(recipe: Recipe, loaded: LoadedModel, split: ImageSplit, arguments: Arguments) -> ImageTrainer:
    """A Trainer that only scores: its `test_dataset` has the batches of `split`."""
    task = TASKS[recipe.model.task]
    inputs = task.scoring_inputs(recipe, loaded, arguments.training)
    return ImageTrainer(
        model=loaded.model,
        args=arguments.training,
        data_collator=task.collate,
        eval_transform=inputs.eval_transform(),
        test_dataset=inputs.scored_batches(split),
        scoring_model=inputs.scoring_model(),
        methods=step_methods(recipe, arguments.training, loaded.model),
        compute_metrics=EvaluationMetrics(len(split.label_names)),
    )


def apply_model_methods(recipe: Recipe, loaded: LoadedModel, splits: Splits, inputs: ImageInputs) -> list[str]:
    """The methods that change the model before training, in the order in which they act; returns what they did."""
    notes = []
    if recipe.model.whiten_stem:
        notes.append(whiten_stem(loaded.model, splits.train, inputs.preprocessing))
    return notes


def step_methods(
    recipe: Recipe, args: TrainingArguments, model: PreTrainedModel
) -> list[TrainerCallback | AbstractContextManager]:
    """The methods that act on each step, in the order in which they act."""
    methods = [
        chosen_kernels(recipe.model.kernels, args),
        BatchNormStatisticsOnce(model) if args.gradient_checkpointing else None,
    ]
    return [method for method in methods if method is not None]


def early_stopping(arguments: Arguments) -> list[EarlyStoppingCallback]:
    return [EarlyStoppingCallback(**arguments.early_stopping)] if arguments.early_stopping else []


def skip_unused_parameter_search(
    model: PreTrainedModel, inputs: dict[str, torch.Tensor], arguments: Arguments
) -> list[str]:
    """Keep DDP from searching every step for parameters that took no part in it, if there are none.

    Args:
        inputs: the arguments of a forward pass.
    Returns:
        A note for the report, if the search is left out.
    """
    args = arguments.training
    if args.world_size == 1 or args.ddp_find_unused_parameters is not None or unused_parameters(model, inputs):
        return []
    args.ddp_find_unused_parameters = arguments.changed["ddp_find_unused_parameters"] = False
    return ["ddp_find_unused_parameters: False (every parameter takes part in a step, so no step has to look)"]
