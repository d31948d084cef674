"""Image classification by an exported model, without PyTorch and transformers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, TextIO

from hf_accel.config.sections import DataSettings
from hf_accel.data.images import MAX_PIXELS
from hf_accel.data.listing import listed_images, load_images
from hf_accel.data.scored_rows import ScoredRows, load_split
from hf_accel.data.splits import Splits, load_splits
from hf_accel.errors import UserError
from hf_accel.models.exported import Exported, exported_file
from hf_accel.tasks.image_scoring import ImageSource, ScoredImage, score_images
from hf_accel.tasks.predictions import PredictionShape


class ExportedImageClassification:
    """The parts of `ImageClassification` that `predict` and `evaluate` need."""

    prediction_shape: ClassVar[type[PredictionShape]] = PredictionShape
    has_text: ClassVar[bool] = False  # in a row of predictions
    unit: ClassVar[str] = "image"
    named_by: ClassVar[str] = "one file, folder, glob or URL per line"
    reading_settings: ClassVar[tuple[str, ...]] = ()
    scoring_settings: ClassVar[tuple[str, ...]] = ("test_time_augmentation", "max_pixels")

    def open_splits(self, settings: DataSettings, seed: int, selection: bool = True) -> Splits:
        return load_splits(settings, seed, selection)

    def open_split(self, settings: DataSettings, role: str) -> ScoredRows:
        return load_split(settings, role)

    def find_sources(self, names: list[str]) -> list[Path | str]:
        return load_images(names)

    def listed_sources(self, stream: TextIO) -> Iterator[Path | str]:
        return listed_images(stream)

    def place_of(self, source: Path | str) -> dict[str, Any]:
        return {"file": str(source)}

    def load_trained(self, place: str | Path) -> Exported:
        """Raises:
        UserError: there are several processes, or the model cannot be opened.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError(f"{place}: an exported model is scored by one process, with all its threads. Start one.")
        file = exported_file(place)
        assert file is not None, "asked for a model that is not exported"
        return Exported(file)

    def score_sources(
        self,
        loaded: Exported,
        sources: Iterable[ImageSource],
        batch_size: int = 32,
        test_time_augmentation: str = "none",
        max_pixels: int | None = MAX_PIXELS,
    ) -> Iterator[ScoredImage]:
        """The logits of the classes, image by image.

        Raises:
            UserError: several views of an image are asked for.
        """
        if test_time_augmentation != "none":
            raise UserError(
                f"--test_time_augmentation {test_time_augmentation}: an exported model sees one view of an image. Leave it "
                "out, or name the folder that the model was exported from."
            )
        return score_images(loaded, sources, batch_size, max_pixels)
