"""`build_trainer(recipe)`: the one place where data, model, methods and measurement are wired to the Trainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments, set_seed
from transformers.image_processing_utils import BaseImageProcessor

from hf_accel.config.recipe import Recipe
from hf_accel.config.selection import refuse_missing_metric
from hf_accel.config.training import EMA_DECAY, GRADUAL_UNFREEZING
from hf_accel.data.given import Classes
from hf_accel.data.labelled_rows import LabelledRows
from hf_accel.data.splits import Splits
from hf_accel.errors import UserError
from hf_accel.machine.allocator import apply_keep_freed_memory
from hf_accel.machine.threads import apply_cpu_threads
from hf_accel.methods import ChoosesRows
from hf_accel.methods.batch_norm import BatchNormStatisticsOnce
from hf_accel.methods.cpu_kernels import CpuKernels, chosen_kernels
from hf_accel.methods.distillation import Distillation
from hf_accel.methods.ema import WeightAverage
from hf_accel.methods.fitted_head import fitted_head
from hf_accel.methods.linear_probe import RunBatches, linear_probe
from hf_accel.methods.quantization_aware import QuantizationAware
from hf_accel.methods.row_losses import chosen_rows
from hf_accel.methods.sparsity import MagnitudePruning
from hf_accel.methods.unfreezing import GradualUnfreezing
from hf_accel.methods.whitening import whiten_stem
from hf_accel.models.loaded import Loaded
from hf_accel.models.lora import add_adapters
from hf_accel.models.probe import unused_parameters
from hf_accel.tasks import TASKS
from hf_accel.tasks.image_inputs import ImageInputs
from hf_accel.tasks.text_classification import TextInputs
from hf_accel.training.answers import Answers, answers_of
from hf_accel.training.arguments import Arguments, training_arguments
from hf_accel.training.checks import require_batches_that_train, require_steps, require_usable_model
from hf_accel.training.early_stopping import EarlyStopping
from hf_accel.training.evaluation import EvaluationMetrics
from hf_accel.training.given_model import GivenModel
from hf_accel.training.scoring import Method, Methods
from hf_accel.training.teacher import distillation
from hf_accel.training.trainer import ImageTrainer

if TYPE_CHECKING:
    from hf_accel.tasks.image_inputs import OwnTransforms

Inputs = ImageInputs | TextInputs
# Methods that say in the report what they do.
NOTED = (
    CpuKernels | ChoosesRows | Distillation | GradualUnfreezing | MagnitudePruning | QuantizationAware | WeightAverage
)


def build_trainer(
    recipe: Recipe,
    splits: Any = None,
    loaded: Loaded | None = None,
    arguments: Arguments | None = None,
    *,
    model: Any = None,
    model_init: Callable[..., Any] | None = None,
    processor: BaseImageProcessor | PreTrainedTokenizerBase | None = None,
    label_names: list[str] | None = None,
    train_transform: Callable[[Any], Any] | None = None,
    eval_transform: Callable[[Any], Any] | None = None,
    compute_metrics: Callable[[EvalPrediction], dict[str, Any]] | None = None,
    standard_metrics: bool = True,
    metric_for_best_model: str | None = None,
) -> ImageTrainer:
    """Everything a recipe asks for, ready for `.train()`; what is given here takes the place of what the recipe names.

    Args:
        recipe: the recipe, as `load_recipe` returns it.
        splits: the rows. None loads those of the recipe. Else the train rows, or a mapping of train, validation and test to
            rows (`datasets.DatasetDict` too). Rows are a `datasets.Dataset`; a DataFrame as `data.labels` is read; a torch data
            set of (image, label) or of dictionaries; a list of such rows; or a pair (images, labels). See `data.given_texts` and
            `given_label_sets`, too. An image is a path, a PIL image, uint8 pixels (H, W, C) or (C, H, W), or a float tensor.
        loaded: the model, as `load_model` returns it; its head must fit the labels.
        arguments: the arguments, as `training_arguments` returns them; None builds them.
        model: a classifier of transformers, also one that PEFT wraps; a timm model; or any `torch.nn.Module` that turns
            (B, C, H, W) into logits (B, classes). It is trained in place.
        model_init: a function of no argument, or of an optuna trial, that returns such a model; `train()` calls it.
        processor: the image processor or the tokenizer of `model`; None takes its own.
        label_names: the classes of `splits`, by number.
        train_transform: of one training image, in place of `data.augment`: PIL image (RGB) -> float tensor (C, H, W), or
            -> an image, which the model's preprocessing follows. It may draw from torch, NumPy and `random`.
        eval_transform: the same for evaluation, in place of the model's preprocessing.
        compute_metrics: as for the Trainer: `EvalPrediction` with logits (N, classes) and label_ids (N,) -> metrics, which
            are added to ours.
        standard_metrics: False leaves out ours, except for the loss.
        metric_for_best_model: the metric of `compute_metrics` that selects the best checkpoint; a recipe can name ours only.
            The higher value is better, unless its name ends in "loss" or the recipe sets greater_is_better.
    Returns:
        A Trainer with the attributes `recipe`, `splits`, `loaded`, `arguments`, `notes` (what was chosen for the user and
        why) and `test_dataset`.
    Raises:
        UserError: anything in the recipe that cannot run here, or an object that is none of these.

    >>> build_trainer(load_recipe("finetune"), (["a.jpg", "b.jpg"], ["cat", "dog"])).train()  # doctest: +SKIP
    """
    given = GivenModel(model, model_init, processor)
    given.refuse_contradictions(loaded)
    if metric_for_best_model is not None:
        recipe = replace(recipe, training={**recipe.training, "metric_for_best_model": metric_for_best_model})
    task = TASKS[recipe.model.task]
    own = task.own_transforms(train_transform, eval_transform)
    recipe, splits = open_rows(recipe, splits, Classes(label_names, given.label_names()))
    if arguments is None:
        has_validation = recipe.data.selects if splits is None else splits.validation is not None
        arguments = training_arguments(recipe, has_validation, compute_metrics is not None, standard_metrics)
    splits = splits or task.open_splits(recipe.data, arguments.training.seed)
    metrics = partial(EvaluationMetrics, own=compute_metrics, standard=standard_metrics)
    return wire_trainer(recipe, splits, loaded, arguments, given, own, metrics)


def open_rows(recipe: Recipe, splits: Any, classes: Classes) -> tuple[Recipe, Splits | None]:
    """Rows that a caller brings, as `Splits`, and the recipe with their name; None: the recipe's data is to be loaded."""
    if splits is None or isinstance(splits, Splits):
        if classes.names is not None:
            raise UserError("label_names: names the classes of rows that are given with splits=, and none are given.")
        return recipe, splits
    seed = int(recipe.training.get("seed", TrainingArguments.seed))
    opened = TASKS[recipe.model.task].given_splits(splits, recipe.data, seed, classes)
    return replace(recipe, data=replace(recipe.data, name=opened.name)), opened


def wire_trainer(
    recipe: Recipe,
    splits: Splits,
    loaded: Loaded | None,
    arguments: Arguments,
    given: GivenModel,
    own: OwnTransforms,
    metrics: Callable[[Answers], EvaluationMetrics],
) -> ImageTrainer:
    """`build_trainer` once the rows and the arguments are known."""
    task, args = TASKS[recipe.model.task], arguments.training
    refuse_missing_metric(recipe.name, args.metric_for_best_model, len(splits.label_names))
    num_rows = recipe.data.rows_of_epoch(len(splits.train))
    require_steps(recipe, args, num_rows)
    memory_notes = apply_keep_freed_memory(arguments.keep_freed_memory) + apply_cpu_threads(arguments.cpu_threads)
    set_seed(args.seed)  # the new head must not depend on what was drawn before
    if given:
        recipe = replace(recipe, model=replace(recipe.model, name=given.name()))
    loaded = loaded or given.load(recipe, splits, own)
    require_usable_model(recipe, args, loaded)
    inputs = task.training_inputs(recipe, splits, loaded, args, own)
    require_batches_that_train(recipe, args, num_rows, inputs, loaded.model)
    model_notes = apply_model_methods(recipe, loaded, splits, inputs)
    batches, features, feature_notes = methods_of_features(recipe, splits, args, loaded, inputs)
    methods = [*training_methods(recipe, arguments, loaded.model, splits, inputs), *features]
    model_notes += [*feature_notes, *skip_unused_parameter_search(loaded.model, inputs, arguments)]
    notes = [*recipe.notes, *splits.notes, *loaded.notes, *arguments.notes, *memory_notes, *model_notes, *inputs.notes]

    begin_again = None if given.is_single else partial(new_model, recipe, splits, given, own, inputs, arguments)
    trainer = ImageTrainer(
        model=loaded.model,
        args=args,
        data_collator=task.collate,
        train_transform=batches.train_transform,  # augmentation, mixup, progressive resizing, alternating flip
        train_dataset=batches.train,
        eval_transform=inputs.eval_transform(),
        eval_dataset=batches.validation,
        test_dataset=inputs.scored_batches(splits.test),
        read_rows=inputs.read_rows,
        scoring_model=inputs.scoring_model(),  # test-time augmentation
        methods=methods,
        class_weights=weights_of_classes(recipe, splits, loaded),
        own_optimizer=arguments.own_optimizer,
        schedule=arguments.schedule,
        method_settings=arguments.methods,
        skips_bad_steps=arguments.skips_bad_steps,
        flops_of_row=inputs.flops_of_row,
        example=inputs.example,
        processing_class=loaded.processor,
        compute_metrics=metrics(answers_of(loaded.model.config, len(splits.label_names))),
        callbacks=early_stopping(arguments),
        recipe=recipe,
        splits=splits,
        loaded=loaded,
        arguments=arguments,
        notes=[*notes, *method_notes(methods)],
        begin_again=begin_again,
    )
    trainer.model_init = given.init  # type: ignore[assignment]  # not in the constructor, which takes a model or this
    return trainer


def methods_of_features(
    recipe: Recipe, splits: Splits, args: TrainingArguments, loaded: Loaded, inputs: Inputs
) -> tuple[RunBatches, Methods, list[str]]:
    """The batches of a run, the methods that compute the classifier's input before the first step, and their notes."""
    batches, probe, notes = linear_probe(recipe, splits, args, loaded.model, inputs)
    weights = weights_of_classes(recipe, splits, loaded)
    head, head_notes = fitted_head(recipe, splits, args, loaded, inputs, weights, *probe)
    return batches, [*probe, *head], [*notes, *head_notes]


def new_model(
    recipe: Recipe,
    splits: Splits,
    given: GivenModel,
    own: OwnTransforms,
    inputs: Inputs,
    arguments: Arguments,
    model: Any = None,
) -> tuple[Loaded, Methods]:
    """A model with new weights, and its methods: the given one, just made, or None for the recipe's."""
    fresh = given.again(model).load(recipe, splits, own)
    apply_model_methods(recipe, fresh, splits, inputs)
    weights = weights_of_classes(recipe, splits, fresh)
    head, _ = fitted_head(recipe, splits, arguments.training, fresh, inputs, weights)
    return fresh, [*training_methods(recipe, arguments, fresh.model, splits, inputs), *head]


def build_evaluator(recipe: Recipe, loaded: Loaded, split: LabelledRows, arguments: Arguments) -> ImageTrainer:
    """A Trainer that only scores: its `test_dataset` has the batches of `split`."""
    task = TASKS[recipe.model.task]
    apply_keep_freed_memory(arguments.keep_freed_memory)
    apply_cpu_threads(arguments.cpu_threads)
    inputs = task.scoring_inputs(recipe, loaded, arguments.training)
    return ImageTrainer(
        model=loaded.model,
        args=arguments.training,
        data_collator=task.collate,
        eval_transform=inputs.eval_transform(),
        test_dataset=inputs.scored_batches(split),
        scoring_model=inputs.scoring_model(),
        methods=step_methods(recipe, arguments.training, loaded.model),
        compute_metrics=EvaluationMetrics(answers_of(loaded.model.config, len(split.label_names))),
    )


def apply_model_methods(recipe: Recipe, loaded: Loaded, splits: Splits, inputs: Inputs) -> list[str]:
    """The methods that change the model before training, in the order in which they act; returns what they did."""
    notes = []
    if recipe.model.whiten_stem and isinstance(inputs, ImageInputs):
        notes.append(whiten_stem(loaded.model, splits.train, inputs.preprocessing))
    if recipe.model.lora is not None:
        notes.append(add_adapters(loaded.model, recipe.model, inputs.example(loaded.model)))
    return notes


def step_methods(recipe: Recipe, args: TrainingArguments, model: PreTrainedModel) -> Methods:
    """The methods that act on each step, in the order in which they act."""
    methods: list[Method | None] = [
        chosen_kernels(recipe.model.kernels, args),
        BatchNormStatisticsOnce(model) if args.gradient_checkpointing else None,
    ]
    return [method for method in methods if method is not None]


def training_methods(
    recipe: Recipe, arguments: Arguments, model: PreTrainedModel, splits: Splits, inputs: Inputs
) -> Methods:
    """The methods of each step, and those that act between the steps of a training run."""
    args = arguments.training
    share, decay = (arguments.methods.get(name) for name in (GRADUAL_UNFREEZING, EMA_DECAY))
    average = WeightAverage(model, decay) if decay else None
    methods: list[Method | None] = [
        *step_methods(recipe, args, model),
        chosen_rows(recipe.data, np.asarray(splits.train.labels), args.device),
        distillation(recipe, arguments, inputs),
        GradualUnfreezing(model, share) if share else None,
        average,
        None if arguments.sparsity is None else MagnitudePruning(model, arguments.sparsity, average),
        None if arguments.quantization is None else QuantizationAware(model, arguments.quantization),
    ]
    return [method for method in methods if method is not None]


def weights_of_classes(recipe: Recipe, splits: Splits, loaded: Loaded) -> torch.Tensor | None:
    answers = answers_of(loaded.model.config, len(splits.label_names))
    return answers.weights(recipe.name, recipe.data.class_weights, torch.as_tensor(splits.train.labels))


def method_notes(methods: Methods) -> list[str]:
    """What the methods of a run will do, where they say it."""
    return [method.note for method in methods if isinstance(method, NOTED)]


def early_stopping(arguments: Arguments) -> list[EarlyStopping]:
    return [EarlyStopping(**arguments.early_stopping)] if arguments.early_stopping else []


def skip_unused_parameter_search(model: PreTrainedModel, inputs: Inputs, arguments: Arguments) -> list[str]:
    """Keep DDP from searching every step for parameters that took no part in it, if there are none.

    Returns:
        A note for the report, if the search is left out or must be made.
    """
    args = arguments.training
    if args.world_size > 1 and GRADUAL_UNFREEZING in arguments.methods:
        args.ddp_find_unused_parameters = arguments.changed["ddp_find_unused_parameters"] = True
        return ["ddp_find_unused_parameters: True (layers that have not joined yet take no part in a step)"]
    if (
        args.world_size == 1
        or args.ddp_find_unused_parameters is not None
        or unused_parameters(model, inputs.example(model))
    ):
        return []
    args.ddp_find_unused_parameters = arguments.changed["ddp_find_unused_parameters"] = False
    return ["ddp_find_unused_parameters: False (every parameter takes part in a step, so no step has to look)"]
