"""The rows of the table: the forms of a model compared on its images and timed in turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hf_accel import terminal
from hf_accel.compression.answers import (
    Agreement,
    Answers,
    ComparedImages,
    Form,
    answers,
    require_agreement,
    same_answers,
    scores,
)
from hf_accel.compression.formats import FILES
from hf_accel.compression.rows import Row, bounds, refusal, speed_verdicts
from hf_accel.compression.speed import Speed, bf16_copy, measure_speed
from hf_accel.config.compression_settings import CompressionSettings
from hf_accel.files import compressed_bytes
from hf_accel.models.exported import EXPORTED_MODEL, INPUT, Exported
from hf_accel.models.layout import use_layout_for_prediction
from hf_accel.models.load import LoadedModel

TORCH, ONNX = "torch", "onnxruntime"
MODEL, REFERENCE = (TORCH, "fp32"), (ONNX, "fp32")


def measure(
    where: str, loaded: LoadedModel, folder: Path, images: ComparedImages, settings: CompressionSettings
) -> tuple[list[Row], Agreement]:
    """Compare and time PyTorch in float32 (and bf16 where the CPU has it) and each file of an exported folder.

    Args:
        where: names the model, and is its folder if it has one.
        folder: holds the float32 file and those of `settings.formats`.
    Raises:
        RunError: the float32 file gives other answers than the model.
    """
    threads = torch.get_num_threads()
    files: dict[Form, Path] = {REFERENCE: EXPORTED_MODEL} | {(ONNX, form): FILES[form] for form in settings.formats}
    exported = {form: Exported(folder / file, threads) for form, file in files.items()}
    sample = exported[REFERENCE].prepare(next(iter(images)))[INPUT]
    use_layout_for_prediction(loaded.model)
    networks: dict[Form, nn.Module] = {MODEL: loaded.model}
    narrow = bf16_copy(loaded.model, torch.from_numpy(sample))
    networks |= {} if narrow is None else {(TORCH, "bf16"): narrow}
    with terminal.bar(len(images), "compared", "image") as bar:
        found = answers(loaded, networks, exported, _counted(images, bar))
    require_agreement(where, found.agreement)
    speeds = measure_speed(networks, exported, sample)
    sizes = {form: _sizes([folder / file]) for form, file in files.items()}
    sizes[MODEL] = _sizes(sorted(Path(where).glob("*.safetensors")))
    rows = [
        _row(form, found, images.labels, len(loaded.label_names), speeds[form], files.get(form), sizes.get(form))
        for form in speeds
    ]
    return _judged(rows, speeds, settings), found.agreement


def _row(
    form: Form,
    found: Answers,
    labels: np.ndarray,
    num_labels: int,
    speed: Speed,
    file: Path | None,
    sizes: tuple[int, int] | None,
) -> Row:
    accuracy, f1_macro = scores(found.classes[form], labels, num_labels)
    size, compressed = sizes or (None, None)
    return Row(
        *form,
        file=None if file is None else file.as_posix(),
        bytes=size,
        compressed_bytes=compressed,
        accuracy=accuracy,
        f1_macro=f1_macro,
        same_answers=same_answers(found.classes[form], found.classes[REFERENCE]),
        latency_p50_seconds=speed.images.percentile(50),
        latency_p99_seconds=speed.images.percentile(99),
        images_per_second=speed.images_per_second,
        latency_passes=speed.images.passes,
    )


def _judged(rows: Sequence[Row], speeds: dict[Form, Speed], settings: CompressionSettings) -> list[Row]:
    """The rows with their ratios to the float32 file and with the reasons against writing theirs."""
    others = [row for row in rows if (row.runtime, row.format) != REFERENCE]
    ratios = [speeds[row.runtime, row.format].speedup_over(speeds[REFERENCE]) for row in others]
    reference = next(row for row in rows if row not in others)
    judged = {}
    for row, (in_batches, single), words in zip(others, ratios, speed_verdicts(ratios), strict=True):
        measured = replace(
            row,
            speedup=bounds(in_batches),
            latency_speedup=bounds(single),
            speed_verdict=words[0],
            latency_verdict=words[1],
        )
        refused = None if row.file is None else refusal(measured, reference, settings.max_drop)
        judged[row.name] = replace(measured, refused=refused, written=refused is None or settings.keep)
    return [judged.get(row.name, row) for row in rows]


def _sizes(files: list[Path]) -> tuple[int, int] | None:
    """Bytes of the files together, and after zlib; None: there are none."""
    return (sum(file.stat().st_size for file in files), sum(map(compressed_bytes, files))) if files else None


def _counted(images: ComparedImages, bar: Any) -> Iterator[np.ndarray]:
    for image in images:
        bar.update()
        yield image
