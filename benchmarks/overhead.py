"""`python -m benchmarks.overhead`: what the Trainer's loop costs per step, against a bare PyTorch loop.

A ResNet-20 at 32 px, because its steps are short. Both loops have the same network, images, loader, transforms on the
device, precision and optimizer; the bare one has nothing else: no schedule, no callbacks, no measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from benchmarks.ceiling import training_step
from benchmarks.session import benchmark_parser, failure, figures, middle, open_session, ratio_cells, workplace
from benchmarks.turns import Turns, chosen_turn, turn_note
from benchmarks.workloads import Size, data_folder
from hf_accel.cli import run
from hf_accel.config.recipe import apply_patch, load_recipe
from hf_accel.inputs.sampling import EpochSampler
from hf_accel.runs.log import quiet_libraries
from hf_accel.training.build import build_trainer
from hf_accel.training.trainer import ImageTrainer

DESCRIPTION = """\
Milliseconds per step of the Trainer of this package and of a bare PyTorch loop: ResNet-20, CIFAR-10 at 32 px.

  python -m benchmarks.overhead"""

HEADINGS = ("batch", "loop", "ms per step", "images/s", "trainer / bare, time (95 % interval)", "pairs")
LOGGING_STEPS = 94  # of the whole recipe at batch 128; a fiftieth of these few steps would be every other one
CPU, CUDA, QUICK = Size(128, 120, 10), Size(2048, 300, 30), Size(8, 3, 1)


def main(argv: Sequence[str] | None = None) -> int:
    parser = benchmark_parser("overhead", DESCRIPTION)
    parser.add_argument("--batch", type=int, help="images per step; default 128 on a CPU, 2048 on a GPU")
    parser.add_argument("--steps", type=int, help="steps of each loop in a round; default 120 on a CPU, 300 on a GPU")
    session = open_session(parser, argv)
    default = QUICK if session.quick else CUDA if session.is_cuda else CPU
    size = Size(session.options.batch or default.batch, session.options.steps or default.steps, default.warmup)
    turn = chosen_turn(session, size.steps)
    settings = {
        "turn": turn,
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
            *(ratio_cells(figures(results, "ratio"), [1.0] * len(results)) if name == "trainer" else ("1", "")),
        )
        for name in milliseconds
    ]
    notes = [
        f"{turn_note(turn, size.steps, size.warmup)}, with loading and transforms; the Trainer logs every {LOGGING_STEPS} "
        "steps, as in the whole recipe",
        "a round is a process, its figures medians of the turns, its ratio that of the pairs of turns",
    ]
    session.write([("Loop", HEADINGS, rows)], notes)
    return 0


def both_loops(turn: int, **settings: Any) -> dict[str, Any]:
    """Both loops in turn, on one network; the other settings are those of `build_resnet20`.

    Args:
        turn: the number of steps after which the loops take turns.
    Returns:
        trainer_milliseconds, bare_milliseconds: per step, median of the turns; ratio of the first to the second, median of
        the pairs of turns.
    """
    trainer, size = build_resnet20(**settings)
    turns = Turns(bare_loop(trainer, size.batch), size.warmup, turn)
    trainer.add_callback(turns)
    trainer.train()
    trainer_seconds, bare_seconds = turns.step_seconds()
    return {
        "trainer_milliseconds": 1000 * trainer_seconds,
        "bare_milliseconds": 1000 * bare_seconds,
        "ratio": turns.ratio(),
    }


def bare_loop(trainer: ImageTrainer, batch_size: int) -> Callable[[int], None]:
    """The shortest loop that trains the same, as a function of the number of its next steps."""
    args = trainer.args
    step = training_step(trainer)
    loader = DataLoader(
        trainer.train_dataset,
        batch_size=batch_size,
        sampler=EpochSampler(len(trainer.train_dataset), seed=args.seed),
        collate_fn=trainer.data_collator,
        drop_last=True,
        pin_memory=args.dataloader_pin_memory,
    )
    batches = chain.from_iterable(repeat(loader))

    def run_steps(steps: int) -> None:
        for batch in islice(batches, steps):
            inputs = {name: value.to(args.device, non_blocking=True) for name, value in batch.items()}
            step(trainer.train_transform(trainer.train_dataset.complete(inputs)))

    return run_steps


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
        place: a folder for the files of the run.
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
