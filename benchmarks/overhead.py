"""`python -m benchmarks.overhead`: what the Trainer's loop costs a step, against a bare PyTorch loop.

A ResNet-20 at 32 px, because its steps are short. Both loops have the same network, images, loader, transforms on the
device, precision and optimizer; the bare one has nothing else: no schedule, no callbacks, no measurement. A percent of a
step is less than what a machine's other load moves in a minute, so the loops take turns every few seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.data import DataLoader

from benchmarks.ceiling import training_step
from benchmarks.clock import StepClock
from benchmarks.machine import now
from benchmarks.session import benchmark_parser, failure, figures, middle, open_session, ratio_cells, workplace
from benchmarks.workloads import Size, data_folder
from hf_accel.cli import run
from hf_accel.inputs.sampling import EpochSampler
from hf_accel.recipe import apply_patch, load_recipe
from hf_accel.results import quiet_libraries
from hf_accel.trainer import ImageTrainer, build_trainer

DESCRIPTION = """\
Milliseconds a step of the Trainer of this package and of a bare PyTorch loop: ResNet-20, CIFAR-10 at 32 px.

  python -m benchmarks.overhead"""

HEADINGS = ("batch", "loop", "ms a step", "images/s", "trainer / bare, time (95 % interval)", "pairs")
LOGGING_STEPS = 94  # of the whole recipe at batch 128; a fiftieth of these few steps would be every other one
CPU, CUDA, QUICK = Size(128, 30, 10), Size(2048, 75, 30), Size(8, 3, 1)
BLOCKS = 4  # of each loop in a round


def main(argv: Sequence[str] | None = None) -> int:
    parser = benchmark_parser("overhead", DESCRIPTION)
    parser.add_argument("--batch", type=int, help="images a step; default 128 on a CPU, 2048 on a GPU")
    parser.add_argument("--steps", type=int, help="steps of a block; default 30 on a CPU, 75 on a GPU")
    session = open_session(parser, argv)
    default = QUICK if session.quick else CUDA if session.is_cuda else CPU
    size = Size(session.options.batch or default.batch, session.options.steps or default.steps, default.warmup)
    settings = {
        "batch": size.batch,
        "steps": size.steps,
        "warmup": size.warmup,
        "data": "digits" if session.quick else "cifar10",
        "overrides": session.overrides,
    }
    with workplace() as place:
        results = session.rounds(
            {
                "loops": lambda n: session.measure(
                    "benchmarks.overhead:both_loops", {**settings, "seed": n}, lambda: {"place": place}, n
                )
            }
        )["loops"]
    milliseconds = {name: figures(results, f"{name}_milliseconds") for name in ("trainer", "bare")}
    rows = [
        (
            str(size.batch),
            failure(results) or {"trainer": "hf_accel's Trainer", "bare": "bare PyTorch"}[name],
            middle(milliseconds[name]),
            middle([None if value is None else 1000 * size.batch / value for value in milliseconds[name]]),
            *(ratio_cells(milliseconds["trainer"], milliseconds["bare"]) if name == "trainer" else ("1", "")),
        )
        for name in milliseconds
    ]
    notes = [
        f"{BLOCKS} blocks of each loop in turn, {size.steps} steps after a warm-up of {size.warmup}, with loading and "
        f"transforms; the Trainer logs every {LOGGING_STEPS} steps, as in the whole recipe",
        "a round is a process, and its figure the median of the blocks",
    ]
    session.write([("Loop", HEADINGS, rows)], notes)
    return 0


def both_loops(**settings: Any) -> dict[str, Any]:
    """Blocks of both loops in turn, on one network; the settings are those of `build_resnet20`.

    Returns:
        trainer_milliseconds, bare_milliseconds: a step, median of the blocks.
    """
    trainer, size = build_resnet20(**settings)
    step = training_step(trainer)
    loops = {"trainer": lambda: trainer_block(trainer, size), "bare": lambda: bare_block(trainer, size, step)}
    blocks: dict[str, list[float]] = {name: [] for name in loops}
    for block in range(BLOCKS):
        for name in sorted(loops, reverse=block % 2 == 0):
            blocks[name].append(1000 * loops[name]() / size.steps)
    return {f"{name}_milliseconds": median(values) for name, values in blocks.items()}


def trainer_block(trainer: ImageTrainer, size: Size) -> float:
    """Seconds of `size.steps` steps under the Trainer."""
    clock = StepClock(size.warmup)
    trainer.add_callback(clock)
    trainer.train()
    trainer.remove_callback(clock)
    return clock.seconds


def bare_block(trainer: ImageTrainer, size: Size, step: Callable[[dict[str, torch.Tensor]], None]) -> float:
    """Seconds of `size.steps` steps of the shortest loop that trains the same."""
    args = trainer.args
    loader = DataLoader(
        trainer.train_dataset,
        batch_size=size.batch,
        sampler=EpochSampler(len(trainer.train_dataset), seed=args.seed),
        collate_fn=trainer.data_collator,
        drop_last=True,
        pin_memory=args.dataloader_pin_memory,
    )
    done, start = 0, 0.0
    while True:
        for batch in loader:
            inputs = {name: value.to(args.device, non_blocking=True) for name, value in batch.items()}
            step(trainer.train_transform(inputs))
            done += 1
            if done == size.warmup:
                start = now(args.device)
            if done == size.warmup + size.steps:
                return now(args.device) - start


def build_resnet20(
    place: str,
    data: str,
    batch: int,
    steps: int,
    warmup: int,
    seed: int = 0,
    overrides: dict[str, Any] | None = None,
) -> tuple[ImageTrainer, Size]:
    """The recipe resnet20_cifar10 for a number of steps.

    Args:
        place: folder for what a run writes.
        data: digits, or the name of a folder below HF_ACCEL_DATA.
    """
    quiet_libraries()
    patch = {
        "data": {
            "name": data if data == "digits" else str(data_folder(data)),
            "image_size": 32,
            "max_train_rows": max(40, min(50_000, (warmup + steps) * batch)),
            "max_test_rows": 100,
        },
        "training": {
            "per_device_train_batch_size": batch,
            "max_steps": warmup + steps,
            "dataloader_drop_last": True,
            "save_strategy": "no",
            "logging_steps": LOGGING_STEPS,
            "seed": seed,
            "output_dir": str(Path(place) / "run"),
        },
    }
    recipe = load_recipe("resnet20_cifar10", overrides=apply_patch(patch, overrides or {}))
    return build_trainer(recipe), Size(batch, steps, warmup)


if __name__ == "__main__":
    raise SystemExit(run(main))
