"""An exported model: ONNX Runtime, NumPy and Pillow, without PyTorch and transformers.

The file itself says which classes it knows and how an image is prepared for it, so it needs nothing next to it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_accel.errors import UserError
from hf_accel.inputs.preprocessing import Preprocessing
from hf_accel.models.confidence import Answer, Confidence

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

EXPORTED_MODEL = Path("onnx") / "model.onnx"  # in an exported folder: where transformers.js and optimum look for it
RESULT = "compress.json"  # in an exported folder: how it was made
# Metadata of the file, as JSON.
LABELS, PREPROCESSING, CONFIDENCE = "hf_accel.labels", "hf_accel.preprocessing", "hf_accel.confidence"
INPUT, OUTPUT = "pixel_values", "logits"  # (B, 3, H, W) float32; (B, C) float32
INSTALL = 'pip install "hf_accel[onnx]"'


def exported_file(place: str | Path) -> Path | None:
    """The ONNX file that is meant by its own path, or by a folder that holds one and no weights for PyTorch; else None."""
    path = Path(place).expanduser()
    if path.suffix == ".onnx" and path.is_file():
        return path
    is_exported = (path / EXPORTED_MODEL).is_file() and not (path / "model.safetensors").exists()
    return path / EXPORTED_MODEL if is_exported else None


def exported_folder(file: Path) -> Path:
    """The folder that `hf-accel compress` wrote, of a file in its `onnx/`."""
    folder = file.absolute().parent
    return folder.parent if folder.name == EXPORTED_MODEL.parent.name else folder


def refuse_exported(place: str | Path, setting: str) -> None:
    """Raises UserError: an exported model alone is there, and weights for PyTorch are needed."""
    file = exported_file(place)
    if file is not None:
        raise UserError(
            f"{setting}: {place} is an exported model ({file.name}), which `hf-accel predict`, `evaluate` and `demo` take. "
            "Expected weights for PyTorch: the folder of the run or the model that it was exported from."
        )


class Exported:
    """An ONNX file that scores images; see `tasks.image_scoring.Scorer`.

    Args:
        file: the ONNX file.
        threads: of ONNX Runtime; None: one per core.
    Raises:
        UserError: onnxruntime is not installed, the file cannot be opened, or it was not exported by this package.
    """

    def __init__(self, file: Path, threads: int | None = None) -> None:
        self.file = file
        self.session = _open_session(file, threads)
        about = self.session.get_modelmeta().custom_metadata_map
        if LABELS not in about or PREPROCESSING not in about:
            raise UserError(
                f"{file}: does not say which classes it knows and how images are prepared for it. Expected a file that "
                "`hf-accel compress` wrote."
            )
        self.label_names: list[str] = json.loads(about[LABELS])
        self.preprocessing = preprocessing_from(json.loads(about[PREPROCESSING]))
        self.confidence = Confidence.of_values(json.loads(about.get(CONFIDENCE, "{}")))

    @property
    def target_side(self) -> int | None:
        return self.preprocessing.target_side

    @property
    def channels(self) -> int:
        return self.preprocessing.channels

    def content(self) -> str:
        """A hash of the file, which holds the classes, the preprocessing and the weights."""
        with self.file.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def prepare(self, pixels: np.ndarray) -> dict[str, Any]:
        return {INPUT: self.preprocessing.pixel_values(pixels)[None]}

    def logits(self, pixel_values: np.ndarray) -> np.ndarray:
        """(B, 3, H, W) float32 -> (B, C) float32"""
        return self.session.run([OUTPUT], {INPUT: pixel_values})[0]

    def answer(self, logits: np.ndarray) -> Answer:
        """What is said of the logits (C,) of one image."""
        return self.confidence.answer(logits)

    def score(self, images: list[dict[str, Any]]) -> np.ndarray:
        """What `prepare` made of B images -> logits (B, C) float32."""
        return self.logits(np.concatenate([image[INPUT] for image in images]))


def preprocessing_to(preprocessing: Preprocessing) -> dict[str, Any]:
    """As JSON types, for `preprocessing_from`."""
    return {name: value for name, value in vars(preprocessing).items() if name != "processor"}


def preprocessing_from(settings: dict[str, Any]) -> Preprocessing:
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
    }
    return Preprocessing(**fields)


def _open_session(file: Path, threads: int | None) -> InferenceSession:
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"{file}: needs onnxruntime, which is not installed. {INSTALL}") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # classes of onnxruntime's own, one per kind of damage
        raise UserError(f"{file}: cannot be opened by ONNX Runtime: {str(error)[:200]}") from None
