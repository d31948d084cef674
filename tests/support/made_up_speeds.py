"""Stands in for the processes of `tune`: trials and runs with a speed that the settings of their recipe decide."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hf_accel.config.recipe import Recipe, load_recipe
from hf_accel.report.run_report import DataSummary, DetailedScores, ModelSummary, RunReport, Scores, TrainSummary
from hf_accel.tuning.space import Facts
from hf_accel.tuning.trials import Trial

FACTS = Facts(
    device="cpu",
    cores=2,
    threads=2,
    mixed_precision=True,
    precision_reason="Test CPU has avx512_bf16",
    train_rows=40_000,
    scored_rows=5_000,
    test_rows=10_000,
    batch_norm=True,
    dropout=False,
    convolutions=0.9,
    attention=None,
    cached_bytes_per_row=3072.0,
    fill_seconds_per_row=1e-5,
    same_size=True,
    image_size=32,
    available_bytes=8 << 30,
)
MEMORY_GIB = 2.0
SMALL_SIDE = FACTS.image_size // 2


def speed(recipe: Recipe) -> float:
    """Images per second: 100, twice as many in bf16, and half again with channels_last; checkpointing costs a quarter.

    Smaller images are faster, too.
    """
    rate = 100.0 if recipe.data.image_size != SMALL_SIDE else 400.0
    rate *= 2.0 if recipe.training.get("bf16") else 1.0
    rate *= 1.5 if recipe.model.channels_last else 1.0
    rate *= 0.75 if recipe.training.get("gradient_checkpointing") else 1.0
    return rate * (0.9 if recipe.training.get("dataloader_num_workers") else 1.0)


def memory(recipe: Recipe) -> float:
    return MEMORY_GIB * (0.5 if recipe.training.get("gradient_checkpointing") else 1.0)


def trial(recipe: Recipe, asked: dict[str, Any]) -> Trial:
    """One trial: the compiled one fails, and that with a fused optimizer learns something else."""
    if recipe.training.get("torch_compile"):
        return Trial(wall_seconds=5.0, error="ended by SIGKILL, as the system does when memory runs out")
    if asked.get("range_steps"):
        rates = tuple(10 ** (-6 + 6 * step / 49) for step in range(50))
        losses = tuple(2.3 - 1.5 / (1 + (1e-3 / rate) ** 2) + (rate > 0.05) * 100 * rate for rate in rates)
        return Trial(wall_seconds=8.0, learning_rates=rates, losses=losses)
    rate = speed(recipe)
    batch = recipe.training.get("per_device_train_batch_size", 8)
    has_other_losses = recipe.training.get("dataloader_prefetch_factor") == 4 or recipe.data.image_size == SMALL_SIDE
    return Trial(
        wall_seconds=5.0,
        losses=(2.3, 9.0, 9.0) if has_other_losses else (2.3, 2.2, 2.1),
        images_per_second=rate,
        step_seconds=batch / rate,
        data_wait_fraction=0.2,
        rows=1000,
        peak_anonymous_gib=memory(recipe),
        scoring_seconds_per_row=1e-3 if asked.get("learns_facts") else None,
        facts=dataclasses.asdict(FACTS) if asked.get("learns_facts") else None,
    )


def run_here(words: Sequence[str], output: Path, tick: Callable[[], None]) -> tuple[int, str]:
    """What `hf_accel.runs.process.run_process` does with a run, without a process."""
    options = dict(zip(words[::2], words[1::2], strict=True))
    recipe, folder = load_recipe(options["--recipe"]), Path(options["--output_dir"])
    rate = speed(recipe) * (1 + 0.01 * (int(options["--seed"]) % 3))
    best = 1e-3
    learning_rate = recipe.training.get("learning_rate", 5e-5)
    loss = 0.5 + abs(learning_rate - best) / best
    with contextlib.suppress(FileExistsError):
        folder.mkdir(parents=True)
    RunReport(
        recipe=recipe.name,
        variant=recipe.variant,
        environment={"device": "cpu", "cpu": "Stub CPU", "cores": 2},
        data=DataSummary(name="digits", fingerprint="data", train_rows=1000, validation_rows=100, test_rows=100),
        model=ModelSummary(name="stub", parameters=1000),
        train=TrainSummary(
            steps=recipe.training["max_steps"],
            effective_batch_size=64,
            seconds=64 * recipe.training["max_steps"] / rate,
            images_per_second=rate,
            peak_anonymous_gib=memory(recipe),
            final_loss=loss,
        ),
        validation=Scores(loss=loss, accuracy=0.9),
        test=DetailedScores(accuracy=0.9, f1_macro=0.9),
    ).save(folder)
    output.write_text("done", encoding="utf-8")
    return 0, "done"
