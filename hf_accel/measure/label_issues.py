"""Labels that are probably wrong, by what models that did not learn from them say: confident learning, of cleanlab.

Source: https://arxiv.org/abs/1911.00068; https://github.com/cleanlab/cleanlab.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from hf_accel.errors import UserError


@dataclass(frozen=True)
class LabelIssues:
    """All rows, the most doubtful labels first.

    Attributes:
        order: (N,) int64, numbers of the rows: those that were found, then the others, each by `quality`.
        quality: (N,), by number of the row as all that follow: the probability of the given label, in [0, 1].
        found: (N,) bool, whether the label is probably wrong.
        suggested: (N,) int64, the likeliest label.
        suggested_probability: (N,).
    """

    order: np.ndarray
    quality: np.ndarray
    found: np.ndarray
    suggested: np.ndarray
    suggested_probability: np.ndarray


def label_issues(labels: np.ndarray, probabilities: np.ndarray) -> LabelIssues:
    """Rank labels.

    Args:
        labels: (N,) int64, as they are given; every class has a row.
        probabilities: (N, C), of models that did not learn from the row.
    Raises:
        UserError: cleanlab is not installed.
    """
    refuse_missing_cleanlab()
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    found = find_label_issues(labels, probabilities, n_jobs=1)
    quality = get_label_quality_scores(labels, probabilities, method="self_confidence")
    suggested = probabilities.argmax(1)
    found = found & (suggested != labels)
    return LabelIssues(
        order=np.lexsort((quality, ~found)),
        quality=quality,
        found=found,
        suggested=suggested,
        suggested_probability=probabilities.max(1),
    )


def refuse_missing_cleanlab() -> None:
    """Raises:
    UserError: it is not installed.
    """
    if find_spec("cleanlab") is None:
        raise UserError('hf-accel audit: cleanlab is not installed. pip install "hf_accel[trust]"')
