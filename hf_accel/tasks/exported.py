"""Image classification by an exported model, without PyTorch and transformers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from hf_accel.data.images import MAX_PIXELS
from hf_accel.data.listing import listed_images, load_images
from hf_accel.errors import UserError
from hf_accel.models.exported import EXPORTED_MODEL, Exported
from hf_accel.tasks.image_scoring import ImageSource, ScoredImage, score_images


class ExportedImageClassification:
    """The part of `ImageClassification` that predicting needs."""

    def find_images(self, names: list[str]) -> list[Path | str]:
        return load_images(names)

    def listed_images(self, lines: Iterable[str]) -> Iterator[Path | str]:
        return listed_images(lines)

    def load_trained(self, folder: str | Path) -> Exported:
        return Exported(Path(folder) / EXPORTED_MODEL)

    def score_images(
        self,
        loaded: Exported,
        sources: Iterable[ImageSource],
        batch_size: int = 32,
        test_time_augmentation: str = "none",
        max_pixels: int | None = MAX_PIXELS,
    ) -> Iterator[ScoredImage]:
        """The probabilities of the classes, image by image.

        Raises:
            UserError: several views of an image are asked for.
        """
        if test_time_augmentation != "none":
            raise UserError(
                f"--test_time_augmentation {test_time_augmentation}: an exported model sees one view of an image. Leave it "
                "out, or name the folder that the model was exported from."
            )
        return score_images(loaded, sources, batch_size, max_pixels)
