"""`python -m benchmarks.ceiling`: the training step on one batch that lies ready, and how near a whole run comes to it.

The resident batch has no loading, no transforms and no Trainer: only forward, loss, backward, clipping and optimizer,
with the same settings. What a run loses against it is what the input path and the loop cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from benchmarks.arms import build, settings_text
from benchmarks.machine import now
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
from benchmarks.workloads import Size, Workload, add_model_flags, chosen_models, chosen_size
from hf_accel.cli import run
from hf_accel.errors import UserError
from hf_accel.image_trainer import ImageTrainer

DESCRIPTION = """\
Images/s and FLOP/s of the step on one resident batch, its share of the measured matrix peak, and the share of it that a
whole run reaches.

  python -m benchmarks.ceiling --model timm/resnet50 timm/vit_tiny_patch16_224

Flags of `hf-accel train` change the settings: --torch_compile true, --model.channels_last false, --bf16 false."""

HEADINGS = ("model", "settings", "resident img/s", "GFLOP/s", "of bf16 peak", "of fp32 peak", "whole run img/s",
            "whole run / resident (95 % interval)", "pairs")  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    parser = benchmark_parser("ceiling", DESCRIPTION)
    add_model_flags(parser)
    session = open_session(parser, argv)
    size = chosen_size(session)
    rows = [model_row(session, model, size) for model in chosen_models(session)]
    notes = [
        f"batch {size.batch}, {size.steps} steps after a warm-up of {size.warmup} (compilation is in it); medians",
        "FLOP/s: 3 times the forward pass as PyTorch counts it, a multiply-add as two",
        "each run a process of its own, the two arms in turn",
    ]
    session.write([("Resident batch", HEADINGS, rows)], notes)
    return 0


def model_row(session: Session, model: str, size: Size) -> tuple[str, ...]:
    """Measure one model on a resident batch and in whole runs, in turn."""
    with workplace() as place:
        workload = Workload(session, place, model, (size.warmup + size.steps) * size.batch)
        settings = {"model": model, **asdict(size), "overrides": session.overrides}
        resident, whole = session.rounds(
            {
                target: lambda n, t=target: session.measure(t, {**settings, "seed": n}, workload.places, n)
                for target in ("benchmarks.ceiling:resident", "benchmarks.arms:ours")
            }
        ).values()
    flops = sorted(value for value in figures(resident, "flops_per_second") if value is not None)
    typical = flops[len(flops) // 2] if flops else None
    shares = ["-" if typical is None else session.fraction_of_peak(typical, dtype) for dtype in ("bfloat16", "float32")]
    rates = [figures(results, "images_per_second") for results in (resident, whole)]
    return (
        model,
        failure(resident) or failure(whole) or next((r["settings"] for r in resident if r and "settings" in r), "-"),
        middle(rates[0]),
        "-" if typical is None else f"{typical / 1e9:,.0f}",
        *shares,
        middle(rates[1]),
        *ratio_cells(rates[1], rates[0]),
    )


def resident(
    place: str,
    model: str,
    batch: int,
    steps: int,
    warmup: int,
    seed: int = 0,
    overrides: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Take the step again and again on the first batch of the run.

    Returns:
        images_per_second, flops_per_second, settings in words.
    """
    trainer, size = build(place, model, batch, steps, warmup, seed, overrides)
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    step = training_step(trainer)
    for _ in range(warmup):
        step(inputs)
    start = now(trainer.args.device)
    for _ in range(steps):
        step(inputs)
    rate = size.batch * steps / (now(trainer.args.device) - start)
    return {
        "images_per_second": rate,
        "flops_per_second": rate * 3 * trainer.flops_per_image,
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
        with trainer.kernels:
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
