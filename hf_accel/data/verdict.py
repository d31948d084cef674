"""What is wrong with a data set, and what to do about each: `hf-accel doctor FOLDER`.

The counts, and the pictures that occur twice byte for byte, are in `Splits.describe`, which every training run prints; the
images are read here.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hf_accel.data.duplicates import name_of_row
from hf_accel.data.image_split import ImageSplit
from hf_accel.data.splits import Splits
from hf_accel.data.survey import Pair, Place, Survey, survey_images
from hf_accel.formatting import format_count
from hf_accel.tables import printable

FEW_ROWS = 10  # training rows of a class below which its score is chance
LONG_SIDES = 3  # ratio of the sides from which a square crop loses most of a picture
LARGE_PIXELS = 4_000_000
_EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """One thing that a person should know about the data.

    Attributes:
        what: was found; one clause.
        advice: what to do about it; "" for nothing.
        examples: rows, by file where they have one.
    """

    what: str
    advice: str = ""
    examples: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """The classes and counts of the data in words, and what was found in it."""

    description: str
    findings: list[Finding]
    facts: dict[str, Any]  # the same as figures, in JSON types

    def text(self, width: int = 80) -> str:
        lines = []
        for finding in self.findings:
            advice = f" -> {finding.advice}" if finding.advice else ""
            lines += textwrap.wrap(
                finding.what + advice, width, initial_indent="  ", subsequent_indent="    ", break_long_words=False
            )
            lines += [f"      {example}" for example in finding.examples[:_EXAMPLES]]
            lines += ["      …"] if len(finding.examples) > _EXAMPLES else []
        return "\n".join([self.description, "", *map(printable, lines)])


def judge(splits: Splits, most_images: int, width: int = 80) -> Verdict:
    """Look at the counts of the classes and, if they are images, read up to so many of them.

    Args:
        most_images: 0: none is read.
    """
    named: dict[str, Any] = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    parts = {role: part for role, part in named.items() if part is not None}
    counts = splits.train.class_counts()
    findings = count_findings(counts, splits.label_names, splits.unit)
    facts: dict[str, Any] = {
        "name": splits.name,
        "classes": splits.label_names,
        "rows": {role: len(part) for role, part in parts.items()},
        "train_rows_of_class": counts.tolist(),
        "notes": splits.notes,
    }
    if most_images and all(isinstance(part, ImageSplit) for part in parts.values()):
        survey = survey_images(parts, most_images)
        findings += survey_findings(survey, parts, splits.name)
        facts |= survey_facts(survey, parts)
    facts["findings"] = [{"what": one.what, "advice": one.advice, "examples": one.examples} for one in findings]
    return Verdict(splits.describe(width), findings, facts)


def count_findings(counts: np.ndarray, names: Sequence[str], unit: str) -> list[Finding]:
    """Classes with few rows.

    Args:
        counts: (C,) training rows.
    """
    few = np.flatnonzero(counts < FEW_ROWS)
    if not len(few):
        return []
    of_few = [f"{names[label]!r}: {counts[label]}" for label in few[np.argsort(counts[few], kind="stable")]]
    what = f"classes with fewer than {FEW_ROWS} train {unit}s: {format_count(len(few))} of {format_count(len(names))}"
    return [
        Finding(what, f"collect more {unit}s, or join classes: the scores of such classes are mostly chance", of_few)
    ]


def survey_findings(survey: Survey, parts: dict[str, ImageSplit], folder: str) -> list[Finding]:
    """What reading the images has shown, the worst first.

    Args:
        folder: of the data; files are named relative to it.
    """
    every = survey.num_read == survey.num_images
    read, total = format_count(survey.num_read), format_count(survey.num_images)
    looked = f"all {total}" if every else f"{read} of {total}"
    findings = [Finding(f"images read: {looked}", "" if every else "--images N reads more")]
    if survey.unreadable:
        findings.append(
            Finding(
                f"unreadable images: {format_count(len(survey.unreadable))}",
                "fix or delete them; --data.on_bad_image skip leaves them out, and a run stops at one otherwise",
                survey.unreadable,
            )
        )
    findings += pair_findings(survey.pairs, parts, folder)
    findings += size_findings(survey)
    if not survey.unreadable and not survey.pairs:
        findings.append(Finding("no unreadable images and no picture that occurs twice"))
    return findings


def pair_findings(pairs: Sequence[Pair], parts: dict[str, ImageSplit], folder: str) -> list[Finding]:
    """Pictures that occur twice: under two labels, in two splits, or within a split."""
    kinds = [
        (
            [pair for pair in pairs if not pair.same_label],
            "the same picture with two labels",
            "correct one of the two labels, or delete both",
        ),
        (
            [pair for pair in pairs if pair.same_label and pair.is_across_splits],
            "the same picture in two splits",
            "delete one of the two: the score counts pictures that were learned by heart",
        ),
        (
            [pair for pair in pairs if pair.same_label and not pair.is_across_splits],
            "the same picture twice in a class of a split",
            "delete the copies: they count twice, and another draw of the splits would separate them",
        ),
    ]
    return [
        Finding(f"{what}: {_counted(found)}", advice, _named_pairs(found, parts, folder))
        for found, what, advice in kinds
        if found
    ]


def _counted(pairs: list[Pair]) -> str:
    exact = sum(pair.is_exact for pair in pairs)
    return (
        f"{format_count(len(pairs))} ({format_count(exact)} byte for byte, {format_count(len(pairs) - exact)} nearly)"
    )


def _named_pairs(pairs: list[Pair], parts: dict[str, ImageSplit], folder: str) -> list[str]:
    def name(place: Place) -> str:
        part = parts[place.role]
        label = part.label_text(place.row)
        return f"{name_of_row(part, place.row, folder)} ({place.role}, {label!r})"

    return [f"{name(pair.second)} = {name(pair.first)}" for pair in pairs]


def size_findings(survey: Survey) -> list[Finding]:
    """The sizes of the images, and what large and long ones cost."""
    if not len(survey.sizes):
        return []
    width, height = survey.sizes.T
    pixels = width * height
    order = np.argsort(pixels, kind="stable")
    smallest, middle, largest = (f"{width[n]} x {height[n]}" for n in order[[0, len(order) // 2, -1]])
    formats = ", ".join(f"{name} {format_count(count)}" for name, count in survey.formats.items())
    sizes = largest if smallest == largest else f"{smallest} to {largest} pixels, the middle one {middle}"
    findings = [Finding(f"sizes: {sizes}; formats: {formats}")]
    long = int((np.maximum(width, height) >= LONG_SIDES * np.minimum(width, height)).sum())
    if long:
        what = f"images whose sides differ by a factor of {LONG_SIDES} or more: {format_count(long)}"
        findings.append(Finding(what, "the square that a model sees has a third of such a picture at most"))
    if np.median(pixels) >= LARGE_PIXELS:
        advice = "data.cache: memory or disk decodes each image once and keeps it small; none decodes it in every epoch"
        findings.append(Finding(f"most images have more than {LARGE_PIXELS / 1e6:g} million pixels", advice))
    return findings


def survey_facts(survey: Survey, parts: dict[str, ImageSplit]) -> dict[str, Any]:
    """The survey in JSON types; images by file where they have one, else by row."""
    return {
        "images_read": survey.num_read,
        "images": survey.num_images,
        "unreadable": survey.unreadable,
        "formats": survey.formats,
        "same_picture": [
            {
                "image": parts[pair.second.role].where(pair.second.row),
                "split": pair.second.role,
                "first": parts[pair.first.role].where(pair.first.row),
                "first_split": pair.first.role,
                "exact": pair.is_exact,
                "same_label": pair.same_label,
            }
            for pair in survey.pairs
        ],
    }
