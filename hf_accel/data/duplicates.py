"""Pictures that occur twice: in two splits, where the score then counts memorised pictures, or under two labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from itertools import combinations

import numpy as np

from hf_accel.data.image_split import ImageSplit
from hf_accel.data.listing import HASHED_BYTES

_EXAMPLES = 2


def were_compared(parts: Iterable[ImageSplit]) -> bool:
    """Whether the images of all splits were read to find those that occur twice; beyond 4 GiB, and of streams, they are not."""
    return all(part.content is not None for part in parts)


def duplicate_notes(parts: Mapping[str, ImageSplit], folder: str) -> list[str]:
    """Notes about images that are byte for byte the same.

    Args:
        parts: role -> split, in the order train, validation, test; splits without `content` are not compared, and a note
            says so.
        folder: the data folder; its files are named relative to it.
    """
    hashed = {role: (part, part.content) for role, part in parts.items() if part.content is not None}
    notes = []
    if not were_compared(parts.values()):
        is_streamed = any(part.is_streamed for part in parts.values())
        why = "the images are streamed" if is_streamed else f"{folder} holds more than {HASHED_BYTES >> 30} GiB"
        notes.append(f"warning: images that occur twice (in train and in test, for example) were not looked for: {why}")
    for (first, (one, ones)), (second, (other, others)) in combinations(hashed.items(), 2):
        shared = np.intersect1d(ones, others)
        rows = np.flatnonzero(np.isin(others, shared[shared != 0]))
        if len(rows):
            pairs = [
                f"{name_of_row(other, row, folder)} = {name_of_row(one, np.flatnonzero(ones == others[row])[0], folder)}"
                for row in rows[:_EXAMPLES]
            ]
            notes.append(
                f"{len(rows):,} of the {len(other):,} {second} images are also {first} images, byte for byte "
                f"({_listed(pairs, len(rows))})"
            )
    return notes + _conflicts(list(hashed.values()), folder)


def _conflicts(hashed: list[tuple[ImageSplit, np.ndarray]], folder: str) -> list[str]:
    """Equal images with different labels, within a split or across."""
    if not hashed:
        return []
    splits = [part for part, _ in hashed]
    content = np.concatenate([numbers for _, numbers in hashed])
    # numbers of classes, or rows of them
    labels = np.unique(np.concatenate([part.labels for part in splits]), axis=0, return_inverse=True)[1].reshape(-1)
    rows = np.lexsort((labels, content))
    content, labels = content[rows], labels[rows]
    starts = np.r_[True, content[1:] != content[:-1]] if len(content) else np.zeros(0, bool)
    group = np.cumsum(starts) - 1
    differs = np.zeros(int(group[-1]) + 1 if len(group) else 0, bool)
    differs[group[1:][(content[1:] == content[:-1]) & (labels[1:] != labels[:-1])]] = True
    differs &= content[starts] != 0
    if not differs.any():
        return []
    ends = np.cumsum([len(part) for part in splits])
    examples = []
    for number in np.flatnonzero(differs)[:_EXAMPLES]:
        members = np.flatnonzero(group == number)
        places = members[[0, np.flatnonzero(labels[members] != labels[members[0]])[0]]]
        examples.append(" and ".join(_labelled(splits, ends, rows[place], folder) for place in places))
    count = int(differs.sum())
    return [f"{count:,} images occur with different labels, byte for byte the same ({_listed(examples, count)})"]


def _labelled(splits: list[ImageSplit], ends: np.ndarray, row: int, folder: str) -> str:
    place = int(np.searchsorted(ends, row, side="right"))
    part = splits[place]
    row = int(row) - (int(ends[place]) - len(part))
    return f"{name_of_row(part, row, folder)} as {part.label_text(row)!r}"


def name_of_row(part: ImageSplit, row: int, folder: str) -> str:
    """The file of an image below the data folder, else its row in the data set."""
    where, root = part.where(int(row)), os.path.abspath(folder) + os.sep
    return where.removeprefix(root).replace(f" of {folder}, ", " of ")


def _listed(examples: list[str], count: int) -> str:
    return "; ".join(examples) + ("; …" if count > len(examples) else "")
