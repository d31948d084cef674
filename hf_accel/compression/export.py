"""A trained classifier -> an ONNX file that says how images are prepared for it, checked against the model."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_accel.compression.configuration import write_model_configuration
from hf_accel.errors import RunError, UserError
from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.models.exported import EXPORTED_MODEL, INPUT, LABELS, OUTPUT, PREPROCESSING, Exported, preprocessing_to
from hf_accel.models.load import LoadedModel
from hf_accel.tasks.torch_scoring import TorchScorer

OPSET = 18  # of ONNX; ONNX Runtime has it since version 1.14
SAME_ANSWERS = 0.999  # of the images that are compared, at least
_BATCH = 16


@dataclass(frozen=True)
class Agreement:
    """The answers of the exported model compared with the model's, each with its own preprocessing."""

    images: int
    same_answers: float  # share of the images with the same likeliest class
    largest_difference: float  # of a logit, for the same input
    largest_logit: float  # its absolute value

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def recorded_preprocessing(loaded: LoadedModel) -> tuple[Preprocessing, list[str]]:
    """What an exported model does to an image, without PyTorch; and what differs from the model's own processor, in words.

    Raises:
        UserError: the processor does something that only itself can do.
    """
    preprocessing = Preprocessing.of(loaded.processor, closest=True)
    if preprocessing.processor is not None:
        raise UserError(
            f"{type(loaded.processor).__name__} prepares images in a way that cannot be recorded in an ONNX file. Expected a "
            "processor that resizes, crops and normalises."
        )
    if preprocessing.resizer == "pillow":
        return preprocessing, []
    note = "images are resized by Pillow, and not by torchvision as the model's own processor does"
    return replace(preprocessing, resizer="pillow"), [note]


def write_onnx(loaded: LoadedModel, preprocessing: Preprocessing, folder: Path) -> Path:
    """Write `onnx/model.onnx` below a folder: float32, any batch size; returns the file.

    Raises:
        UserError: onnx or onnxscript is not installed, or the network has operations that ONNX cannot express.
    """
    import onnx

    file = folder / EXPORTED_MODEL
    file.parent.mkdir(parents=True, exist_ok=True)
    network = _Logits(loaded.model).eval()
    example = torch.zeros(2, 3, preprocessing.height, preprocessing.width)
    try:
        with _quiet_export():
            torch.onnx.export(
                network,
                (example,),
                str(file),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter wraps whatever it meets
        text = " ".join(str(error).split())
        raise UserError(f"{type(loaded.model).__name__} cannot be exported to ONNX: {text[:300]}") from error
    graph = onnx.load(file)
    onnx.helper.set_model_props(
        graph,
        {LABELS: json.dumps(loaded.label_names), PREPROCESSING: json.dumps(preprocessing_to(preprocessing))},
    )
    onnx.save(graph, file)
    return file


def write_configuration(loaded: LoadedModel, preprocessing: Preprocessing, folder: Path) -> None:
    """Write `config.json` and `preprocessor_config.json`, which transformers.js and optimum read."""
    write_model_configuration(loaded, folder)
    size = preprocessing.resize
    is_square = isinstance(size, tuple)
    settings = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": size[0], "width": size[1]} if isinstance(size, tuple) else {"shortest_edge": size},
        "resample": {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}[preprocessing.interpolation],
        "do_center_crop": not is_square,
        "crop_size": {"height": preprocessing.height, "width": preprocessing.width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def compare(loaded: LoadedModel, exported: Exported, images: Iterable[np.ndarray]) -> Agreement:
    """Both models on the same images.

    Args:
        images: (H, W, 3) uint8 RGB each; at least one.
    """
    scorer = TorchScorer(loaded)
    answers: list[Tensor] = []
    differences, logits = [0.0], [0.0]
    for batch in _batches(images):
        own = scorer.inputs([scorer.prepare(pixels) for pixels in batch])[INPUT]
        with torch.inference_mode():
            expected = _Logits(loaded.model)(own).float()
        same_input = torch.from_numpy(exported.logits(own.numpy()))
        differences.append(float((same_input - expected).abs().max()))
        logits.append(float(expected.abs().max()))
        recorded = np.concatenate([exported.prepare(pixels)[INPUT] for pixels in batch])
        answers.append(expected.argmax(-1) == torch.from_numpy(exported.logits(recorded)).argmax(-1))
    same = torch.cat(answers)
    return Agreement(len(same), float(same.float().mean()), max(differences), max(logits))


def require_agreement(where: str, agreement: Agreement) -> None:
    """Raises:
    RunError: too many images get another answer.
    """
    if agreement.same_answers < SAME_ANSWERS:
        raise RunError(
            f"{where}: the exported model gives {1 - agreement.same_answers:.2%} of {agreement.images:,} images another class "
            f"than the model, expected at most {1 - SAME_ANSWERS:.1%} (largest difference of a logit for the same input: "
            f"{agreement.largest_difference:.3g}). Nothing was written."
        )


class _Logits(nn.Module):
    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        logits = self.model(pixel_values=pixel_values).logits
        return logits[0] if isinstance(logits, tuple) else logits


def _batches(images: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    batch: list[np.ndarray] = []
    for image in images:
        batch.append(image)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


@contextlib.contextmanager
def _quiet_export() -> Iterator[None]:
    """Without the exporter's progress and its warnings about operations that it has alternatives for."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
