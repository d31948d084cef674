"""The process of one trial: builds the trainer of a recipe, trains a few steps, and writes what it measured."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import nn
from transformers import TimmWrapperConfig, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_accel.cli import run_and_exit
from hf_accel.config.recipe import Recipe, load_recipe
from hf_accel.data.holding_out import subset
from hf_accel.data.splits import Splits
from hf_accel.errors import RunError
from hf_accel.files import write_whole
from hf_accel.inputs.cache import CachedPixels, open_training_pixels
from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.machine.precision import native_bf16
from hf_accel.measure.steps import Measurement
from hf_accel.models.load import LoadedModel
from hf_accel.runs.log import quiet_libraries, start_console
from hf_accel.tasks import TASKS
from hf_accel.training.arguments import training_arguments
from hf_accel.training.build import build_trainer
from hf_accel.training.trainer import ImageTrainer
from hf_accel.tuning.learning_rate import has_diverged, range_rates
from hf_accel.tuning.space import Facts
from hf_accel.tuning.trials import BATCHES, LOSS_STEPS, RESULT, SCORED_BATCHES, TASK, Task, Trial

SLOW_STEP_SECONDS = 1.5  # of such steps the second is measured already: warm-up is short compared with them


class TrialPace(TrainerCallback):
    """Logs the loss of the first steps, and ends the training when enough is measured.

    Args:
        measurement: of the trainer.
        seconds, steps: at least so much is measured after the warm-up.
        clock: in seconds.
    """

    def __init__(
        self, measurement: Measurement, seconds: float, steps: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.measurement = measurement
        self.seconds, self.steps = seconds, steps
        self.clock = clock
        self._begun = self._last = 0.0  # of what is measured; end of the last step

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._last = self.clock()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        now, step = self.clock(), state.global_step
        if step == 2 and now - self._last >= SLOW_STEP_SECONDS and not args.torch_compile:
            self.measurement.warmup_steps, self._begun = 1, self._last
        if step == self.measurement.warmup_steps:
            self._begun = now
        self._last = now
        control.should_log = step <= LOSS_STEPS
        measured = step - self.measurement.warmup_steps
        if step >= LOSS_STEPS and measured >= self.steps and now - self._begun >= self.seconds:
            control.should_training_stop = True


class RangeTest(TrainerCallback):
    """Raises the learning rate from step to step, and keeps the losses.

    Args:
        rates: of the steps.
    """

    def __init__(self, rates: list[float]) -> None:
        self.rates = rates
        self.losses: list[float] = []

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        rate = self.rates[state.global_step]
        for group in kwargs["optimizer"].param_groups:  # whose rates may differ by layer
            group["lr"] = rate * group["initial_lr"] / args.learning_rate

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        control.should_log = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])
            control.should_training_stop = has_diverged(self.losses)


def main(argv: list[str] | None = None) -> int:
    """Measure the task in a folder."""
    folder = Path((sys.argv[1:] if argv is None else argv)[0])
    task = Task(**json.loads((folder / TASK).read_text("utf-8")))
    quiet_libraries()
    start_console(is_main=True)
    result = range_test(task) if task.range_steps else measure(task)
    write_whole(folder / RESULT, json.dumps(result.to_dict()))
    return 0


def measure(task: Task) -> Trial:
    """Train the recipe of a task for a few steps.

    Raises:
        UserError, RunError: as a run would.
    """
    recipe = load_recipe(task.recipe)
    arguments = training_arguments(recipe, has_validation=False)
    whole = TASKS[recipe.model.task].open_splits(recipe.data, arguments.training.seed)
    splits = few_rows(whole, arguments.training, BATCHES)
    trainer = build_trainer(recipe, splits, arguments=arguments)
    trainer.add_callback(TrialPace(trainer.measurement, task.seconds, task.steps))
    trainer.train()
    result = figures(trainer)
    if not task.learns_facts:
        return result
    return dataclasses.replace(
        result,
        facts=dataclasses.asdict(facts_of(trainer, recipe, whole)),
        scoring_seconds_per_row=scoring_seconds(trainer),
    )


def range_test(task: Task) -> Trial:
    """Train with rates that grow, until the loss does, too."""
    recipe = load_recipe(task.recipe)
    arguments = training_arguments(recipe, has_validation=False)
    splits = TASKS[recipe.model.task].open_splits(recipe.data, arguments.training.seed)
    trainer = build_trainer(recipe, few_rows(splits, arguments.training, task.range_steps), arguments=arguments)
    rising = RangeTest(range_rates(task.range_steps))
    trainer.add_callback(rising)
    try:
        trainer.train()
    except RunError:  # the loss is no longer finite: the curve has been seen
        if not rising.losses:
            raise
    return Trial(losses=tuple(rising.losses), learning_rates=tuple(rising.rates[: len(rising.losses)]))


def few_rows(splits: Splits[Any], args: TrainingArguments, batches: int) -> Splits[Any]:
    """The splits of a trial: training rows of so many batches, with each class's share, and few that are scored."""
    rows = batches * args.per_device_train_batch_size * args.gradient_accumulation_steps
    train = splits.train if splits.train.is_streamed else subset(splits.train, rows, args.seed)
    scored = SCORED_BATCHES * args.per_device_eval_batch_size
    test = splits.test if splits.test.is_streamed else subset(splits.test, scored, args.seed)
    return dataclasses.replace(splits, train=train, validation=None, test=test)


def figures(trainer: ImageTrainer) -> Trial:
    """What a trainer has measured."""
    measurement = trainer.measurement
    summary, resources = measurement.summary(), measurement.resources
    steps = measurement.step_seconds
    seconds = sum(steps)
    images = trainer.get_total_train_batch_size(trainer.args) * trainer.state.global_step
    energy = resources.get("energy_joules")
    return Trial(
        losses=tuple(float(row["loss"]) for row in trainer.state.log_history if "loss" in row)[:LOSS_STEPS],
        images_per_second=measurement.images / seconds if seconds else None,
        step_seconds=statistics.median(steps) if steps else None,
        compile_seconds=summary["compile_seconds"],
        compile_failure=trainer.compile_failure,
        data_wait_fraction=summary["data_wait_fraction"],
        feature_seconds=measurement.feature_seconds,
        rows=len(trainer.splits.train),
        peak_memory_gib=resources.get("peak_memory_gib"),
        peak_anonymous_gib=resources.get("peak_anonymous_gib"),
        joules_per_image=None if energy is None else energy / images,
    )


def scoring_seconds(trainer: ImageTrainer) -> float:
    """Seconds per row of an evaluation, by the second of two."""
    trainer.score(trainer.test_dataset)
    start = time.perf_counter()
    trainer.score(trainer.test_dataset)
    return (time.perf_counter() - start) / len(trainer.splits.test)


def facts_of(trainer: ImageTrainer, recipe: Recipe, whole: Splits[Any]) -> Facts:
    """What decides which techniques apply.

    Args:
        whole: the splits of the whole run.
    """
    model, device = trainer.model, trainer.args.device
    native, reason = native_bf16(device)
    weights = sum(parameter.numel() for parameter in model.parameters())
    convolved = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Conv2d))
    layers = list(model.modules())
    nbytes, seconds, same_size = cache_cost(trainer, recipe)
    return Facts(
        device=device.type,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        mixed_precision=native or device.type == "cuda",
        precision_reason=reason,
        train_rows=len(whole.train),
        scored_rows=0 if whole.validation is None else len(whole.validation),
        test_rows=len(whole.test),
        batch_norm=not recipe.model.freeze_batch_norm
        and any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in layers),
        dropout=any(is_random(layer) for layer in layers),
        convolutions=convolved / max(1, weights),
        attention=attention_of(model),
        cached_bytes_per_row=nbytes,
        fill_seconds_per_row=seconds,
        same_size=same_size,
        image_size=trainer.loaded.image_size if isinstance(trainer.loaded, LoadedModel) else None,
        available_bytes=psutil.virtual_memory().available,
    )


def is_random(layer: nn.Module) -> bool:
    """Whether a layer draws random numbers in training: dropout, or stochastic depth."""
    rate = getattr(layer, "p", None) if isinstance(layer, nn.modules.dropout._DropoutNd) else None
    rate = getattr(layer, "drop_prob", None) if rate is None else rate
    return isinstance(rate, float | int) and rate > 0


def attention_of(model: Any) -> str | None:
    """The implementation of attention of a model of transformers that lets one choose."""
    offers = getattr(model, "_supports_sdpa", False) and not isinstance(model.config, TimmWrapperConfig)
    return getattr(model.config, "_attn_implementation", None) if offers else None


def cache_cost(trainer: ImageTrainer, recipe: Recipe) -> tuple[float | None, float | None, bool]:
    """Bytes and seconds per row of a cache in memory, and whether its images have one size; None: there can be none."""
    split = trainer.splits.train
    if recipe.model.task != "image-classification" or not split.is_fixed or split.is_streamed or split.is_prepared:
        return None, None, False
    part = split.select(np.arange(min(len(split), 256)))
    settings = dataclasses.replace(recipe.data, cache="memory")
    start = time.perf_counter()
    pixels = open_training_pixels(part, settings, Preprocessing.of(trainer.loaded.processor))
    seconds = time.perf_counter() - start
    assert isinstance(pixels, CachedPixels)
    return pixels.nbytes / len(part), seconds / len(part), pixels.shape is not None


if __name__ == "__main__":
    run_and_exit(main)
