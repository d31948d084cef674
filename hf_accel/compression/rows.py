"""The table of a compressed model: what each of its forms costs and answers, and which files are not worth writing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hf_accel.formatting import (
    MISSING,
    format_accuracy,
    format_quantity,
    format_score,
)
from hf_accel.measure.paired import PairedRatio, verdicts
from hf_accel.models.exported import RESULT
from hf_accel.tables import format_table

FASTER, SLOWER = "faster", "slower"
MUST_BE_FAST = ("int8", "int8_dynamic")  # the others are for a smaller file
HEADINGS = ("", "MiB", "zlib MiB", "accuracy", "F1", "p50 ms", "p99 ms", "images/s", "to ONNX fp32 (95 %)")


@dataclass(frozen=True)
class Row:
    """One form of the model. A ratio is above 1 where the form is faster than the float32 ONNX file."""

    runtime: str  # torch or onnxruntime
    format: str
    file: str | None  # below the exported folder
    bytes: int | None  # of the file, or of the model's own
    compressed_bytes: int | None  # of the same after zlib
    accuracy: float | None  # on the test images that are compared
    f1_macro: float | None
    same_answers: float  # share of the images with the class that the float32 ONNX file gives
    latency_p50_seconds: float  # of one image
    latency_p99_seconds: float
    images_per_second: float  # in batches of 64
    speedup: dict[str, float | None] | None = None  # of images_per_second: ratio, low, high; None: the reference itself
    latency_speedup: dict[str, float | None] | None = None
    speed_verdict: str | None = None  # at batch 64
    latency_verdict: str | None = None
    refused: str | None = None  # why the file is not worth writing
    written: bool = True
    latency_passes: int = 0  # that the two percentiles are of

    @property
    def name(self) -> str:
        return f"{'ONNX' if self.runtime == 'onnxruntime' else 'PyTorch'} {self.format}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def bounds(ratio: PairedRatio) -> dict[str, float | None]:
    return {"ratio": ratio.ratio, "low": ratio.low, "high": ratio.high}


def speed_verdicts(ratios: Sequence[tuple[PairedRatio, PairedRatio]]) -> list[tuple[str, str]]:
    """Whether each form is faster or slower, at batch 64 and for one image, all corrected together."""
    words = [word for word, _ in verdicts([one for pair in ratios for one in pair], FASTER, SLOWER)]
    return list(zip(words[::2], words[1::2], strict=True))


def refusal(row: Row, reference: Row, max_drop: float) -> str | None:
    """Why a file is not worth writing; None: it is.

    Args:
        reference: the float32 ONNX file.
        max_drop: of the accuracy; where it is not known, of the images with the same class.
    """
    if row.accuracy is None or reference.accuracy is None:
        drop, what = 1 - row.same_answers, "images with another class"
    else:
        drop, what = reference.accuracy - row.accuracy, "accuracy lost"
    if drop > max_drop + 1e-9:
        return f"{what}: {100 * drop:.2f} points, more than max_drop {max_drop:g}"
    found = {row.speed_verdict, row.latency_verdict}
    if row.format in MUST_BE_FAST and SLOWER in found and FASTER not in found:
        speeds = f"{ratio_text(row.speedup)} in batches of 64, {ratio_text(row.latency_speedup)} for one image"
        return f"slower than the float32 file on this machine: {speeds}"
    return None


def ratio_text(ratio: dict[str, float | None] | None) -> str:
    """
    >>> ratio_text({"ratio": 2.1, "low": 2.0, "high": 2.25})
    '2.10x (2.00 to 2.25)'
    """
    if ratio is None:
        return MISSING
    if ratio["low"] is None:
        return f"{ratio['ratio']:.2f}x"
    return f"{ratio['ratio']:.2f}x ({ratio['low']:.2f} to {ratio['high']:.2f})"


def mebibytes(count: int | None) -> str:
    return MISSING if count is None else format_quantity(count / 2**20)


def render(rows: Sequence[Row]) -> str:
    return format_table(HEADINGS, map(cells, rows))


def cells(row: Row) -> tuple[str, ...]:
    """The line of a form, below `HEADINGS`."""
    return (
        row.name,
        mebibytes(row.bytes),
        mebibytes(row.compressed_bytes),
        format_accuracy(row.accuracy),
        format_score(row.f1_macro),
        format_quantity(1000 * row.latency_p50_seconds),
        format_quantity(1000 * row.latency_p99_seconds),
        format_quantity(row.images_per_second),
        ratio_text(row.speedup),
    )


def rows_of(folder: Path) -> list[Sequence[str]]:
    """The table of an exported folder, its headings first; nothing where there is none.

    Raises:
        ValueError, KeyError, TypeError: `compress.json` is damaged.
    """
    result = folder / RESULT
    if not result.is_file():
        return []
    return [HEADINGS, *(cells(Row(**row)) for row in json.loads(result.read_text("utf-8"))["rows"])]


def remarks(rows: Sequence[Row]) -> list[str]:
    """What the table does not say: which files are not worth it, and whether they are written all the same."""
    ends = {True: "It is written all the same (keep).", False: "It is not written; --keep writes it."}
    return [f"{row.file}: {row.refused}. {ends[row.written]}" for row in rows if row.refused is not None]
