"""How far the confidence of a run's model can be trusted, as figures of the report and in words."""

from __future__ import annotations

from dataclasses import dataclass, field

from hf_accel.formatting import format_count, format_percent, format_score


@dataclass(kw_only=True)
class CalibrationSummary:
    """How far the model's confidence can be trusted: learned on the validation rows, tested on the test rows.

    Attributes:
        temperature, unsure_below, unlike_below: as in `models.confidence.Confidence`, which the saved model's config holds.
        sure_precision: `model.sure_precision` of the recipe.
        validation_ece_before, validation_ece_after: expected calibration error in 15 bins of equal width, with the model's
            own probabilities and with calibrated ones, of the rows that the temperature was fitted on.
        ece_before, ece_after: the same of the test rows; None where several views of an image were scored.
        adaptive_ece_before, adaptive_ece_after: of the test rows, in 15 bins of equally many rows.
        reliability_before, reliability_after: (mean confidence, accuracy, rows) of each bin of the test rows.
        test_sure: share of the test rows whose answer is neither unsure nor unlike the training data.
        test_sure_accuracy: accuracy of these.
        test_unlike: share of the test rows that count as unlike the training data.
    """

    temperature: float | None = None
    unsure_below: float | None = None
    unlike_below: float | None = None
    sure_precision: float | None = None
    validation_rows: int | None = None
    validation_ece_before: float | None = None
    validation_ece_after: float | None = None
    ece_before: float | None = None
    ece_after: float | None = None
    adaptive_ece_before: float | None = None
    adaptive_ece_after: float | None = None
    reliability_before: list[list[float]] = field(default_factory=list)
    reliability_after: list[list[float]] = field(default_factory=list)
    test_sure: float | None = None
    test_sure_accuracy: float | None = None
    test_unlike: float | None = None

    def sentences(self, unit: str) -> list[str]:
        """What a reader of the scores should know of them.

        Args:
            unit: what a row is.
        """
        found = [
            f"Confidence: calibrated on {format_count(self.validation_rows)} validation {unit}s by the temperature "
            f"{format_score(self.temperature)}."
        ]
        if self.ece_before is not None:
            found.append(
                f"Expected calibration error of the test {unit}s: {format_score(self.ece_before)} before, "
                f"{format_score(self.ece_after)} after."
            )
        if self.unsure_below is None:
            found.append(f"No threshold makes {format_percent(self.sure_precision)} of the answers above it right.")
        elif self.test_sure == 0:
            found.append("None of the test answers is sure.")
        elif self.test_sure is not None:
            found.append(
                f"{format_percent(self.test_sure)} of the test answers are sure, and {format_percent(self.test_sure_accuracy)} "
                f"of these are right (aim: {format_percent(self.sure_precision)})."
            )
        return found
