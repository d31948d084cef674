"""`python -m benchmarks.overhead`: what the Trainer's loop costs a step, against a bare PyTorch loop.

A ResNet-20 at 32 px, because its steps are short. Both loops have the same network, images, loader, transforms on the
device, precision and optimizer; the bare one has nothing else: no schedule, no callbacks, no measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
CPU, CUDA, QUICK = Size(128, 60, 10), Size(2048, 150, 30), Size(8, 3, 1)


def main(argv: Sequence[str] | None = None) -> int:
    parser = benchmark_parser("overhead", DESCRIPTION)
    parser.add_argument("--batch", type=int, help="images a step; default 128 on a CPU, 2048 on a GPU")
    parser.add_argument("--steps", type=int, help="steps measured; default 60 on a CPU, 150 on a GPU")
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
                name: lambda n, t=target: session.measure(t, {**settings, "seed": n}, lambda: {"place": place}, n)
                for name, target in (
                    ("trainer", "benchmarks.overhead:trainer_loop"),
                    ("bare", "benchmarks.overhead:bare_loop"),
                )
            }
        )
    milliseconds = {name: figures(results[name], "step_milliseconds") for name in results}
    rows = [
        (
            str(size.batch),
            failure(results[name]) or {"trainer": "hf_accel's Trainer", "bare": "bare PyTorch"}[name],
            middle(milliseconds[name]),
            middle([None if value is None else 1000 * size.batch / value for value in milliseconds[name]]),
            *(ratio_cells(milliseconds["trainer"], milliseconds["bare"]) if name == "trainer" else ("1", "")),
        )
        for name in results
    ]
    notes = [
        f"{size.steps} steps after a warm-up of {size.warmup}, loading and transforms included in both; the Trainer logs every "
        f"{LOGGING_STEPS} steps, as in the whole recipe; medians",
        "each run a process of its own, the two loops in turn",
    ]
    session.write([("Loop", HEADINGS, rows)], notes)
    return 0


def trainer_loop(**settings: Any) -> dict[str, Any]:
    """The loop of this package; the settings are those of `build_resnet20`."""
    trainer, size = build_resnet20(**settings)
    clock = StepClock(size.warmup)
    trainer.add_callback(clock)
    trainer.train()
    return {"step_milliseconds": 1000 * size.batch / clock.images_per_second(size)}


def bare_loop(**settings: Any) -> dict[str, Any]:
    """The shortest loop that trains the same; the settings are those of `build_resnet20`."""
    trainer, size = build_resnet20(**settings)
    args = trainer.args
    step = training_step(trainer)
    loader = DataLoader(
        trainer.train_dataset,
        batch_size=size.batch,
        sampler=EpochSampler(len(trainer.train_dataset), seed=args.seed),
        collate_fn=trainer.data_collator,
        drop_last=True,
        pin_memory=args.dataloader_pin_memory,
    )
    done, start = 0, 0.0
    while done < size.warmup + size.steps:
        for batch in loader:
            inputs = {name: value.to(args.device, non_blocking=True) for name, value in batch.items()}
            step(trainer.train_transform(inputs))
            done += 1
            if done == size.warmup:
                start = now(args.device)
            if done == size.warmup + size.steps:
                break
    return {"step_milliseconds": 1000 * (now(args.device) - start) / size.steps}


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
