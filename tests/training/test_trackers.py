"""`report_to` reaches the trackers, with the figures that this package adds to the Trainer's."""

import pytest

from hf_accel.report.run_report import RunReport
from hf_accel.train import train

pytestmark = pytest.mark.slow


def test_tensorboard_gets_the_curves_of_the_report(tiny_recipe):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard: pip install tensorboard"
    )
    folder = train(tiny_recipe({"training": {"report_to": "tensorboard", "num_train_epochs": 2}}))
    (events,) = (folder / "runs").iterdir()
    accumulator = event_accumulator.EventAccumulator(str(events)).Reload()
    history = RunReport.load(folder).history
    assert history
    for tag, column in (
        ("train/loss", "loss"),
        ("train/train_seconds", "seconds"),
        ("eval/accuracy", "validation_accuracy"),
    ):
        seen = {event.step: event.value for event in accumulator.Scalars(tag)}
        assert seen == pytest.approx({row["step"]: row[column] for row in history if row[column] is not None})
    assert all(event.value > 0 for event in accumulator.Scalars("train/images_per_second"))
