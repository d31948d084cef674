"""The history of a run, one row per logged step."""

import csv
import io
from collections.abc import Iterable
from typing import Any

HISTORY_COLUMNS = (
    "step",
    "epoch",
    "seconds",
    "loss",
    "learning_rate",
    "grad_norm",
    "validation_loss",
    "validation_accuracy",
)

_PRECISION = "mean_average_precision"
MEAN_PRECISION = f"validation_{_PRECISION}"  # of labels that do not exclude each other alone


def history_from_log(log_history: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turn the Trainer's `state.log_history` into the report's history.

    The training and the evaluation entry of a step become one row. Where a step was evaluated twice, the first counts:
    after training, the Trainer evaluates the best checkpoint under the number of the last step. Entries without a
    figure of training or validation (the summary at the end, the scores of the test split) give no row.

    Args:
        log_history: dicts with `step`, and any of `epoch`, `train_seconds` (optimisation time so far, in seconds),
            `loss`, `learning_rate`, `grad_norm`, `eval_loss`, `eval_accuracy`.
    Returns:
        One dict per logged step with the keys HISTORY_COLUMNS, in the order of steps; None where nothing was logged. Where it
        was computed, MEAN_PRECISION is a further key.
    """
    log_history = list(log_history)
    has_precision = any(f"eval_{_PRECISION}" in entry for entry in log_history)
    further = {f"eval_{_PRECISION}": MEAN_PRECISION} if has_precision else {}
    columns = {
        "loss": "loss",
        "learning_rate": "learning_rate",
        "grad_norm": "grad_norm",
        "eval_loss": "validation_loss",
        "eval_accuracy": "validation_accuracy",
        **further,
    }
    empty = dict.fromkeys((*HISTORY_COLUMNS, *further.values()))
    rows: dict[int, dict[str, Any]] = {}
    for entry in log_history:
        if not columns.keys() & entry.keys():
            continue
        row = rows.setdefault(entry["step"], {**empty, "step": entry["step"]})
        for key, column in {"epoch": "epoch", "train_seconds": "seconds", **columns}.items():
            if row[column] is None:
                row[column] = entry.get(key)
    return [rows[step] for step in sorted(rows)]


def history_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    columns = [*HISTORY_COLUMNS, *(name for name in (MEAN_PRECISION,) if any(name in row for row in rows))]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
