"""`python -m benchmarks.ceiling`: the training step on one batch that is ready, and how near a whole run comes to it.

The resident batch has no loading, no transforms and no Trainer: only forward, loss, backward, clipping and optimizer,
with the same settings, on the same network. The difference to a whole run is the cost of the input path and the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from benchmarks.ours import build, settings_text
from benchmarks.session import (
    Session,
    benchmark_parser,
    failure,
    figures,
    middle,
    open_session,
    ratio_cells,
    workplace,
)
from benchmarks.turns import Turns, chosen_turn, turn_note
from benchmarks.workloads import Size, Workload, add_model_flags, chosen_models, chosen_size
from hf_accel.cli import run
from hf_accel.errors import UserError
from hf_accel.training.trainer import ImageTrainer

DESCRIPTION = """\
Images/s and FLOP/s of the step on one resident batch, its share of the measured matrix peak, and the share of it that a
whole run reaches.

  python -m benchmarks.ceiling --model timm/resnet50 timm/vit_tiny_patch16_224

Flags of `hf-accel train` change the settings: --torch_compile true, --model.channels_last false, --bf16 false."""

HEADINGS = ("model", "settings", "resident img/s", "GFLOP/s", "of bf16 peak", "of fp32 peak", "whole run img/s",
            "whole run / resident (95 % interval)", "pairs")  # fmt: skip
CPU_STEPS, CUDA_STEPS = 20, 100


def main(argv: Sequence[str] | None = None) -> int:
    parser = benchmark_parser("ceiling", DESCRIPTION)
    add_model_flags(parser)
    session = open_session(parser, argv)
    size = chosen_size(session)
    if not (session.quick or session.options.steps):
        size = replace(size, steps=CUDA_STEPS if session.is_cuda else CPU_STEPS)
    turn = chosen_turn(session, size.steps)
    rows = [model_row(session, model, size, turn) for model in chosen_models(session)]
    notes = [
        f"batch {size.batch}; {turn_note(turn, size.steps, size.warmup)} (compilation is in it)",
        "FLOP/s: 3 times the forward pass as PyTorch counts it, a multiply-add as two",
        "a round is a process, its figures medians of the turns, its ratio that of the pairs of turns; medians of the rounds",
    ]
    session.write([("Resident batch", HEADINGS, rows)], notes)
    return 0


def model_row(session: Session, model: str, size: Size, turn: int) -> tuple[str, ...]:
    """Measure one model on a resident batch and in a whole run."""
    with workplace() as place:
        workload = Workload(session, place, model, (size.warmup + size.steps) * size.batch)
        settings = {"model": model, "turn": turn, **asdict(size), "overrides": session.overrides}
        target = "benchmarks.ceiling:resident_and_whole"
        results = session.rounds(
            {"both": lambda n: session.measure(target, {**settings, "seed": n}, workload.places, n)}
        )["both"]
    flops = sorted(value for value in figures(results, "flops_per_second") if value is not None)
    typical = flops[len(flops) // 2] if flops else None
    shares = ["-" if typical is None else session.fraction_of_peak(typical, dtype) for dtype in ("bfloat16", "float32")]
    resident, whole = (figures(results, f"{name}_images_per_second") for name in ("resident", "whole"))
    return (
        model,
        failure(results) or next((r["settings"] for r in results if r and "settings" in r), "-"),
        middle(resident),
        "-" if typical is None else f"{typical / 1e9:,.0f}",
        *shares,
        middle(whole),
        *ratio_cells(figures(results, "whole_of_resident"), [1.0] * len(results)),
    )


def resident_and_whole(
    place: str,
    model: str,
    turn: int,
    batch: int,
    steps: int,
    warmup: int,
    seed: int = 0,
    overrides: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train, and take the step again and again on the first batch of the run, in turn.

    Args:
        turn: the number of steps after which they take turns.
    Returns:
        resident_images_per_second and flops_per_second of the resident batch, whole_images_per_second of the run and
        whole_of_resident, its share of the former, settings in words.
    """
    trainer, size = build(place, model, batch, steps, warmup, seed, overrides)
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    step = training_step(trainer)

    def run_resident(number: int) -> None:
        for _ in range(number):
            step(inputs)

    turns = Turns(run_resident, size.warmup, turn)
    trainer.add_callback(turns)
    trainer.train()
    whole, resident = (size.batch / seconds for seconds in turns.step_seconds())
    return {
        "whole_images_per_second": whole,
        "resident_images_per_second": resident,
        "whole_of_resident": 1 / turns.ratio(),
        "flops_per_second": resident * 3 * trainer.flops_per_image,
        "settings": settings_text(trainer),
    }


def training_step(trainer: ImageTrainer) -> Any:
    """The step of a trainer without the trainer: a function of `pixel_values` and `labels` on the device."""
    args = trainer.args
    network = trainer.model.train()
    forward = torch.compile(network) if args.torch_compile else network
    optimizer = trainer.create_optimizer()
    dtype = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None
    if args.fp16:
        raise UserError("the step on a resident batch has no loss scaling: use --bf16 auto or --bf16 false")

    def step(inputs: dict[str, torch.Tensor]) -> None:
        with trainer.step_methods():
            with torch.autocast(args.device.type, dtype=dtype, enabled=dtype is not None):
                logits = forward(pixel_values=inputs["pixel_values"]).logits
            loss = torch.nn.functional.cross_entropy(
                logits.float(), inputs["labels"], label_smoothing=args.label_smoothing_factor
            )
            loss.backward()
        if args.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(network.parameters(), args.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


if __name__ == "__main__":
    raise SystemExit(run(main))
