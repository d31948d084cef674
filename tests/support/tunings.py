"""Results of `tune` with invented but plausible figures, for the tests of texts and pages."""

import dataclasses

from hf_accel.tuning.estimate import Expected
from hf_accel.tuning.learning_rate_runs import LearningRate
from hf_accel.tuning.result import Ratio, Tried, Tuning
from tests.support.made_up_speeds import FACTS
from tests.support.reports import ENVIRONMENT


def tried(
    name: str, word: str, gain: float | None = None, contribution: float | None = None, reason: str = ""
) -> Tried:
    return Tried(
        name=name,
        axis=name,
        settings={"training": {name: True}},
        why="it may pay",
        changes=None,
        word=word,
        reason=reason,
        gain=gain,
        contribution=contribution,
    )


def tuning(**changed) -> Tuning:
    """A search that halves the time of a run."""
    values = {
        "recipe": "resnet50_cifar10",
        "variant": "default",
        "model": "timm/resnet50.a1_in1k",
        "objective": "time",
        "allowed": [],
        "environment": ENVIRONMENT,
        "facts": dataclasses.asdict(FACTS),
        "budget_seconds": 600.0,
        "spent_seconds": 571.0,
        "trials": 31,
        "stopped": False,
        "techniques": [
            tried("mixed_precision", "accepted", 1.94, 1.8, "Test CPU has avx512_bf16"),
            tried("channels_last", "accepted", 1.3, 1.25, "most convolutions are faster on NHWC tensors"),
            tried("workers_2", "no gain", 0.8, None, "it is worse"),
            tried("compile", "rejected", None, None, "hangs: it did not end within 200 s"),
        ],
        "left_out": [{"name": "micro_batch_64", "reason": "it changes the result: --allow batch"}],
        "accepted": ["mixed_precision", "channels_last"],
        "patch": {"training": {"bf16": "auto", "fp16": False}, "model": {"channels_last": True}},
        "confirmed": Ratio(ratio=2.31, low=2.2, high=2.4, pairs=3, verdict="better"),
        "images_per_second": {"recipe": 10.0, "tuned": 23.1},
        "before": Expected(8, 3, 0, 0, 4000, 200, 2.0, 36_000.0),
        "after": Expected(8, 3, 0, 0, 1700, 100, 1.5, 18_000.0),
        "available_gib": 16.0,
        "price_per_hour": 2.0,
    }
    return Tuning(**values | changed)


def learning_rate() -> LearningRate:
    """A range test whose suggestion is too high, as such tests are."""
    rates = [10 ** (-6 + step / 10) for step in range(55)]
    return LearningRate(
        recipe="finetune",
        own=1e-3,
        suggested=3e-3,
        best=3e-4,
        selected_by="validation loss",
        curve=[[rate, 2.3 - 1.8 / (1 + 1e-3 / rate) + (rate / 0.1) ** 3] for rate in rates],
        runs=[
            {"rate": 3e-4, "steps": 200, "loss": 0.31, "accuracy": 0.9, "error": None},
            {"rate": 1e-3, "steps": 200, "loss": 0.42, "accuracy": 0.88, "error": None},
            {"rate": 3e-3, "steps": 200, "loss": None, "accuracy": None, "error": "the loss is not finite at step 7"},
        ],
        environment=ENVIRONMENT,
    )
