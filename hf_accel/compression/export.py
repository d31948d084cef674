"""A trained classifier -> an ONNX file of float32 that says how images are prepared for it."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hf_accel.compression.configuration import write_model_configuration
from hf_accel.errors import UserError
from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.models.exported import CONFIDENCE, EXPORTED_MODEL, INPUT, LABELS, OUTPUT, PREPROCESSING, preprocessing_to
from hf_accel.models.load import LoadedModel
from hf_accel.models.loaded import Loaded

OPSET = 18  # of ONNX; ONNX Runtime has it since version 1.14
SCOPES = "pkg.torch.onnx.name_scopes"  # of an operation: the modules that it comes from, outermost first


def recorded_preprocessing(loaded: Loaded) -> tuple[Preprocessing, list[str]]:
    """What an exported model does to an image, without PyTorch; and what differs from the model's own processor, in words.

    Raises:
        UserError: the processor does something that only itself can do.
    """
    preprocessing = Preprocessing.of(loaded.processor, closest=True)
    if preprocessing.channels != 3:
        raise UserError(
            f"compress: the model takes images of {preprocessing.channels} channels, expected one for colour images. Only these "
            "are exported."
        )
    if preprocessing.processor is not None:
        raise UserError(
            f"{type(loaded.processor).__name__} prepares images in a way that cannot be recorded in an ONNX file. Expected a "
            "processor that resizes, crops and normalises."
        )
    notes = []
    if preprocessing.pad is not None:
        notes.append("images are letterboxed, which transformers.js cannot do: preprocessor_config.json is left out")
    if preprocessing.resizer != "pillow":
        notes.append("images are resized by Pillow, and not by torchvision as the model's own processor does")
    return replace(preprocessing, resizer="pillow"), notes


def write_onnx(loaded: LoadedModel, preprocessing: Preprocessing, folder: Path) -> Path:
    """Write `onnx/model.onnx` below a folder: float32, any batch size; returns the file.

    Raises:
        UserError: onnx or onnxscript is not installed, or the network has operations that ONNX cannot express.
    """
    import onnx

    file = folder / EXPORTED_MODEL
    file.parent.mkdir(parents=True, exist_ok=True)
    network = Logits(loaded.model).eval()
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
    model = onnx.load(file)
    _remove_traces(model.graph)
    about = {LABELS: loaded.label_names, PREPROCESSING: preprocessing_to(preprocessing)}
    if loaded.confidence.is_learned:
        about[CONFIDENCE] = loaded.confidence.to_dict()
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in about.items()})
    onnx.save(model, file)
    return file


def write_configuration(loaded: LoadedModel, preprocessing: Preprocessing, folder: Path) -> None:
    """Write `config.json` and, if it can say what is done, `preprocessor_config.json`: transformers.js and optimum read them."""
    write_model_configuration(loaded, folder)
    if preprocessing.pad is not None:
        return
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


class Logits(nn.Module):
    """(B, 3, H, W) -> (B, C), without the other outputs of a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        logits = self.model(pixel_values=pixel_values).logits
        return logits[0] if isinstance(logits, tuple) else logits


def _remove_traces(graph: Any) -> None:
    """Remove the exporter's notes on each operation: the lines of code, and paths of this machine, that it came from.

    The modules that it came from stay.
    """
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        scopes = [(entry.key, entry.value) for entry in part.metadata_props if entry.key == SCOPES]
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
        for key, value in scopes:
            part.metadata_props.add(key=key, value=value)


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
