"""Figures by class of several recipes: which classes each gets right, and which pairs of classes all of them confuse.

They mean something only side by side, so all runs of a round must have been scored on the same test images, with the same
classes in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hf_accel.comparison.schema import Classes, RunOutcome
from hf_accel.report.run_report import RunReport
from hf_accel.tasks.texts import TEXTS

MOST_PAIRS = 10


def classes_of(finished: dict[str, dict[int, RunOutcome]]) -> tuple[Classes | None, str | None]:
    """The figures by class of the rows that have a finished run.

    Args:
        finished: row -> round -> its run.
    Returns:
        The figures, or None; and why there are none.
    """
    runs = {name: [outcomes[number].measured for number in sorted(outcomes)] for name, outcomes in finished.items()}
    runs = {name: reports for name, reports in runs.items() if reports and all(map(_confusion, reports))}
    if len(runs) < 2:
        return None, None
    reason = _why_not_comparable({name: finished[name] for name in runs})
    if reason is not None:
        return (
            None,
            f"Accuracy by class, the pairs of classes that are confused, and the Pareto fronts are left out: {reason}.",
        )
    labels = next(iter(runs.values()))[0].data.labels
    # (rows, C, C): share of the images of the true class by predicted class; NaN for a class without images
    shares = np.stack([_shares(reports) for reports in runs.values()])
    accuracy = {
        name: [None if np.isnan(value) else float(value) for value in np.diagonal(of_row)]
        for name, of_row in zip(runs, shares, strict=True)
    }
    return Classes(labels=labels, accuracy=accuracy, confusions=_confusions(list(runs), labels, shares)), None


def _why_not_comparable(finished: dict[str, dict[int, RunOutcome]]) -> str | None:
    """The first difference in the classes or the test rows, as the end of a sentence."""
    reports = {(name, number): run.measured for name, runs in finished.items() for number, run in runs.items()}
    (first, _), of_first = next(iter(reports.items()))
    tested: dict[int, tuple[str, tuple[object, ...]]] = {}
    for (name, number), report in reports.items():
        if report.data.labels != of_first.data.labels:
            return f"the classes of `{name}` are not those of `{first}`"
        # the rows of a test split that is a sample depend on the seed, which is that of the round
        other, rows = tested.setdefault(number, (name, _test_rows(report)))
        if _test_rows(report) != rows:
            return f"the test {TEXTS[report.task].unit}s of `{name}` are not those of `{other}`"
    return None


def _test_rows(report: RunReport) -> tuple[object, ...]:
    data = report.data
    return data.test_rows, data.fingerprints.get("test") or (data.name, data.test_split)


def _confusion(report: RunReport) -> list[list[int]] | None:
    return report.test.confusion if report.test else None


def _shares(reports: Sequence[RunReport]) -> np.ndarray:
    """(C, C) the confusion matrices of some runs, each row divided by its sum; NaN for a class without images."""
    counts = np.sum([np.asarray(_confusion(report)) for report in reports], axis=0).astype(float)
    with np.errstate(invalid="ignore"):
        return counts / counts.sum(axis=1, keepdims=True)


def _confusions(names: Sequence[str], labels: Sequence[str], shares: np.ndarray) -> list[dict[str, object]]:
    """The pairs of classes that are confused most, with the rows that confuse them.

    A row confuses a pair when it takes at least as many images of the one class for the other as if its mistakes in that
    class were spread evenly over all others: a single mistake among many is not a confusion.

    Args:
        shares: (rows, C, C).
    """
    found = np.nan_to_num(shares)
    mistakes = 1 - np.nan_to_num(np.diagonal(shares, axis1=1, axis2=2), nan=1.0)  # (rows, C)
    even = mistakes[:, :, None] / max(1, len(labels) - 1)
    confuses = (found > 0) & (found >= even * (1 - 1e-9))
    mean = found.mean(axis=0)
    np.fill_diagonal(mean, 0)
    order = np.argsort(-mean, axis=None, kind="stable")[:MOST_PAIRS]
    pairs = [tuple(map(int, np.unravel_index(place, mean.shape))) for place in order]
    return [
        {
            "true": labels[true],
            "predicted": labels[predicted],
            "share": float(mean[true, predicted]),
            "models": int(confuses[:, true, predicted].sum()),
            "shares": {name: float(found[row, true, predicted]) for row, name in enumerate(names)},
        }
        for true, predicted in pairs
        if mean[true, predicted] > 0
    ]
