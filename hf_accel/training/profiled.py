"""One profiled run of a recipe, in a process of its own: `python -m hf_accel.training.profiled`, as `hf-accel profile` calls it.

It is the run of `hf_accel.train` on a part of the rows: enough for the steps that are asked for, and for one evaluation and
one checkpoint where the recipe has them. What cannot be seen in a few steps is computed from the recipe: how often a whole
run evaluates and saves.
"""

from __future__ import annotations

import argparse
import json
import resource
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.trainer_utils import SaveStrategy
from transformers.training_args import OptimizerNames

from hf_accel.cli import parse_with_overrides, run_and_exit
from hf_accel.config.flags import overrides_from_flags
from hf_accel.config.recipe import Recipe, load_recipe
from hf_accel.data.splits import Splits
from hf_accel.errors import UserError
from hf_accel.files import write_whole
from hf_accel.machine.description import describe_environment
from hf_accel.machine.precision import native_bf16
from hf_accel.machine.probes import measure_peaks
from hf_accel.measure.paired import paired_ratio
from hf_accel.models.load import LoadedModel
from hf_accel.privacy import cleaned_text
from hf_accel.profiling.advice import Setup
from hf_accel.profiling.boundaries import WARM_UP, StepTimers, decoding, steps_needed, timers
from hf_accel.profiling.clock import PhaseClock
from hf_accel.profiling.facts import cores_in_use, expected_seconds, facts_of
from hf_accel.profiling.gauges import Gauges, seconds_since_start
from hf_accel.profiling.inference import time_inference
from hf_accel.profiling.operators import Operator, OperatorTimer
from hf_accel.profiling.phases import MEASURING
from hf_accel.profiling.schema import Overhead, ProfiledRun, mean_step, phase_rows
from hf_accel.profiling.trace import join_traced, write_trace
from hf_accel.profiling.whole_run import WholeRun, whole_run
from hf_accel.runs.log import quiet_libraries
from hf_accel.tasks import TASKS
from hf_accel.training.arguments import Arguments, training_arguments
from hf_accel.training.build import build_trainer
from hf_accel.training.trainer import ImageTrainer

GPU_TURN = 5  # steps with and without timers: there, a step is queued while another computes
EVALUATED_BATCHES = 4
OPERATOR_STEPS = 2


def main(argv: list[str] | None = None) -> int:
    clock = PhaseClock(Gauges(), seconds_since_start())
    parser = argparse.ArgumentParser(prog="hf_accel.training.profiled", allow_abbrev=False)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--variant")
    parser.add_argument("--steps", type=int, required=True, help="timed steps after the warm-up")
    parser.add_argument("--first", action="store_true", help="no steps without timers, no operators")
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--result", type=Path, required=True)
    args, flags = parse_with_overrides(parser, argv)
    quiet_libraries()
    recipe = load_recipe(args.recipe, args.variant, overrides_from_flags(flags))
    run = profiled_run(recipe, clock, args.steps, is_first=args.first, trace=args.trace)
    write_whole(args.result, json.dumps(asdict(run), allow_nan=False))
    return 0


def profiled_run(
    recipe: Recipe, clock: PhaseClock, steps: int, is_first: bool = False, trace: Path | None = None
) -> ProfiledRun:
    """Train some steps of a recipe with timers at the boundaries of its phases.

    Args:
        steps: timed ones after the warm-up.
        is_first: only the phases are asked for: no steps without timers, no operators, no peaks.
        trace: where torch.profiler writes its trace; None: it is not used.
    Raises:
        UserError: something in the recipe cannot run here, or several processes run it.
    """
    with timers(clock, decoding()):
        with clock.phase("prepare"):
            arguments = training_arguments(recipe, has_validation=recipe.data.validation > 0)
            if arguments.training.world_size > 1:
                raise UserError("profile: measures one process. Start it without accelerate launch or torchrun.")
            clock.gauges.device = arguments.training.device
            splits = TASKS[recipe.model.task].open_splits(recipe.data, arguments.training.seed)
            turn = 0 if is_first else GPU_TURN if arguments.training.device.type == "cuda" else 1
            trainer = short_trainer(recipe, splits, steps_needed(steps, turn))
        step_timers = StepTimers(clock, trainer, turn)
        with step_timers.on():
            trainer.train()
    sizes = {"step": trainer.get_total_train_batch_size(trainer.args), **time_inference(trainer, clock)}
    clock.pause()
    operators, peaks = ([], None) if is_first else measured_operators(trainer, step_timers)
    rows = [operator.to_dict() for operator in operators]
    if trace is not None:
        join_traced(rows, write_trace(lambda: forward_and_backward(trainer, step_timers), trace, trainer.args.device))
    clock.finish()
    return described(recipe, arguments, splits, trainer, clock, step_timers, sizes, rows, peaks, trace)


def short_trainer(recipe: Recipe, splits: Splits, steps: int) -> ImageTrainer:
    """The Trainer of the recipe for some steps, on the rows that they need, spread over the data set."""
    training = {**recipe.training, "max_steps": steps, "report_to": "none", "save_total_limit": 1}
    short = replace(recipe, training=training)
    arguments = training_arguments(short, has_validation=recipe.data.validation > 0)
    args = arguments.training
    rows = steps * args.train_batch_size * args.gradient_accumulation_steps
    few = EVALUATED_BATCHES * args.per_device_eval_batch_size
    fewer = replace(
        splits,
        train=spread_rows(splits.train, rows),
        validation=None if splits.validation is None else spread_rows(splits.validation, few),
        test=spread_rows(splits.test, args.per_device_eval_batch_size),
    )
    return build_trainer(short, fewer, arguments=arguments)


def spread_rows(split: Any, most: int) -> Any:
    """At most so many rows of a split, evenly spaced, so that every class that is frequent is among them."""
    if len(split) <= most:
        return split
    return split.select(np.linspace(0, len(split) - 1, most).astype(np.int64))


def forward_and_backward(trainer: ImageTrainer, step_timers: StepTimers) -> None:
    """The last batch again, eagerly; the weights stay."""
    assert step_timers.batch is not None  # a step was made
    batch = dict(step_timers.batch)
    trainer.training_step(trainer.model, batch, torch.tensor(len(batch["labels"])))
    trainer.model.zero_grad(set_to_none=True)


def measured_operators(trainer: ImageTrainer, step_timers: StepTimers) -> tuple[list[Operator], dict[str, Any]]:
    """The operators of a mean step, and the peaks of this machine."""
    device = trainer.args.device
    peaks = measure_peaks(device.type)
    timer = OperatorTimer(device, peaks.matrix_flops_per_second, peaks.copy_bytes_per_second)
    timer.measure_floor()
    forward_and_backward(trainer, step_timers)
    with timer:
        for _ in range(OPERATOR_STEPS):
            forward_and_backward(trainer, step_timers)
    share = trainer.args.gradient_accumulation_steps / OPERATOR_STEPS
    for operator in timer.found.values():
        operator.seconds *= share
        operator.compute_seconds *= share
        operator.calls, operator.flops = round(operator.calls * share), round(operator.flops * share)
        operator.moved_bytes = round(operator.moved_bytes * share)
    return timer.operators(), asdict(peaks)


def described(
    recipe: Recipe,
    arguments: Arguments,
    splits: Splits,
    trainer: ImageTrainer,
    clock: PhaseClock,
    step_timers: StepTimers,
    batch_sizes: dict[str, int],
    operators: list[dict[str, Any]],
    peaks: dict[str, Any] | None,
    trace: Path | None,
) -> ProfiledRun:
    """Everything that was measured, in one object."""
    counted = clock.steps[WARM_UP:] or clock.steps
    step = mean_step(counted)
    phases = phase_rows({name: used.to_dict() for name, used in clock.charged.items()}, step_timers.rows)
    whole = expected_run(recipe, arguments, splits)
    seconds = expected_seconds(whole, step, clock)
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = describe_environment(trainer.args.device)
    cores = environment["cores"] or 1
    return ProfiledRun(
        phases=phases,
        measuring_seconds=clock.seconds(MEASURING),
        step=step,
        num_steps=len(counted),
        step_starts=clock.step_starts[-len(counted) :],
        spans=[(span.phase, span.start, span.seconds) for span in clock.spans],
        overhead=measured_overhead(step_timers),
        batch_sizes=batch_sizes,
        worker_cpu_seconds=workers.ru_utime + workers.ru_stime,
        operators=operators,
        peaks=peaks,
        setup=setup_of(recipe, trainer, cores),
        whole=whole,
        whole_seconds=seconds,
        facts=replace(facts_of(seconds, step, operators, peaks), **cores_in_use(clock, trainer.args.device, cores)),
        environment=environment,
        model=cleaned_text(recipe.model.name),
        data=cleaned_text(splits.name),
        task=recipe.model.task,
        notes=[cleaned_text(note) for note in trainer.notes],
        trace=None if trace is None else trace.name,
    )


def measured_overhead(step_timers: StepTimers) -> Overhead | None:
    with_timers, without = step_timers.turns
    if not with_timers:
        return None
    found = paired_ratio(with_timers, without)
    return Overhead(found.ratio, found.low, found.high, found.num_pairs)


def expected_run(recipe: Recipe, arguments: Arguments, splits: Splits) -> WholeRun:
    """The run of the whole recipe, on all rows."""
    args = arguments.training
    validation = 0 if splits.validation is None else len(splits.validation)
    kept = 0 if recipe.data.cache == "none" else len(splits.train) + validation + len(splits.test)
    rows_of_step = args.train_batch_size * args.gradient_accumulation_steps
    return whole_run(args, recipe.data.rows_of_epoch(len(splits.train)), rows_of_step, validation, kept)


def setup_of(recipe: Recipe, trainer: ImageTrainer, cores: int) -> Setup:
    """The settings that advice depends on, as the run had them."""
    args, model = trainer.args, recipe.model
    return Setup(
        device=args.device.type,
        image_size=trainer.loaded.image_size if isinstance(trainer.loaded, LoadedModel) else None,
        has_native_bf16=native_bf16(args.device)[0],
        precision="bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        channels_last=model.channels_last,
        kernels=model.kernels,
        cache=recipe.data.cache,
        transforms=recipe.data.transforms,
        workers=args.dataloader_num_workers,
        cores=cores,
        pin_memory=bool(args.dataloader_pin_memory),
        optim=str(recipe.training.get("optim") or OptimizerNames(args.optim).value),
        is_compiled=bool(args.torch_compile),
        keep_freed_memory=trainer.arguments.keep_freed_memory,
        checkpointing=bool(args.gradient_checkpointing),
        freezes=model.freeze != "none",
        has_batch_norm=any(
            isinstance(layer, torch.nn.modules.batchnorm._BatchNorm) for layer in trainer.model.modules()
        ),
        pretrained=model.pretrained,
        save_strategy=SaveStrategy(args.save_strategy).value,
        groups_by_length=args.train_sampling_strategy == "group_by_length",
    )


if __name__ == "__main__":
    run_and_exit(main)
