"""Labels as they stand next to images -> class names and class numbers, without a library for tables."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

LABEL_COLUMNS = ("label", "labels", "fine_label")


def normal_name(name: str) -> str:
    """The form in which names that look equal are equal; blank names have none.

    >>> normal_name("cafe\u0301") == normal_name("caf\u00e9")
    True
    """
    return unicodedata.normalize("NFC", name)


def unique_names(names: Iterable[str]) -> list[str]:
    """Names in their normal form, each once, without blank ones."""
    return list(dict.fromkeys(normal_name(name) for name in names if name.strip()))


def numbered(labels: Sequence[str | int | None]) -> tuple[np.ndarray, list[str]]:
    """Class numbers of the labels of a split, and the class names; as `columns.LabelMap` has them of a table.

    Args:
        labels: (N,) text, whole numbers or truth values, all of one type; None where there is none.
    Returns:
        (N,) int64, -1 where a label is missing (None, blank text, a negative number); the names, in their order.

    >>> numbered(["b", None, "a", "b"])
    (array([ 1, -1,  0,  1]), ['a', 'b'])
    """
    names = unique_names(str(label) for label in sorted({label for label in labels if _is_class(label)}))  # type: ignore[type-var]
    numbers = {name: number for number, name in enumerate(names)}
    found = [numbers.get(normal_name(str(label)), -1) if _is_class(label) else -1 for label in labels]
    return np.array(found, dtype=np.int64), names


def _is_class(label: Any) -> bool:
    return label is not None and (isinstance(label, str) or label >= 0)
